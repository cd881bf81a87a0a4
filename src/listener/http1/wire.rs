//! One HTTP/1 connection's bytes and deadlines, shared by the driver and the request body it handed out.
//!
//! Exactly one of the two reads the socket at a time: the body until it ends or is dropped, then the driver. Both run in
//! the connection's task as a rule; where a body was moved to another task, wakers carry the news both ways.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST, TRAILER, TRANSFER_ENCODING};
use http_body::{Frame, SizeHint};
use tokio::io::AsyncReadExt;

use super::head::{self, Head, Scan, Scanner};
use crate::body::Source;
use crate::body::http1::{Decoded, Decoder, Fault, Framing, Outbox, READ_CHUNK, borrow_buffer, return_buffer};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::listener::lifecycle::Seat;
use crate::listener::timer::{Side, Timer};
use crate::listener::transport::Transport;
use crate::listener::{Phase, Settings};

/// Bytes of later requests kept while an earlier one is being answered.
const READ_AHEAD: usize = 64 * 1024;
/// How long a new connection may take to send the request it was made for, when the listener has begun to drain.
const FIRST_REQUEST: std::time::Duration = std::time::Duration::from_secs(1);
/// How long a closing connection waits for a client that still sends to notice.
const LINGER: std::time::Duration = std::time::Duration::from_secs(10);
/// Its longest silence meanwhile.
const LINGER_SILENCE: std::time::Duration = std::time::Duration::from_secs(2);
/// Bytes a closing connection swallows meanwhile: many clients write the whole of an upload before they read, and a photo
/// that is too large for the origin should not cost them the answer.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// What came instead of, or as, the next request.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A request.
    Request(Box<Head>),
    /// Bytes that are no request we take.
    Refused(ErrorKind),
    /// Nothing: the client left or was silent, or the process is stopping.
    Quiet,
}

/// See the module.
pub(super) struct Wire<S> {
    io: S,
    settings: Arc<Settings>,
    inbox: BytesMut,
    pub(super) outbox: Outbox,
    pub(super) timer: Timer,
    scanner: Scanner,
    /// No request has come yet.
    fresh: bool,
    /// The client has closed its side.
    eof: bool,
    body: Decoder,
    /// Whom to wake when the fault below is set from the driver's side.
    body_waker: Option<Waker>,
    /// The request body was dropped by its reader.
    body_dropped: bool,
    /// The client waits for 100 before it sends its body.
    expects_continue: bool,
    /// The body's reader has asked for bytes that only a 100 will bring.
    continue_wanted: bool,
    /// Number of the present exchange; the body of an earlier one reads nothing any more.
    turn: u64,
    /// Why the request body broke; the connection cannot go on.
    fault: Option<ErrorKind>,
    driver: Option<Waker>,
}

impl<S: Transport> Wire<S> {
    /// A connection whose first bytes may have been read already.
    pub(super) fn new(io: S, read_ahead: BytesMut, settings: Arc<Settings>) -> Self {
        Self {
            io,
            settings,
            inbox: read_ahead,
            outbox: Outbox::default(),
            timer: Timer::default(),
            scanner: Scanner::default(),
            fresh: true,
            eof: false,
            body: Decoder::new(Framing::Empty),
            body_waker: None,
            body_dropped: true,
            expects_continue: false,
            continue_wanted: false,
            turn: 0,
            fault: None,
            driver: None,
        }
    }

    /// Waits for a whole request head. Before its first byte the idle deadline runs, from then on the one for heads,
    /// which no further byte moves.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>, seat: &Seat) -> Poll<Arrival> {
        loop {
            if !self.inbox.is_empty()
                && let Some(arrival) = self.scan()
            {
                return Poll::Ready(arrival);
            }
            if self.eof {
                return Poll::Ready(Arrival::Quiet);
            }
            let idle = self.inbox.is_empty();
            match self.poll_fill(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Arrival::Quiet),
                Poll::Ready(Ok(_)) if idle => self.timer.clear(Side::Read),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return self.poll_silence(cx, seat, idle),
            }
        }
    }

    fn scan(&mut self) -> Option<Arrival> {
        let limits = &self.settings.limits;
        let range = match self.scanner.scan(&self.inbox, limits) {
            Scan::Partial => return None,
            Scan::Fault(kind) => return Some(Arrival::Refused(kind)),
            Scan::Complete(range) => range,
        };
        self.timer.clear(Side::Read);
        self.scanner = Scanner::default();
        self.fresh = false;
        let bytes = Bytes::copy_from_slice(self.inbox.get(range.clone()).unwrap_or_default());
        self.inbox.advance(range.end);
        Some(head::parse(&bytes, limits).map_or_else(Arrival::Refused, |head| Arrival::Request(Box::new(head))))
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>, seat: &Seat, idle: bool) -> Poll<Arrival> {
        let phase = seat.poll_phase(cx);
        let leaving = idle && phase == Phase::Draining;
        if phase == Phase::Closing || (leaving && !self.fresh) {
            return Poll::Ready(Arrival::Quiet);
        }
        let timeouts = &self.settings.timeouts;
        self.timer.start(Side::Read, if idle { timeouts.idle } else { timeouts.headers });
        if leaving {
            self.timer.shorten(Side::Read, FIRST_REQUEST);
        }
        match self.timer.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) if idle => Poll::Ready(Arrival::Quiet),
            Poll::Ready(_) => Poll::Ready(Arrival::Refused(ErrorKind::HeaderTimeout)),
        }
    }

    /// Reads once into the inbox; zero means the client closed its side. A connection that waits holds no buffer.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.inbox.capacity() == 0 {
            self.inbox = borrow_buffer();
        }
        self.inbox.reserve(READ_CHUNK / 2);
        let polled = pin!(self.io.read_buf(&mut self.inbox)).poll(cx);
        if self.inbox.is_empty() {
            return_buffer(&mut self.inbox);
        }
        if let Poll::Ready(Ok(0)) = polled {
            self.eof = true;
        }
        polled
    }

    /// Prepares for the body of the request whose head was just taken; returns the number its reader needs.
    pub(super) fn begin_body(&mut self, framing: Framing, expects_continue: bool) -> u64 {
        self.turn += 1;
        self.body = Decoder::new(framing);
        self.body_dropped = false;
        self.expects_continue = expects_continue && self.inbox.is_empty();
        self.continue_wanted = false;
        self.turn
    }

    /// The next piece of the request body, for its reader.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        loop {
            if let Some(kind) = self.fault {
                return Poll::Ready(Some(Err(ProxyError::new(kind, Stage::Listener))));
            }
            match self.decode() {
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::Data(piece)) => {
                    self.timer.clear(Side::Read);
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Ok(Decoded::Trailers(fields)) => {
                    self.timer.clear(Side::Read);
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(Decoded::Need) if self.eof => self.fault = Some(ErrorKind::ClientGone),
                Ok(Decoded::Need) => match self.poll_fill(cx) {
                    Poll::Ready(Ok(_)) => {
                        self.timer.clear(Side::Read);
                        self.expects_continue = false;
                    }
                    Poll::Ready(Err(_)) => self.fault = Some(ErrorKind::ClientGone),
                    Poll::Pending => {
                        self.wait_for_body(cx);
                        return Poll::Pending;
                    }
                },
                Err(kind) => self.fault = Some(kind),
            }
        }
    }

    /// What of the request body is in the inbox. Trailers must not say what frames or routes a message (RFC 9110 §6.5.1).
    fn decode(&mut self) -> Result<Decoded, ErrorKind> {
        let decoded = self.body.decode(&mut self.inbox).map_err(body_fault)?;
        match &decoded {
            Decoded::Trailers(fields)
                if [CONTENT_LENGTH, TRANSFER_ENCODING, HOST, TRAILER].iter().any(|name| fields.contains_key(name)) =>
            {
                Err(ErrorKind::BadRequest("trailer_forbidden"))
            }
            _ => Ok(decoded),
        }
    }

    fn wait_for_body(&mut self, cx: &Context<'_>) {
        self.timer.start(Side::Read, self.settings.timeouts.body);
        self.body_waker = Some(cx.waker().clone());
        if std::mem::take(&mut self.expects_continue) {
            self.continue_wanted = true;
        }
        if let Some(driver) = &self.driver
            && !driver.will_wake(cx.waker())
        {
            driver.wake_by_ref();
        }
    }

    /// True once, when a 100 is due.
    pub(super) fn take_continue_wanted(&mut self) -> bool {
        std::mem::take(&mut self.continue_wanted)
    }

    /// True when the client still waits for a 100, which this call counts as sent.
    pub(super) fn take_expects_continue(&mut self) -> bool {
        std::mem::take(&mut self.expects_continue)
    }

    /// Moves what can be moved without the request body's reader: writes the outbox, watches for the client's end and
    /// for deadlines. `Err` when the connection is of no use any more.
    pub(super) fn poll_background(&mut self, cx: &mut Context<'_>, seat: &Seat) -> Poll<Result<Tick, ErrorKind>> {
        if seat.poll_phase(cx) == Phase::Closing {
            return Poll::Ready(Err(ErrorKind::ClientGone));
        }
        let written = match self.poll_flush(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(Err(ErrorKind::ClientGone)),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        if self.poll_gone(cx) {
            return Poll::Ready(Err(ErrorKind::ClientGone));
        }
        match self.timer.poll(cx) {
            Poll::Ready(Side::Write) => Poll::Ready(Err(ErrorKind::ClientGone)),
            Poll::Ready(Side::Read) => {
                // Bytes that its reader had no time to take are not the client's silence.
                if !matches!(self.poll_fill(cx), Poll::Ready(Ok(1..))) {
                    self.fault = Some(ErrorKind::BodyTimeout);
                }
                if let Some(waker) = self.body_waker.take() {
                    waker.wake();
                }
                Poll::Ready(Ok(Tick::BodyNews))
            }
            Poll::Pending if written => Poll::Ready(Ok(Tick::Written)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes the outbox; the write deadline runs while nothing moves.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut moved = 0;
        let polled = self.outbox.poll_write(cx, &mut self.io, &mut moved);
        if moved > 0 || polled.is_ready() {
            self.timer.clear(Side::Write);
        }
        if polled.is_pending() {
            self.timer.start(Side::Write, self.settings.timeouts.write);
        }
        polled
    }

    /// True when the client has closed its side or the connection broke, as far as that can be seen: while a request
    /// body is still being read that is its reader's to find out, and behind a full read-ahead nothing is read.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        let ours = self.body.is_done() || self.body_dropped;
        while ours && !self.eof && self.inbox.len() < READ_AHEAD {
            match self.poll_fill(cx) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(_)) => {}
            }
        }
        self.eof && ours
    }

    /// Remembers whom to wake when the body, read in another task, wants something.
    pub(super) fn remember_driver(&mut self, cx: &Context<'_>) {
        if !self.body.is_done() {
            self.driver = Some(cx.waker().clone());
        }
    }

    /// Ends the request body as far as this connection can: true when the next request follows in the inbox. What is
    /// left of an abandoned body is skipped only when it has arrived already; a body nobody reads is not waited for.
    pub(super) fn settle_body(&mut self) -> bool {
        if self.fault.is_some() || self.expects_continue {
            return false;
        }
        while self.body_dropped && !self.body.is_done() {
            match self.decode() {
                Ok(Decoded::Need) | Err(_) => return false,
                Ok(_) => {}
            }
        }
        true
    }

    /// True when the request body was read to its end.
    pub(super) fn body_done(&self) -> bool {
        self.body.is_done() && self.fault.is_none()
    }

    /// Why the request body broke, if it did.
    pub(super) fn fault(&self) -> Option<ErrorKind> {
        self.fault
    }

    /// Starts over for the next request. Its head may be in the inbox already.
    pub(super) fn next(&mut self) {
        self.timer.clear(Side::Read);
        self.driver = None;
        self.body_waker = None;
        if self.inbox.is_empty() {
            return_buffer(&mut self.inbox);
        }
    }

    /// Takes what was read beyond the request, for the tunnel that follows it.
    pub(super) fn take_inbox(&mut self) -> BytesMut {
        std::mem::take(&mut self.inbox)
    }

    /// The connection itself.
    pub(super) fn io(&mut self) -> &mut S {
        &mut self.io
    }
}

/// A broken request body, in the words of a refusal.
fn body_fault(fault: Fault) -> ErrorKind {
    match fault {
        Fault::Ambiguous(reason) => ErrorKind::AmbiguousFraming(reason),
        Fault::Malformed(reason) => ErrorKind::BadRequest(reason),
        Fault::TrailersTooLarge => ErrorKind::HeaderTooLarge,
        Fault::TooManyTrailers => ErrorKind::TooManyHeaders,
    }
}

/// What [`Wire::poll_background`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tick {
    /// Everything is written.
    Written,
    /// The request body has bytes again or just timed out; its reader has something new to see.
    BodyNews,
}

/// Closes a connection so that what was written is read: the write side first, then, where the client may still be
/// sending (`linger`), its bytes are swallowed for a bounded while, since closing over unread bytes sends a reset that
/// can overtake the answer (RFC 9112 §9.6).
pub(super) async fn close<S: Transport>(wire: &RefCell<Wire<S>>, linger: bool) {
    let mut swallowed = 0;
    let mut shut = false;
    wire.borrow_mut().timer.set(Side::Read, LINGER);
    wire.borrow_mut().timer.set(Side::Write, LINGER_SILENCE);
    std::future::poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        if wire.timer.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !shut {
            // Whether or not the shutdown succeeds, the connection is over.
            let _ = ready!(Pin::new(&mut wire.io).poll_shutdown(cx));
            shut = true;
        }
        while linger && !wire.eof && swallowed < LINGER_BYTES {
            wire.inbox.clear();
            match ready!(wire.poll_fill(cx)) {
                Ok(read) => swallowed += read,
                Err(_) => break,
            }
            wire.timer.set(Side::Write, LINGER_SILENCE);
        }
        Poll::Ready(())
    })
    .await;
}

/// The request body as the pipeline sees it.
pub(super) struct Incoming<S: Transport> {
    /// The connection.
    pub(super) wire: Rc<RefCell<Wire<S>>>,
    /// The exchange this is the body of.
    pub(super) turn: u64,
}

impl<S: Transport> Source for Incoming<S> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let mut wire = self.wire.borrow_mut();
        if wire.turn == self.turn { wire.poll_body(cx) } else { Poll::Ready(None) }
    }

    fn size_hint(&self) -> SizeHint {
        self.wire.borrow().body.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    fn is_end(&self) -> bool {
        self.wire.borrow().body.is_done()
    }
}

impl<S: Transport> Drop for Incoming<S> {
    fn drop(&mut self) {
        let mut wire = self.wire.borrow_mut();
        if wire.turn == self.turn {
            wire.body_dropped = true;
            wire.timer.clear(Side::Read);
        }
    }
}
