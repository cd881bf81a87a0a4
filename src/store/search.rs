//! What origins said of queries (`No-Vary-Search`): by which rule to look, and which rules something is stored by.
//!
//! Two memories of different kinds, for two questions:
//!
//! - *Which rule does a lookup go by?* The one that the last response of the path stated. It stands in moka beside what is
//!   stored, is found without a lock, and may be lost: that costs hits. While no response ever stated one, nobody asks.
//! - *Which rules does a purge of a URL go by?* Every one that something is stored by, or being stored: counted exactly,
//!   held by each life ([`RuleHold`]). From a URL and a rule follows the one mark of what answers it.
//!
//! What races: a fetch whose rule shows only in its head may bring what a purge of another URL named meanwhile. So a purge
//! of a URL dates its whole path too, and what is stored by a rule heeds that date: a purge costs fetches in flight on the
//! same path, where they go by a rule, their place in the store. A fetch holds its rule, then enters its marks, then looks
//! at the dates; a purge dates, then reads the rules, then walks: whichever comes second sees the first.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::Store;
use super::ledger::{Share, lock};
use super::memory::{Entry, Place};
use crate::policy::cache::key::CacheKey;
use crate::policy::cache::search::SearchRule;

/// Most rules one path may have something stored by at a time; what states a further one is not stored. An origin has one,
/// and a second after each change of its mind until what is stored by the first has gone.
pub const MAX_RULES: usize = 64;

/// Locks the paths are spread over.
const SHARDS: usize = 32;

/// The rules something is stored by, by path.
#[derive(Debug)]
pub(super) struct Rules([Mutex<Shard>; SHARDS]);

type Shard = HashMap<u128, Vec<Held>>;

/// A rule, and the number of lives that hold it.
type Held = (Arc<SearchRule>, usize);

impl Default for Rules {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Rules {
    /// The rules of a path. Cost: a short lock.
    pub(super) fn of(&self, path: u128) -> Vec<Arc<SearchRule>> {
        let shard = lock(self.shard(path));
        shard.get(&path).into_iter().flatten().map(|(rule, _)| Arc::clone(rule)).collect()
    }

    fn hold(&self, path: u128, rule: &Arc<SearchRule>) -> bool {
        let mut shard = lock(self.shard(path));
        let rules = shard.entry(path).or_default();
        if let Some((_, holders)) = rules.iter_mut().find(|(held, _)| held == rule) {
            *holders += 1;
            return true;
        }
        let room = rules.len() < MAX_RULES;
        if room {
            rules.push((Arc::clone(rule), 1));
        }
        room
    }

    fn release(&self, path: u128, rule: &Arc<SearchRule>) {
        let mut shard = lock(self.shard(path));
        let Some(rules) = shard.get_mut(&path) else { return };
        if let Some((_, holders)) = rules.iter_mut().find(|(held, _)| held == rule) {
            *holders -= 1;
        }
        rules.retain(|(_, holders)| *holders > 0);
        if rules.is_empty() {
            shard.remove(&path);
        }
    }

    #[expect(clippy::indexing_slicing, reason = "the index is a remainder by the length")]
    fn shard(&self, path: u128) -> &Mutex<Shard> {
        // The low bits of a hash are as good as any.
        &self.0[usize::try_from(path % SHARDS as u128).unwrap_or_default()]
    }
}

/// Keeps the rule of a key among those that purges go by, until it is dropped.
#[derive(Debug)]
pub(super) struct RuleHold {
    share: Arc<Share>,
    path: u128,
    rule: Arc<SearchRule>,
}

impl Drop for RuleHold {
    fn drop(&mut self) {
        if let Some(ledger) = self.share.ledger() {
            ledger.rules.release(self.path, &self.rule);
        }
    }
}

impl Store {
    /// The key under which what `exact` asks for is stored by the rule of its path, as far as that is remembered. Cost: an
    /// atomic load while no origin has stated a rule; then a hash and a moka read, and with a rule those of
    /// [`CacheKey::under`].
    #[must_use]
    pub fn ruled(&self, exact: &CacheKey) -> Option<CacheKey> {
        if !self.0.rules_known.load(Ordering::Relaxed) {
            return None;
        }
        match self.0.memory.get(Place::Rule(exact.path_hash(&self.0.seeds))).as_deref() {
            Some(Entry::Rule(rule)) => Some(exact.under(rule, &self.0.seeds)),
            _ => None,
        }
    }

    /// Holds the rule of `key` for a life that begins; `Ok(None)` for a key without one.
    ///
    /// # Errors
    /// The path has [`MAX_RULES`] others.
    pub(super) fn hold_rule(&self, key: &CacheKey, share: &Arc<Share>) -> Result<Option<RuleHold>, ()> {
        let Some(rule) = &key.search else { return Ok(None) };
        let path = key.path_hash(&self.0.seeds);
        let held = self.0.ledger.rules.hold(path, rule);
        held.then(|| Some(RuleHold { share: Arc::clone(share), path, rule: Arc::clone(rule) })).ok_or(())
    }

    /// From now on lookups of this path go by the rule of `key`, of which something is being stored.
    pub(super) fn remember_rule(&self, key: &CacheKey) {
        let Some(rule) = &key.search else { return };
        let place = Place::Rule(key.path_hash(&self.0.seeds));
        let known = matches!(self.0.memory.get(place).as_deref(), Some(Entry::Rule(known)) if known == rule);
        if !known {
            self.0.memory.put(place, Entry::Rule(Arc::clone(rule)));
        }
        self.0.rules_known.store(true, Ordering::Relaxed);
    }
}
