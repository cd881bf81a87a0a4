//! Hedged requests: when the first attempt is slow, a second one elsewhere, and whoever answers first.
//!
//! Only for safe methods without a body, where asking twice changes nothing. The second attempt is charged to the retry
//! budget like any other. The one that loses is dropped: its connection is closed and its slot is free.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::attempts::{Begun, Ended};
use super::forward::repeat;
use super::worker::Worker;
use crate::body::Body;
use crate::observe::Attempt;
use crate::upstream::{Failure, OutRequest, Pool, Slot, Wanted};

/// How long to wait for the first attempt; `None` = no second one.
pub(super) fn delay(pool: &Pool, request: &OutRequest) -> Option<Duration> {
    let safe = request.method.is_safe() && !request.upgrade && matches!(request.body, Body::Empty);
    pool.params.hedge.filter(|_| safe)
}

/// The end of the race.
pub(super) struct Raced {
    /// The attempt with the first answer, or with the failure that left nobody.
    pub(super) ended: Ended,
    /// The attempt that lost, if there was a second one: its endpoint, and how it went.
    pub(super) lost: Option<(usize, Attempt)>,
}

/// Sends the request to the endpoint of `slot`, and after `delay` to another one as well, picked as `wanted`.
pub(super) async fn race(
    worker: &Rc<Worker>,
    pool: &Arc<Pool>,
    slot: Slot,
    request: &mut OutRequest,
    wanted: &Wanted<'_>,
    delay: Duration,
) -> Raced {
    let mut copy = repeat(request);
    let by = Begun::now(worker, &slot);
    let mut first = pin!(worker.connections.send(pool, slot, request, true));
    if let Ok(outcome) = tokio::time::timeout(delay, &mut first).await {
        return Raced { ended: Ended { outcome, by }, lost: None };
    }
    let Some(other) = rival(worker, pool, by.index, wanted) else {
        return Raced { ended: Ended { outcome: first.await, by }, lost: None };
    };
    let rival = Begun::now(worker, &other);
    let mut second = pin!(worker.connections.send(pool, other, &mut copy, true));
    let lost = |loser: Begun, why| Some((loser.index, loser.record(Some(why), worker.now())));
    let why = |failed: &Failure| failed.error.kind.row().reason;
    tokio::select! {
        biased;
        outcome = &mut first => match outcome {
            Ok(_) => Raced { ended: Ended { outcome, by }, lost: lost(rival, LOST) },
            Err(failed) => {
                let lost = lost(by, why(&failed));
                Raced { ended: Ended { outcome: second.await, by: rival }, lost }
            }
        },
        outcome = &mut second => match outcome {
            Ok(_) => Raced { ended: Ended { outcome, by: rival }, lost: lost(by, LOST) },
            Err(failed) => {
                let lost = lost(rival, why(&failed));
                Raced { ended: Ended { outcome: first.await, by }, lost }
            }
        },
    }
}

/// A slot at another endpoint than `first`, where there is one and the budget is not spent.
fn rival(worker: &Worker, pool: &Arc<Pool>, first: usize, wanted: &Wanted<'_>) -> Option<Slot> {
    let wanted = Wanted { tried: &[first], stay: None, under_way: true, ..*wanted };
    let slot = worker.connections.pick(pool, &wanted).ok()?;
    pool.take_hedge().then_some(slot)
}

/// How the access log calls an attempt that was slower than its hedge, or a hedge that was not needed.
const LOST: &str = "hedge_lost";
