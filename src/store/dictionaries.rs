//! Earlier versions of files, kept so that later ones can be sent as what differs from them.
//!
//! A *dictionary* is the decoded body that clients got under a name with a version in it. It is pinned: it stays when the
//! response it was made from is evicted, since it is wanted exactly when that response is not any more, on the day of a
//! release. What bounds it instead: so many versions of a file, so many files, and [`SHARE`] of the store; the file that was
//! asked for least recently goes first. Its bytes are charged to the share of the response's cache policy.
//!
//! A purge that names the response takes the dictionary along: lookups heed it at once, housekeeping frees the bytes. A
//! policy that is gone from the configuration takes all of its dictionaries along.
//!
//! Reading is lock-free; who pins replaces the table.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;

use super::base::{Base, Head};
use super::index::Mark;
use super::ledger::{Charge, Hold, lock};
use super::memory::Fold;
use super::{NotKept, Store};
use crate::policy::cache::key::{CacheKey, Seeds};
use crate::policy::dictionary::{self, Family, FamilyFacts, NoFamily};

/// Files of one policy whose versions are kept.
const FAMILIES_MAX: usize = 1024;
/// The part of the store that dictionaries may take (a divisor).
const SHARE: u64 = 8;
/// What a dictionary costs besides its bytes.
const OVERHEAD: u64 = 1024;

/// What an answer says of itself as a dictionary.
#[derive(Debug, Clone)]
pub struct Offer {
    /// `Use-As-Dictionary`
    pub value: HeaderValue,
    /// Names the family, within a policy.
    pub family: u128,
}

impl Offer {
    /// What a response with this head, stored under `key`, says.
    ///
    /// # Errors
    /// Why it becomes no dictionary.
    pub(super) fn of(head: &Head, key: &CacheKey, seeds: &Seeds) -> Result<Self, NoFamily> {
        let place = key.place();
        let facts = FamilyFacts {
            scheme: place.scheme,
            path: place.path,
            query: place.query,
            status: head.status,
            headers: &head.headers,
            varies: head.selecting.fields().next().is_some() || !key.is_of_url(),
        };
        let family = Family::of(&facts)?;
        let hashed = (place.host, &family.pattern, family.destination);
        let [first, second] = [&seeds.first, &seeds.second].map(|seed| u128::from(seed.hash_one(hashed)));
        Ok(Self { value: family.use_as_dictionary(), family: first << 64 | second })
    }
}

/// One version of a file.
#[derive(Debug)]
pub struct Dictionary {
    digest: [u8; 32],
    offer: Box<[u8]>,
    rules: u64,
    bytes: Bytes,
    key: CacheKey,
    marks: Arc<[Mark]>,
    /// Number of the last purge that it outlived.
    since: u64,
    charge: Charge,
    _hold: Arc<Hold>,
}

impl Dictionary {
    /// The bytes clients have.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The first half of the first half of the digest: names it in keys of children and in entity-tags. No two versions of
    /// a file share it.
    #[must_use]
    pub fn short(&self) -> u64 {
        self.digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }

    /// Fingerprint of the optimisers that made the bytes; 0 = none.
    #[must_use]
    pub fn rules(&self) -> u64 {
        self.rules
    }

    fn charged(&self) -> u64 {
        OVERHEAD + self.bytes.len() as u64
    }
}

/// The versions of one file, newest first.
#[derive(Debug, Clone, Default)]
struct Versions {
    versions: Vec<Arc<Dictionary>>,
    /// When it was last asked for or added to, in turns of the shelf.
    used: Arc<AtomicU64>,
}

type Families = HashMap<u128, Versions, BuildHasherDefault<Fold>>;

/// The dictionaries of one policy.
#[derive(Debug, Default)]
pub struct Dictionaries {
    families: ArcSwap<Families>,
    turn: AtomicU64,
    /// Number of the last purge that housekeeping has heeded.
    heeded: AtomicU64,
    /// Held while the table is replaced.
    changing: Mutex<()>,
}

/// Every policy's, for as long as a snapshot has it.
pub(super) type Shelves = Mutex<BTreeMap<Box<str>, Weak<Dictionaries>>>;

/// How much is kept, for `/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DictionaryStats {
    /// Files.
    pub families: usize,
    /// Versions of them.
    pub versions: usize,
    /// Bytes they take.
    pub bytes: u64,
}

impl Dictionaries {
    fn versions(&self, family: u128) -> Option<Versions> {
        self.families.load().get(&family).cloned()
    }

    fn stats(&self) -> DictionaryStats {
        let families = self.families.load();
        let versions = || families.values().flat_map(|family| &family.versions);
        let bytes = versions().map(|version| version.charged()).sum();
        DictionaryStats { families: families.len(), versions: versions().count(), bytes }
    }

    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Versions of a family that are kept.
    #[must_use]
    pub fn kept(&self, offer: &Offer) -> usize {
        self.versions(offer.family).map_or(0, |family| family.versions.len())
    }
}

/// Takes the oldest version of the file that was asked for least recently; `None` where there is none but `spared`.
fn drop_least_used(families: &mut Families, spared: u128) -> Option<u64> {
    let others = families.iter().filter(|(family, _)| **family != spared);
    let least = *others.min_by_key(|(_, versions)| versions.used.load(Ordering::Relaxed))?.0;
    let family = families.get_mut(&least)?;
    let freed = family.versions.pop().map_or(0, |version| version.charged());
    if family.versions.is_empty() {
        families.remove(&least);
    }
    Some(freed)
}

impl Store {
    /// The dictionaries of the rewrite policy `name`, made on first use. They live as long as some snapshot holds them.
    #[must_use]
    pub fn dictionaries(&self, name: &str) -> Arc<Dictionaries> {
        let mut shelves = lock(&self.0.shelves);
        shelves.retain(|_, shelf| shelf.strong_count() > 0);
        if let Some(shelf) = shelves.get(name).and_then(Weak::upgrade) {
            return shelf;
        }
        let shelf = Arc::new(Dictionaries::default());
        shelves.insert(name.into(), Arc::downgrade(&shelf));
        shelf
    }

    /// The version of a file that a client offers, where it is kept and was not purged. Cost: a load of the table, and a
    /// comparison for each version.
    #[must_use]
    pub fn dictionary(&self, shelf: &Dictionaries, family: u128, offered: &[u8]) -> Option<Arc<Dictionary>> {
        let families = shelf.families.load();
        let versions = families.get(&family)?;
        let found = versions.versions.iter().find(|version| *version.offer == *offered)?;
        if self.is_purged(found) {
            return None;
        }
        versions.used.store(shelf.next_turn(), Ordering::Relaxed);
        Some(Arc::clone(found))
    }

    /// Pins the decoded bytes of a stored response, with the SHA-256 of them, as the newest version of its file; of those
    /// made by the same optimisers the newest `keep` stay. Bytes that are kept already only become the newest.
    ///
    /// # Errors
    /// Why they are not kept.
    pub fn pin(
        &self,
        (shelf, keep): (&Dictionaries, usize),
        (base, rules): (&Base, u64),
        family: u128,
        (bytes, digest): (Bytes, [u8; 32]),
    ) -> Result<(), NotKept> {
        let hold = Hold::new(&self.0.ledger);
        let life = base.life();
        let pinned = Dictionary {
            digest,
            offer: dictionary::offer(&digest),
            rules,
            bytes,
            key: life.key().clone(),
            // Not those of the life, which has none any more once it ended.
            marks: base.marks().into(),
            since: base.since(),
            charge: Charge::new(life.share().clone()),
            _hold: hold.clone(),
        };
        if self.is_purged(&pinned) {
            return Err(NotKept::Invalidated);
        }
        let _changing = lock(&shelf.changing);
        let mut families = Families::clone(&shelf.families.load());
        let mut versions = families.remove(&family).unwrap_or_default();
        versions.versions.retain(|version| !self.is_purged(version));
        versions.used.store(shelf.next_turn(), Ordering::Relaxed);
        let known = versions.versions.iter().position(|version| version.short() == pinned.short());
        let newest = match known {
            Some(place) => versions.versions.remove(place),
            None => {
                let bytes = pinned.charged();
                let others = self.pinned_bytes().saturating_sub(shelf.stats().bytes);
                let limit = (self.0.ledger.size() / SHARE).saturating_sub(others).min(life.share().limit() / SHARE);
                let own = |versions: &Versions| versions.versions.iter().map(|version| version.charged()).sum::<u64>();
                let mut used = families.values().map(own).sum::<u64>() + own(&versions) + bytes;
                while used > limit || families.len() >= FAMILIES_MAX {
                    let freed = drop_least_used(&mut families, family);
                    let freed = freed.or_else(|| versions.versions.pop().map(|version| version.charged()));
                    used -= freed.ok_or(NotKept::OverStore)?;
                }
                self.reserve(life.share(), &pinned.charge, bytes)?;
                hold.set(pinned.bytes.len() as u64);
                Arc::new(pinned)
            }
        };
        versions.versions.insert(0, newest);
        let mut alike = 0;
        versions.versions.retain(|version| {
            alike += usize::from(version.rules == rules);
            version.rules != rules || alike <= keep
        });
        families.insert(family, versions);
        shelf.families.store(Arc::new(families));
        Ok(())
    }

    /// What all policies keep.
    #[must_use]
    pub fn dictionary_stats(&self) -> DictionaryStats {
        self.shelves().iter().map(|shelf| shelf.stats()).fold(DictionaryStats::default(), |sum, one| DictionaryStats {
            families: sum.families + one.families,
            versions: sum.versions + one.versions,
            bytes: sum.bytes + one.bytes,
        })
    }

    /// Frees what was purged, and what a smaller store has no room for. Cost where nothing happened: a few loads, and the
    /// sum of what is kept.
    pub(super) fn trim_dictionaries(&self) {
        let number = self.0.purges.number();
        let limit = self.0.ledger.size() / SHARE;
        let mut surplus = self.pinned_bytes().saturating_sub(limit);
        for shelf in self.shelves() {
            if shelf.heeded.swap(number, Ordering::Relaxed) == number && surplus == 0 {
                continue;
            }
            let _changing = lock(&shelf.changing);
            let mut families = Families::clone(&shelf.families.load());
            for family in families.values_mut() {
                family.versions.retain(|version| !self.is_purged(version));
            }
            families.retain(|_, family| !family.versions.is_empty());
            while surplus > 0
                && let Some(freed) = drop_least_used(&mut families, 0)
            {
                surplus = surplus.saturating_sub(freed);
            }
            shelf.families.store(Arc::new(families));
        }
    }

    fn shelves(&self) -> Vec<Arc<Dictionaries>> {
        lock(&self.0.shelves).values().filter_map(Weak::upgrade).collect()
    }

    fn pinned_bytes(&self) -> u64 {
        self.shelves().iter().map(|shelf| shelf.stats().bytes).sum()
    }

    /// True when a purge named the response since it was asked for.
    fn is_purged(&self, dictionary: &Dictionary) -> bool {
        let Dictionary { key, marks, since, .. } = dictionary;
        self.0.purges.named_since(*since, &self.0.seeds, key, marks)
    }
}
