//! Hedged requests: when the first attempt is slow, a second one elsewhere, and whoever answers first.
//!
//! Only for safe methods without a body, where asking twice changes nothing. The second attempt is charged to the retry
//! budget like any other. The one that loses is dropped: its connection is closed and its slot is free.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::forward::repeat;
use super::worker::Worker;
use crate::body::Body;
use crate::clock::Now;
use crate::observe::Attempt;
use crate::upstream::{Answer, Failure, OutRequest, Pool, Slot, Wanted};

/// How long to wait for the first attempt; `None` = no second one.
pub(super) fn delay(pool: &Pool, request: &OutRequest) -> Option<Duration> {
    let safe = request.method.is_safe() && !request.upgrade && matches!(request.body, Body::Empty);
    pool.params.hedge.filter(|_| safe)
}

/// The end of the race.
pub(super) struct Raced {
    /// The first answer, or the failure that left nobody.
    pub(super) outcome: Result<Answer, Failure>,
    /// When the attempt that made it began.
    pub(super) sent: Now,
    /// Whose it is, as index into [`Pool::endpoints`].
    pub(super) index: usize,
    /// The attempt that lost, if there was a second one: its endpoint, and how it went.
    pub(super) lost: Option<(usize, Attempt)>,
}

/// Sends the request to the endpoint of `slot`, and after `delay` to another one as well.
pub(super) async fn race(
    worker: &Rc<Worker>,
    pool: &Arc<Pool>,
    slot: Slot,
    request: &mut OutRequest,
    wanted: &Wanted<'_>,
    delay: Duration,
) -> Raced {
    let mut copy = repeat(request);
    let (index, label) = (slot.index, Arc::clone(slot.guard.endpoint().label()));
    let sent = worker.now();
    let alone = |outcome| Raced { outcome, sent, index, lost: None };
    let mut first = pin!(worker.connections.send(pool, slot, request, true));
    if let Ok(outcome) = tokio::time::timeout(delay, &mut first).await {
        return alone(outcome);
    }
    let tried: Vec<_> = wanted.tried.iter().copied().chain([index]).collect();
    let Ok(other) = worker.connections.pick(pool, &Wanted { tried: &tried, stay: None, under_way: true, ..*wanted })
    else {
        return alone(first.await);
    };
    if !pool.take_hedge() {
        drop(other);
        return alone(first.await);
    }
    let (other_index, other_label) = (other.index, Arc::clone(other.guard.endpoint().label()));
    let other_sent = worker.now();
    let mut second = pin!(worker.connections.send(pool, other, &mut copy, true));
    let lost = |index, endpoint: &Arc<str>, error, since| {
        let attempt =
            Attempt { endpoint: Arc::clone(endpoint), error: Some(error), duration: worker.now().since(since) };
        Some((index, attempt))
    };
    tokio::select! {
        biased;
        outcome = &mut first => match outcome {
            Ok(_) => Raced { outcome, sent, index, lost: lost(other_index, &other_label, LOST, other_sent) },
            Err(failed) => {
                let lost = lost(index, &label, failed.error.kind.row().reason, sent);
                Raced { outcome: second.await, sent: other_sent, index: other_index, lost }
            }
        },
        outcome = &mut second => match outcome {
            Ok(_) => Raced { outcome, sent: other_sent, index: other_index, lost: lost(index, &label, LOST, sent) },
            Err(failed) => {
                let lost = lost(other_index, &other_label, failed.error.kind.row().reason, other_sent);
                Raced { outcome: first.await, sent, index, lost }
            }
        },
    }
}

/// How the access log calls an attempt that was slower than its hedge, or a hedge that was not needed.
const LOST: &str = "hedge_lost";
