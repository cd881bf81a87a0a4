//! Room in a pool, over all workers and generations: how many exchanges are under way, and the queue of those who wait.
//!
//! Who finds a pool full joins one FIFO. The first in it is woken by every slot that comes free, on whatever worker, and
//! nobody overtakes: as long as somebody waits, a newcomer joins the queue. Only those who wait take its lock, and those
//! who give a slot back while somebody waits. In pools without bounds of their own nothing here is touched.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::farm::Farm;
use crate::policy::adaptive::{Adaptive, AdaptiveParams};
use crate::policy::health::outlier::Outliers;
use crate::policy::retry::budget::Budget;

/// See the module. Sequential consistency throughout: who gives back writes the count and then looks for waiters, who
/// waits joins and then looks at the count, and one of them must see the other.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Exchanges under way that were counted when they began.
    in_flight: AtomicU32,
    /// As many as are in `queue`.
    waiting: AtomicU32,
    queue: Mutex<Queue>,
    /// What the failures of its endpoints add up to.
    pub(super) outliers: Mutex<Outliers>,
    adaptive: Mutex<Adaptive>,
    /// What `adaptive` has found; 0 = nothing yet.
    limit: AtomicU32,
    pub(super) budget: Mutex<Budget>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    queued: AtomicU64,
    full: AtomicU64,
    timeouts: AtomicU64,
    retries: AtomicU64,
    retries_denied: AtomicU64,
    hedges: AtomicU64,
}

/// A reading of a pool's counters; they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounters {
    /// Exchanges that have waited.
    pub queued: u64,
    /// Exchanges that found the queue full.
    pub full: u64,
    /// Exchanges that have waited in vain.
    pub timeouts: u64,
    /// Attempts that repeated another, hedges included.
    pub retries: u64,
    /// Attempts that were not repeated because the budget was spent.
    pub retries_denied: u64,
    /// Attempts made beside another that was slow.
    pub hedges: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<(u64, Arc<Notify>)>,
    next: u64,
}

impl Queue {
    fn wake_first(&self) {
        if let Some((_, first)) = self.waiters.front() {
            first.notify_one();
        }
    }
}

impl Room {
    /// Exchanges that wait.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Exchanges under way that were counted.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What the pool may have in flight by itself: the smaller of both bounds.
    pub(super) fn limit(&self, fixed: Option<u32>, adaptive: Option<&AdaptiveParams>) -> u32 {
        let found = self.limit.load(Ordering::Relaxed);
        let adaptive = adaptive.map_or(u32::MAX, |params| found.clamp(params.min, params.max));
        adaptive.min(fixed.unwrap_or(u32::MAX))
    }

    /// Counts one exchange more, unless `limit` are counted.
    pub(super) fn enter(self: &Arc<Self>, limit: u32) -> Option<Entry> {
        let room = |taken: u32| (taken < limit).then(|| taken + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::Relaxed, room).ok()?;
        Some(Entry { room: Arc::clone(self), farm: None, used: true })
    }

    /// Takes an attempt that ended into the limit. Loses it when another worker is doing so this very moment.
    pub(super) fn learn(&self, took: Duration, failed: bool, now: Duration, params: &AdaptiveParams) {
        let Ok(mut adaptive) = self.adaptive.try_lock() else { return };
        if let Some(limit) = adaptive.observe(took, failed, self.in_flight(), now, params) {
            self.limit.store(limit, Ordering::Relaxed);
        }
    }

    /// A place at the end of the queue; `None` when `max` wait already.
    pub(super) fn join(self: &Arc<Self>, max: u32) -> Option<Ticket> {
        let mut queue = self.queue();
        if queue.waiters.len() >= max as usize {
            self.counters.full.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let (number, called) = (queue.next, Arc::new(Notify::new()));
        queue.next += 1;
        queue.waiters.push_back((number, Arc::clone(&called)));
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.counters.queued.fetch_add(1, Ordering::Relaxed);
        // What was given back before this is seen by whoever looks after it.
        fence(Ordering::SeqCst);
        if queue.waiters.len() == 1 {
            // A slot may have come free before anybody waited for it.
            queue.wake_first();
        }
        Some(Ticket { room: Arc::clone(self), number, called })
    }

    /// Has the first who waits look again.
    pub(super) fn wake(&self) {
        if self.waiting() > 0 {
            self.queue().wake_first();
        }
    }

    /// Counts an exchange that has waited in vain.
    pub(super) fn count_timeout(&self) {
        self.counters.timeouts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a repeated attempt, or that the budget was spent.
    pub(super) fn count_retry(&self, allowed: bool) {
        let counter = if allowed { &self.counters.retries } else { &self.counters.retries_denied };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a hedge.
    pub(super) fn count_hedge(&self) {
        self.counters.hedges.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> PoolCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { queued, full, timeouts, retries, retries_denied, hedges } = &self.counters;
        PoolCounters {
            queued: read(queued),
            full: read(full),
            timeouts: read(timeouts),
            retries: read(retries),
            retries_denied: read(retries_denied),
            hedges: read(hedges),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted exchange; not counted any more when dropped.
#[derive(Debug)]
pub(super) struct Entry {
    room: Arc<Room>,
    /// Where it is counted too.
    farm: Option<Arc<Farm>>,
    /// Its end makes room.
    used: bool,
}

impl Entry {
    /// The same, counted among all that goes to the farm; `None` when that is too much already.
    pub(super) fn within(mut self, farm: &Arc<Farm>) -> Option<Self> {
        if farm.is_bounded() {
            farm.enter().then_some(())?;
            self.farm = Some(Arc::clone(farm));
        }
        Some(self)
    }

    /// Not counted any more, and nobody woken: whoever found no endpoint would otherwise wake himself for ever.
    pub(super) fn give_up(mut self) {
        self.used = false;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(farm) = &self.farm {
            farm.leave();
        }
        self.room.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.used {
            self.room.wake();
        }
    }
}

/// A place in the queue; given up when dropped, and the next one is first.
#[derive(Debug)]
pub(super) struct Ticket {
    room: Arc<Room>,
    number: u64,
    called: Arc<Notify>,
}

impl Ticket {
    /// Waits until it is the first one's turn to look, this being the first.
    pub(super) async fn called(&self) {
        self.called.notified().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut queue = self.room.queue();
        if let Some(place) = queue.waiters.iter().position(|(number, _)| *number == self.number) {
            queue.waiters.remove(place);
            self.room.waiting.fetch_sub(1, Ordering::SeqCst);
            if place == 0 {
                // There may be room for more than one.
                queue.wake_first();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Whether the ticket's turn has come; the call is used up.
    fn is_called(ticket: &Ticket) -> bool {
        ticket.called().now_or_never().is_some()
    }

    #[test]
    fn the_first_is_woken_and_nobody_else() {
        let room = Arc::new(Room::default());
        let entry = room.enter(1).expect("room");
        assert!(room.enter(1).is_none());
        let (first, second) = (room.join(2).expect("a place"), room.join(2).expect("a place"));
        assert!(room.join(2).is_none(), "the queue is full");
        assert!(is_called(&first), "whoever is first when joining looks at once");
        assert!(!is_called(&first) && !is_called(&second));
        drop(entry);
        assert!(is_called(&first) && !is_called(&second));
        drop(first);
        assert!(is_called(&second), "the next one is first");
        drop(second);
        assert_eq!((room.waiting(), room.in_flight()), (0, 0));
        assert_eq!(room.counters(), PoolCounters { queued: 2, full: 1, ..PoolCounters::default() });
    }

    #[test]
    fn who_leaves_from_the_middle_wakes_nobody() {
        let room = Arc::new(Room::default());
        let tickets: Vec<_> = (0..3).filter_map(|_| room.join(9)).collect();
        let [first, second, third] = tickets.try_into().expect("three");
        assert!(is_called(&first));
        drop(second);
        assert!(!is_called(&first) && !is_called(&third));
        room.wake();
        assert!(is_called(&first));
    }
}
