//! Purging: what is named is out of use at once, and removed in slices.
//!
//! Purges are numbered. A fetch remembers the number of the last purge before it began, and what it brings is stored only
//! if no later one names it: by a table of the last purge of each mark ([`Purges::named_since`]) for purges that came
//! before its head, by the index for those that came behind. A purge takes three steps:
//!
//! 1. *announce*: date its marks in the table, then show itself to lookups, then take the next number;
//! 2. *walk*: mark what is stored or on its way in as dead (or stale, when soft), a slice at a time;
//! 3. *settle*: take itself from view; whatever it named is marked by now.
//!
//! One walks at a time, the others wait in a queue, so a lookup has at most one purge to compare with, and none most of
//! the time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::base::{Base, Life};
use super::index::{At, Index, Mark, SHARDS, portless};
use super::ledger::lock;
use super::memory::Place;
use super::{Seeds, Store};
use crate::policy::cache::key::{CacheKey, Location};
use crate::policy::cache::purge::Target;
use crate::policy::route::behind_prefix;

/// Dates of purges; marks share one by hash. Sharing one costs a fill that is not stored, nothing else; at this number
/// (512 KiB) a thousand purges during a fetch cost one fetch in sixty its place in the store.
const DATES: usize = 65_536;

/// Responses marked between two breaths: a few microseconds each, and a tenth of a millisecond where moka's table makes a
/// segment anew for having lost so many.
const SLICE: usize = 8;

/// Characters of what was purged that the log shows.
const LOGGED_MAX: usize = 256;

/// Keys named in the answer to a dry run.
pub const SAMPLE_MAX: usize = 100;

/// What is to be purged.
#[derive(Debug, Clone)]
pub struct Purge {
    /// What it reaches.
    pub target: Target,
    /// For [`Target::Url`]: every location the URL has, since policies differ in what they leave out of it.
    pub urls: Vec<Location>,
    /// Only what these cache policies keep; `None` = whatever.
    pub policies: Option<Vec<Arc<str>>>,
    /// Not removed, but validated before it is used again.
    pub soft: bool,
}

/// What a purge did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purged {
    /// Stored responses that went, or that are stale now.
    pub responses: u64,
    /// Bytes of these, without what was made from them.
    pub bytes: u64,
    /// Responses on their way in, with their head there already, that are not kept, or kept as stale.
    pub arriving: u64,
    /// Keys of the first [`SAMPLE_MAX`] responses.
    pub sample: Vec<Box<str>>,
}

/// Purges since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PurgeStats {
    /// Purges, dry runs not counted.
    pub purges: u64,
    /// Stored responses they removed.
    pub removed: u64,
    /// Stored responses they made stale.
    pub softened: u64,
}

/// The numbers of purges and the one that is under way.
#[derive(Debug)]
pub(super) struct Purges {
    /// Number of the last purge or invalidation; 0 before the first.
    number: AtomicU64,
    dates: Box<[AtomicU64]>,
    /// Held while a number is taken.
    announcing: std::sync::Mutex<()>,
    /// Held by the one that walks.
    walking: tokio::sync::Mutex<()>,
    is_walking: AtomicBool,
    current: ArcSwapOption<Numbered>,
    asked: AtomicU64,
    removed: AtomicU64,
    softened: AtomicU64,
}

/// What the purge under way says of a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Spared,
    /// It is stale by the purge with this number.
    Stale(u64),
    /// It is not to be used.
    Gone,
}

/// A purge under way.
#[derive(Debug)]
struct Numbered {
    number: u64,
    marks: Vec<Mark>,
    purge: Purge,
}

impl Default for Purges {
    fn default() -> Self {
        Self {
            number: AtomicU64::new(0),
            dates: std::iter::repeat_with(AtomicU64::default).take(DATES).collect(),
            announcing: std::sync::Mutex::default(),
            walking: tokio::sync::Mutex::default(),
            is_walking: AtomicBool::new(false),
            current: ArcSwapOption::empty(),
            asked: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            softened: AtomicU64::new(0),
        }
    }
}

impl Purges {
    /// The number of the last purge: what a fetch that begins now remembers.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The number of the last purge that named this mark (or one that shares its place).
    pub(super) fn date(&self, mark: Mark) -> u64 {
        self.date_of(mark).load(Ordering::Acquire)
    }

    /// True when a purge after number `began` named a response with these marks under this key. To be asked once the
    /// response is in the index: a purge that this does not see yet will find it there. Cost: one atomic load unless
    /// there was a purge meanwhile.
    pub(super) fn named_since(&self, began: u64, seeds: &Seeds, key: &CacheKey, marks: &[Mark]) -> bool {
        if self.number() == began {
            return false;
        }
        let place = key.place();
        let path = key.search.as_ref().map(|_| Mark::path(key.path_hash(seeds)));
        let marks = marks.iter().copied().chain([Mark::ALL]).chain(path);
        let mut marks = marks.chain(Mark::prefixes(seeds, place.host, place.path));
        marks.any(|mark| self.date(mark) > began)
    }

    /// Dates marks and takes the next number; `shown` is called in between.
    pub(super) fn announce(&self, marks: impl Iterator<Item = Mark>, shown: impl FnOnce(u64)) -> u64 {
        let _alone = lock(&self.announcing);
        let number = self.number() + 1;
        for mark in marks {
            self.date_of(mark).store(number, Ordering::Release);
        }
        shown(number);
        self.number.store(number, Ordering::Release);
        number
    }

    /// What the purge under way says of a stored response. Cost: one atomic load while there is none.
    pub(super) fn verdict(&self, base: &Base) -> Verdict {
        if !self.is_walking.load(Ordering::Acquire) {
            return Verdict::Spared;
        }
        let current = self.current.load();
        match current.as_ref().filter(|current| base.since() < current.number) {
            Some(current) if current.names(base.life(), base.marks()) => {
                if current.purge.soft {
                    Verdict::Stale(current.number)
                } else {
                    Verdict::Gone
                }
            }
            _ => Verdict::Spared,
        }
    }

    pub(super) fn stats(&self) -> PurgeStats {
        PurgeStats {
            purges: self.asked.load(Ordering::Relaxed),
            removed: self.removed.load(Ordering::Relaxed),
            softened: self.softened.load(Ordering::Relaxed),
        }
    }

    fn date_of(&self, mark: Mark) -> &AtomicU64 {
        static UNREACHABLE: AtomicU64 = AtomicU64::new(0);
        let place = usize::try_from(mark.0 % DATES as u128).unwrap_or_default();
        self.dates.get(place).unwrap_or(&UNREACHABLE)
    }
}

impl Numbered {
    /// True when it names a response with these marks.
    fn names(&self, life: &Life, marks: &[Mark]) -> bool {
        if self.purge.policies.as_ref().is_some_and(|names| !names.iter().any(|name| **name == *life.share().name())) {
            return false;
        }
        // A host without a port stands for all of its ports.
        let host_is = |host: &str, wanted: &str| host == wanted || portless(host) == wanted;
        match &self.purge.target {
            Target::All => true,
            Target::Url { .. } | Target::Tags(_) | Target::Groups { .. } => {
                self.marks.iter().any(|mark| marks.binary_search(mark).is_ok())
            }
            Target::Host(host) => host_is(life.key().place().host, host),
            Target::Prefix { host, path } => {
                let place = life.key().place();
                host_is(place.host, host) && behind_prefix(place.path, path).is_some()
            }
        }
    }
}

/// A walk over what a purge names; takes up where it stopped.
struct Walk {
    /// Marks to go through; empty = everything.
    marks: Vec<Mark>,
    /// Which of them, or which shard.
    turn: usize,
    /// Where in it.
    from: u64,
    after: Option<At>,
    /// Ids that came up already; kept only where one response may come up by several marks.
    seen: BTreeSet<u64>,
}

impl Walk {
    fn new(purge: &Numbered) -> Self {
        let marks = if purge.purge.target == Target::All { Vec::new() } else { purge.marks.clone() };
        Self { marks, turn: 0, from: 0, after: None, seen: BTreeSet::new() }
    }

    /// The next few, each once; `None` at the end.
    fn next(&mut self, index: &Index) -> Option<Vec<Arc<Life>>> {
        if self.marks.is_empty() {
            return self.next_of_all(index);
        }
        let mark = *self.marks.get(self.turn)?;
        match index.bearers(mark, self.from, SLICE) {
            Some((mut found, next)) => {
                self.from = next;
                if self.marks.len() > 1 {
                    found.retain(|life| self.seen.insert(life.id()));
                }
                Some(found)
            }
            None => {
                (self.turn, self.from) = (self.turn + 1, 0);
                Some(Vec::new())
            }
        }
    }

    fn next_of_all(&mut self, index: &Index) -> Option<Vec<Arc<Life>>> {
        match index.walk(self.turn, self.after, SLICE) {
            Some((found, last)) => {
                self.after = Some(last);
                // By its URL alone, which everything has once.
                let own = found.into_iter().filter(|(mark, life)| *mark == Mark::url(life.key().uri));
                Some(own.map(|(_, life)| life).collect())
            }
            None => {
                (self.turn, self.after) = (self.turn + 1, None);
                (self.turn < SHARDS).then(Vec::new)
            }
        }
    }
}

impl Store {
    /// Carries out a purge: it holds for every lookup from its first instant on, and everything it names is marked when
    /// this returns. Works in slices of well under a millisecond and yields in between.
    ///
    /// To be run to its end, in a task of its own ([`Purger`]); dropped half way, what was not reached stays.
    pub async fn purge(&self, purge: Purge) -> Purged {
        let purges = &self.0.purges;
        let _turn = purges.walking.lock().await;
        let marks = self.marks_of(&purge);
        let dated = self.dated(&purge, &marks);
        let settle = Settle { purges };
        let show = |number, marks| {
            let numbered = Arc::new(Numbered { number, marks, purge: purge.clone() });
            purges.current.store(Some(numbered.clone()));
            purges.is_walking.store(true, Ordering::Release);
            numbered
        };
        let mut shown = None;
        let number = purges.announce(dated.into_iter(), |number| shown = Some(show(number, marks)));
        // A fetch may have stated a rule that nothing was stored by before; one that does so from now on heeds the number.
        let marks = self.marks_of(&purge);
        let numbered = shown.filter(|shown| shown.marks == marks).unwrap_or_else(|| show(number, marks));
        let mut purged = Purged::default();
        let mut walk = Walk::new(&numbered);
        while let Some(found) = walk.next(&self.0.ledger.index) {
            for life in found {
                self.strike(&numbered, &life, &mut purged);
            }
            // What moka has to do about it is done here: else whichever worker comes next would.
            self.0.memory.maintain();
            tokio::task::yield_now().await;
        }
        let counter = if numbered.purge.soft { &purges.softened } else { &purges.removed };
        counter.fetch_add(purged.responses, Ordering::Relaxed);
        drop(settle);
        purges.asked.fetch_add(1, Ordering::Relaxed);
        purged
    }

    /// What a purge would do.
    pub async fn purge_dry(&self, purge: Purge) -> Purged {
        let marks = self.marks_of(&purge);
        let numbered = Numbered { number: u64::MAX, marks, purge };
        let mut purged = Purged::default();
        let mut walk = Walk::new(&numbered);
        while let Some(found) = walk.next(&self.0.ledger.index) {
            for life in found.iter().filter(|life| !life.is_dead() && numbered.names(life, &life.marks())) {
                count(life, &mut purged);
            }
            tokio::task::yield_now().await;
        }
        purged
    }

    /// Begins to remove every response stored for a URI ([`CacheKey::uri`]), whatever scheme, policy and key made of it,
    /// and keeps fetches in flight from being stored.
    pub(super) fn invalidate(&self, uri: u128) -> Invalidating {
        let mark = Mark::url(uri);
        self.0.purges.announce(std::iter::once(mark), |_| ());
        Invalidating { store: self.clone(), marks: vec![mark], from: 0, removed: 0 }
    }

    /// The same for every response that answers a URL, for it exactly or by what its origin said of queries.
    pub(super) fn invalidate_url(&self, url: &Location) -> Invalidating {
        self.0.purges.announce([Mark::url(url.uri), Mark::path(url.place)].into_iter(), |_| ());
        Invalidating { store: self.clone(), marks: self.marks_of_url(url).collect(), from: 0, removed: 0 }
    }

    /// Marks one response, if the purge names it.
    fn strike(&self, numbered: &Numbered, life: &Arc<Life>, purged: &mut Purged) {
        if life.born() >= numbered.number || life.is_dead() || !numbered.names(life, &life.marks()) {
            return;
        }
        if numbered.purge.soft {
            life.soften(numbered.number);
            return count(life, purged);
        }
        let mut found = Purged::default();
        count(life, &mut found);
        if self.remove_life(life) || found.responses == 0 {
            purged.responses += found.responses;
            purged.bytes += found.bytes;
            purged.arriving += found.arriving;
            purged.sample.extend(found.sample);
        }
    }

    /// Ends a life: takes it out of its slot when it is stored, keeps it from being stored when it is not. True when it
    /// was stored.
    fn remove_life(&self, life: &Arc<Life>) -> bool {
        life.doom();
        life.is_stored() && self.remove(Place::Primary(life.key().hash), |base| base.life().id() == life.id()) > 0
    }

    /// The marks under which the index has what a purge names.
    fn marks_of(&self, purge: &Purge) -> Vec<Mark> {
        let seeds = &self.0.seeds;
        match &purge.target {
            Target::Url { .. } => purge.urls.iter().flat_map(|url| self.marks_of_url(url)).collect(),
            Target::Tags(tags) => tags.iter().map(|tag| Mark::tag(seeds, tag)).collect(),
            Target::Groups { scheme, host, groups } => {
                groups.iter().map(|group| Mark::group(seeds, scheme, host, group)).collect()
            }
            Target::Host(host) | Target::Prefix { host, .. } => vec![Mark::site(seeds, host)],
            Target::All => Vec::new(),
        }
    }

    /// The marks of what answers a URL: what is stored for it exactly, and by each rule of its path.
    fn marks_of_url(&self, url: &Location) -> impl Iterator<Item = Mark> {
        let rules = self.0.ledger.rules.of(url.place).into_iter();
        let by_rule: Vec<_> = rules.map(|rule| Mark::url(url.under(&rule, &self.0.seeds))).collect();
        std::iter::once(Mark::url(url.uri)).chain(by_rule)
    }

    /// The marks whose date a purge moves.
    fn dated(&self, purge: &Purge, marks: &[Mark]) -> Vec<Mark> {
        match &purge.target {
            Target::Url { .. } => {
                let paths = purge.urls.iter().map(|url| Mark::path(url.place));
                marks.iter().copied().chain(paths).collect()
            }
            Target::Tags(_) | Target::Groups { .. } | Target::Host(_) => marks.to_vec(),
            Target::Prefix { host, path } => Mark::prefixes(&self.0.seeds, host, path).last().into_iter().collect(),
            Target::All => vec![Mark::ALL],
        }
    }
}

/// A walk over what is stored for a URL, which removes it.
pub(super) struct Invalidating {
    store: Store,
    /// What is still to be walked, the last first.
    marks: Vec<Mark>,
    from: u64,
    pub(super) removed: usize,
}

impl Invalidating {
    /// Removes the next few; false when that was all.
    pub(super) fn step(&mut self) -> bool {
        let index = &self.store.0.ledger.index;
        while let Some(mark) = self.marks.last().copied() {
            let found = index.bearers(mark, self.from, SLICE);
            if let Some((found, next)) = &found {
                self.removed += found.iter().filter(|life| self.store.remove_life(life)).count();
                self.from = *next;
                if index.bearers(mark, *next, 1).is_some() {
                    return true;
                }
            }
            self.marks.pop();
            self.from = 0;
            if found.is_some() {
                return !self.marks.is_empty();
            }
        }
        false
    }
}

/// Takes a purge from view, however its walk ends.
struct Settle<'a> {
    purges: &'a Purges,
}

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        self.purges.is_walking.store(false, Ordering::Release);
        self.purges.current.store(None);
    }
}

fn count(life: &Life, purged: &mut Purged) {
    if !life.is_stored() {
        purged.arriving += 1;
        return;
    }
    purged.responses += 1;
    purged.bytes += life.entry().bytes();
    if purged.sample.len() < SAMPLE_MAX {
        purged.sample.push(life.key().text.clone());
    }
}

/// Runs purges beside the workers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Purger {
    store: Store,
    beside: Handle,
}

impl Purger {
    /// Purges of `store`, walked on the runtime `beside`.
    #[must_use]
    pub fn new(store: Store, beside: Handle) -> Self {
        Self { store, beside }
    }

    /// Removes every response stored for a URI ([`CacheKey::uri`]), whatever scheme, policy and key made of it, and keeps
    /// fetches in flight from being stored. Most URIs have few, which are gone when this returns; of one that has many the
    /// others go beside the workers, and are gone when the task has ended. It goes on when nobody waits for it.
    pub fn invalidate(&self, uri: u128) -> Option<JoinHandle<()>> {
        self.finish(self.store.invalidate(uri))
    }

    /// The same for every response that answers a URL, for it exactly or by what its origin said of queries.
    pub fn invalidate_url(&self, url: &Location) -> Option<JoinHandle<()>> {
        self.finish(self.store.invalidate_url(url))
    }

    fn finish(&self, mut invalidating: Invalidating) -> Option<JoinHandle<()>> {
        invalidating.step().then(|| {
            self.beside.spawn(async move {
                while invalidating.step() {
                    tokio::task::yield_now().await;
                }
            })
        })
    }

    /// Carries a purge out and says so in the process log, or counts what it would do. `by` is who asked. It goes on when
    /// the future is dropped.
    pub async fn run(&self, purge: Purge, by: &str, dry: bool) -> Purged {
        let (store, by) = (self.store.clone(), by.to_owned());
        let walked = self.beside.spawn(async move {
            if dry {
                return store.purge_dry(purge).await;
            }
            let (kind, soft) = (purge.target.kind(), purge.soft);
            let what: String = purge.target.to_string().chars().take(LOGGED_MAX).collect();
            let purged = store.purge(purge).await;
            let Purged { responses, bytes, arriving, .. } = purged;
            // Quoted, for much of it is the sender's text.
            tracing::info!(target: "tidegate::purge", by, kind, what = ?what, soft, responses, bytes, arriving, "purged");
            purged
        });
        // It fails only when the runtime ends, and the process with it.
        walked.await.unwrap_or_default()
    }
}
