//! Which responses bear which mark: their URL, their site, their tags. What a purge goes by.
//!
//! A response is entered when its head is there, before anybody can find it, and taken out when its life ends, so the
//! index is exact and holds nothing that is gone. One ordered map per shard: no rehashing of a large table under a lock,
//! and a walk that can be put down and taken up again.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, Weak};

use super::base::Life;
use super::ledger::lock;
use crate::policy::cache::key::{CacheKey, Place, Seeds};
use crate::policy::cache::tags::Tags;

/// Locks the marks are spread over.
pub(super) const SHARDS: usize = 32;

/// Bytes one entry takes, the map's own share included.
pub(super) const ENTRY_BYTES: u64 = 96;

/// What responses are found by, hashed with the seeds of keys: nobody can make two meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Mark(pub(super) u128);

impl Mark {
    /// Stands for everything. No response bears it; purges are dated by it.
    pub(super) const ALL: Self = Self(0);

    /// One URL ([`CacheKey::uri`]).
    pub(super) fn url(uri: u128) -> Self {
        Self(uri)
    }

    /// Any URL of one path ([`CacheKey::path_hash`]). No response bears it; those that are stored by a rule heed its date.
    pub(super) fn path(path: u128) -> Self {
        Self(path)
    }

    /// All of a host, on any port.
    pub(super) fn site(seeds: &Seeds, host: &str) -> Self {
        Self::of(seeds, &("site", portless(host)))
    }

    /// A tag.
    pub(super) fn tag(seeds: &Seeds, tag: &[u8]) -> Self {
        Self::of(seeds, &("tag", tag))
    }

    /// A cache group of one origin (RFC 9875 §2.1).
    pub(super) fn group(seeds: &Seeds, scheme: &str, host: &str, group: &[u8]) -> Self {
        Self::of(seeds, &("group", scheme, host, group))
    }

    /// Every prefix of a path on a host, the empty one first: each made from the one before, so that a long path costs
    /// no more than its length.
    pub(super) fn prefixes(seeds: &Seeds, host: &str, path: &str) -> impl Iterator<Item = Self> {
        let root = Self::of(seeds, &("prefix", portless(host)));
        let segments = path.strip_prefix('/').filter(|path| !path.is_empty()).map(|path| path.split('/'));
        let deeper = segments.into_iter().flatten().scan(root, |mark, segment| {
            *mark = Self::of(seeds, &(mark.0, segment));
            Some(*mark)
        });
        std::iter::once(root).chain(deeper)
    }

    /// What a response with this key and these tags bears, sorted.
    pub(super) fn borne(seeds: &Seeds, key: &CacheKey, tags: &Tags) -> Arc<[Self]> {
        let Place { scheme, host, .. } = key.place();
        let own = [Self::url(key.uri), Self::site(seeds, host)];
        let tagged = tags.names().map(|tag| Self::tag(seeds, tag));
        let grouped = tags.groups().map(|group| Self::group(seeds, scheme, host, group));
        let mut borne: Vec<_> = own.into_iter().chain(tagged).chain(grouped).collect();
        borne.sort_unstable();
        borne.into()
    }

    fn of(seeds: &Seeds, what: &impl Hash) -> Self {
        let [mut first, mut second] = [seeds.first.build_hasher(), seeds.second.build_hasher()];
        what.hash(&mut first);
        what.hash(&mut second);
        Self((u128::from(first.finish()) << 64) | u128::from(second.finish()))
    }
}

/// A host without its port.
pub(super) fn portless(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, _)) if !host.ends_with(']') => name,
        _ => host,
    }
}

/// Responses by mark.
#[derive(Debug)]
pub(super) struct Index([Mutex<Shard>; SHARDS]);

/// By mark and id of the life, so that the responses of one mark stand together, oldest first.
type Shard = BTreeMap<At, Weak<Life>>;

/// A mark and who bears it.
pub(super) type Borne = (Mark, Arc<Life>);

/// A mark, and the id of a life that bears it.
pub(super) type At = (Mark, u64);

impl Default for Index {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Index {
    pub(super) fn insert(&self, mark: Mark, life: &Arc<Life>) {
        lock(self.shard(mark)).insert((mark, life.id()), Arc::downgrade(life));
    }

    pub(super) fn remove(&self, mark: Mark, id: u64) {
        lock(self.shard(mark)).remove(&(mark, id));
    }

    /// The next few responses with this mark whose ids are `from` or more; `None` = no more.
    pub(super) fn bearers(&self, mark: Mark, from: u64, most: usize) -> Option<(Vec<Arc<Life>>, u64)> {
        let shard = lock(self.shard(mark));
        let found = shard.range((mark, from)..=(mark, u64::MAX)).take(most);
        let found: Vec<_> = found.map(|((_, id), life)| (*id, life.upgrade())).collect();
        drop(shard);
        let next = found.last()?.0.checked_add(1)?;
        Some((found.into_iter().filter_map(|(_, life)| life).collect(), next))
    }

    /// The next few entries of a shard behind `after`, whatever their marks; `None` = no more. A response turns up once
    /// for each of its marks.
    pub(super) fn walk(&self, shard: usize, after: Option<At>, most: usize) -> Option<(Vec<Borne>, At)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let shard = lock(self.0.get(shard)?);
        let from = after.map_or(Unbounded, Excluded);
        let found: Vec<_> = shard.range((from, Unbounded)).take(most).map(|(at, life)| (*at, life.upgrade())).collect();
        drop(shard);
        let last = found.last()?.0;
        Some((found.into_iter().filter_map(|((mark, _), life)| Some((mark, life?))).collect(), last))
    }

    /// Entries.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|shard| lock(shard).len()).sum()
    }

    #[expect(clippy::indexing_slicing, reason = "the index is a remainder by the length")]
    fn shard(&self, mark: Mark) -> &Mutex<Shard> {
        // The low bits of a hash are as good as any.
        &self.0[usize::try_from(mark.0 % SHARDS as u128).unwrap_or_default()]
    }
}
