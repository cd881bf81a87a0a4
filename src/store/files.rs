//! Large bodies that plain connections ask for often move into files of memory, from which the kernel sends them without
//! a copy (a third of the cost of a hit on 100 KiB).
//!
//! The move is made by [`Store::housekeep`], never by an exchange; readers of the old place go on reading there. It costs
//! a descriptor, so there is a bound to how many bodies may stand in files; the others stay where they are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::process::{Resource, getrlimit};

use super::Store;
use super::base::{Base, Life};
use super::ledger::{Hold, lock};
use super::memory::Place;

/// Smallest body worth a file: below it a copy costs no more than taking pages does.
const FILE_MIN: u64 = 64 * 1024;

/// Hits before a body moves: the move costs about as much as three of them.
const FILE_HITS: u64 = 4;

/// The part of the process's descriptors that bodies may take, as a divisor, and the most they take whatever there are.
const DESCRIPTORS_SHARE: u64 = 8;
const FILES_MAX: u64 = 16_384;

/// Bodies that may wait to be moved, and the bytes moved in one go; what is beyond them asks again on its next hit.
const ASKED_MAX: usize = 256;
const MOVED_AT_ONCE: u64 = 64 * 1024 * 1024;

/// Which bodies are to move, and how many have.
#[derive(Debug)]
pub(super) struct Files {
    asked: Mutex<Vec<Weak<Life>>>,
    most: usize,
    open: Arc<AtomicUsize>,
}

impl Files {
    /// With the bound that the process's descriptors allow now.
    pub(super) fn new() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = (descriptors / DESCRIPTORS_SHARE).min(FILES_MAX);
        Self { asked: Mutex::default(), most: usize::try_from(most).unwrap_or(usize::MAX), open: Arc::default() }
    }

    /// Bodies in files now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// What lives as long as a body in a file: its place among the files, and its bytes in the books.
#[derive(Debug)]
struct Seat {
    open: Arc<AtomicUsize>,
    _hold: Arc<Hold>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Store {
    /// Notes that a connection would have the body of `base` from a file. Cost: two loads once it stands in one, or is too
    /// small to; else up to four, and a lock once in its life.
    pub fn prefer_file(&self, base: &Base) {
        let body = base.body();
        if body.is_in_file() || body.remaining() < FILE_MIN || base.life().hits() < FILE_HITS {
            return;
        }
        let files = &self.0.files;
        if files.open() >= files.most || base.life().is_moving() {
            return;
        }
        let mut asked = lock(&files.asked);
        if asked.len() < ASKED_MAX && base.life().begin_move() {
            asked.push(Arc::downgrade(base.life()));
        }
    }

    /// Moves bodies that were asked for.
    pub(super) fn move_into_files(&self) {
        let mut moved = 0;
        while moved < MOVED_AT_ONCE {
            let Some(life) = lock(&self.0.files.asked).pop() else { return };
            let Some(base) = life.upgrade().and_then(|life| self.base(&life)) else { continue };
            moved += base.bytes();
            if let Err(error) = self.move_into_file(&base) {
                tracing::debug!(%error, "a body stays out of a file");
            }
        }
    }

    fn move_into_file(&self, base: &Base) -> std::io::Result<()> {
        let files = &self.0.files;
        if files.open.fetch_add(1, Ordering::Relaxed) >= files.most {
            files.open.fetch_sub(1, Ordering::Relaxed);
            return Ok(());
        }
        let hold = Hold::new(&self.0.ledger);
        hold.set(base.body().remaining());
        let body = base.body().in_file(Arc::new(Seat { open: Arc::clone(&files.open), _hold: hold }))?;
        let life = base.life();
        if self.reserve(life.share(), life.entry(), base.with_body(body.clone()).bytes()).is_err() {
            return Ok(());
        }
        let mut bytes = None;
        self.0.memory.update(Place::Primary(life.key().hash), |slot| {
            // Its head may be a newer one by now; its body is the same for all of its life.
            let moved = |kept: &Arc<Base>| match kept.life().id() == life.id() {
                true => {
                    let moved = kept.with_body(body.clone());
                    bytes = Some(moved.bytes());
                    Arc::new(moved)
                }
                false => Arc::clone(kept),
            };
            slot.filter(|_| !life.is_dead()).map(|slot| slot.iter().map(moved).collect())
        });
        if let Some(bytes) = bytes {
            life.entry().set(bytes);
        }
        Ok(())
    }
}
