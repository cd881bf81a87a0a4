//! What stands under one key, for people: looked at without a trace. No hit is counted, nothing moves, nobody joins.
//! Only moka takes note of it, as of any other look.

use std::sync::Arc;

use http::HeaderMap;

use super::base::{Base, Life, MAX_VARIANTS};
use super::child::{Child, ChildKind};
use super::memory::{Entry, Place};
use super::{Asked, FetchKey, Found, HIT_FOR_MISS, Store};
use crate::clock::Now;
use crate::policy::cache::key::CacheKey;

/// Everything under one primary key.
#[derive(Debug)]
pub struct Shelf {
    /// What a lookup would find.
    pub found: Found,
    /// Every stored response, newest first, whatever it varies by and whichever rules rewrote it; at most
    /// [`MAX_VARIANTS`].
    pub bases: Vec<Arc<Base>>,
    /// The last answer under the key that was not stored, where that is remembered.
    pub refusal: Option<Refusal>,
    /// Fetches under way, by variant.
    pub fetches: Vec<u64>,
    /// True while one request for the beginning of it goes to the farm for others, too.
    pub is_part_asked: bool,
}

/// That an answer was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: &'static str,
    /// Until when requests do not wait for each other because of it.
    pub until: Now,
}

impl Refusal {
    /// True while requests go alone because of it (hit-for-miss).
    #[must_use]
    pub fn is_in_force(&self, now: Now) -> bool {
        now.mono < self.until.mono
    }

    /// True when it was noted after `received`, or there is nothing to compare with.
    #[must_use]
    pub fn is_newer_than(&self, received: Option<Now>) -> bool {
        received.is_none_or(|received| self.until.mono > received.plus(HIT_FOR_MISS).mono)
    }
}

impl Store {
    /// What stands under `key` for `request`, among responses rewritten by the rules with the fingerprint `rules` or any
    /// other. Cost: as [`Store::find`], a copy of the slot, and a short lock of each part of the flights' table.
    #[must_use]
    pub fn peek(&self, key: &CacheKey, request: &HeaderMap, rules: u64) -> Shelf {
        let entry = self.0.memory.get(Place::Primary(key.hash));
        let (found, bases) = match entry.as_deref() {
            Some(Entry::Slot(slot)) => {
                let living = slot.iter().filter(|base| !base.life().is_dead()).take(MAX_VARIANTS);
                (self.choose(slot, request, rules), living.cloned().collect())
            }
            _ => (Found::Nothing, Vec::new()),
        };
        let ours = |flight: &FetchKey| flight.primary == key.hash && flight.asked == Asked::Whole;
        let mut fetches: Vec<_> = self.0.fetches.under_way(ours).into_iter().map(|flight| flight.variant).collect();
        fetches.sort_unstable();
        let is_part_asked = !self.0.parts.under_way(ours).is_empty();
        Shelf { found, bases, refusal: self.last_refusal(key.hash), fetches, is_part_asked }
    }

    /// What was made from the response with this life.
    #[must_use]
    pub fn children(&self, base: &Life) -> Vec<(ChildKind, Arc<Child>)> {
        base.children().into_iter().filter_map(|kind| Some((kind, self.child(base, kind)?))).collect()
    }

    /// The last answer under a key that was not stored.
    pub(super) fn last_refusal(&self, key: u128) -> Option<Refusal> {
        match self.0.memory.get(Place::Refusal(key)).as_deref() {
            Some(Entry::Refusal(refusal)) => Some(*refusal),
            _ => None,
        }
    }
}
