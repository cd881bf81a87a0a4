//! Where better children of stored responses are made: on a thread of low priority, off every request's path.
//!
//! The shape of it:
//!
//! - A *hit* that finds its base in demand, and nothing made for its coding yet, leaves an order and goes on with what
//!   there is. It waits for nothing: the queue is bounded, and where it is full the next hit asks again.
//! - An order names (base, coding, recipe) and is claimed on the base's life, so there is one at a time, and none for what
//!   is settled. The base is looked up again when its turn comes; one that has gone meanwhile costs nothing.
//! - The body is decoded, optimised if one of the route's optimisers is for it, proven by the optimiser itself, and coded:
//!   at the strongest level where the recipe says so. It is kept only where it is smaller than what hits have now, by a
//!   margin. Optimised bytes are kept without a coding too: every coding is made from them.
//! - What came of it is written on the life, also where nothing did: a negative result holds as long as the base. It is
//!   counted by a named reason. An optimiser that keeps failing on what one URL brings is left out there for a day
//!   ([`quarantine`]); operators see the list and can clear it.
//!
//! - A body is *studied* on its first hit and whenever its head has arrived anew, where a filter asks what only the body
//!   tells; see [`study`].
//!
//! A second thread, of ordinary priority, makes what a client waits a moment for: see [`deltas`].
//!
//! Keys of children are (base, coding, level, rules), where rules name the optimisers; see [`optimise`].

pub(super) mod deltas;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::{Bytes, BytesMut};

use super::hints::Lessons;
use super::integrity::Integrity;
use super::study::{self, Names};
use crate::clock::{Clock, Now};
use crate::observe::status::{OptimiserCount, QuarantineStatus, WorkshopStatus};
use crate::policy::encoding::Coding;
use crate::policy::mend;
use crate::policy::optimise::quarantine::Record;
use crate::policy::optimise::{self, BODY_MAX, Made, OptimiseFacts, Optimiser, Optimisers, Recipe, strong_level};
use crate::store::{Base, ChildKind, Life, Store};
use crate::transform::Filter;
use crate::transform::coding::{Decoder, Encoder, fast_level};
use crate::transform::shrink::shrink;

/// Orders that may wait. Each is a few words; behind a thousand of them nobody would see the result soon.
const ORDERS_MAX: usize = 1024;
/// How much less of the processor the thread gets than a worker, in `nice` steps.
const NICE: i32 = 10;
/// Pairs of optimiser and URL that are remembered for their failures. Beyond, those go whose time is over, and where none
/// is, no more are remembered.
const RECORDS_MAX: usize = 1024;

/// The way to the workshop; cheap to clone. When the last is dropped, the thread ends behind its work.
#[derive(Debug, Clone)]
pub struct Workshop {
    orders: SyncSender<Order>,
    /// For what somebody waits for.
    prompt: SyncSender<Order>,
    books: Arc<Books>,
}

#[derive(Debug)]
enum Order {
    /// Make the best child for this coding.
    Make { life: Weak<Life>, coding: Option<Coding>, recipe: Recipe },
    /// Search a body that was stored before anybody looked at it.
    Search(Weak<Life>),
    /// Find out what only the body tells.
    Study(Weak<Life>),
    /// Keep a dictionary, or code against one.
    Deltas(deltas::Job),
}

/// What the thread and those who ask share.
#[derive(Debug)]
struct Books {
    store: Store,
    clock: Clock,
    integrity: Integrity,
    names: Names,
    lessons: Lessons,
    queued: AtomicU64,
    saved: AtomicU64,
    counts: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    records: Mutex<Records>,
}

/// By optimiser and URL.
type Records = BTreeMap<(Optimiser, Box<str>), Record>;

impl Workshop {
    /// Opens the workshop for the children of `store`.
    ///
    /// # Errors
    /// When the system has no threads for it.
    pub fn open(store: Store, clock: Clock) -> io::Result<Self> {
        let (orders, queue) = sync_channel(ORDERS_MAX);
        let (prompt, prompt_queue) = sync_channel(ORDERS_MAX);
        let books = Arc::new(Books {
            store,
            clock,
            integrity: Integrity::default(),
            names: Names::default(),
            lessons: Lessons::default(),
            queued: AtomicU64::new(0),
            saved: AtomicU64::new(0),
            counts: Mutex::default(),
            records: Mutex::default(),
        });
        let theirs = Arc::clone(&books);
        std::thread::Builder::new().name("workshop".into()).spawn(move || {
            if let Err(error) = rustix::process::nice(NICE) {
                tracing::debug!(%error, "the workshop runs at ordinary priority");
            }
            theirs.run(&queue);
        })?;
        let theirs = Arc::clone(&books);
        std::thread::Builder::new().name("deltas".into()).spawn(move || theirs.run(&prompt_queue))?;
        Ok(Self { orders, prompt, books })
    }

    /// Asks for a better child of the response with this life. Never waits.
    pub(super) fn ask(&self, life: &Arc<Life>, coding: Option<Coding>, recipe: Recipe) {
        let order = || Order::Make { life: Arc::downgrade(life), coding, recipe };
        if life.claim(coding, recipe) && !self.order(&self.orders, order()) {
            life.settle(coding, recipe, Made::Unasked);
        }
    }

    /// Has a stored body searched for digests of other files, once in its life.
    pub(super) fn search(&self, life: &Arc<Life>) {
        if life.begin_search() {
            // Where the queue is full, it is searched when it is fetched again.
            self.order(&self.orders, Order::Search(Arc::downgrade(life)));
        }
    }

    /// Has a stored response studied, once for each time its head arrived.
    pub(super) fn study(&self, base: &Base) {
        let life = base.life();
        if life.begin_study(base.head().terms.freshness.received)
            && !self.order(&self.orders, Order::Study(Arc::downgrade(life)))
        {
            life.abandon_study();
        }
    }

    fn order(&self, orders: &SyncSender<Order>, order: Order) -> bool {
        self.books.queued.fetch_add(1, Ordering::Relaxed);
        let taken = orders.try_send(order).is_ok();
        if !taken {
            self.books.queued.fetch_sub(1, Ordering::Relaxed);
            self.books.count("queue", "full");
        }
        taken
    }

    /// What pages have taught.
    pub(super) fn lessons(&self) -> &Lessons {
        &self.books.lessons
    }

    pub(super) fn integrity(&self) -> &Integrity {
        &self.books.integrity
    }

    /// What was made, what was not and why, and what is in quarantine.
    #[must_use]
    pub fn status(&self) -> WorkshopStatus {
        let now = self.books.clock.now();
        let counts = lock(&self.books.counts);
        let counts = counts.iter().map(|(&(filter, outcome), &count)| OptimiserCount { filter, outcome, count });
        let records = lock(&self.books.records);
        let held = records.iter().filter_map(|((optimiser, url), record)| {
            let since = record.since(now)?.wall;
            Some(QuarantineStatus { filter: optimiser.token(), url: url.to_string(), since })
        });
        WorkshopStatus {
            queued: self.books.queued.load(Ordering::Relaxed),
            saved_bytes: self.books.saved.load(Ordering::Relaxed),
            outcomes: counts.collect(),
            quarantine: held.collect(),
        }
    }

    /// Lets everything out of quarantine, and forgets the failures; returns how many pairs that were. What failed is tried
    /// again on the next version of its URL.
    #[must_use]
    pub fn clear_quarantine(&self) -> usize {
        std::mem::take(&mut *lock(&self.books.records)).len()
    }
}

impl Books {
    fn run(&self, queue: &Receiver<Order>) {
        while let Ok(order) = queue.recv() {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            match order {
                Order::Make { life, coding, recipe } => {
                    let Some(life) = life.upgrade() else { continue };
                    let base = self.store.base(&life);
                    let make = || base.map_or(Made::Unasked, |base| self.make(&base, coding, recipe));
                    life.settle(coding, recipe, self.guarded(make).unwrap_or(Made::Nothing));
                }
                Order::Study(life) => {
                    let base = life.upgrade().and_then(|life| self.store.base(&life));
                    let study = || base.map(|base| study::run(&base, &self.names, self.clock.now()));
                    if let Some(Some(Some(outcome))) = self.guarded(study) {
                        self.count(study::FILTER, outcome);
                    }
                }
                Order::Search(life) => {
                    let base = life.upgrade().and_then(|life| self.store.base(&life));
                    let search = || base.and_then(|base| decoded(&base)).map(|plain| self.integrity.search(&plain));
                    let _panicked = self.guarded(search);
                }
                Order::Deltas(job) => self.deltas(job),
            }
        }
    }

    /// What `work` comes to; `None` where it panics, in a codec for one. The thread goes on with the next order.
    fn guarded<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(work)).ok();
        if done.is_none() {
            self.count("body", "panic");
        }
        done
    }

    fn make(&self, base: &Base, coding: Option<Coding>, recipe: Recipe) -> Made {
        let Some(plain) = decoded(base) else {
            self.count("body", "unreadable");
            return Made::Nothing;
        };
        let optimised = self.optimise(base, &plain, recipe.optimisers);
        let (rules, body) = optimised.map_or((0, plain), |(optimiser, body)| (optimiser.fingerprint(), body));
        match coding {
            None if rules == 0 => Made::Nothing,
            None => Made::Child { level: 0, rules },
            Some(coding)
                if rules == 0 && (!recipe.strong || mend::only_coding(&base.head().headers) == Some(coding)) =>
            {
                Made::Nothing
            }
            Some(coding) => self.encode(base, &body, (coding, recipe.strong), rules),
        }
    }

    /// The body as the optimiser for it makes it; kept as a child without a coding.
    fn optimise(&self, base: &Base, plain: &Bytes, on: Optimisers) -> Option<(Optimiser, Bytes)> {
        let head = base.head();
        let facts = OptimiseFacts { status: head.status, headers: &head.headers };
        let optimiser = match optimise::decide(&facts, on) {
            Ok(optimiser) => optimiser,
            Err((optimiser, reason)) => {
                if let Some(optimiser) = optimiser {
                    self.count(optimiser.token(), reason.token());
                }
                return None;
            }
        };
        let kind = ChildKind { coding: None, level: 0, rules: optimiser.fingerprint(), delta: None };
        if let Some(child) = self.store.child(base.life(), kind) {
            return child.body().chunks().first().map(|body| (optimiser, body.clone()));
        }
        let refused = |reason| {
            self.count(optimiser.token(), reason);
            base.life().note_refusal(reason);
            None
        };
        let now = self.clock.now();
        let url = base.life().key().text.split(' ').next().unwrap_or_default();
        if self.is_held(optimiser, url, now) {
            return refused("quarantine");
        }
        if optimiser.is_of_subresources()
            && let Err(reason) = self.integrity.allow(plain, base.life())
        {
            return refused(reason);
        }
        let small = match catch_unwind(AssertUnwindSafe(|| shrink(optimiser, plain))) {
            Ok(Ok(small)) => Bytes::from(small),
            Ok(Err(refusal)) => {
                self.strike(optimiser, url, now);
                return refused(refusal.token());
            }
            Err(_panic) => {
                self.strike(optimiser, url, now);
                return refused("panic");
            }
        };
        // What compression would take anyway is no gain.
        let coded = |body: &[u8]| encode(Coding::Gzip, fast_level(Coding::Gzip), body).map(|coded| coded.len() as u64);
        let gains = coded(plain).zip(coded(&small)).is_some_and(|(before, after)| optimise::is_gain(before, after));
        if !gains {
            return refused("no_gain");
        }
        match self.store.adopt(base.life(), kind, small.clone()) {
            Ok(_child) => {
                self.count(optimiser.token(), "made");
                self.saved.fetch_add((plain.len() - small.len()) as u64, Ordering::Relaxed);
                Some((optimiser, small))
            }
            Err(reason) => refused(reason.token()),
        }
    }

    /// `body` in a coding, where that is smaller than what hits have now.
    fn encode(&self, base: &Base, body: &[u8], (coding, strong): (Coding, bool), rules: u64) -> Made {
        let level = if strong { strong_level(coding) } else { fast_level(coding) };
        let Some(coded) = encode(coding, level, body) else { return Made::Nothing };
        let fast = ChildKind { coding: Some(coding), level: fast_level(coding), rules: 0, delta: None };
        let own = || (mend::only_coding(&base.head().headers) == Some(coding)).then(|| base.body().remaining());
        let now = self.store.child(base.life(), fast).map(|child| child.body().remaining()).or_else(own);
        let small = coded.len() as u64;
        let worth = now.is_none_or(|now| if rules == 0 { optimise::is_gain(now, small) } else { small < now });
        if !worth {
            self.count(coding.token(), "no_gain");
            return Made::Nothing;
        }
        match self.store.adopt(base.life(), ChildKind { coding: Some(coding), level, rules, delta: None }, coded) {
            Ok(_child) => {
                self.count(coding.token(), "made");
                self.saved.fetch_add(now.map_or(0, |now| now - small), Ordering::Relaxed);
                Made::Child { level, rules }
            }
            Err(reason) => {
                self.count(coding.token(), reason.token());
                Made::Nothing
            }
        }
    }

    fn count(&self, filter: &'static str, outcome: &'static str) {
        *lock(&self.counts).entry((filter, outcome)).or_default() += 1;
    }

    fn is_held(&self, optimiser: Optimiser, url: &str, now: Now) -> bool {
        lock(&self.records).get(&(optimiser, url.into())).is_some_and(|record| record.since(now).is_some())
    }

    fn strike(&self, optimiser: Optimiser, url: &str, now: Now) {
        let mut records = lock(&self.records);
        if records.len() >= RECORDS_MAX {
            records.retain(|_, record| !record.is_over(now));
        }
        let key = (optimiser, Box::from(url));
        let former = records.get(&key).copied();
        if former.is_some() || records.len() < RECORDS_MAX {
            records.insert(key, Record::after(former, now));
        }
    }
}

/// The body of a base without its coding, where it is short enough to be worked on and can be read.
pub(super) fn decoded(base: &Base) -> Option<Bytes> {
    let body = base.body();
    if body.remaining() > BODY_MAX {
        return None;
    }
    let joined = match body.chunks() {
        [only] => only.clone(),
        chunks => Bytes::from(chunks.concat()),
    };
    let Some(coding) = mend::only_coding(&base.head().headers) else { return Some(joined) };
    let (mut decoder, mut plain) = (Decoder::new(coding, BODY_MAX), BytesMut::new());
    decoder.push(&joined, &mut plain).and_then(|()| decoder.finish(&mut plain)).ok()?;
    Some(plain.freeze())
}

fn encode(coding: Coding, level: u8, body: &[u8]) -> Option<Bytes> {
    let (mut encoder, mut coded) = (Encoder::new(coding, level), BytesMut::new());
    encoder.push(body, &mut coded).and_then(|()| encoder.finish(&mut coded)).ok()?;
    Some(coded.freeze())
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done by a panic: every change is one insertion.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
