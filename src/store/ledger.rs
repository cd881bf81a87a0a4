//! Who uses how many bytes. The ledger counts what moka holds *and* what fills have reserved, keeps each policy to its
//! share, and remembers in which order responses came, so that it can make room by itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::base::Life;
use super::index::Index;
use super::memory::Place;
use super::search::Rules;

/// How many responses that were used since they were last looked at may be passed over in one eviction. Bounds its cost;
/// behind them even a used one goes.
const SECOND_CHANCES: usize = 8;

/// The part of the size that readers of evicted bodies may hold on top of it, as a divisor.
const HELD_SHARE: u64 = 4;

/// What they may hold besides, however small the store: moka drops what it has let go of in batches, a little later, and
/// until then it counts as held.
const HELD_SLACK: u64 = 64 * 1024 * 1024;

/// The books of the whole store.
#[derive(Debug)]
pub(super) struct Ledger {
    size: AtomicU64,
    used: AtomicU64,
    /// Body bytes that somebody holds: the store, a fill, or a reader of what the store let go.
    held: AtomicU64,
    evictions: AtomicU64,
    shares: Mutex<BTreeMap<Box<str>, Arc<Share>>>,
    /// Places of children whose base is dead, for housekeeping to remove. At most one entry a stored child.
    orphans: Mutex<Vec<Place>>,
    /// What can be found by URL, site and tag.
    pub(super) index: Index,
    /// The rules of queries that something is stored by.
    pub(super) rules: Rules,
}

/// One policy's part of the store.
#[derive(Debug)]
pub struct Share {
    name: Box<str>,
    ledger: Weak<Ledger>,
    /// `max_bytes`; `u64::MAX` = the whole store.
    limit: AtomicU64,
    used: AtomicU64,
    queue: Mutex<Queue>,
}

/// What lives in a share by turn, oldest first. Each life leaves it when it dies: nothing is ever cleared away in one go,
/// which for a hundred thousand would hold whoever does it for tens of milliseconds.
#[derive(Debug, Default)]
struct Queue {
    order: BTreeMap<u64, Queued>,
    /// The turn before the next one.
    last: u64,
}

#[derive(Debug)]
struct Queued {
    /// Weak, for a life points at its share.
    life: Weak<Life>,
    /// Its hits when it was last looked at.
    hits: u64,
}

/// A share as shown to operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareStats {
    /// The policy's name.
    pub name: Box<str>,
    /// Bytes stored and reserved.
    pub used: u64,
    /// `max_bytes`, where there is one.
    pub limit: Option<u64>,
}

impl Ledger {
    pub(super) fn new(size: u64) -> Self {
        Self {
            size: AtomicU64::new(size),
            used: AtomicU64::new(0),
            held: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            shares: Mutex::default(),
            orphans: Mutex::default(),
            index: Index::default(),
            rules: Rules::default(),
        }
    }

    /// Sets the size; returns the one before.
    pub(super) fn resize(&self, size: u64) -> u64 {
        self.size.swap(size, Ordering::Relaxed)
    }

    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// True while slow readers of bodies that were evicted hold more than a [`HELD_SHARE`] of the size and [`HELD_SLACK`]
    /// beyond it. Nothing should be stored then: every new body would drive out another one that is being read, and free
    /// nothing.
    pub(super) fn is_held_up(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.size() + self.size() / HELD_SHARE + HELD_SLACK
    }

    /// Bytes above the size.
    pub(super) fn excess(&self) -> u64 {
        self.used().saturating_sub(self.size())
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    pub(super) fn count_eviction(&self) {
        self.evictions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn share(self: &Arc<Self>, name: &str, limit: Option<u64>) -> Arc<Share> {
        let limit = limit.unwrap_or(u64::MAX);
        let mut shares = lock(&self.shares);
        // A policy that is gone from the configuration leaves when its last response has.
        shares.retain(|kept, share| &**kept == name || Arc::strong_count(share) > 1);
        let share = shares.entry(name.into()).or_insert_with(|| {
            Arc::new(Share {
                name: name.into(),
                ledger: Arc::downgrade(self),
                limit: AtomicU64::new(limit),
                used: AtomicU64::new(0),
                queue: Mutex::default(),
            })
        });
        share.limit.store(limit, Ordering::Relaxed);
        share.clone()
    }

    pub(super) fn shares(&self) -> Vec<Arc<Share>> {
        lock(&self.shares).values().cloned().collect()
    }

    pub(super) fn add_orphans(&self, places: impl Iterator<Item = Place>) {
        lock(&self.orphans).extend(places);
    }

    pub(super) fn take_orphans(&self) -> Vec<Place> {
        std::mem::take(&mut lock(&self.orphans))
    }
}

impl Share {
    /// The policy's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes stored and reserved under this policy.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Most bytes a single response may take.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Bytes above the limit.
    pub(super) fn excess(&self) -> u64 {
        self.used().saturating_sub(self.limit())
    }

    pub(super) fn ledger(&self) -> Option<Arc<Ledger>> {
        self.ledger.upgrade()
    }

    pub(super) fn stats(&self) -> ShareStats {
        let limit = self.limit();
        ShareStats { name: self.name.clone(), used: self.used(), limit: (limit != u64::MAX).then_some(limit) }
    }

    /// Puts a response at the end of the queue; returns its turn.
    pub(super) fn enqueue(&self, life: &Arc<Life>) -> u64 {
        let queued = Queued { hits: life.hits(), life: Arc::downgrade(life) };
        let mut queue = lock(&self.queue);
        queue.last += 1;
        let turn = queue.last;
        queue.order.insert(turn, queued);
        turn
    }

    /// Takes a response out of the queue, if it is still there.
    pub(super) fn dequeue(&self, turn: u64) {
        lock(&self.queue).order.remove(&turn);
    }

    /// Takes the oldest living response out of the queue, passing over a few that were used since.
    pub(super) fn oldest(&self) -> Option<Arc<Life>> {
        let mut chances = SECOND_CHANCES;
        loop {
            // The lock is free again before a life is looked at: the last holder of one takes it to dequeue it.
            let (_, Queued { life, hits }) = lock(&self.queue).order.pop_first()?;
            let Some(life) = life.upgrade().filter(|life| !life.is_dead()) else { continue };
            if life.hits() == hits || chances == 0 {
                return Some(life);
            }
            chances -= 1;
            life.line_up();
        }
    }

    /// Responses in the queue.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        lock(&self.queue).order.len()
    }
}

/// What has no room for a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The policy's share.
    Share,
    /// The store.
    Store,
}

/// Adds to a sum that may not pass `limit`; `None` = it would, and is as before.
fn add_within(sum: &AtomicU64, more: u64, limit: u64) -> Option<()> {
    let added = |sum: u64| sum.checked_add(more).filter(|sum| *sum <= limit);
    sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added).ok().map(|_| ())
}

/// Bytes written down in the books, given back when released or dropped.
#[derive(Debug)]
pub(super) struct Charge {
    share: Arc<Share>,
    /// `None` once released: a late change must not charge what is gone.
    bytes: Mutex<Option<u64>>,
}

impl Charge {
    pub(super) fn new(share: Arc<Share>) -> Self {
        Self { share, bytes: Mutex::new(Some(0)) }
    }

    pub(super) fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// What it is worth; 0 once released.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.bytes).unwrap_or_default()
    }

    /// Makes the charge worth `bytes`, unless it is released: for what is there already, whether there is room or not.
    pub(super) fn set(&self, bytes: u64) {
        if let Some(before) = lock(&self.bytes).as_mut() {
            self.book(std::mem::replace(before, bytes), bytes);
        }
    }

    /// Makes the charge worth `bytes` where that fits both the share and the store, which are full for everybody from then
    /// on: nobody ever sees more charged than there is. Nothing happens once it is released.
    ///
    /// # Errors
    /// Which of the two has no room; the charge is as before.
    pub(super) fn raise(&self, bytes: u64) -> Result<(), Full> {
        let mut place = lock(&self.bytes);
        let Some(before) = place.as_mut() else { return Ok(()) };
        let Some(more) = bytes.checked_sub(*before) else {
            self.book(std::mem::replace(before, bytes), bytes);
            return Ok(());
        };
        add_within(&self.share.used, more, self.share.limit()).ok_or(Full::Share)?;
        if let Some(ledger) = self.share.ledger()
            && add_within(&ledger.used, more, ledger.size()).is_none()
        {
            self.share.used.fetch_sub(more, Ordering::Relaxed);
            return Err(Full::Store);
        }
        *before = bytes;
        Ok(())
    }

    /// Gives everything back, once and for all.
    pub(super) fn release(&self) {
        if let Some(bytes) = lock(&self.bytes).take() {
            self.book(bytes, 0);
        }
    }

    /// Enters the difference. Wrapping addition makes a negative one work; the sums never fall below zero.
    fn book(&self, before: u64, after: u64) {
        let change = after.wrapping_sub(before);
        self.share.used.fetch_add(change, Ordering::Relaxed);
        if let Some(ledger) = self.share.ledger() {
            ledger.used.fetch_add(change, Ordering::Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release();
    }
}

/// Body bytes in memory, counted until the last holder drops them; what the books give back on eviction may live on in
/// readers.
#[derive(Debug)]
pub(super) struct Hold {
    ledger: Arc<Ledger>,
    bytes: AtomicU64,
}

impl Hold {
    pub(super) fn new(ledger: &Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self { ledger: Arc::clone(ledger), bytes: AtomicU64::new(0) })
    }

    /// Corrects the count. Wrapping addition makes a negative change work; the sum never falls below zero.
    pub(super) fn set(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        self.ledger.held.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A poisoned lock means a panic between plain updates of lists and numbers; they are still usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
