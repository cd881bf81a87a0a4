//! A stored response.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use http::{HeaderMap, HeaderValue, StatusCode};

use super::child::{ChildKind, MAX_CHILDREN};
use super::deltas::{DeltaRecord, Deltas};
use super::dictionaries::Offer;
use super::index::{ENTRY_BYTES, Mark};
use super::ledger::{Charge, Share, lock};
use super::made::Words;
use super::memory::Place;
use super::search::RuleHold;
use crate::body::StoredBody;
use crate::clock::Now;
use crate::policy::cache::key::{CacheKey, Seeds};
use crate::policy::cache::refresh::Setback;
use crate::policy::cache::stale::Trouble;
use crate::policy::cache::storing::Terms;
use crate::policy::cache::tags::Tags;
use crate::policy::cache::validation::StoredView;
use crate::policy::cache::vary::Selecting;
use crate::policy::dictionary::{Delta, NoFamily};
use crate::policy::encoding::Coding;
use crate::policy::optimise::{Made, Recipe};

/// Most responses under one primary key that differ by `Vary`; for one more, the least used goes. A `Vary`
/// explosion thus costs its own key, not the store, and what is asked for stays.
pub const MAX_VARIANTS: usize = 16;

/// What a stored response costs besides its text: moka's entry, the life, the head's tables, the queue entry. Measured
/// generously, so that the store stays below its size rather than above.
const OVERHEAD: u64 = 1024;

/// What one field costs besides its value.
const FIELD_OVERHEAD: u64 = 120;

/// What one chunk of a body costs besides its bytes: its place in the list, the allocator's header, the count of its
/// readers.
pub(super) const CHUNK_OVERHEAD: u64 = 96;

/// The responses under one primary key, newest first. Replaced as a whole, never changed.
pub(super) type Slot = Arc<[Arc<Base>]>;

/// Takes out of `variants`, newest first, what is more than `room`: those found least since this was last asked for their
/// key, of equals the oldest. So a variant that nobody asked for again gives way to the next, and one in use stays. Cost: a
/// look at each, and nothing on a hit.
pub(super) fn make_room(variants: &mut Vec<Arc<Base>>, room: usize) -> Vec<Arc<Base>> {
    let mut surplus = Vec::new();
    while variants.len() > room {
        let uses = variants.iter().map(|base| base.life.uses()).enumerate().rev();
        let Some((least_used, _)) = uses.min_by_key(|(_, uses)| *uses) else { break };
        surplus.push(variants.remove(least_used));
    }
    if !surplus.is_empty() {
        variants.iter().for_each(|base| base.life.forget_uses());
    }
    surplus
}

/// Everything of a response but its body.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The origin's status.
    pub status: StatusCode,
    /// End-to-end fields, as they go to a client of the base: after mandatory rewriting, without `Age`'s update.
    pub headers: HeaderMap,
    /// On which terms it may be reused.
    pub terms: Terms,
    /// Which requests it answers.
    pub selecting: Selecting,
    /// What it can be purged by.
    pub tags: Tags,
    /// Fingerprint of the mandatory rules it was rewritten by; 0 = none.
    pub rules: u64,
}

impl Head {
    /// True when this response answers a request with these fields, under these mandatory rules.
    #[must_use]
    pub fn serves(&self, request: &HeaderMap, rules: u64) -> bool {
        self.rules == rules && self.selecting.matches(request)
    }

    /// What validation looks at.
    #[must_use]
    pub fn view(&self) -> StoredView<'_> {
        StoredView { headers: &self.headers, rules: self.rules }
    }

    /// The variant `request` asks for, where responses vary as this one does: names a fetch in `Store::join`.
    #[must_use]
    pub fn variant_of(&self, request: &HeaderMap, seeds: &Seeds) -> u64 {
        self.selecting.of_request(request).hash(seeds)
    }

    /// What a response with this head, under `key`, says of itself as a dictionary.
    ///
    /// # Errors
    /// Why it becomes none.
    pub fn offer(&self, key: &CacheKey, seeds: &Seeds) -> Result<Offer, NoFamily> {
        Offer::of(self, key, seeds)
    }

    /// Bytes a response with this head and no body takes under `key`.
    pub(super) fn bytes(&self, key: &CacheKey) -> u64 {
        let marks = 2 + self.tags.names().len() + self.tags.groups().len();
        OVERHEAD
            + key.text.len() as u64
            + fields_bytes(&self.headers)
            + self.selecting.bytes()
            + self.tags.bytes()
            + marks as u64 * ENTRY_BYTES
            + key.search.as_ref().map_or(0, |rule| rule.bytes())
    }
}

/// Bytes a field section takes.
pub(super) fn fields_bytes(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| FIELD_OVERHEAD + (name.as_str().len() + value.len()) as u64).sum()
}

/// What a file of memory costs besides its bytes: the rest of its last page, the mapping, the kernel's records.
const FILE_OVERHEAD: u64 = 8 * 1024;

/// Bytes a body takes.
pub(super) fn body_bytes(body: &StoredBody) -> u64 {
    let file = if body.is_in_file() { FILE_OVERHEAD } else { 0 };
    file + body.remaining() + body.chunks().len() as u64 * CHUNK_OVERHEAD + body.trailers().map_or(0, fields_bytes)
}

/// A stored response, complete. Immutable: a 304 makes a new one with the same life and body.
#[derive(Debug)]
pub struct Base {
    life: Arc<Life>,
    head: Arc<Head>,
    body: StoredBody,
    bytes: u64,
    marks: Arc<[Mark]>,
    /// Number of the last purge before its head was asked for.
    since: u64,
    /// What it says of itself as a dictionary, once somebody has asked.
    offer: OnceLock<Result<Box<Offer>, NoFamily>>,
}

impl Base {
    pub(super) fn new(life: Arc<Life>, head: Arc<Head>, body: StoredBody, since: u64) -> Self {
        let bytes = head.bytes(&life.key) + body_bytes(&body);
        Self { marks: life.marks(), life, head, body, bytes, since, offer: OnceLock::new() }
    }

    pub(super) fn with_head(&self, head: Head, since: u64) -> Self {
        Self::new(self.life.clone(), Arc::new(head), self.body.clone(), since)
    }

    pub(super) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    pub(super) fn since(&self) -> u64 {
        self.since
    }

    /// On which terms it may be reused now: those of its head, and whether it was softly purged since. Cost: a copy and
    /// an atomic load.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms { purged: self.life.softened.load(Ordering::Acquire) > self.since, ..self.head.terms }
    }

    pub(super) fn with_body(&self, body: StoredBody) -> Self {
        Self::new(self.life.clone(), self.head.clone(), body, self.since)
    }

    /// What stays the same when the response is freshened.
    #[must_use]
    pub fn life(&self) -> &Arc<Life> {
        &self.life
    }

    /// Everything but the body.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What it says of itself as a dictionary. Cost: one atomic load but for the first time.
    ///
    /// # Errors
    /// Why it becomes none.
    pub fn offer(&self, seeds: &Seeds) -> Result<&Offer, NoFamily> {
        let offer = self.offer.get_or_init(|| self.head.offer(&self.life.key, seeds).map(Box::new));
        offer.as_deref().map_err(|reason| *reason)
    }

    /// The body; a clone of it is a reader.
    #[must_use]
    pub fn body(&self) -> &StoredBody {
        &self.body
    }

    /// Bytes it takes, overhead included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What a response keeps from the moment its fill begins until it is gone: its identity, its place in the books, and
/// whether it is still to be used.
#[derive(Debug)]
pub struct Life {
    id: u64,
    key: CacheKey,
    /// Set once, by whoever takes it out of the store; nothing is served or derived from it afterwards.
    dead: AtomicBool,
    /// True from the moment it is put into its slot.
    stored: AtomicBool,
    /// Number of the last purge before its fetch began.
    born: u64,
    /// Number of the last soft purge that named it; 0 = none.
    softened: AtomicU64,
    hits: AtomicU64,
    /// Hits when its key last had more variants than it may.
    counted: AtomicU64,
    /// Its body stands in a file, or was asked to.
    moving: AtomicBool,
    charge: Charge,
    /// What became of the last try to fetch it anew, where that failed. Looked at only where it cannot answer as it is.
    setback: Mutex<Option<Setback>>,
    /// Somebody fetches it anew behind its answers.
    refreshing: AtomicBool,
    /// Which better children it has.
    made: Words,
    /// Which deltas it has.
    deltas: Deltas,
    /// Its bytes were taken for a dictionary: as they came, and as an optimiser made them.
    taken: [AtomicBool; 2],
    /// Some page names its bytes by a digest: only codings may be made of it.
    pinned: AtomicBool,
    /// It was searched for such digests.
    searched: AtomicBool,
    /// Names its bytes, once they were read for that.
    own_tag: OnceLock<HeaderValue>,
    /// Its URL is known to keep its bytes.
    immutable: AtomicBool,
    /// Why no optimiser made anything of it, the last time one was to.
    refusal: Mutex<Option<&'static str>>,
    /// When the head arrived for which it was studied last, in seconds.
    studied: AtomicU64,
    /// The rule of its key is one that purges go by.
    _rule: Option<RuleHold>,
    /// Guards `dead` against a child that is adopted, a mark that is entered or a turn that is taken while it dies.
    belongings: Mutex<Belongings>,
}

/// What goes with a life.
#[derive(Debug, Default)]
struct Belongings {
    /// It gave everything back.
    gone: bool,
    /// Children that were made.
    children: Vec<ChildKind>,
    /// What the index has it under.
    marks: Arc<[Mark]>,
    /// Its turn in the queue of its share, once it is stored.
    turn: Option<u64>,
}

impl Life {
    pub(super) fn new(id: u64, key: CacheKey, rule: Option<RuleHold>, share: &Arc<Share>, born: u64) -> Self {
        Self {
            id,
            key,
            dead: AtomicBool::new(false),
            stored: AtomicBool::new(false),
            born,
            softened: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            moving: AtomicBool::new(false),
            charge: Charge::new(share.clone()),
            setback: Mutex::default(),
            refreshing: AtomicBool::new(false),
            made: Words::default(),
            deltas: Deltas::default(),
            taken: [const { AtomicBool::new(false) }; 2],
            pinned: AtomicBool::new(false),
            searched: AtomicBool::new(false),
            own_tag: OnceLock::new(),
            immutable: AtomicBool::new(false),
            refusal: Mutex::default(),
            studied: AtomicU64::new(0),
            _rule: rule,
            belongings: Mutex::default(),
        }
    }

    /// Makes these its marks, in the index as well. Nothing happens once it is gone.
    pub(super) fn enter(self: &Arc<Self>, marks: &Arc<[Mark]>) {
        let Some(ledger) = self.share().ledger() else { return };
        let mut belongings = lock(&self.belongings);
        if belongings.gone {
            return;
        }
        let former = std::mem::replace(&mut belongings.marks, marks.clone());
        if former == *marks {
            return;
        }
        for mark in marks.iter().filter(|mark| former.binary_search(mark).is_err()) {
            ledger.index.insert(*mark, self);
        }
        for mark in former.iter().filter(|mark| marks.binary_search(mark).is_err()) {
            ledger.index.remove(*mark, self.id);
        }
    }

    /// Goes to the end of its share's queue. Nothing happens once it is gone.
    pub(super) fn line_up(self: &Arc<Self>) {
        let mut belongings = lock(&self.belongings);
        if !belongings.gone {
            belongings.turn = Some(self.share().enqueue(self));
        }
    }

    /// What the index has it under.
    pub(super) fn marks(&self) -> Arc<[Mark]> {
        lock(&self.belongings).marks.clone()
    }

    pub(super) fn born(&self) -> u64 {
        self.born
    }

    pub(super) fn is_stored(&self) -> bool {
        self.stored.load(Ordering::Acquire)
    }

    /// To be said before it is put into its slot: who dooms it then looks for it there.
    pub(super) fn note_stored(&self) {
        self.stored.store(true, Ordering::Release);
    }

    /// Forbids its use; what it takes is given back when whoever holds it lets go.
    pub(super) fn doom(&self) {
        let _belongings = lock(&self.belongings);
        self.dead.store(true, Ordering::Release);
    }

    /// True when it was purged since its fetch began, softly or not.
    pub(super) fn is_purged(&self) -> bool {
        self.is_dead() || self.softened.load(Ordering::Acquire) > self.born
    }

    /// Notes the soft purge with this number.
    pub(super) fn soften(&self, number: u64) {
        self.softened.fetch_max(number, Ordering::AcqRel);
    }

    /// Unique in this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The primary key it is stored under.
    #[must_use]
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// How often it was found.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Hits since [`Life::forget_uses`].
    fn uses(&self) -> u64 {
        self.hits().saturating_sub(self.counted.load(Ordering::Relaxed))
    }

    fn forget_uses(&self) {
        self.counted.store(self.hits(), Ordering::Relaxed);
    }

    /// True once it was evicted, replaced or invalidated, or its fill failed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// The last failure to fetch it anew; `None` since it was confirmed, or from the start.
    #[must_use]
    pub fn setback(&self) -> Option<Setback> {
        *lock(&self.setback)
    }

    /// Notes that fetching it anew failed, and of what the origin suffers.
    pub fn set_back(&self, trouble: Option<Trouble>, now: Now) {
        let mut place = lock(&self.setback);
        *place = Some(Setback::after(*place, trouble, now));
    }

    /// Notes that the origin is well: it has confirmed this response.
    pub fn recover(&self) {
        *lock(&self.setback) = None;
    }

    /// The right to fetch it anew behind its answers, until the turn is dropped; `None` while somebody else has it. Cost:
    /// one atomic.
    #[must_use]
    pub fn take_turn(self: &Arc<Self>) -> Option<RefreshTurn> {
        let taken = self.refreshing.swap(true, Ordering::AcqRel);
        (!taken).then(|| RefreshTurn(self.clone()))
    }

    /// True while somebody fetches it anew behind its answers.
    #[must_use]
    pub fn is_refreshing(&self) -> bool {
        self.refreshing.load(Ordering::Acquire)
    }

    /// What has been made of it for this coding, by this recipe. Cost: one atomic load, or two.
    #[must_use]
    pub fn made(&self, coding: Option<Coding>, recipe: Recipe) -> Made {
        match self.made.read(coding, recipe) {
            Made::Child { rules, .. } if rules != 0 && self.is_pinned() => Made::Nothing,
            made => made,
        }
    }

    /// Claims the making for this coding; true for one caller, who sees to it that [`Life::settle`] is called.
    #[must_use]
    pub fn claim(&self, coding: Option<Coding>, recipe: Recipe) -> bool {
        self.made.claim(coding, recipe)
    }

    /// Writes down what was made for this coding; `Unasked` lets it be asked for again.
    pub fn settle(&self, coding: Option<Coding>, recipe: Recipe, made: Made) {
        self.made.settle(coding, recipe, made);
    }

    /// What became of this delta, of the body that the optimisers with the fingerprint `rules` made; `None` where it has as
    /// many deltas as it may have.
    #[must_use]
    pub fn delta(&self, delta: Delta, rules: u64) -> Option<Arc<DeltaRecord>> {
        self.deltas.record(delta, rules)
    }

    /// Marks its bytes, as they came or as an optimiser made them, as taken for a dictionary; true for the first who does.
    /// Cost: one load once they are.
    pub fn begin_pinning(&self, rules: u64) -> bool {
        let [plain, optimised] = &self.taken;
        let taken = if rules == 0 { plain } else { optimised };
        !taken.load(Ordering::Relaxed) && !taken.swap(true, Ordering::Relaxed)
    }

    /// From now on its bytes are served as they are, in any coding.
    pub fn pin(&self) {
        self.pinned.store(true, Ordering::Release);
    }

    /// True once [`Life::pin`] was called.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Acquire)
    }

    /// Marks it as searched for digests of other files; true for the first who does. Cost: one load once it is.
    pub fn begin_search(&self) -> bool {
        !self.searched.load(Ordering::Relaxed) && !self.searched.swap(true, Ordering::Relaxed)
    }

    /// A tag made from its bytes; `None` until they were read for that.
    #[must_use]
    pub fn own_tag(&self) -> Option<&HeaderValue> {
        self.own_tag.get()
    }

    /// The same, made now where that has not happened yet.
    pub fn own_tag_or(&self, make: impl FnOnce() -> HeaderValue) -> &HeaderValue {
        self.own_tag.get_or_init(make)
    }

    /// Notes why an optimiser made nothing of it, as a stable name.
    pub fn note_refusal(&self, reason: &'static str) {
        *lock(&self.refusal) = Some(reason);
    }

    /// What [`Life::note_refusal`] was told last.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static str> {
        *lock(&self.refusal)
    }

    /// Says whether its URL keeps its bytes.
    pub fn set_immutable(&self, immutable: bool) {
        self.immutable.store(immutable, Ordering::Relaxed);
    }

    /// What [`Life::set_immutable`] said last; at first false.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        self.immutable.load(Ordering::Relaxed)
    }

    /// Marks it as studied since its head arrived at `received`; true for the first who does. Cost: one load once it is.
    #[must_use]
    pub fn begin_study(&self, received: Now) -> bool {
        let seconds = received.unix_seconds();
        self.studied.load(Ordering::Relaxed) != seconds && self.studied.swap(seconds, Ordering::Relaxed) != seconds
    }

    /// Lets it be studied again.
    pub fn abandon_study(&self) {
        self.studied.store(0, Ordering::Relaxed);
    }

    /// True once [`Life::begin_move`] was called.
    pub(super) fn is_moving(&self) -> bool {
        self.moving.load(Ordering::Relaxed)
    }

    /// Marks the body as one that moves into a file; true for the first who does.
    pub(super) fn begin_move(&self) -> bool {
        !self.moving.swap(true, Ordering::Relaxed)
    }

    pub(super) fn touch(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn share(&self) -> &Arc<Share> {
        self.charge.share()
    }

    /// The entry in the books.
    pub(super) fn entry(&self) -> &Charge {
        &self.charge
    }

    /// Ends it: gives its bytes back, takes it out of queue and index and hands its children to housekeeping. Returns false when
    /// that was done already.
    pub(super) fn retire(&self) -> bool {
        let mut belongings = lock(&self.belongings);
        self.dead.store(true, Ordering::Release);
        let Belongings { gone, children, marks, turn } = std::mem::take(&mut *belongings);
        belongings.gone = true;
        drop(belongings);
        if gone {
            return false;
        }
        self.charge.release();
        if let Some(turn) = turn {
            self.share().dequeue(turn);
        }
        if let Some(ledger) = self.share().ledger() {
            marks.iter().for_each(|mark| ledger.index.remove(*mark, self.id));
            ledger.add_orphans(children.into_iter().map(|kind| Place::Child(self.id, kind)));
        }
        true
    }

    /// Forgets a child that another has taken the place of.
    pub(super) fn disown(&self, kind: ChildKind) {
        lock(&self.belongings).children.retain(|child| *child != kind);
    }

    /// The children that were made of it, at most [`MAX_CHILDREN`]; some may be evicted by now.
    pub(super) fn children(&self) -> Vec<ChildKind> {
        lock(&self.belongings).children.clone()
    }

    /// Notes a child that has been stored. False when it must go again: the base is dead, or has [`MAX_CHILDREN`].
    pub(super) fn adopt(&self, kind: ChildKind) -> bool {
        let mut belongings = lock(&self.belongings);
        if self.is_dead() {
            return false;
        }
        let children = &mut belongings.children;
        let known = children.contains(&kind);
        if !known && children.len() < MAX_CHILDREN {
            children.push(kind);
            return true;
        }
        known
    }
}

/// See [`Life::take_turn`].
#[derive(Debug)]
pub struct RefreshTurn(Arc<Life>);

impl Drop for RefreshTurn {
    fn drop(&mut self) {
        self.0.refreshing.store(false, Ordering::Release);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.retire();
    }
}
