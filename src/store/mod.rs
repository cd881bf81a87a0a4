//! What is kept: stored responses, what was made from them, and the fetches on their way in. One store a process, shared
//! by all workers; a [`Store`] is a handle and cheap to clone.
//!
//! - A *base* is an origin's response; several stand under one primary key when they differ by `Vary`. A *child* is made
//!   from a base (a content coding); it is found through its living base only and dies with it.
//! - Bytes: the ledger counts bodies, heads, keys, children and fills in flight, and the total never exceeds the
//!   configured size. moka decides what goes when it is full, within all but [`FILL_SHARE`] of the size, which is left to
//!   fills; when fills need more, or a policy exceeds its share, the ledger evicts the oldest entries that were not used.
//! - Freshness is no business of this folder, and moka is told of no time to live: see `policy::cache`.
//! - A hit takes no lock. Storing, evicting and invalidating take short ones, never across an await.
//! - What races: a purge or an invalidation takes a number and removes afterwards; a fetch that began under a lower one
//!   and brings what it named is not stored, even when its tags show only then. [`Flights`] keeps a fetch joinable until
//!   after its response is stored, so that a request finds one or the other; a leader looks once more after joining, for
//!   the case that it came between.
//!
//! - Earlier versions of files stay as *dictionaries* when their responses are gone: see `dictionaries`.
//! - What an origin said of queries (`No-Vary-Search`) is in `search`.
//!
//! The disk tier and the fleet tier will be further files here.

mod base;
mod child;
mod deltas;
mod dictionaries;
mod files;
mod fill;
mod flight;
mod index;
mod ledger;
mod made;
mod memory;
mod peek;
mod purge;
mod search;

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;

use crate::clock::Now;
use crate::policy::cache::key::{CacheKey, Seeds};

pub use base::{Base, Head, Life, MAX_VARIANTS, RefreshTurn};
pub use child::{Child, ChildKind, MAX_CHILDREN};
pub use deltas::{DeltaRecord, MAX_DELTAS};
pub use dictionaries::{Dictionaries, Dictionary, DictionaryStats, Offer};
pub use fill::{ChildFill, ChildFilling, Fetched, Fill, Filling, NOT_SHAREABLE, NotKept, Sink};
pub use flight::{Done, Flights, FollowHandle, Joinable, Joined, Landing, LeadGuard, Outcome};
pub use ledger::{Share, ShareStats};
pub use memory::FILL_SHARE;
pub use peek::{Refusal, Shelf};
pub use purge::{Purge, PurgeStats, Purged, Purger, SAMPLE_MAX};
pub use search::MAX_RULES;

use base::Slot;
use dictionaries::Shelves;
use files::Files;
use index::Mark;
use ledger::{Full, Ledger};
use memory::{Entry, Memory, Place};
use purge::{Purges, Verdict};

/// How long it is remembered that answers for a key cannot be stored, so that requests for it do not wait for each other
/// in vain. Short, since the verdict may change with the next answer; long enough to spare a busy URL the queueing.
pub const HIT_FOR_MISS: Duration = Duration::from_secs(10);

/// Identifies one fetch: primary key and variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FetchKey {
    /// [`CacheKey::hash`]
    pub primary: u128,
    /// `Selecting::hash` of the variant that is fetched; 0 while nothing is known to vary.
    pub variant: u64,
    /// What is asked for.
    pub asked: Asked,
}

/// What a fetch asks the origin for. Nobody who wants content waits for a fetch that brings none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    /// All of it.
    Whole,
    /// Its head, to see whether what is stored still holds.
    Head,
}

/// Identifies one making of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MakeKey {
    /// Id of the base.
    pub base: u64,
    /// What is made.
    pub kind: ChildKind,
}

/// The one request that fetches, while others wait.
pub type FetchLead = LeadGuard<FetchKey, Fetched>;
/// The one request that makes a child, while others wait.
pub type MakeLead = LeadGuard<MakeKey, Arc<ChildFilling>>;

/// The one request for a part that goes to the farm, while others that the whole would serve wait.
pub type PartLead = LeadGuard<FetchKey, Done>;

/// What a lookup finds.
#[derive(Debug, Clone)]
pub enum Found {
    /// The newest stored response that this request selects; whether it may be used now is `policy::cache::reuse`'s word.
    Base(Arc<Base>),
    /// Responses are stored under the key, but none that this request selects; the number names the variant for
    /// [`Store::join`].
    OtherVariants(u64),
    /// Nothing usable is stored.
    Nothing,
}

/// The store; see the module.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    seeds: Seeds,
    ledger: Arc<Ledger>,
    memory: Memory,
    files: Files,
    fetches: Flights<FetchKey, Fetched>,
    parts: Flights<FetchKey, Done>,
    makes: Flights<MakeKey, Arc<ChildFilling>>,
    purges: Purges,
    shelves: Shelves,
    /// Some origin stated by `No-Vary-Search` what matters of a query.
    rules_known: AtomicBool,
    next_id: AtomicU64,
}

/// What the store holds, for `/status` and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStats {
    /// Configured bytes.
    pub size: u64,
    /// Bytes stored and reserved by fills.
    pub used: u64,
    /// Primary keys, children and remembered verdicts; approximate while changes are pending.
    pub entries: u64,
    /// Stored responses and children evicted for want of room since the start.
    pub evictions: u64,
    /// Entries of the index that purges go by: two for each response, one for each tag.
    pub marks: u64,
    /// Purges since the start.
    pub purges: PurgeStats,
    /// Bodies that stand in files of memory.
    pub files: usize,
    /// Versions of files that are kept as dictionaries.
    pub dictionaries: DictionaryStats,
    /// Each policy's part.
    pub shares: Vec<ShareStats>,
}

impl Store {
    /// An empty store of `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let ledger = Arc::new(Ledger::new(size));
        Self(Arc::new(Inner {
            seeds: Seeds { first: RandomState::new(), second: RandomState::new() },
            memory: Memory::new(size, &ledger),
            ledger,
            files: Files::new(),
            fetches: Flights::default(),
            parts: Flights::default(),
            makes: Flights::default(),
            purges: Purges::default(),
            shelves: Shelves::default(),
            rules_known: AtomicBool::new(false),
            next_id: AtomicU64::new(1),
        }))
    }

    /// Changes the size and keeps the contents, as far as they fit.
    pub fn resize(&self, size: u64) {
        if self.0.ledger.resize(size) != size {
            self.0.memory.resize(size, &self.0.ledger);
            self.housekeep();
        }
    }

    /// The seeds every key of this process is hashed with.
    #[must_use]
    pub fn seeds(&self) -> &Seeds {
        &self.0.seeds
    }

    /// The share of the cache policy `name`, made on first use; `limit` (`max_bytes`; `None` = the whole store) holds from
    /// now on. A share outlives reloads, and its policy as long as anything is stored under it.
    #[must_use]
    pub fn share(&self, name: &str, limit: Option<u64>) -> Arc<Share> {
        self.0.ledger.share(name, limit)
    }

    /// What is stored for `request` under the primary key `key`, among responses rewritten by the rules with the
    /// fingerprint `rules`. Cost: one moka read; no lock.
    #[must_use]
    pub fn find(&self, key: u128, request: &HeaderMap, rules: u64) -> Found {
        let entry = self.0.memory.get(Place::Primary(key));
        let Some(Entry::Slot(slot)) = entry.as_deref() else { return Found::Nothing };
        let found = self.choose(slot, request, rules);
        if let Found::Base(base) = &found {
            base.life().touch();
        }
        found
    }

    /// What a slot holds for a request.
    fn choose(&self, slot: &Slot, request: &HeaderMap, rules: u64) -> Found {
        let mut newest = None;
        for base in slot.iter().filter(|base| !base.life().is_dead() && base.head().rules == rules) {
            match self.0.purges.verdict(base) {
                Verdict::Spared => {}
                Verdict::Stale(number) => base.life().soften(number),
                Verdict::Gone => continue,
            }
            if base.head().selecting.matches(request) {
                return Found::Base(base.clone());
            }
            newest.get_or_insert(base);
        }
        newest.map_or(Found::Nothing, |base| Found::OtherVariants(base.head().variant_of(request, &self.0.seeds)))
    }

    /// Joins the fetch for this key and variant, or begins one. After becoming the leader, look once more with
    /// [`Store::find`]: the fetch one would have joined may have ended in between.
    #[must_use]
    pub fn join(&self, key: &CacheKey, variant: u64) -> Joined<FetchKey, Fetched> {
        self.join_as(key, variant, Asked::Whole)
    }

    /// Joins the fetch for this key and variant, or one of its head alone, or begins the latter.
    #[must_use]
    pub fn join_head(&self, key: &CacheKey, variant: u64) -> Joined<FetchKey, Fetched> {
        match self.follow(key, variant) {
            Some(handle) => Joined::Follower(handle),
            None => self.join_as(key, variant, Asked::Head),
        }
    }

    fn join_as(&self, key: &CacheKey, variant: u64, asked: Asked) -> Joined<FetchKey, Fetched> {
        let purges = &self.0.purges;
        let now = purges.number();
        self.0.fetches.join(FetchKey { primary: key.hash, variant, asked }, now, self.named(key))
    }

    /// Follows the fetch for this key and variant, if one is under way.
    #[must_use]
    pub fn follow(&self, key: &CacheKey, variant: u64) -> Option<FollowHandle<Fetched>> {
        let key_of_whole = FetchKey { primary: key.hash, variant, asked: Asked::Whole };
        self.0.fetches.follow(key_of_whole, self.named(key))
    }

    /// The number of the last purge that may have named what is under this key by its URL.
    fn named(&self, key: &CacheKey) -> u64 {
        let purges = &self.0.purges;
        let named = purges.date(Mark::url(key.uri));
        let path = key.search.as_ref().map(|_| purges.date(Mark::path(key.path_hash(&self.0.seeds))));
        named.max(path.unwrap_or_default())
    }

    /// Joins the request for a part of this key and variant that is under way to the farm, or becomes the one that is.
    /// Whoever leads begins the fetch of the whole before it gives its word.
    #[must_use]
    pub fn join_part(&self, key: &CacheKey, variant: u64) -> Joined<FetchKey, Done> {
        let purges = &self.0.purges;
        let now = purges.number();
        let key_of_whole = FetchKey { primary: key.hash, variant, asked: Asked::Whole };
        self.0.parts.join(key_of_whole, now, self.named(key))
    }

    /// Puts a freshened head on a stored response after a 304, which was asked for by the fetch that began at `epoch`.
    /// `None` when it is stored no more, or was purged since, by what it was called before or is called now; what the
    /// origin confirmed can still answer the request that asked.
    #[must_use]
    pub fn freshen(&self, base: &Arc<Base>, head: Head, epoch: u64) -> Option<Arc<Base>> {
        let life = base.life();
        let marks = Mark::borne(&self.0.seeds, life.key(), &head.tags);
        // A purge that walks the index meanwhile may find it under neither.
        let former = life.marks();
        life.enter(&marks);
        let named = |marks: &[Mark]| self.0.purges.named_since(epoch, &self.0.seeds, life.key(), marks);
        if named(&marks) || former != marks && named(&former) {
            return None;
        }
        let fresh = Arc::new(base.with_head(head, epoch));
        // It may need more room than before; that can cost it its own place.
        self.reserve(life.share(), life.entry(), fresh.bytes()).ok()?;
        let mut replaced = false;
        self.0.memory.update(Place::Primary(life.key().hash), |slot| {
            let (old, others): (Vec<_>, Vec<_>) = slot?.iter().cloned().partition(|kept| kept.life().id() == life.id());
            replaced = !old.is_empty() && !life.is_dead();
            // To the front: of several that match, the one most recently heard of is used (RFC 9111 §4.1).
            replaced.then(|| std::iter::once(fresh.clone()).chain(others).collect())
        });
        replaced.then_some(fresh)
    }

    /// The response with this life as it is stored now. Cost: one moka read; no lock.
    #[must_use]
    pub fn base(&self, life: &Life) -> Option<Arc<Base>> {
        match self.0.memory.get(Place::Primary(life.key().hash)).as_deref() {
            Some(Entry::Slot(slot)) => slot.iter().find(|base| base.life().id() == life.id()).cloned(),
            _ => None,
        }
    }

    /// A child of the response with this life, if it has been made. Cost: one moka read; no lock.
    #[must_use]
    pub fn child(&self, base: &Life, kind: ChildKind) -> Option<Arc<Child>> {
        if base.is_dead() {
            return None;
        }
        match self.0.memory.get(Place::Child(base.id(), kind)).as_deref() {
            Some(Entry::Child(child)) => Some(child.clone()),
            _ => None,
        }
    }

    /// Joins the making of a child of the response with this life (stored, or still being filled), or begins it. After
    /// becoming the leader, look once more with [`Store::child`].
    #[must_use]
    pub fn join_child(&self, base: &Life, kind: ChildKind) -> Joined<MakeKey, Arc<ChildFilling>> {
        self.0.makes.join(MakeKey { base: base.id(), kind }, 0, 0)
    }

    /// Remembers for [`HIT_FOR_MISS`] that answers for this key are not stored, and why.
    pub fn remember_refusal(&self, key: u128, reason: &'static str, now: Now) {
        let until = now.plus(HIT_FOR_MISS);
        self.0.memory.put(Place::Refusal(key), Entry::Refusal(Refusal { reason, until }));
    }

    /// Why answers for this key are not stored, where that was remembered lately: requests should not wait for each other.
    #[must_use]
    pub fn refusal(&self, key: u128, now: Now) -> Option<&'static str> {
        self.last_refusal(key).filter(|refusal| refusal.is_in_force(now)).map(|refusal| refusal.reason)
    }

    /// Makes one response stale until the origin has confirmed it: it has said that there is something else by now. A
    /// confirmation that was asked for before does not count.
    pub fn outdate(&self, base: &Base) {
        base.life().soften(self.0.purges.announce(std::iter::empty(), |_| ()));
    }

    /// Removes one response: the origin has said something newer that is not stored. False when it was gone already.
    pub fn discard(&self, base: &Base) -> bool {
        let life = base.life();
        self.remove(Place::Primary(life.key().hash), |kept| kept.life().id() == life.id()) > 0
    }

    /// What the store holds now.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let ledger = &self.0.ledger;
        StoreStats {
            size: ledger.size(),
            used: ledger.used(),
            entries: self.0.memory.entries(),
            evictions: ledger.evictions(),
            marks: ledger.index.len() as u64,
            purges: self.0.purges.stats(),
            files: self.0.files.open(),
            dictionaries: self.dictionary_stats(),
            shares: ledger.shares().iter().map(|share| share.stats()).collect(),
        }
    }

    /// The work that no request waits for: moka's pending changes, children whose base is gone, shares above their limit,
    /// bodies on their way into files. The application calls it every 100 ms, and when [`Store::due`] says so, from a
    /// thread that is no worker.
    pub fn housekeep(&self) {
        self.0.memory.maintain();
        self.trim_dictionaries();
        for share in self.0.ledger.shares() {
            while share.excess() > 0 && self.evict_oldest(&share) {}
        }
        while self.0.ledger.excess() > 0 && self.evict_from_largest() {}
        for place in self.0.ledger.take_orphans() {
            self.0.memory.remove(place);
        }
        self.move_into_files();
    }

    /// Waits until [`Store::housekeep`] should be called early, because much came in.
    pub async fn due(&self) {
        self.0.memory.due().await;
    }

    /// Makes `charge` worth `bytes`, evicting where that is needed.
    ///
    /// # Errors
    /// [`NotKept::OverShare`] or [`NotKept::OverStore`] when it could never fit, or nothing more can go; the charge is then
    /// as before.
    fn reserve(&self, share: &Share, charge: &ledger::Charge, bytes: u64) -> Result<(), NotKept> {
        if bytes > share.limit() {
            return Err(NotKept::OverShare);
        }
        if bytes > memory::capacity(self.0.ledger.size()) || self.0.ledger.is_held_up() {
            return Err(NotKept::OverStore);
        }
        while let Err(full) = charge.raise(bytes) {
            let (made_room, refused) = match full {
                Full::Share => (self.evict_oldest(share), NotKept::OverShare),
                Full::Store => (self.evict_from_largest(), NotKept::OverStore),
            };
            if !made_room {
                return Err(refused);
            }
        }
        Ok(())
    }

    fn evict_from_largest(&self) -> bool {
        // The largest share first; one that has nothing but fills in flight cannot give anything.
        let mut shares = self.0.ledger.shares();
        shares.sort_unstable_by_key(|share| std::cmp::Reverse(share.used()));
        shares.iter().any(|share| self.evict_oldest(share))
    }

    fn evict_oldest(&self, share: &Share) -> bool {
        let Some(life) = share.oldest() else { return false };
        self.0.ledger.count_eviction();
        self.remove(Place::Primary(life.key().hash), |base| base.life().id() == life.id());
        // Also when moka had dropped it already: its bytes are given back in any case.
        life.retire();
        true
    }

    /// Takes the responses that `doomed` picks out of a slot; returns how many.
    fn remove(&self, place: Place, doomed: impl Fn(&Base) -> bool) -> usize {
        let mut removed = Vec::new();
        self.0.memory.update(place, |slot| {
            let (gone, kept): (Vec<_>, Vec<_>) = slot?.iter().cloned().partition(|base| doomed(base));
            removed = gone;
            Some(kept.into())
        });
        removed.iter().filter(|base| base.life().retire()).count()
    }

    fn new_id(&self) -> u64 {
        self.0.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
