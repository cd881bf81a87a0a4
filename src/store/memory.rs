//! moka, and what it must not decide: entries and their weights, and a size that can change.
//!
//! moka chooses what to keep (recency and frequency) and bounds the sum of weights. It has no way to change its capacity,
//! so a new size makes a new cache into which the entries move. Whatever moka drops is reported to its owner at once: a
//! dropped base is dead from then on.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::sync::Cache;
use tokio::sync::Notify;

use super::base::Slot;
use super::child::{Child, ChildKind};
use super::ledger::Ledger;
use super::peek::Refusal;
use crate::policy::cache::search::SearchRule;

/// The part of the size that moka may not fill, as a divisor: room for fills in flight, so that what goes to make room is
/// normally chosen by moka and not by age alone.
pub const FILL_SHARE: u64 = 16;

/// moka weighs in 32 bits; counted in this many bytes they reach 256 GiB an entry.
const WEIGHT_UNIT: u64 = 64;

/// Housekeeping is due early once entries of this part of the size came in (a divisor), so that what is waiting to be
/// evicted stays small against the size. Workers leave it to the thread of housekeeping: moka lets one at a time work off
/// its changes, and whoever demands it waits for whoever is at it.
const MAINTAIN_SHARE: u64 = 64;

/// What a remembered refusal takes, and a remembered rule besides its text.
const REFUSAL_BYTES: u64 = 256;

/// Where an entry is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Responses under a primary key.
    Primary(u128),
    /// A child: id of the base, and what was done.
    Child(u64, ChildKind),
    /// A refusal under a primary key.
    Refusal(u128),
    /// The rule of a path ([`CacheKey::path_hash`](crate::policy::cache::key::CacheKey::path_hash)).
    Rule(u128),
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Primary(key) | Self::Rule(key) => state.write_u128(*key),
            Self::Refusal(key) => state.write_u128(!*key),
            Self::Child(base, kind) => {
                state.write_u64(*base);
                kind.hash(state);
            }
        }
    }
}

/// Folds what it is fed into 64 bits. Enough here: keys are hashes with secret seeds already, ids are counted by us.
#[derive(Debug, Default)]
pub(super) struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // The golden ratio's bits spread neighbouring ids over both ends of the word; moka looks at either.
        let mixed = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write_u128(&mut self, value: u128) {
        let [low, high] =
            [value, value >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or_default());
        self.write_u64(low ^ high);
    }
}

/// What stands in a place.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    Slot(Slot),
    Child(Arc<Child>),
    Refusal(Refusal),
    Rule(Arc<SearchRule>),
}

/// An entry as moka holds it. What moka has dropped stays in its memory for a while (its table is reclaimed by epochs,
/// hundreds of entries late), so what matters is taken out of the cell the moment the entry goes.
#[derive(Debug, Clone)]
struct Cell {
    entry: Arc<ArcSwapOption<Entry>>,
    bytes: u64,
}

impl Cell {
    fn new(entry: Entry) -> Self {
        Self { bytes: entry.bytes(), entry: Arc::new(ArcSwapOption::from_pointee(entry)) }
    }

    /// `None` when it was dropped a moment ago.
    fn read(&self) -> Option<Arc<Entry>> {
        self.entry.load_full()
    }

    fn empty(&self) -> Option<Arc<Entry>> {
        self.entry.swap(None)
    }
}

impl Entry {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Slot(slot) => slot.iter().map(|base| base.bytes()).sum(),
            Self::Child(child) => child.bytes(),
            Self::Refusal(_) => REFUSAL_BYTES,
            Self::Rule(rule) => REFUSAL_BYTES + rule.bytes(),
        }
    }

    /// What it held is stored no more.
    fn retire(&self) -> bool {
        match self {
            Self::Slot(slot) => slot.iter().filter(|base| base.life().retire()).count() > 0,
            Self::Child(child) => {
                child.retire();
                true
            }
            Self::Refusal(_) | Self::Rule(_) => false,
        }
    }
}

type Moka = Cache<Place, Cell, BuildHasherDefault<Fold>>;

/// The entries of the store.
pub(super) struct Memory {
    cache: ArcSwap<Moka>,
    /// Held for reading by every change, for writing while the entries move to a cache of another size.
    moving: RwLock<()>,
    /// Bytes that came in since moka last worked off its changes.
    pending: AtomicU64,
    /// Told when they are many.
    due: Notify,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("entries", &self.entries()).finish_non_exhaustive()
    }
}

impl Memory {
    pub(super) fn new(size: u64, ledger: &Arc<Ledger>) -> Self {
        Self {
            cache: ArcSwap::from_pointee(build(size, ledger)),
            moving: RwLock::default(),
            pending: AtomicU64::new(0),
            due: Notify::new(),
        }
    }

    /// Moves the entries into a cache of another size.
    pub(super) fn resize(&self, size: u64, ledger: &Arc<Ledger>) {
        let _moving = self.moving.write().unwrap_or_else(PoisonError::into_inner);
        let old = self.cache.load_full();
        let new = build(size, ledger);
        for (place, entry) in old.iter() {
            new.insert(*place, entry);
        }
        new.run_pending_tasks();
        self.cache.store(Arc::new(new));
    }

    /// Cost: one moka read.
    pub(super) fn get(&self, place: Place) -> Option<Arc<Entry>> {
        self.cache.load().get(&place)?.read()
    }

    pub(super) fn put(&self, place: Place, entry: Entry) {
        let _here = self.moving.read().unwrap_or_else(PoisonError::into_inner);
        let cell = Cell::new(entry);
        let bytes = cell.bytes;
        let cache = self.cache.load_full();
        cache.insert(place, cell);
        self.came_in(&cache, bytes);
    }

    pub(super) fn remove(&self, place: Place) {
        let _here = self.moving.read().unwrap_or_else(PoisonError::into_inner);
        self.cache.load().invalidate(&place);
    }

    /// Replaces a slot by what `change` makes of it, one change of a place at a time; an empty slot is removed, `None`
    /// leaves everything as it is. Responses that drop out are retired by the caller.
    pub(super) fn update(&self, place: Place, change: impl FnOnce(Option<&Slot>) -> Option<Slot>) {
        let _here = self.moving.read().unwrap_or_else(PoisonError::into_inner);
        let cache = self.cache.load_full();
        // What leaves counts as well: moka holds it until it works off its changes.
        let mut bytes = 0;
        cache.entry(place).and_compute_with(|entry| {
            let current = entry.map(moka::Entry::into_value);
            let held = current.as_ref().and_then(Cell::read);
            let slot = match held.as_deref() {
                Some(Entry::Slot(slot)) => Some(slot),
                _ => None,
            };
            let Some(changed) = change(slot) else { return Op::Nop };
            let empty = changed.is_empty();
            let changed = Cell::new(Entry::Slot(changed));
            bytes = changed.bytes + current.as_ref().map_or(0, |current| current.bytes);
            if empty { Op::Remove } else { Op::Put(changed) }
        });
        self.came_in(&cache, bytes);
    }

    #[cfg(test)]
    pub(super) fn primary_places(&self) -> Vec<Place> {
        self.cache.load().iter().map(|(place, _)| *place).filter(|place| matches!(place, Place::Primary(_))).collect()
    }

    pub(super) fn entries(&self) -> u64 {
        self.cache.load().entry_count()
    }

    /// Waits until so much came in that [`Memory::maintain`] is due.
    pub(super) async fn due(&self) {
        self.due.notified().await;
    }

    /// Works off moka's pending changes.
    pub(super) fn maintain(&self) {
        self.pending.store(0, Ordering::Relaxed);
        self.cache.load().run_pending_tasks();
    }

    fn came_in(&self, cache: &Moka, bytes: u64) {
        let capacity = cache.policy().max_capacity().unwrap_or_default().saturating_mul(WEIGHT_UNIT);
        if self.pending.fetch_add(bytes, Ordering::Relaxed) + bytes > capacity / MAINTAIN_SHARE {
            self.due.notify_one();
        }
    }
}

/// Bytes moka may fill in a store of `size` bytes.
pub(super) fn capacity(size: u64) -> u64 {
    size - size / FILL_SHARE
}

fn build(size: u64, ledger: &Arc<Ledger>) -> Moka {
    let ledger = ledger.clone();
    Cache::builder()
        .max_capacity(capacity(size) / WEIGHT_UNIT)
        .weigher(|_, cell: &Cell| u32::try_from(cell.bytes.div_ceil(WEIGHT_UNIT)).unwrap_or(u32::MAX))
        .eviction_listener(move |_, cell: Cell, cause| {
            let Some(entry) = cell.empty() else { return };
            match cause {
                // Responses are retired by the code that took them out of their slot; a child is alone in its place.
                RemovalCause::Replaced | RemovalCause::Explicit => {
                    if matches!(*entry, Entry::Child(_)) {
                        entry.retire();
                    }
                }
                RemovalCause::Size | RemovalCause::Expired => {
                    if entry.retire() {
                        ledger.count_eviction();
                    }
                }
            }
        })
        .build_with_hasher(BuildHasherDefault::default())
}
