//! One connection: who may use it, and the task that drives it.
//!
//! The task ends with the connection. Until then it reads the origin's SETTINGS and GOAWAY off the crate, asks with a
//! PING where an origin has been silent for too long with a stream open, and closes on an origin that sends little but
//! frames about the connection.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::sessions::Set;
use super::{STREAM_WINDOW, STREAMS, UNSAID, builder};
use crate::body::http2::{Cork, Corked, cork};
use crate::error::ErrorKind;
use crate::upstream::connect::now;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::fault as of_socket;
use crate::upstream::names::Lead;
use crate::upstream::stream::Stream;

/// Silence of an origin that owes something, before it is asked whether it lives.
const PING_AFTER: Duration = Duration::from_secs(20);
/// How long the answer to that may take.
const PONG_WITHIN: Duration = Duration::from_secs(5);
/// Two PINGs with nothing but the answer between them: origins that speak gRPC send away who asks more often.
const PING_APART: Duration = Duration::from_secs(310);
/// Bytes of a PING frame.
const PONG: u64 = 17;
/// Bytes an origin may send for each byte of a message that went either way, as in the listener's driver.
const NOISE: u64 = 8;
/// What a stream is taken for, in bytes of a message.
const STREAM: u64 = STREAM_WINDOW as u64 / NOISE;
/// Bytes of noise that are nobody's concern.
const QUIET: u64 = 8 * 1024 * 1024;
/// How long a connection that has ended may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A connection as its exchanges see it.
#[derive(Debug)]
pub(super) struct Session {
    /// Begins streams; gone once the connection takes no new ones. Behind a cell, since the crate wants it mutable.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    /// Streams that exchanges hold.
    open: Cell<usize>,
    /// Streams there may be at once.
    limit: Cell<usize>,
    /// The origin's SETTINGS have come.
    settled: Cell<bool>,
    /// The origin has sent back a request it had not looked at.
    refused: Cell<bool>,
    /// They allow extended CONNECT (RFC 8441).
    extended: Cell<bool>,
    /// Told when any of these change for the better, and at the end.
    news: Notify,
    /// Since when no stream is open.
    idle_since: Cell<Instant>,
    /// Why we closed it, where we did.
    fault: Cell<Option<ErrorKind>>,
    /// Bytes read so far.
    received: Cell<u64>,
    /// Where it leads, of an endpoint whose address is a name.
    lead: Cell<Option<Lead>>,
    /// Bytes of messages that went either way; see [`NOISE`].
    payload: Rc<Cell<u64>>,
}

impl Session {
    /// HTTP/2 over a fresh stream, driven by a task of its own that reports to `set`.
    ///
    /// # Errors
    /// A transport that fails at the first byte.
    pub(super) async fn start(
        stream: Stream,
        lead: Option<Lead>,
        endpoint: &Arc<Endpoint>,
        set: &Rc<Set>,
    ) -> Result<Rc<Self>, ErrorKind> {
        let (corked, cork) = cork(stream, BytesMut::new());
        let (sender, mut h2) = builder()
            .handshake(corked)
            .await
            .map_err(|error| error.get_io().map_or(ErrorKind::ConnectionClosed, of_socket::of_connect))?;
        let session = Rc::new(Self {
            sender: RefCell::new(Some(sender)),
            open: Cell::new(0),
            limit: Cell::new(1),
            settled: Cell::new(false),
            refused: Cell::new(false),
            extended: Cell::new(false),
            news: Notify::new(),
            idle_since: Cell::new(now()),
            fault: Cell::new(None),
            received: Cell::new(0),
            lead: Cell::new(lead),
            payload: Rc::default(),
        });
        let ping = h2.ping_pong();
        let driver = Driver {
            h2,
            cork,
            session: Rc::clone(&session),
            set: Rc::downgrade(set),
            endpoint: Arc::clone(endpoint),
            counted: (0, 0),
            cut: false,
            watch: Watch { ping, heard: (0, now()), owed: false, until: None, last: None, sleep: None },
        };
        tokio::task::spawn_local(driver.run());
        Ok(session)
    }

    /// True when one more stream may begin.
    pub(super) fn has_room(&self) -> bool {
        self.open.get() < self.limit.get() && self.takes_streams()
    }

    /// True until GOAWAY, the end, or [`Session::retire`].
    pub(super) fn takes_streams(&self) -> bool {
        self.sender.borrow().is_some()
    }

    /// True when the origin's SETTINGS have come.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.get()
    }

    /// Until the origin has said more, or nothing more will be said.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// True when the origin takes extended CONNECT; known once it is settled.
    pub(super) fn is_extended(&self) -> bool {
        self.extended.get()
    }

    /// The account of bytes of messages, for what moves them past [`Session::count_payload`].
    pub(super) fn payload(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.payload)
    }

    /// True when the origin has sent back a request without having looked at it.
    pub(super) fn has_refused(&self) -> bool {
        self.refused.get()
    }

    /// Notes that it did.
    pub(super) fn note_refusal(&self) {
        self.refused.set(true);
    }

    /// Since when it idles; `None` while a stream is open.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.open.get() == 0).then(|| self.idle_since.get())
    }

    /// Whether the endpoint still is where this leads.
    pub(super) fn leads_to(&self, endpoint: &Endpoint) -> bool {
        let mut lead = self.lead.get();
        let leads = endpoint.keeps(lead.as_mut());
        self.lead.set(lead);
        leads
    }

    /// Takes no new streams; the connection closes when the last one has ended.
    pub(super) fn retire(&self) {
        self.sender.borrow_mut().take();
    }

    /// A handle for one stream.
    pub(super) fn sender(&self) -> Option<SendRequest<Bytes>> {
        self.sender.borrow().clone()
    }

    /// Counts a stream in.
    pub(super) fn begin_stream(&self) {
        self.open.set(self.open.get() + 1);
        self.count_payload(STREAM);
    }

    /// Counts a stream out.
    pub(super) fn end_stream(&self) {
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 {
            self.idle_since.set(now());
        }
    }

    /// Counts bytes of a message.
    pub(super) fn count_payload(&self, bytes: u64) {
        self.payload.set(self.payload.get() + bytes);
    }

    /// Bytes read so far.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Why we closed the connection, where we did.
    pub(super) fn fault(&self) -> Option<ErrorKind> {
        self.fault.get()
    }
}

/// Drives a connection.
struct Driver {
    h2: Connection<Corked<Stream>, Bytes>,
    cork: Cork<Stream>,
    session: Rc<Session>,
    set: Weak<Set>,
    endpoint: Arc<Endpoint>,
    /// Bytes read and written that the endpoint's counters know of.
    counted: (u64, u64),
    /// A write has failed. Reading goes on: the origin may have answered before it closed.
    cut: bool,
    watch: Watch,
}

impl Driver {
    async fn run(mut self) {
        let orderly = std::future::poll_fn(|cx| self.poll(cx)).await;
        let Self { h2, cork, session, set, .. } = self;
        session.retire();
        session.news.notify_waiters();
        // Fails what is still open.
        drop(h2);
        if let Some(set) = set.upgrade() {
            set.remove(&session);
        }
        if orderly {
            let words = std::future::poll_fn(|cx| cork.poll_release(cx, &mut false));
            // Whether the origin hears our GOAWAY is its own business.
            let _ = tokio::time::timeout(LAST_WORDS, words).await;
        }
    }

    /// Ready when the connection is over; true when it ended by its own rules.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let ended = Pin::new(&mut self.h2).poll(cx);
        self.observe(cx);
        if !self.cut && matches!(self.cork.poll_release(cx, &mut false), Poll::Ready(Err(_))) {
            self.cut = true;
        }
        self.count();
        if ended.is_ready() {
            return Poll::Ready(!self.cut);
        }
        let session = &self.session;
        if self.cork.received() > QUIET + NOISE * session.payload.get() {
            session.fault.set(Some(ErrorKind::MalformedResponse("http2_noise_flood")));
            return Poll::Ready(false);
        }
        let owed = session.open.get() > 0;
        if self.watch.poll(cx, owed, self.cork.received()).is_ready() {
            session.fault.set(Some(ErrorKind::ConnectionReset));
            return Poll::Ready(false);
        }
        Poll::Pending
    }

    /// What the origin has said of the connection.
    fn observe(&self, cx: &mut Context<'_>) {
        let session = &self.session;
        let mut sender = session.sender.borrow_mut();
        let Some(handle) = sender.as_mut() else { return };
        let said = handle.current_max_send_streams();
        let going = matches!(handle.poll_ready(cx), Poll::Ready(Err(_)));
        let limit = if said == UNSAID { 1 } else { said.min(STREAMS) };
        let news = going || limit > session.limit.get() || (said != UNSAID && !session.settled.get());
        session.extended.set(handle.is_extended_connect_protocol_enabled());
        session.settled.set(said != UNSAID);
        session.limit.set(limit);
        if going {
            sender.take();
        }
        drop(sender);
        if news {
            session.news.notify_waiters();
        }
        if news && let Some(set) = self.set.upgrade() {
            set.tell_all();
        }
    }

    fn count(&mut self) {
        let (read, written) = (self.cork.received(), self.cork.written());
        self.session.received.set(read);
        if read > self.counted.0 {
            self.endpoint.count_read(read - self.counted.0);
        }
        if written > self.counted.1 {
            self.endpoint.count_written(written - self.counted.1);
        }
        self.counted = (read, written);
    }
}

/// Whether the origin lives.
struct Watch {
    ping: Option<PingPong>,
    /// Bytes read at the last look, and since when it is silent: when that last changed, or it began to owe something.
    heard: (u64, Instant),
    /// It owed something at the last look.
    owed: bool,
    /// Until when the PING under way is to be answered, by whatever bytes.
    until: Option<Instant>,
    /// The last PING, and how much had been read then.
    last: Option<(u64, Instant)>,
    /// Armed lazily, for some moment not later than the next deadline.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    /// Ready when the origin is dead. `owed`: it owes something; `received`: bytes read so far.
    fn poll(&mut self, cx: &mut Context<'_>, owed: bool, received: u64) -> Poll<()> {
        let now = now();
        if let Some(ping) = &mut self.ping {
            // Makes room for the next one; that it came shows in `received`.
            let _ = ping.poll_pong(cx);
        }
        if received != self.heard.0 {
            (self.heard, self.until) = ((received, now), None);
        }
        if owed && !self.owed {
            // Who owes nothing may be silent.
            self.heard.1 = now;
        }
        self.owed = owed;
        let due = match self.until {
            Some(until) => until,
            None if owed => self.next_ping(),
            None => return Poll::Pending,
        };
        if now < due {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due.into())));
            if sleep.deadline().into_std() != due {
                sleep.as_mut().reset(due.into());
            }
            ready!(sleep.as_mut().poll(cx));
        }
        if self.until.is_some() {
            return Poll::Ready(());
        }
        if self.ping.as_mut().is_some_and(|ping| ping.send_ping(Ping::opaque()).is_ok()) {
            // The crate wakes this task to write it, which arms the timer.
            self.until = Some(now + PONG_WITHIN);
            self.last = Some((received, now));
        }
        Poll::Pending
    }

    /// When the silence has lasted long enough to ask.
    fn next_ping(&self) -> Instant {
        let (received, since) = self.heard;
        let after = since + PING_AFTER;
        match self.last {
            Some((before, at)) if received <= before + PONG => after.max(at + PING_APART),
            _ => after,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[tokio::test]
    async fn an_origin_may_be_silent_while_it_owes_nothing() {
        let long_ago = now().checked_sub(10 * PING_AFTER).expect("the clock has run for longer");
        let mut watch = Watch { ping: None, heard: (1, long_ago), owed: false, until: None, last: None, sleep: None };
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(watch.poll(cx, false, 1).is_pending());
        let begun = now();
        assert!(watch.poll(cx, true, 1).is_pending());
        assert!(watch.next_ping() >= begun + PING_AFTER, "it counts from the stream on");
        let (_, since) = watch.heard;
        assert!(watch.poll(cx, true, 1).is_pending());
        assert_eq!(watch.heard.1, since, "and goes on counting");
    }
}
