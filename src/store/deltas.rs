//! What became of the making of each delta of a stored response, readable without a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::ledger::lock;
use crate::policy::dictionary::Delta;
use crate::policy::optimise::Made;

/// Most deltas of one response. What a client offers decides which are made, so there must be an end; with two codings
/// this is the newest versions of a file.
pub const MAX_DELTAS: usize = 8;

/// The deltas of one life.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    records: ArcSwapOption<Vec<Arc<DeltaRecord>>>,
    /// Held while one is added.
    adding: Mutex<()>,
}

impl Deltas {
    /// The record of this delta, made where it is the first time that somebody asks; `None` where there are [`MAX_DELTAS`]
    /// others. Cost: a load and a few comparisons; a short lock the first time.
    pub(super) fn record(&self, delta: Delta, rules: u64) -> Option<Arc<DeltaRecord>> {
        let find = || {
            let records = self.records.load();
            records.as_ref()?.iter().find(|record| record.delta == delta && record.rules == rules).cloned()
        };
        if let Some(found) = find() {
            return Some(found);
        }
        let _adding = lock(&self.adding);
        if let Some(found) = find() {
            return Some(found);
        }
        let former = self.records.load();
        let mut records = former.as_deref().cloned().unwrap_or_default();
        if records.len() >= MAX_DELTAS {
            return None;
        }
        let record = Arc::new(DeltaRecord::new(delta, rules));
        records.push(Arc::clone(&record));
        self.records.store(Some(Arc::new(records)));
        Some(record)
    }
}

/// What became of one delta.
#[derive(Debug)]
pub struct DeltaRecord {
    delta: Delta,
    /// Fingerprint of the optimisers that made the body it gives back; 0 = none.
    rules: u64,
    /// One of the states below, and the level of a child above them.
    word: AtomicU64,
    hits: AtomicU64,
    /// Somebody has asked for the strongest level.
    strengthened: AtomicBool,
    settled: Notify,
}

const UNASKED: u64 = 0;
const UNDER_WAY: u64 = 1;
const NOTHING: u64 = 2;
const CHILD: u64 = 3;

impl DeltaRecord {
    fn new(delta: Delta, rules: u64) -> Self {
        Self {
            delta,
            rules,
            word: AtomicU64::new(UNASKED),
            hits: AtomicU64::new(0),
            strengthened: AtomicBool::new(false),
            settled: Notify::new(),
        }
    }

    /// Which coding and dictionary it is about.
    #[must_use]
    pub fn delta(&self) -> Delta {
        self.delta
    }

    /// Fingerprint of the optimisers that made the body it gives back; 0 = none.
    #[must_use]
    pub fn rules(&self) -> u64 {
        self.rules
    }

    /// What became of it. Cost: one atomic load.
    #[must_use]
    pub fn made(&self) -> Made {
        let word = self.word.load(Ordering::Acquire);
        match word & 0xff {
            UNDER_WAY => Made::UnderWay,
            NOTHING => Made::Nothing,
            CHILD => Made::Child { level: word.to_le_bytes()[1], rules: self.rules },
            _ => Made::Unasked,
        }
    }

    /// Claims the first making; true for one caller, who sees to it that [`DeltaRecord::settle`] is called.
    #[must_use]
    pub fn claim(&self) -> bool {
        self.word.compare_exchange(UNASKED, UNDER_WAY, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Writes down what came of it, and tells those who wait. `Unasked` lets it be asked for again.
    pub fn settle(&self, made: Made) {
        let word = match made {
            Made::Unasked => UNASKED,
            Made::UnderWay => UNDER_WAY,
            Made::Nothing => NOTHING,
            Made::Child { level, .. } => CHILD | u64::from(level) << 8,
        };
        self.word.store(word, Ordering::Release);
        self.settled.notify_waiters();
    }

    /// The child with this level is gone: it may be made again.
    pub fn forget(&self, level: u8) {
        let gone = CHILD | u64::from(level) << 8;
        let _other = self.word.compare_exchange(gone, UNASKED, Ordering::AcqRel, Ordering::Acquire);
        self.strengthened.store(false, Ordering::Relaxed);
    }

    /// Waits until it is settled, for `patience` at most; what became of it by then.
    pub async fn outcome(&self, patience: Duration) -> Made {
        let settled = self.settled.notified();
        tokio::pin!(settled);
        // From here on a notification is not missed.
        settled.as_mut().enable();
        if self.made() == Made::UnderWay {
            let _late = tokio::time::timeout(patience, settled).await;
        }
        self.made()
    }

    /// Counts a client that gets it; returns how many there were.
    pub fn touch(&self) -> u64 {
        self.hits.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Claims the making at the strongest level; true for one caller.
    #[must_use]
    pub fn claim_strong(&self) -> bool {
        !self.strengthened.load(Ordering::Relaxed) && !self.strengthened.swap(true, Ordering::Relaxed)
    }

    /// The strongest level could not be asked for.
    pub fn release_strong(&self) {
        self.strengthened.store(false, Ordering::Relaxed);
    }
}
