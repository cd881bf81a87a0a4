//! From the store, from a fetch that is under way, or from a fetch begun here.
//!
//! A stored response that is fresh, or may answer although it is not, answers at once; where it should be fetched anew,
//! that happens behind the answer. Else the stage goes round: find, decide, join. A round ends with an answer, with the
//! decision to go alone, or because the world changed meanwhile (a leader went away, a response turned out to vary); the
//! number of rounds is bounded, and whoever runs out of them goes alone.

use std::sync::Arc;

use super::context::Exchange;
use super::encode::Selected;
use super::fetch::{self, Job, Landed};
use super::hints;
use super::query::gather;
use super::question::{Asked, Question, passed_by};
use super::range::{self, Behind};
use super::rewrite;
use crate::clock::Now;
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::policy::cache::bypass::{Participation, ReuseOnly};
use crate::policy::cache::cookies;
use crate::policy::cache::key::{CacheKey, Seeds};
use crate::policy::cache::next::Next;
use crate::policy::cache::query;
use crate::policy::cache::refresh;
use crate::policy::cache::reuse::{self, Reuse, Validate};
use crate::policy::cache::stale::{self, Grant, NotStale, Stale, StaleFacts};
use crate::policy::cache::status::{CacheStatus, Forwarded};
use crate::policy::cache::storing::Terms;
use crate::snapshot::{CachePolicy, Route};
use crate::store::{self, Base, Done, Fetched, Filling, FollowHandle, Joined, Outcome};

/// The hit has begun a fetch, for it will soon be none.
const EARLY: &str = "early_refresh";

/// A part that begins far behind what has arrived of a response is not waited for.
const FAR: &str = "range_far";

/// Rounds before a request stops waiting for others. Two are enough unless leaders keep going away.
const ROUNDS: usize = 4;

/// What the stage found.
pub(super) enum Found {
    /// A response that is stored, or on its way into the store, or that the fetch begun here brought.
    Selected(Selected),
    /// Nothing; the request goes to the farm alone. Where it asks for a part, the whole may be fetched behind it.
    Forward(Option<Behind>),
}

/// One way through a round.
enum Step {
    Done(Found),
    /// Look again; the variant to ask for is known now.
    Again(Option<u64>),
    /// Look again, under the key of exactly what is asked for: what others have fetched by the rule of the path is not what
    /// this request asks for by its own.
    Exactly,
}

/// What former rounds have shown.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The variant to ask for.
    variant: Option<u64>,
    exactly: bool,
}

/// Looks the request up and waits for a collapsed fetch where there is one.
///
/// # Errors
/// What the fetch failed with, or the client while it sent the content of a QUERY; `OnlyIfCached` when the client forbade fetching (RFC 9111 §5.2.1.7).
pub(super) async fn run(exchange: &mut Exchange, route: &Arc<Route>) -> Result<Found, ProxyError> {
    let Some(policy) = route.cache.clone() else { return Ok(Found::Forward(None)) };
    cookies::strip(&mut exchange.head.headers, &policy.params.strip_cookies);
    let content = if query::takes_part(&exchange.head.method, &policy.params) {
        // Boxed, so that whoever asks nothing of the kind carries none of it.
        match Box::pin(gather(exchange, &policy.params)).await? {
            Ok(content) => Some(content),
            Err(reason) => return Ok(alone(exchange, passed_by(reason), reason.token())),
        }
    } else {
        None
    };
    let asked = Asked { content, ..Asked::of(exchange) };
    let question = match Question::put(&asked, route, &policy, exchange.worker.shared.store.seeds()) {
        Ok(question) => question,
        Err(reason) => return Ok(alone(exchange, passed_by(reason), reason.token())),
    };
    if policy.params.cache_status_key {
        exchange.cache_key = Some(question.key.text.clone());
    }
    let lookup = Lookup { route, policy: &policy, question };
    let mut known = Known::default();
    for _ in 0..ROUNDS {
        match lookup.round(exchange, known).await? {
            Step::Done(found) => return Ok(found),
            Step::Again(variant) => known.variant = variant.or(known.variant),
            Step::Exactly => known.exactly = true,
        }
    }
    Ok(alone(exchange, Forwarded::UriMiss, "rounds_spent"))
}

/// Why a request is fetched for.
#[derive(Clone, Copy)]
struct Why {
    forwarded: Forwarded,
    /// What that does not say.
    detail: Option<&'static str>,
}

/// What does not change from round to round.
struct Lookup<'a> {
    route: &'a Arc<Route>,
    policy: &'a Arc<CachePolicy>,
    question: Question,
}

impl Lookup<'_> {
    /// One look. What follows when it finds nothing to answer with is boxed: a hit carries none of it.
    async fn round(&self, exchange: &mut Exchange, known: Known) -> Result<Step, ProxyError> {
        let store = exchange.worker.shared.store.clone();
        let (ruled, found) = self.find(exchange, known);
        let key = ruled.as_ref().unwrap_or(&self.question.key);
        if let Some(shown) = exchange.cache_key.as_mut().filter(|shown| **shown != key.text) {
            shown.clone_from(&key.text);
        }
        let next = self.question.next(key, &found, &store, &self.policy.params, exchange.now);
        let (variant, stored) = match found {
            store::Found::Base(base) => match next {
                Next::Hit => {
                    let early = self.is_due(exchange, &base) && self.refresh(exchange, key, &base);
                    let detail = early.then_some(EARLY);
                    return Ok(Step::Done(hit(exchange, base, detail)));
                }
                Next::Stale(stale) => {
                    if stale.refresh {
                        let _begun = self.refresh(exchange, key, &base);
                    }
                    return Ok(Step::Done(stale_hit(exchange, base, stale.grant, CacheStatus::default())));
                }
                _ => (base.head().selecting.hash(store.seeds()), Some(base)),
            },
            store::Found::OtherVariants(variant) => (variant, None),
            store::Found::Nothing => (known.variant.unwrap_or(0), None),
        };
        let why = match next {
            // Nothing but a stored response is a hit.
            Next::OnlyIfCached | Next::Hit | Next::Stale(_) => {
                exchange.cache = Some(CacheStatus::only_if_cached());
                return Err(ProxyError::new(ErrorKind::OnlyIfCached, Stage::Lookup));
            }
            Next::Alone(forwarded, reason) => return Ok(Step::Done(alone(exchange, forwarded, reason))),
            Next::Part(forwarded) => {
                return match store.follow(key, variant) {
                    Some(handle) => {
                        let why = Why { forwarded, detail: None };
                        Box::pin(self.follow(exchange, handle, why, None)).await
                    }
                    None => Box::pin(self.part(exchange, key, variant, forwarded)).await,
                };
            }
            Next::Fetch(forwarded, validates) => Why { forwarded, detail: validates.and_then(Validate::detail) },
        };
        hints::tell(exchange, self.route);
        // What is stored is validated by HEAD as well.
        let is_head = self.question.participation == Participation::ReuseOnly(ReuseOnly::Head);
        match if is_head { store.join_head(key, variant) } else { store.join(key, variant) } {
            Joined::Follower(handle) => Box::pin(self.follow(exchange, handle, why, stored)).await,
            Joined::Leader(lead) => {
                // The fetch one would have followed may have ended between the look and the join.
                if stored.is_none()
                    && let (_, store::Found::Base(base)) = self.find(exchange, known)
                    && reuse::decide(&base.terms(), &self.question.directives, exchange.now) == Reuse::Fresh
                {
                    return Ok(Step::Done(hit(exchange, base, None)));
                }
                Box::pin(self.lead(exchange, key, lead, why, stored)).await
            }
        }
    }

    /// What is stored, and the key it goes by, where that is not the one of exactly what is asked for.
    fn find(&self, exchange: &Exchange, known: Known) -> (Option<CacheKey>, store::Found) {
        let store = &exchange.worker.shared.store;
        let rules = rewrite::fingerprint(self.route);
        let look = |key: &CacheKey| store.find(key.hash, &exchange.head.headers, rules);
        if known.exactly {
            return (None, look(&self.question.key));
        }
        self.question.locate(store, look, |found| found)
    }

    /// True when a response that others asked for is stored under a key of this request, too.
    fn is_asked_for(&self, filling: &Filling, seeds: &Seeds) -> bool {
        let (key, theirs) = (&self.question.key, filling.life().key());
        match &theirs.search {
            None => theirs.hash == key.hash,
            Some(rule) => theirs.hash == key.under(rule, seeds).hash,
        }
    }

    /// Waits for the leader's word. The wait is bounded by the leader's own timeouts, and ends with the response head.
    async fn follow(
        &self,
        exchange: &mut Exchange,
        handle: FollowHandle<Fetched>,
        why: Why,
        stored: Option<Arc<Base>>,
    ) -> Result<Step, ProxyError> {
        let outcome = handle.outcome().await;
        if matches!(outcome, Outcome::Failed(_) | Outcome::Released(_))
            && let Some(base) = stored
            && let Ok(stale) = self.stale(&base, exchange.worker.now())
        {
            let status = CacheStatus { forwarded: Some(why.forwarded), collapsed: true, ..CacheStatus::default() };
            return Ok(Step::Done(stale_hit(exchange, base, stale.grant, status)));
        }
        let request = &exchange.head.headers;
        let rules = rewrite::fingerprint(self.route);
        match outcome {
            Outcome::Shared(Fetched::Filling(filling))
                if !self.is_asked_for(&filling, exchange.worker.shared.store.seeds()) =>
            {
                Ok(Step::Exactly)
            }
            Outcome::Shared(Fetched::Filling(filling)) if filling.serves(request, rules) => {
                if reuse::decide(&filling.head().terms, &self.question.directives, exchange.worker.now())
                    != Reuse::Fresh
                {
                    return Ok(Step::Done(alone(exchange, why.forwarded, store::NOT_SHAREABLE)));
                }
                let Some(mut reader) = filling.reader() else { return Ok(Step::Again(None)) };
                if !range::is_near(exchange, &filling, &mut reader).await {
                    return Ok(Step::Done(alone(exchange, why.forwarded, FAR)));
                }
                exchange.cache = Some(collapsed(why, &filling.head().terms, exchange.now));
                Ok(Step::Done(Found::Selected(Selected::Filling(filling, reader))))
            }
            Outcome::Shared(Fetched::Filling(filling)) => {
                let selecting = filling.head().selecting.of_request(request);
                Ok(Step::Again(Some(selecting.hash(exchange.worker.shared.store.seeds()))))
            }
            Outcome::Shared(Fetched::Validated(base)) if !base.head().serves(request, rules) => {
                let selecting = base.head().selecting.of_request(request);
                Ok(Step::Again(Some(selecting.hash(exchange.worker.shared.store.seeds()))))
            }
            Outcome::Shared(Fetched::Validated(base)) => {
                exchange.cache = Some(collapsed(why, &base.head().terms, exchange.now));
                Ok(Step::Done(Found::Selected(Selected::Stored(base))))
            }
            Outcome::Released(reason) => Ok(Step::Done(alone(exchange, why.forwarded, reason))),
            Outcome::Failed(error) => Err(failed(exchange, why.forwarded, error)),
            Outcome::LeaderGone => Ok(Step::Again(None)),
        }
    }

    /// Begins the fetch and waits for its head; the body is read by the fetch itself.
    async fn lead(
        &self,
        exchange: &mut Exchange,
        key: &CacheKey,
        lead: store::FetchLead,
        why: Why,
        validating: Option<Arc<Base>>,
    ) -> Result<Step, ProxyError> {
        let job = Job::new(exchange, self.route, self.policy, self.question.keys(key), lead, validating)?;
        let Ok(report) = fetch::start(job).await else { return Ok(Step::Again(None)) };
        exchange.trace = report.trace;
        let landed = match report.landed {
            Ok(landed) => landed,
            Err(error) => return Err(failed(exchange, why.forwarded, error)),
        };
        if let Landed::Stale(base, grant) = landed {
            let (forwarded, forwarded_status) = (Some(why.forwarded), report.forwarded_status);
            let status = CacheStatus { forwarded, forwarded_status, ..CacheStatus::default() };
            return Ok(Step::Done(stale_hit(exchange, base, grant, status)));
        }
        let terms = match &landed {
            Landed::Filling(filling, _) => Some(&filling.head().terms),
            Landed::Validated(base) | Landed::Stale(base, _) => Some(&base.head().terms),
            Landed::Alone(_) => None,
        };
        exchange.cache = Some(CacheStatus {
            forwarded: Some(why.forwarded),
            forwarded_status: report.forwarded_status,
            ttl: terms.map(|terms| terms.freshness.ttl(exchange.worker.now())),
            stored: report.stored,
            detail: report.detail.or(why.detail),
            ..CacheStatus::default()
        });
        let selected = match landed {
            Landed::Filling(filling, mut reader) => {
                if !range::is_near(exchange, &filling, &mut reader).await {
                    return Ok(Step::Done(alone(exchange, why.forwarded, FAR)));
                }
                Selected::Filling(filling, reader)
            }
            Landed::Validated(base) | Landed::Stale(base, _) => Selected::Stored(base),
            Landed::Alone(response) => Selected::Alone(response),
        };
        Ok(Step::Done(Found::Selected(selected)))
    }

    /// A part of something that is not here leads no fetch of the whole: the farm sends it sooner alone. Of many that ask
    /// for the beginning one does so; the others have it from the whole that is fetched behind it.
    async fn part(
        &self,
        exchange: &mut Exchange,
        key: &CacheKey,
        variant: u64,
        forwarded: Forwarded,
    ) -> Result<Step, ProxyError> {
        let store = exchange.worker.shared.store.clone();
        let lead = match range::begins_near(exchange).then(|| store.join_part(key, variant)) {
            None => None,
            Some(Joined::Leader(lead)) => {
                // The whole may have come in between the look and the join.
                let rules = rewrite::fingerprint(self.route);
                if let store::Found::Base(_) = store.find(key.hash, &exchange.head.headers, rules) {
                    return Ok(Step::Again(None));
                }
                Some(lead)
            }
            Some(Joined::Follower(handle)) => {
                return match handle.outcome().await {
                    Outcome::Shared(Done) | Outcome::LeaderGone => Ok(Step::Again(None)),
                    Outcome::Released(reason) => Ok(Step::Done(alone(exchange, forwarded, reason))),
                    Outcome::Failed(error) => Err(error),
                };
            }
        };
        exchange.cache = Some(passed(forwarded, ReuseOnly::Range.token()));
        let behind = Behind { policy: Arc::clone(self.policy), keys: self.question.keys(key), variant, lead };
        Ok(Step::Done(Found::Forward(Some(behind))))
    }

    /// Whether a stored response that should be validated may answer without that.
    fn stale(&self, base: &Base, now: Now) -> Result<Stale, NotStale> {
        let terms = base.terms();
        let facts = StaleFacts { terms: &terms, request: &self.question.directives, setback: base.life().setback() };
        stale::at_once(&facts, &self.policy.params, now)
    }

    /// Whether a fresh response is to be fetched anew already. Its last failure is asked for only where it is.
    fn is_due(&self, exchange: &Exchange, base: &Base) -> bool {
        let (terms, now) = (&base.head().terms, exchange.now);
        self.policy.params.early_refresh
            && refresh::is_due_early(terms, || exchange.worker.random(), now)
            && base.life().setback().is_none_or(|setback| !setback.rests(now))
    }

    /// Has a stored response fetched anew behind this answer, unless somebody does so already, or this worker has enough
    /// of such fetches under way: then a later request brings it about. True when the fetch has begun.
    fn refresh(&self, exchange: &Exchange, key: &CacheKey, base: &Arc<Base>) -> bool {
        if self.question.participation == Participation::ReuseOnly(ReuseOnly::RequestNoStore) {
            return false;
        }
        let store = &exchange.worker.shared.store;
        let Some(turn) = base.life().take_turn() else { return false };
        let Some(slot) = exchange.worker.refresh_slot() else { return false };
        let Joined::Leader(lead) = store.join(key, base.head().selecting.hash(store.seeds())) else {
            return false;
        };
        let stored = Some(Arc::clone(base));
        let Ok(job) = Job::new(exchange, self.route, self.policy, self.question.keys(key), lead, stored) else {
            return false;
        };
        // Nobody waits for the report; the fetch goes its way whatever becomes of this exchange.
        drop(fetch::start(job.behind(turn, slot)));
        true
    }
}

/// A stored response in place of the one the origin should have given.
fn stale_hit(exchange: &mut Exchange, base: Arc<Base>, grant: Grant, status: CacheStatus<'static>) -> Found {
    let ttl = Some(base.head().terms.freshness.ttl(exchange.worker.now()));
    exchange.cache = Some(CacheStatus { ttl, stale: true, detail: Some(grant.token()), ..status });
    Found::Selected(Selected::Stored(base))
}

/// The fetch failed, and nothing stored may stand in for it.
fn failed(exchange: &mut Exchange, forwarded: Forwarded, error: ProxyError) -> ProxyError {
    exchange.cache = Some(passed(forwarded, fetch::FAILED));
    error
}

fn hit(exchange: &mut Exchange, base: Arc<Base>, detail: Option<&'static str>) -> Found {
    let ttl = base.head().terms.freshness.ttl(exchange.now);
    exchange.cache = Some(CacheStatus { ttl: Some(ttl), detail, ..CacheStatus::default() });
    Found::Selected(Selected::Stored(base))
}

fn collapsed(why: Why, terms: &Terms, now: Now) -> CacheStatus<'static> {
    let Why { forwarded, detail } = why;
    let ttl = Some(terms.freshness.ttl(now));
    CacheStatus { forwarded: Some(forwarded), collapsed: true, ttl, detail, ..CacheStatus::default() }
}

fn alone(exchange: &mut Exchange, forwarded: Forwarded, detail: &'static str) -> Found {
    exchange.cache = Some(passed(forwarded, detail));
    Found::Forward(None)
}

fn passed(forwarded: Forwarded, detail: &'static str) -> CacheStatus<'static> {
    CacheStatus { forwarded: Some(forwarded), detail: Some(detail), ..CacheStatus::default() }
}
