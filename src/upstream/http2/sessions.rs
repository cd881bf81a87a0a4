//! A worker's connections per endpoint, and who gets the next stream.
//!
//! The first connection with room takes it, so that what is more than needed falls idle and ages out. When all are full
//! one request opens another, up to `keep_alive.idle` of them, and the others wait: for that one, for the SETTINGS that
//! tell how many streams it takes, or for a stream that ends. A wait lasts `timeouts.connect` at most, and
//! [`WAITERS`] wait at most.
//!
//! With `protocol = "auto"` the first connection to an endpoint tells what it speaks; while that is HTTP/1.1, everyone
//! opens connections of their own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::session::Session;
use crate::error::ErrorKind;
use crate::policy::pool::OriginProtocol;
use crate::upstream::client::Timings;
use crate::upstream::connect::{Connected, Opening, connect_by, now};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::idle::Key;
use crate::upstream::names::Lead;
use crate::upstream::numbers::OwnNumbers;
use crate::upstream::pool::Pool;
use crate::upstream::stream::Stream;

/// Exchanges of one worker that may wait for a stream to one endpoint; the next one is told that the pool is full.
const WAITERS: usize = 1024;

/// How long after a failed attempt nobody opens another connection, while there are some that serve.
const REST: Duration = Duration::from_secs(1);

/// All HTTP/2 connections of one worker.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Sessions(RefCell<HashMap<Key, Rc<Set>, OwnNumbers>>);

/// What a request may go out on.
#[derive(Debug)]
pub(in crate::upstream) enum Acquired {
    /// A stream of a connection; `true` when the connection was there before.
    Stream(Lease, bool),
    /// `protocol = "auto"`, and the origin chose HTTP/1.1.
    Http1(Stream, Option<Lead>),
}

/// Where a stream is wanted.
#[derive(Clone, Copy)]
pub(in crate::upstream) struct Place<'a> {
    pub(in crate::upstream) pool: &'a Pool,
    pub(in crate::upstream) index: usize,
    pub(in crate::upstream) endpoint: &'a Arc<Endpoint>,
    /// Connect and wait, together.
    pub(in crate::upstream) limit: Duration,
    /// For an extended CONNECT (RFC 8441).
    pub(in crate::upstream) tunnel: bool,
    /// Once more, after a connection that failed or refused: one that has not is preferred.
    pub(in crate::upstream) again: bool,
}

impl Sessions {
    /// A stream to an endpoint, on a connection that is there, or on a new one.
    ///
    /// # Errors
    /// Connect, DNS and TLS kinds; `PoolFull` when no stream became free in time. Nothing was sent in any of them.
    pub(in crate::upstream) async fn acquire(
        &self,
        place: Place<'_>,
        timings: &mut Timings,
    ) -> Result<Acquired, ErrorKind> {
        let set = self.set(place.pool, place.endpoint);
        let deadline = now() + place.limit;
        let acquiring = async {
            let acquired = set.acquire(place, deadline, timings).await?;
            if let (true, Acquired::Stream(lease, _)) = (place.tunnel, &acquired) {
                lease.allows_tunnels().await?;
            }
            Ok(acquired)
        };
        // Whoever opens a connection has the same deadline, and is asked first: it knows what was waited for.
        match tokio::time::timeout_at(deadline.into(), acquiring).await {
            Ok(outcome) => outcome,
            Err(_) if set.is_full() => Err(ErrorKind::PoolFull),
            Err(_) => Err(ErrorKind::ConnectTimeout),
        }
    }

    /// True when the endpoint has connections that speak HTTP/2.
    pub(in crate::upstream) fn are_there(&self, pool: &Pool, endpoint: &Endpoint) -> bool {
        let sets = self.0.borrow();
        sets.get(&Key::new(pool, endpoint)).is_some_and(|set| !set.sessions.borrow().is_empty())
    }

    /// Closes what has idled for too long, and what leads to where the endpoint is no more once its streams have ended.
    pub(in crate::upstream) fn sweep(&self, now: Instant) {
        self.0.borrow_mut().retain(|_, set| {
            let expired = |session: &Session| session.idle_since().is_some_and(|since| now >= since + set.kept.get());
            set.retire(|session| expired(session) || !session.leads_to(&set.endpoint));
            !set.is_unused()
        });
    }

    /// Closes the connections of endpoints that are not wanted any more, each when its last stream has ended. One that is
    /// being opened serves the exchange that opens it, and those that wait for it.
    pub(in crate::upstream) fn retain(&self, mut keep: impl FnMut(&Endpoint) -> bool) {
        self.0.borrow_mut().retain(|_, set| {
            let wanted = keep(&set.endpoint);
            if !wanted {
                set.retire(|_| true);
            }
            wanted
        });
    }

    /// Connections without a stream.
    pub(in crate::upstream) fn idle(&self) -> usize {
        let idle =
            |set: &Rc<Set>| set.sessions.borrow().iter().filter(|session| session.idle_since().is_some()).count();
        self.0.borrow().values().map(idle).sum()
    }

    fn set(&self, pool: &Pool, endpoint: &Arc<Endpoint>) -> Rc<Set> {
        let mut sets = self.0.borrow_mut();
        let set = sets.entry(Key::new(pool, endpoint)).or_insert_with(|| Rc::new(Set::new(Arc::clone(endpoint))));
        let keep_alive = pool.params.keep_alive;
        set.kept.set(if keep_alive.idle == 0 { Duration::ZERO } else { keep_alive.timeout });
        Rc::clone(set)
    }
}

/// The connections to one endpoint.
#[derive(Debug)]
pub(super) struct Set {
    endpoint: Arc<Endpoint>,
    sessions: RefCell<Vec<Rc<Session>>>,
    /// Connections being opened.
    opening: Cell<usize>,
    /// How the last attempt to open one failed, and which one it was.
    failed: Cell<(u64, Option<ErrorKind>)>,
    /// Until when no further connection is opened beside those that are there.
    rests_until: Cell<Option<Instant>>,
    /// The last connection chose HTTP/1.1.
    http1: Cell<bool>,
    waiting: Cell<usize>,
    changed: Notify,
    /// How long an idle connection is kept.
    kept: Cell<Duration>,
}

impl Set {
    fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            sessions: RefCell::default(),
            opening: Cell::new(0),
            failed: Cell::new((0, None)),
            rests_until: Cell::new(None),
            http1: Cell::new(false),
            waiting: Cell::new(0),
            changed: Notify::new(),
            kept: Cell::new(Duration::ZERO),
        }
    }

    async fn acquire(
        self: &Rc<Self>,
        place: Place<'_>,
        deadline: Instant,
        timings: &mut Timings,
    ) -> Result<Acquired, ErrorKind> {
        // Whoever waits was here before.
        let mut waited = self.waiting.get() == 0;
        loop {
            if waited && let Some(lease) = self.take(place) {
                if self.waiting.get() > 0 && self.has_room() {
                    self.changed.notify_one();
                }
                return Ok(Acquired::Stream(lease, true));
            }
            if self.may_open(place) {
                match self.open(place, deadline, timings).await {
                    Err(_) if self.takes_streams() => {
                        waited = true;
                        continue;
                    }
                    outcome => return outcome,
                }
            }
            if self.waiting.get() >= WAITERS {
                return Err(ErrorKind::PoolFull);
            }
            self.wait().await?;
            waited = true;
        }
    }

    /// A stream of the first connection with room. None of one that has refused a request, where that may go out on
    /// another one instead.
    fn take(self: &Rc<Self>, place: Place<'_>) -> Option<Lease> {
        let sessions = self.sessions.borrow();
        let willing = || sessions.iter().find(|session| session.has_room() && !session.has_refused());
        let any = || sessions.iter().find(|session| session.has_room());
        let session = match place.again {
            false => any(),
            true => willing().or_else(|| if self.may_open(place) { None } else { any() }),
        };
        session.map(|session| Lease::new(Rc::clone(session), Rc::clone(self)))
    }

    /// One at a time, unless each gives room for one exchange only; and not right behind one that failed, while others
    /// serve.
    fn may_open(&self, place: Place<'_>) -> bool {
        let params = &place.pool.params;
        if params.protocol == OriginProtocol::Auto && self.http1.get() {
            return true;
        }
        let sessions = self.sessions.borrow();
        let (mut live, mut settled, mut room) = (0, true, false);
        for session in sessions.iter().filter(|session| session.takes_streams()) {
            live += 1;
            settled &= session.is_settled();
            room |= session.has_room() && !(place.again && session.has_refused());
        }
        let rests = live > 0 && self.rests_until.get().is_some_and(|until| now() < until);
        self.opening.get() == 0 && settled && live < params.keep_alive.idle.max(1) && !room && !rests
    }

    fn takes_streams(&self) -> bool {
        self.sessions.borrow().iter().any(|session| session.takes_streams())
    }

    fn has_room(&self) -> bool {
        self.sessions.borrow().iter().any(|session| session.has_room())
    }

    /// True when there are connections, and what they take is taken.
    fn is_full(&self) -> bool {
        let sessions = self.sessions.borrow();
        let mut live = sessions.iter().filter(|session| session.takes_streams()).peekable();
        live.peek().is_some() && live.all(|session| session.is_settled() && !session.has_room())
    }

    /// Opens a connection. Others wait for it meanwhile, and hear of its failure.
    async fn open(
        self: &Rc<Self>,
        place: Place<'_>,
        deadline: Instant,
        timings: &mut Timings,
    ) -> Result<Acquired, ErrorKind> {
        let opening = Opened::new(self);
        let Connected { stream, connect: took, tls, http2, lead } =
            match connect_by(deadline, place.pool, place.index, Opening::default()).await {
                Ok(connected) => connected,
                Err(kind) => {
                    self.failed.set((self.failed.get().0 + 1, Some(kind)));
                    self.rests_until.set(Some(now() + REST));
                    return Err(kind);
                }
            };
        place.endpoint.count_connect();
        (timings.connect, timings.tls) = (Some(took), tls);
        self.http1.set(!http2);
        if !http2 {
            return Ok(Acquired::Http1(stream, lead));
        }
        let session = Session::start(stream, lead, place.endpoint, self).await?;
        let lease = Lease::new(Rc::clone(&session), Rc::clone(self));
        self.sessions.borrow_mut().push(session);
        drop(opening);
        Ok(Acquired::Stream(lease, false))
    }

    /// Until something has changed. That another connection could not be opened is nobody's failure while there are some
    /// whose streams will end; nor is it that whoever tried had less time, by a route's timeouts, than who waits.
    async fn wait(&self) -> Result<(), ErrorKind> {
        let before = self.failed.get().0;
        let _waiting = Waiting::new(self);
        self.changed.notified().await;
        match self.failed.get() {
            (_, Some(ErrorKind::ConnectTimeout | ErrorKind::TlsTimeout)) => Ok(()),
            (count, Some(kind)) if count > before && !self.takes_streams() => Err(kind),
            _ => Ok(()),
        }
    }

    /// Wakes all who wait.
    pub(super) fn tell_all(&self) {
        self.changed.notify_waiters();
    }

    /// Forgets a connection that has ended.
    pub(super) fn remove(&self, session: &Rc<Session>) {
        self.sessions.borrow_mut().retain(|kept| !Rc::ptr_eq(kept, session));
        self.tell_all();
    }

    fn retire(&self, which: impl Fn(&Session) -> bool) {
        let before = self.sessions.borrow().len();
        self.sessions.borrow_mut().retain(|session| {
            let retired = which(session) || !session.takes_streams();
            if retired {
                session.retire();
            }
            !retired
        });
        if self.sessions.borrow().len() < before {
            // There is room for another connection.
            self.tell_all();
        }
    }

    /// True when nothing would be lost with it.
    fn is_unused(&self) -> bool {
        self.sessions.borrow().is_empty() && self.opening.get() == 0 && self.waiting.get() == 0
    }
}

impl Drop for Set {
    /// Behind the last exchange that opens, waits or holds a stream: nobody could ask for one any more.
    fn drop(&mut self) {
        self.retire(|_| true);
    }
}

/// Counts a connection that is being opened.
struct Opened<'a>(&'a Set);

impl<'a> Opened<'a> {
    fn new(set: &'a Set) -> Self {
        set.opening.set(set.opening.get() + 1);
        Self(set)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.opening.set(self.0.opening.get() - 1);
        self.0.tell_all();
    }
}

/// Counts a request that waits.
struct Waiting<'a>(&'a Set);

impl<'a> Waiting<'a> {
    fn new(set: &'a Set) -> Self {
        set.waiting.set(set.waiting.get() + 1);
        Self(set)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

/// The right to one stream of a connection; given back on drop.
#[derive(Debug)]
pub(in crate::upstream) struct Lease {
    pub(super) session: Rc<Session>,
    set: Rc<Set>,
}

impl Lease {
    fn new(session: Rc<Session>, set: Rc<Set>) -> Self {
        session.begin_stream();
        Self { session, set }
    }

    /// Waits for the origin's SETTINGS, which say whether it takes extended CONNECT.
    async fn allows_tunnels(&self) -> Result<(), ErrorKind> {
        while !self.session.is_settled() {
            if !self.session.takes_streams() {
                return Err(ErrorKind::ConnectionClosed);
            }
            self.session.news().await;
        }
        self.session.is_extended().then_some(()).ok_or(ErrorKind::MalformedResponse("no_extended_connect"))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.session.end_stream();
        if self.set.kept.get().is_zero() && self.session.idle_since().is_some() {
            self.session.retire();
        }
        self.set.changed.notify_one();
    }
}
