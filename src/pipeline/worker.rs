//! What one worker thread brings to its exchanges: its view of the snapshot, its connections, its counters.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::workshop::Workshop;
use crate::clock::{Clock, Now};
use crate::observe::{AccessLog, AccessLogHandle, WorkerMetrics};
use crate::policy::fields::Identity;
use crate::snapshot::{Current, Snapshot};
use crate::store::{Purger, Store};
use crate::upstream::Connections;

/// Fetches that no client waits for, at a time, of one worker: enough to fill a few hundred objects of ordinary size a
/// second, too few to crowd out those who wait.
const MAX_BEHIND: usize = 16;

/// What all workers share. Everything here is thread-safe and outlives reloads.
pub struct Shared {
    /// The running snapshot.
    pub current: Arc<Current>,
    /// What is kept, and the fetches and encodings under way.
    pub store: Store,
    /// Forgets what is stored.
    pub purger: Purger,
    /// Makes better children.
    pub workshop: Workshop,
    /// Follows `log.access` by itself.
    pub access_log: AccessLog,
    /// How this process names itself in `Via`.
    pub identity: Identity,
    /// Where `now` comes from.
    pub clock: Clock,
}

/// One worker's part; never leaves its thread.
pub struct Worker {
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// Idle upstream connections and the state of the pickers.
    pub connections: Rc<Connections>,
    /// This worker's counters.
    pub metrics: WorkerMetrics,
    /// Where access records go.
    pub access_log: AccessLogHandle,
    /// Places for fetches that no client waits for.
    pub behind: Arc<Semaphore>,
    snapshot: RefCell<arc_swap::cache::Cache<SnapshotSource, Arc<Snapshot>>>,
    random: Cell<u64>,
    refreshes: Cell<usize>,
}

/// Most fetches behind answers that one worker makes at a time. Each holds an upstream connection: they must not crowd
/// out the requests somebody waits for, and what is not begun now is begun by the next request.
const MAX_REFRESHES: usize = 64;

/// One of [`MAX_REFRESHES`], until it is dropped.
pub(super) struct RefreshSlot(Rc<Worker>);

impl Drop for RefreshSlot {
    fn drop(&mut self) {
        self.0.refreshes.set(self.0.refreshes.get() - 1);
    }
}

/// Lets the cache reach the `ArcSwap` through the shared handle.
#[derive(Clone)]
struct SnapshotSource(Arc<Current>);

impl std::ops::Deref for SnapshotSource {
    type Target = ArcSwap<Snapshot>;

    fn deref(&self) -> &Self::Target {
        self.0.swap()
    }
}

impl Worker {
    /// A worker. `seed` starts its random numbers.
    #[must_use]
    pub fn new(shared: Arc<Shared>, metrics: WorkerMetrics, seed: u64) -> Self {
        let source = SnapshotSource(Arc::clone(&shared.current));
        Self {
            access_log: shared.access_log.handle(),
            shared,
            connections: Rc::new(Connections::new()),
            metrics,
            behind: Arc::new(Semaphore::new(MAX_BEHIND)),
            snapshot: RefCell::new(arc_swap::cache::Cache::new(source)),
            random: Cell::new(seed),
            refreshes: Cell::new(0),
        }
    }

    /// The right to fetch something behind an answer; `None` when [`MAX_REFRESHES`] are under way.
    pub(super) fn refresh_slot(self: &Rc<Self>) -> Option<RefreshSlot> {
        let under_way = self.refreshes.get();
        (under_way < MAX_REFRESHES).then(|| {
            self.refreshes.set(under_way + 1);
            RefreshSlot(Rc::clone(self))
        })
    }

    /// Takes up a published snapshot: lets go of connections to endpoints it no longer has.
    pub fn follow(&self, snapshot: &Snapshot) {
        self.connections.follow(&snapshot.pools);
    }

    /// What wants doing about once a second.
    pub fn sweep(&self) {
        self.connections.sweep(self.now());
        self.snapshot().pools.iter().for_each(|pool| pool.tick());
    }

    /// The running snapshot as of now. Cost: one atomic load, and an increment for the caller's handle.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(self.snapshot.borrow_mut().load())
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Now {
        self.shared.clock.now()
    }

    /// A random number for a policy to decide with (SplitMix64: quick, not for secrets).
    #[must_use]
    pub fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
