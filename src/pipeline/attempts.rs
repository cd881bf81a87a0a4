//! The attempts of one order: one after the other until an answer is good enough, or nobody better can be asked.
//!
//! ```text
//! first slot ─► make (one attempt, or a race of two) ─► judge ─► answer or failure
//!                 ▲                                        │
//!                 └──────── pause ◄── another slot ◄───────┘
//! ```
//!
//! What is repeated is for `policy::retry` to say. An answer that is asked for once more is kept until a better one is
//! there: an origin's own words are worth more to the client than ours about a second one that could not be reached.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode, Version};

use super::context::Trace;
use super::forward::{Order, Reply};
use super::hedge;
use super::mirror;
use super::worker::Worker;
use crate::body::{Body, Response};
use crate::clock::Now;
use crate::error::{ErrorKind, ProxyError, Retry, Stage};
use crate::observe::{Attempt, Phases};
use crate::policy::balance::NoEndpoint;
use crate::policy::fields;
use crate::policy::retry::{self, Again, RetryFacts};
use crate::upstream::{Answer, Failure, OutRequest, Pool, Slot, Timings, Wanted};

/// Sends an order, to another endpoint when an attempt fails and `policy::retry` allows it.
///
/// # Errors
/// The last attempt's failure, where no attempt was answered; `NoEndpoint`, `PoolFull`, `QueueFull`, `QueueTimeout` or
/// `Shed` when there was nobody to try.
pub(super) async fn send(worker: &Rc<Worker>, order: Order, trace: &mut Trace) -> Result<Reply, ProxyError> {
    let mut attempts = Attempts::of(worker, order, trace);
    let mut slot = attempts.first_slot().await.map_err(no_endpoint)?;
    loop {
        let ended = attempts.make(slot).await;
        slot = match attempts.judge(ended) {
            Verdict::Again(next) => next.after_pause().await,
            Verdict::Over(outcome) => return outcome,
        };
    }
}

/// How an attempt ended.
pub(super) struct Ended {
    pub(super) outcome: Result<Answer, Failure>,
    pub(super) by: Begun,
}

/// An attempt as it began.
#[derive(Clone)]
pub(super) struct Begun {
    /// Where, as index into [`Pool::endpoints`].
    pub(super) index: usize,
    /// The endpoint as logs name it.
    label: Arc<str>,
    /// When.
    sent: Now,
}

impl Begun {
    /// An attempt at the endpoint of `slot` that begins now.
    pub(super) fn now(worker: &Worker, slot: &Slot) -> Self {
        Self { index: slot.index, label: Arc::clone(slot.guard.endpoint().label()), sent: worker.now() }
    }

    /// The record of it; `error` = why it was not the last word.
    pub(super) fn record(self, error: Option<&'static str>, ended: Now) -> Attempt {
        Attempt { endpoint: self.label, error, duration: ended.since(self.sent) }
    }
}

/// What follows from an attempt.
enum Verdict {
    Over(Result<Reply, ProxyError>),
    Again(Next),
}

/// Another attempt: where, and after what pause.
struct Next {
    slot: Slot,
    pause: Duration,
}

impl Next {
    async fn after_pause(self) -> Slot {
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
        self.slot
    }
}

/// An order under way: what was tried so far, and what came of it.
struct Attempts<'a> {
    worker: &'a Rc<Worker>,
    trace: &'a mut Trace,
    pool: Arc<Pool>,
    request: OutRequest,
    /// Once sent, a body is gone that was not at hand.
    at_hand: Option<Body>,
    key: Option<u64>,
    stay: Option<usize>,
    is_copy: bool,
    /// Attempts, the silent retry not counted.
    made: u32,
    silent_used: bool,
    tried: Vec<usize>,
    /// The last answer that was asked for once more.
    kept: Option<Box<Kept>>,
}

/// An answer, and who gave it. It holds its endpoint as long as its body is not all here.
struct Kept {
    reply: Reply,
    endpoint: Arc<str>,
}

impl<'a> Attempts<'a> {
    fn of(worker: &'a Rc<Worker>, order: Order, trace: &'a mut Trace) -> Self {
        let Order { pool, mut request, key, stay, mirror, is_copy } = order;
        if let Some(mirror) = mirror {
            mirror::copy(worker, &mirror, &mut request);
        }
        (trace.pool, trace.answered) = (Some(Arc::clone(&pool.name)), None);
        let at_hand = request.body.at_hand();
        Self {
            worker,
            trace,
            pool,
            request,
            at_hand,
            key,
            stay,
            is_copy,
            made: 0,
            silent_used: false,
            tried: Vec::new(),
            kept: None,
        }
    }

    /// The slot of the first attempt, waited for where the pool has a queue.
    async fn first_slot(&self) -> Result<Slot, NoEndpoint> {
        let wanted = self.wanted(&self.tried);
        match (self.worker.connections.pick(&self.pool, &wanted), self.pool.params.queue) {
            (Err(NoEndpoint::AllFull), Some(queue)) => {
                // Boxed, as the race is: what most exchanges never do takes no room in all of them.
                Box::pin(self.worker.connections.wait(&self.pool, queue, &wanted)).await
            }
            (picked, _) => picked,
        }
    }

    /// One attempt at the endpoint of `slot`; the first one of a pool that hedges is a race of two.
    async fn make(&mut self, slot: Slot) -> Ended {
        match hedge::delay(&self.pool, &self.request).filter(|_| self.made == 0) {
            None => {
                let by = Begun::now(self.worker, &slot);
                let connections = &self.worker.connections;
                let outcome = connections.send(&self.pool, slot, &mut self.request, !self.silent_used).await;
                Ended { outcome, by }
            }
            Some(delay) => Box::pin(self.race(slot, delay)).await,
        }
    }

    async fn race(&mut self, slot: Slot, delay: Duration) -> Ended {
        let wanted = self.wanted(&[]);
        let raced = hedge::race(self.worker, &self.pool, slot, &mut self.request, &wanted, delay).await;
        if let Some((loser, attempt)) = raced.lost {
            self.made += 1;
            self.tried.push(loser);
            self.trace.attempts.push(attempt);
        }
        raced.ended
    }

    /// Where to go on, if anywhere; otherwise what the exchange gets.
    fn judge(&mut self, ended: Ended) -> Verdict {
        let received = self.worker.now();
        let Ended { outcome, by } = ended;
        match outcome {
            Ok(answer) => self.judge_answer(answer, by, received),
            Err(failed) => self.judge_failure(&failed, by, received),
        }
    }

    fn judge_answer(&mut self, answer: Answer, by: Begun, received: Now) -> Verdict {
        let failure = retry::Failure::Status(answer.response.status.as_u16());
        let told = Some((&answer.response.headers, received));
        let next = self.next(failure, by.index, self.at_hand.is_some(), told);
        self.trace.phases = phases(&answer);
        let reply = self.reply(answer, by.sent, received);
        let Some(next) = next else {
            self.trace.attempts.push(by.record(None, received));
            return Verdict::Over(Ok(reply));
        };
        self.kept = Some(Box::new(Kept { reply, endpoint: Arc::clone(&by.label) }));
        self.trace.attempts.push(by.record(Some("status"), received));
        self.again(next)
    }

    fn judge_failure(&mut self, failed: &Failure, by: Begun, received: Now) -> Verdict {
        let failure = retry::Failure::Error(failed.error);
        let next = self.next(failure, by.index, failed.replayable, None);
        self.trace.attempts.push(by.record(Some(failed.error.kind.row().reason), received));
        match (next, self.kept.take()) {
            (Some(next), kept) => {
                self.kept = kept;
                self.again(next)
            }
            (None, Some(kept)) => {
                self.trace.answered = Some(kept.endpoint);
                Verdict::Over(Ok(kept.reply))
            }
            (None, None) => Verdict::Over(Err(failed.error)),
        }
    }

    fn again(&mut self, next: Next) -> Verdict {
        if let Some(body) = self.at_hand.as_ref().and_then(Body::at_hand) {
            self.request.body = body;
        }
        Verdict::Again(next)
    }

    fn reply(&self, answer: Answer, sent: Now, received: Now) -> Reply {
        let (endpoint, mut response) = (answer.index, answer.response);
        clean(&mut response, received, self.worker);
        Reply { response, sent, received, endpoint }
    }

    fn wanted<'t>(&self, tried: &'t [usize]) -> Wanted<'t> {
        let under_way = self.made > 0 || self.silent_used;
        Wanted { tried, key: self.key, stay: self.stay, random: self.worker.random(), under_way, is_copy: self.is_copy }
    }

    fn pick(&self, tried: &[usize]) -> Option<Slot> {
        self.worker.connections.pick(&self.pool, &self.wanted(tried)).ok()
    }

    /// Another attempt after `failure` at the endpoint `index`, where it is allowed, somebody is left to ask, and the
    /// budget is not spent; otherwise the failure stands. `answer` is the head of an answer that counts as failure, and
    /// when it came.
    fn next(
        &mut self,
        failure: retry::Failure,
        index: usize,
        replayable: bool,
        answer: Option<(&HeaderMap, Now)>,
    ) -> Option<Next> {
        self.made += 1;
        let facts = RetryFacts {
            failure,
            method: &self.request.method,
            attempts: self.made,
            silent_used: self.silent_used,
            replayable,
        };
        let params = &self.pool.params.retry;
        match retry::may_retry(&facts, params).ok()? {
            Again::Silent => {
                self.silent_used = true;
                self.made -= 1;
                Some(Next { slot: self.silently(failure, index)?, pause: Duration::ZERO })
            }
            Again::Attempt => {
                let told = answer.and_then(|(headers, now)| retry::retry_after(headers, now.wall));
                let pause = retry::pause(&facts, told, self.worker.random(), params).ok()?;
                self.tried.push(index);
                let slot = self.pick(&self.tried)?;
                self.pool.take_retry(retry::is_unsent(failure)).then_some(Next { slot, pause })
            }
        }
    }

    /// The slot of the silent retry. An endpoint that has refused to look at a request is asked again only where nobody
    /// else can be, or the session is there.
    fn silently(&self, failure: retry::Failure, index: usize) -> Option<Slot> {
        let refused = matches!(failure, retry::Failure::Error(error) if error.retry == Retry::Unprocessed);
        let elsewhere = || {
            let tried: Vec<_> = self.tried.iter().copied().chain([index]).collect();
            self.pick(&tried)
        };
        let elsewhere = if refused && self.stay != Some(index) { elsewhere() } else { None };
        elsewhere.or_else(|| self.pick(&self.tried))
    }
}

fn no_endpoint(nobody: NoEndpoint) -> ProxyError {
    let kind = match nobody {
        NoEndpoint::AllFull => ErrorKind::PoolFull,
        NoEndpoint::QueueFull => ErrorKind::QueueFull,
        NoEndpoint::QueueTimeout => ErrorKind::QueueTimeout,
        NoEndpoint::Shed => ErrorKind::Shed,
        NoEndpoint::NoneHealthy | NoEndpoint::AllTried => ErrorKind::NoEndpoint,
    };
    ProxyError::new(kind, Stage::Forward)
}

fn phases(answer: &Answer) -> Phases {
    let Timings { connect, tls, first_byte } = answer.timings;
    Phases { connect, tls, first_byte: Some(first_byte) }
}

/// Takes the hop out of a response: what is left may be stored and sent on.
fn clean(response: &mut Response, received: Now, worker: &Worker) {
    let facts = fields::ResponseFacts {
        version: Version::HTTP_11,
        switching: response.status == StatusCode::SWITCHING_PROTOCOLS,
        now: received,
    };
    fields::forward_response(&mut response.headers, facts, &worker.shared.identity);
}
