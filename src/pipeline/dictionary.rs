//! Dictionaries, as an answer from the store sees them: whether it may become one, and whether this client has one for it.
//!
//! The first client that has a dictionary for a body waits a moment while the delta is made on another thread; where that
//! takes longer, it gets an ordinary coding, and the next one the delta. Everybody after that gets the finished child.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use super::context::Exchange;
use super::range;
use super::worker::Worker;
use super::workshop::deltas::Job;
use crate::policy::dictionary::{self, Delta, NoDelta, USE_AS_DICTIONARY};
use crate::policy::filter::Filter;
use crate::policy::mend;
use crate::policy::optimise::{Made, is_in_demand};
use crate::snapshot::{DictionaryPolicy, Route};
use crate::store::{Base, Child, ChildKind, DeltaRecord, Dictionary, Filling, Head, Life, Offer};

/// How long a client waits for its delta. What it saves is seconds on a slow line; what it costs on a fast one is this at
/// most, and once for each version.
const PATIENCE: Duration = Duration::from_millis(200);

/// Why a delta that could be sent is not there.
const FULL: &str = "full";
const BUSY: &str = "busy";
const LATE: &str = "late";
const NO_GAIN: &str = "no_gain";

/// A version of a file on a route that has dictionaries.
pub(super) struct Member<'a> {
    policy: &'a DictionaryPolicy,
    offer: Offer,
}

/// A delta that is ready.
pub(super) struct Ready {
    pub(super) delta: Delta,
    pub(super) level: u8,
    pub(super) rules: u64,
    pub(super) child: Arc<Child>,
}

/// The dictionaries of a route, unless somebody with the key wants to do without.
fn policy(route: &Route) -> Option<&DictionaryPolicy> {
    route.dictionaries.as_deref().filter(|_| route.filters.contains(Filter::Dict))
}

impl<'a> Member<'a> {
    /// What a stored response is a version of. Cost where the route has no dictionaries: nothing; else an atomic load.
    pub(super) fn of(worker: &Worker, route: &'a Route, base: &Base) -> Option<Self> {
        let policy = policy(route)?;
        let length = base.body().remaining();
        let offer = base.offer(worker.shared.store.seeds()).ok().filter(|_| length >= dictionary::BODY_MIN)?;
        Some(Self { policy, offer: offer.clone() })
    }

    /// The same for one on its way in.
    pub(super) fn of_filling(worker: &Worker, route: &'a Route, filling: &Filling) -> Option<Self> {
        let policy = policy(route)?;
        let offer = filling.head().offer(filling.life().key(), worker.shared.store.seeds()).ok()?;
        Some(Self { policy, offer })
    }

    /// Says in the answer's fields that it may become a dictionary, and that it depends on the one the client has. A part
    /// becomes none whatever it says.
    pub(super) fn announce(&self, headers: &mut HeaderMap) {
        headers.insert(USE_AS_DICTIONARY, self.offer.value.clone());
        mend::varies_by_coding(headers);
        dictionary::varies_by_dictionary(headers);
    }

    /// Has the bytes that went out kept, the first time they do: those of the response, as the optimisers with the
    /// fingerprint `rules` made them. Cost after that: one atomic load.
    pub(super) fn keep(&self, worker: &Worker, life: &Arc<Life>, rules: u64) {
        if life.begin_pinning(rules) {
            let shelf = Arc::downgrade(&self.policy.shelf);
            let (life, family, keep) = (Arc::downgrade(life), self.offer.family, self.policy.params.keep);
            // Where too many wait, it is no dictionary until it is fetched again.
            worker.shared.workshop.deltas(Job::Pin { life, rules, family, shelf, keep });
        }
    }

    /// The delta for this client, where it has a dictionary. What came of it is noted in the exchange and counted.
    pub(super) async fn delta(
        &self,
        exchange: &mut Exchange,
        (life, head, length): (&Arc<Life>, &Head, u64),
        is_altered: impl Fn(u64) -> bool,
    ) -> Option<Ready> {
        let found = self.find(exchange, (life, head), is_altered).await;
        let outcome = found.as_ref().map_or_else(|reason| *reason, |(_, ready)| ready.delta.coding.token());
        exchange.dictionary = Some(outcome);
        exchange.worker.metrics.dictionary(outcome);
        let ((record, dictionary), ready) = found.ok()?;
        let strong = ready.level == ready.delta.coding.strong_level();
        if is_in_demand(record.touch(), length) && !strong && record.claim_strong() {
            let job = Job::Make { life: Arc::downgrade(life), record: Arc::clone(&record), dictionary, strong: true };
            if !exchange.worker.shared.workshop.deltas(job) {
                record.release_strong();
            }
        }
        Some(ready)
    }

    async fn find(
        &self,
        exchange: &Exchange,
        (life, head): (&Arc<Life>, &Head),
        is_altered: impl Fn(u64) -> bool,
    ) -> Result<((Arc<DeltaRecord>, Arc<Dictionary>), Ready), &'static str> {
        let request = &exchange.head.headers;
        let store = &exchange.worker.shared.store;
        if range::is_asked(exchange) {
            return Err(NoDelta::Range.token());
        }
        let coding =
            dictionary::negotiate(request, &head.headers, &self.policy.params.codings).map_err(NoDelta::token)?;
        let found = dictionary::offered(request)
            .and_then(|offered| store.dictionary(&self.policy.shelf, self.offer.family, offered));
        let dictionary = found.ok_or(NoDelta::Unknown.token())?;
        let delta = Delta { coding, dictionary: dictionary.short() };
        // Like is coded against like: who has an optimised version gets one, where there is one.
        let optimised = ChildKind { coding: None, level: 0, rules: dictionary.rules(), delta: None };
        let alike = optimised.rules != 0 && is_altered(optimised.rules) && store.child(life, optimised).is_some();
        let rules = if alike { optimised.rules } else { 0 };
        let record = life.delta(delta, rules).ok_or(FULL)?;
        let mut made = record.made();
        if let Made::Child { level, .. } = made {
            match store.child(life, ChildKind { coding: None, level, rules, delta: Some(delta) }) {
                Some(child) => return Ok(((record, dictionary), Ready { delta, level, rules, child })),
                // Evicted: to be made again.
                None => record.forget(level),
            }
            made = record.made();
        }
        if made == Made::Unasked && record.claim() {
            let (life, record_too) = (Arc::downgrade(life), Arc::clone(&record));
            let job = Job::Make { life, record: record_too, dictionary: Arc::clone(&dictionary), strong: false };
            if !exchange.worker.shared.workshop.deltas(job) {
                record.settle(Made::Unasked);
                return Err(BUSY);
            }
        }
        match record.outcome(PATIENCE).await {
            Made::Child { level, .. } => {
                let child = store.child(life, ChildKind { coding: None, level, rules, delta: Some(delta) });
                let child = child.ok_or(LATE)?;
                Ok(((record, dictionary), Ready { delta, level, rules, child }))
            }
            Made::Nothing => Err(NO_GAIN),
            Made::Unasked | Made::UnderWay => Err(LATE),
        }
    }
}
