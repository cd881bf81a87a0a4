//! Bodies on their way into the store: written once, read by everybody who asked meanwhile.
//!
//! A fill reserves its bytes in the ledger before it takes them: all at once where the length is announced, in steps
//! where it is not. What cannot be reserved, or outgrows `max_object`, goes on to its readers through the spool's window
//! and is not kept; so does everything while readers of evicted bodies hold too much memory. A fill that is dropped or fails leaves nothing behind.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::base::{Base, CHUNK_OVERHEAD, Head, Life, MAX_VARIANTS, Slot, make_room};
use super::child::{self, Child, ChildKind};
use super::flight::{Joinable, Landing};
use super::index::Mark;
use super::ledger::{Charge, Hold, Share};
use super::memory::{Entry, Place};
use super::{FetchKey, FetchLead, MakeKey, MakeLead, Store};
use crate::body::{Spool, SpoolReader, SpoolWriter, StoredBody};
use crate::error::ProxyError;
use crate::policy::cache::key::CacheKey;

/// Bytes reserved at a time for a body of unknown length.
const STEP: u64 = 256 * 1024;

/// The part of an announced length that is reserved for what its chunks cost besides (a divisor): enough for chunks of
/// 4 KiB, which is less than what connections are read in.
const CHUNKS_SHARE: u64 = 40;

/// Followers of a response that is stale or `no-cache` on arrival are released with this reason.
pub const NOT_SHAREABLE: &str = "not_shareable";

/// Why a response that may be stored is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotKept {
    /// It exceeds `max_object`.
    TooLarge,
    /// It does not fit the policy's `max_bytes`.
    OverShare,
    /// It does not fit the store beside other fills.
    OverStore,
    /// Its body ended early.
    CutShort,
    /// It was purged, or its URI invalidated, while it was fetched, or its base is gone.
    Invalidated,
    /// The base has as many children as it may have.
    TooManyChildren,
    /// Its path has [`super::MAX_RULES`] other rules of queries.
    TooManyRules,
    /// A rule failed half way: what its readers got is not what the rules promise.
    RewriteFailed,
}

impl NotKept {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::OverShare => "over_share",
            Self::OverStore => "over_store",
            Self::CutShort => "cut_short",
            Self::Invalidated => "invalidated",
            Self::TooManyChildren => "too_many_children",
            Self::TooManyRules => "too_many_rules",
            Self::RewriteFailed => "rewrite_failed",
        }
    }
}

/// What the leader of a fetch shares.
#[derive(Debug, Clone)]
pub enum Fetched {
    /// A response on its way in; check [`Filling::serves`] before using it.
    Filling(Arc<Filling>),
    /// A stored response that the origin has just confirmed.
    Validated(Arc<Base>),
}

impl Joinable for Fetched {
    fn is_joinable(&self) -> bool {
        match self {
            Self::Filling(filling) => filling.spool.is_whole() && !filling.life.is_purged(),
            // It answers those who asked before the origin did; whoever comes later looks into the store.
            Self::Validated(_) => false,
        }
    }
}

/// A response whose head is known and whose body is still arriving.
#[derive(Debug)]
pub struct Filling {
    life: Arc<Life>,
    head: Arc<Head>,
    spool: Spool,
}

impl Filling {
    /// Everything but the body.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The life the stored response will have: children may be made from it already.
    #[must_use]
    pub fn life(&self) -> &Arc<Life> {
        &self.life
    }

    /// True when this response answers a request with these fields, under these mandatory rules.
    #[must_use]
    pub fn serves(&self, request: &HeaderMap, rules: u64) -> bool {
        self.head.serves(request, rules)
    }

    /// A reader of the whole body; `None` when its beginning is gone.
    #[must_use]
    pub fn reader(&self) -> Option<SpoolReader> {
        self.spool.reader()
    }
}

/// A child whose body is still being made.
#[derive(Debug)]
pub struct ChildFilling {
    spool: Spool,
}

impl ChildFilling {
    /// A reader of the whole body; `None` when its beginning is gone.
    #[must_use]
    pub fn reader(&self) -> Option<SpoolReader> {
        self.spool.reader()
    }
}

impl Joinable for Arc<ChildFilling> {
    fn is_joinable(&self) -> bool {
        self.spool.is_whole()
    }
}

/// A body being written under a reservation.
#[derive(Debug)]
struct Writing {
    store: Store,
    spool: Spool,
    writer: SpoolWriter,
    /// Fixed costs and the body bytes reserved so far.
    reserved: u64,
    /// Fixed costs and the body bytes written so far.
    taken: u64,
    /// Why it is not being kept, once that is clear.
    refused: Option<NotKept>,
    /// The body bytes, for as long as anybody has them.
    hold: Arc<Hold>,
}

impl Writing {
    fn begin(store: &Store, charge: &Charge, fixed: u64, expected: Option<u64>, limit: u64) -> Result<Self, NotKept> {
        if expected.is_some_and(|length| length > limit) {
            return Err(NotKept::TooLarge);
        }
        let reserved = fixed + expected.map_or(0, |length| length + length / CHUNKS_SHARE + CHUNK_OVERHEAD);
        store.reserve(charge.share(), charge, reserved)?;
        let hold = Hold::new(&store.0.ledger);
        let (spool, writer) = Spool::new(usize::try_from(limit).unwrap_or(usize::MAX), expected, hold.clone());
        Ok(Self { store: store.clone(), spool, writer, reserved, taken: fixed, refused: None, hold })
    }

    fn push(&mut self, charge: &Charge, chunk: Bytes) {
        self.taken += chunk.len() as u64 + CHUNK_OVERHEAD;
        if self.refused.is_none() && self.taken > self.reserved {
            self.grow(charge);
        }
        self.writer.push(chunk);
        if self.refused.is_none() && self.writer.outgrown() {
            self.refuse(NotKept::TooLarge);
        }
        if self.refused.is_some() {
            self.book(charge);
        } else {
            self.hold.set(self.taken);
        }
    }

    fn grow(&mut self, charge: &Charge) {
        let wanted = self.taken + STEP;
        match self.store.reserve(charge.share(), charge, wanted) {
            Ok(()) => self.reserved = wanted,
            Err(reason) => self.refuse(reason),
        }
    }

    /// From here on the body only passes through.
    fn refuse(&mut self, reason: NotKept) {
        self.writer.stop_keeping();
        self.refused = Some(reason);
    }

    /// Charges what a body that only passes through takes: what was to be kept drains at the speed of its readers.
    fn book(&self, charge: &Charge) {
        let kept = self.writer.kept() as u64;
        charge.set(kept);
        self.hold.set(kept);
    }

    fn poll_ready(&mut self, charge: &Charge, cx: &mut Context<'_>) -> Poll<bool> {
        let ready = self.writer.poll_ready(cx);
        if self.refused.is_some() {
            self.book(charge);
        }
        ready
    }

    fn finish(self, trailers: Option<HeaderMap>) -> Result<StoredBody, NotKept> {
        self.writer.finish(trailers);
        match self.refused {
            Some(reason) => Err(reason),
            None => self.spool.freeze().ok_or(NotKept::CutShort),
        }
    }
}

/// What a body is pumped into on its way into the store: the filling of a base or of a child.
pub trait Sink {
    /// What is stored in the end.
    type Kept;

    /// Waits until more may be written; `false` when nobody will read or store it, so that the source may stop. See
    /// [`SpoolWriter::poll_ready`].
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool>;

    /// Waits until the last of those who read it has left; see [`SpoolWriter::poll_abandoned`].
    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Cuts the readers that hold up the fastest one; see [`SpoolWriter::cut_laggards`].
    fn cut_laggards(&mut self);

    /// Appends a chunk. Cost: the spool's lock, and the ledger's atomics once per reserved step.
    fn push(&mut self, chunk: Bytes);

    /// Why the body will not be kept, once that is clear.
    fn refused(&self) -> Option<NotKept>;

    /// Ends the body with the source's failure: readers pass it on, nothing is stored.
    fn fail(self, error: ProxyError);

    /// Ends the body well and stores it: a base under its key, a child if its base still lives.
    ///
    /// # Errors
    /// Why it is not stored; its readers have got all of it nevertheless, except with [`NotKept::CutShort`].
    fn finish(self, trailers: Option<HeaderMap>) -> Result<Self::Kept, NotKept>;

    /// Ends the body well for its readers and stores nothing, because a rule failed half way.
    fn finish_unkept(self, trailers: Option<HeaderMap>) -> NotKept;
}

/// The filling of a base. Dropped unfinished, its readers see a cut-off body and nothing is stored.
#[derive(Debug)]
pub struct Fill {
    writing: Writing,
    filling: Arc<Filling>,
    epoch: u64,
    unborn: Unborn,
    // Dropped last, after the response is stored: a request finds the flight or the response. `None` = not shared.
    landing: Option<Landing<FetchKey, Fetched>>,
}

/// Ends a life that was never stored.
#[derive(Debug)]
struct Unborn(Option<Arc<Life>>);

impl Drop for Unborn {
    fn drop(&mut self) {
        if let Some(life) = self.0.take() {
            life.retire();
        }
    }
}

impl Fill {
    /// What followers get, and the leader's own response too.
    #[must_use]
    pub fn filling(&self) -> &Arc<Filling> {
        &self.filling
    }
}

impl Sink for Fill {
    type Kept = Arc<Base>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.writing.poll_ready(self.filling.life.entry(), cx)
    }

    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.writing.writer.poll_abandoned(cx)
    }

    fn cut_laggards(&mut self) {
        self.writing.writer.cut_laggards();
    }

    fn push(&mut self, chunk: Bytes) {
        let life = &self.filling.life;
        if life.is_dead() && self.writing.refused.is_none() {
            self.writing.refuse(NotKept::Invalidated);
        }
        self.writing.push(life.entry(), chunk);
    }

    fn refused(&self) -> Option<NotKept> {
        self.writing.refused
    }

    fn fail(self, error: ProxyError) {
        self.writing.writer.fail(error);
    }

    fn finish(mut self, trailers: Option<HeaderMap>) -> Result<Self::Kept, NotKept> {
        let store = self.writing.store.clone();
        let body = self.writing.finish(trailers)?;
        let base = Arc::new(Base::new(self.filling.life.clone(), self.filling.head.clone(), body, self.epoch));
        store.keep(&base)?;
        self.unborn.0 = None;
        drop(self.landing);
        Ok(base)
    }

    fn finish_unkept(self, trailers: Option<HeaderMap>) -> NotKept {
        self.writing.writer.finish(trailers);
        NotKept::RewriteFailed
    }
}

/// The making of a child. Dropped unfinished, its readers see a cut-off body and nothing is stored.
#[derive(Debug)]
pub struct ChildFill {
    writing: Writing,
    filling: Arc<ChildFilling>,
    charge: Charge,
    base: Arc<Life>,
    landing: Landing<MakeKey, Arc<ChildFilling>>,
    kind: ChildKind,
}

impl ChildFill {
    /// What followers get.
    #[must_use]
    pub fn filling(&self) -> &Arc<ChildFilling> {
        &self.filling
    }
}

impl Sink for ChildFill {
    type Kept = Arc<Child>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.writing.poll_ready(&self.charge, cx)
    }

    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.writing.writer.poll_abandoned(cx)
    }

    fn cut_laggards(&mut self) {
        self.writing.writer.cut_laggards();
    }

    fn push(&mut self, chunk: Bytes) {
        self.writing.push(&self.charge, chunk);
    }

    fn refused(&self) -> Option<NotKept> {
        self.writing.refused
    }

    fn fail(self, error: ProxyError) {
        self.writing.writer.fail(error);
    }

    fn finish(self, trailers: Option<HeaderMap>) -> Result<Self::Kept, NotKept> {
        let store = self.writing.store.clone();
        let body = self.writing.finish(trailers)?;
        let child = Child::new(body, self.charge);
        store.reserve(self.base.share(), child.entry(), child.bytes())?;
        let child = Arc::new(child);
        store.keep_child(&child, &self.base, self.kind)?;
        drop(self.landing);
        Ok(child)
    }

    fn finish_unkept(self, trailers: Option<HeaderMap>) -> NotKept {
        self.writing.writer.finish(trailers);
        NotKept::RewriteFailed
    }
}

impl Store {
    /// Begins to store the response that `lead` has fetched, and shares it with the followers, or sends them on their own
    /// way where it answers only the request that fetched it. `key` is the one it is stored under, which may be another than
    /// it was asked for by. `expected` is its `Content-Length`, `limit` the policy's
    /// `max_object`.
    ///
    /// # Errors
    /// Why it will not be kept; the lead is handed back, to release the followers, or, where the reason is
    /// [`NotKept::Invalidated`], to be dropped: they may have asked after the purge, and must ask again.
    pub fn begin(
        &self,
        mut lead: FetchLead,
        key: CacheKey,
        share: &Arc<Share>,
        head: Head,
        (expected, limit): (Option<u64>, u64),
    ) -> Result<Fill, (FetchLead, NotKept)> {
        let epoch = lead.epoch();
        let Ok(rule) = self.hold_rule(&key, share) else { return Err((lead, NotKept::TooManyRules)) };
        let life = Arc::new(Life::new(self.new_id(), key, rule, share, epoch));
        let marks = Mark::borne(&self.0.seeds, life.key(), &head.tags);
        life.enter(&marks);
        if self.0.purges.named_since(epoch, &self.0.seeds, life.key(), &marks) {
            return Err((lead, NotKept::Invalidated));
        }
        let head = Arc::new(head);
        let fixed = head.bytes(life.key());
        let writing = match Writing::begin(self, life.entry(), fixed, expected, limit) {
            Ok(writing) => writing,
            Err(reason) => return Err((lead, reason)),
        };
        let filling = Arc::new(Filling { life: life.clone(), head, spool: writing.spool.clone() });
        self.remember_rule(life.key());
        let landing = if filling.head.terms.is_shareable() {
            // It was asked for under another key than the one its head gives it: late-comers go by either.
            let landed = FetchKey { primary: life.key().hash, ..lead.key() };
            if landed != lead.key() {
                lead.also(landed);
            }
            Some(lead.share(Fetched::Filling(filling.clone())))
        } else {
            lead.release(NOT_SHAREABLE);
            None
        };
        Ok(Fill { writing, filling, epoch, unborn: Unborn(Some(life)), landing })
    }

    /// Begins to make a child of the response with the life `base`.
    ///
    /// # Errors
    /// Why it will not be kept; the lead is handed back, to release the followers.
    pub fn begin_child(&self, lead: MakeLead, base: &Arc<Life>, limit: u64) -> Result<ChildFill, (MakeLead, NotKept)> {
        let charge = Charge::new(base.share().clone());
        let writing = match Writing::begin(self, &charge, child::OVERHEAD, None, limit) {
            Ok(writing) => writing,
            Err(reason) => return Err((lead, reason)),
        };
        let filling = Arc::new(ChildFilling { spool: writing.spool.clone() });
        let kind = lead.key().kind;
        let landing = lead.share(filling.clone());
        Ok(ChildFill { writing, filling, charge, base: base.clone(), landing, kind })
    }

    /// Stores a child that was made in one piece, beside the request path.
    ///
    /// # Errors
    /// Why it is not stored.
    pub fn adopt(&self, base: &Arc<Life>, kind: ChildKind, body: Bytes) -> Result<Arc<Child>, NotKept> {
        let hold = Hold::new(&self.0.ledger);
        hold.set(body.len() as u64);
        let child = Child::new(StoredBody::new(Arc::from([body]), None, hold), Charge::new(base.share().clone()));
        self.reserve(base.share(), child.entry(), child.bytes())?;
        let child = Arc::new(child);
        self.keep_child(&child, base, kind)?;
        Ok(child)
    }

    /// Removes a child that a better one has taken the place of.
    pub fn discard_child(&self, base: &Life, kind: ChildKind) {
        base.disown(kind);
        self.0.memory.remove(Place::Child(base.id(), kind));
    }

    /// Puts a complete response in front of its slot, unless it was purged on its way in.
    fn keep(&self, base: &Arc<Base>) -> Result<(), NotKept> {
        let life = base.life();
        let place = Place::Primary(life.key().hash);
        let mut dropped: Vec<Arc<Base>> = Vec::new();
        let mut kept = false;
        self.reserve(life.share(), life.entry(), base.bytes())?;
        life.note_stored();
        self.0.memory.update(place, |slot| {
            if life.is_dead() {
                return None;
            }
            let older = slot.into_iter().flat_map(|slot| slot.iter().cloned()).filter(|older| !older.life().is_dead());
            let (replaced, mut others): (Vec<_>, Vec<_>) =
                older.partition(|older| older.head().selecting == base.head().selecting);
            let surplus = make_room(&mut others, MAX_VARIANTS - 1);
            dropped = replaced.into_iter().chain(surplus).collect();
            kept = true;
            let slot: Slot = std::iter::once(base).chain(&others).cloned().collect();
            Some(slot)
        });
        for old in dropped {
            old.life().retire();
        }
        // A purge that did not find it in its slot yet has left a word.
        if life.is_dead() && self.remove(place, |kept| kept.life().id() == life.id()) > 0 {
            kept = false;
        }
        if !kept {
            return Err(NotKept::Invalidated);
        }
        life.line_up();
        Ok(())
    }

    /// Stores a child, then makes its base own up to it: a base that died in between takes the child along.
    fn keep_child(&self, child: &Arc<Child>, base: &Life, kind: ChildKind) -> Result<(), NotKept> {
        let place = Place::Child(base.id(), kind);
        self.0.memory.put(place, Entry::Child(child.clone()));
        if base.adopt(kind) {
            return Ok(());
        }
        self.0.memory.remove(place);
        Err(if base.is_dead() { NotKept::Invalidated } else { NotKept::TooManyChildren })
    }
}
