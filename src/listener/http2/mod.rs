//! HTTP/2 (RFC 9113): drives the `h2` crate, with a local task for each stream that is not answered at once.
//!
//! Every window, list and buffer has a limit of its own below; on top of the crate's defences against floods, a client
//! that opens and resets streams too eagerly, or sends little but frames about the connection (PING, SETTINGS, PRIORITY,
//! WINDOW_UPDATE), is sent away (`ENHANCE_YOUR_CALM`), and one connection carries a bounded number of streams. Extended CONNECT is taken for WebSockets (RFC 8441). Not offered: push, `h2c` by upgrade (prior knowledge is how plain HTTP/2 begins
//! here).
//!
//! | file | subject |
//! |---|---|
//! | `mod` | the connection: limits, floods, silence, GOAWAY |
//! | `stream` | one exchange: handler, interim heads, response |
//! | `tunnel` | a stream that has left HTTP |
//! | `request` | what the crate leaves to check, and the request body |

mod request;
mod stream;
mod tunnel;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::Reason;

use super::connection::Connection;
use super::timer::{Side, Timer};
use super::transport::Transport;
use super::{Handler, Phase};
use crate::body::http2::{Cork, Corked, cork};

/// Bytes of one stream's body the client may send ahead.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes of all bodies the client may send ahead.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The largest frame accepted; the protocol's minimum.
const FRAME: u32 = 16 * 1024;
/// Bytes of one response body the crate may hold.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams we reset that the crate remembers, to ignore what the client sent before it knew.
const RESET_MEMORY: usize = 64;
/// Streams the client may reset before we have even taken them; the crate closes the connection beyond.
const UNSEEN_RESETS: usize = 20;
/// Streams the client may reset in [`RESET_WINDOW`]; a browser that leaves a page cancels a few dozen.
const RESETS: u32 = 200;
/// See [`RESETS`].
const RESET_WINDOW: Duration = Duration::from_secs(10);
/// Bytes a client may send for each byte of a message that went either way: one DATA frame of a fair size, and the two
/// WINDOW_UPDATE frames that answer it, are far below.
const NOISE: u64 = 8;
/// What a stream is taken for, in bytes of a message: its HEADERS frame, and a window of an upload that is never read.
const STREAM: u64 = STREAM_WINDOW as u64 / NOISE;
/// Bytes of noise that are nobody's concern: weeks of keep-alive PINGs.
const QUIET: u64 = 8 * 1024 * 1024;
/// Streams of one connection, before it is asked to make a new one.
const STREAMS: u64 = 100_000;
/// How long a connection that has ended may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves streams until the client leaves, is silent for `timeouts.idle` with no stream open, or is sent away.
pub(crate) async fn serve<S: Transport, H: Handler>(io: S, read_ahead: BytesMut, connection: Connection<H>) {
    let limits = connection.settings.limits;
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_frame_size(FRAME)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESET_MEMORY)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .enable_connect_protocol();
    let (corked, cork) = cork(io, read_ahead);
    let mut timer = Timer::default();
    timer.set(Side::Read, connection.settings.timeouts.headers);
    let shared = Rc::new(Shared::new(connection));
    let mut handshake = std::pin::pin!(builder.handshake::<_, Bytes>(corked));
    let shaken = std::future::poll_fn(|cx| {
        if shared.connection.seat.poll_phase(cx) == Phase::Closing || timer.poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let shaken = handshake.as_mut().poll(cx);
        // Our SETTINGS are in the cork by now; the client may wait for them.
        match cork.poll_release(cx, &mut false) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            _ => shaken.map(Result::ok),
        }
    });
    let Some(h2) = shaken.await else {
        return shared.connection.counters().handshake_failures.add("http2_preface");
    };
    timer.clear(Side::Read);
    let mut driver = Driver { h2, cork, timer, shared, streams: 0, leaving: false, calmed: false };
    std::future::poll_fn(|cx| driver.poll(cx)).await;
    driver.timer.set(Side::Write, LAST_WORDS);
    std::future::poll_fn(|cx| match driver.timer.poll(cx) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => driver.cork.poll_release(cx, &mut false).map(|_| ()),
    })
    .await;
}

/// What the driver and its streams both know.
pub(super) struct Shared<H> {
    pub(super) connection: Connection<H>,
    /// Streams being served.
    open: Cell<usize>,
    resets: Cell<Resets>,
    /// Bytes of messages that went either way; see [`NOISE`].
    payload: Rc<Cell<u64>>,
    /// Woken when the last open stream has ended, since silence begins then, and when the client resets one.
    driver: RefCell<Option<Waker>>,
}

/// Resets by the client since the window began.
#[derive(Debug, Clone, Copy)]
struct Resets {
    since: Instant,
    count: u32,
}

impl Resets {
    fn observe(self, now: Instant) -> Self {
        if now.saturating_duration_since(self.since) > RESET_WINDOW {
            Self { since: now, count: 1 }
        } else {
            Self { count: self.count + 1, ..self }
        }
    }
}

impl<H: Handler> Shared<H> {
    fn new(connection: Connection<H>) -> Self {
        let resets = Resets { since: connection.clock.now().mono, count: 0 };
        Self {
            connection,
            open: Cell::new(0),
            resets: Cell::new(resets),
            payload: Rc::default(),
            driver: RefCell::default(),
        }
    }

    /// Counts a stream that the client reset.
    pub(super) fn client_reset(&self) {
        self.resets.set(self.resets.get().observe(self.connection.clock.now().mono));
        if let Some(waker) = self.driver.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Counts a stream in, until the guard is dropped.
    pub(super) fn open(self: &Rc<Self>) -> OpenGuard<H> {
        self.open.set(self.open.get() + 1);
        OpenGuard(Rc::clone(self))
    }
}

/// One stream being served.
pub(super) struct OpenGuard<H>(Rc<Shared<H>>);

impl<H> Drop for OpenGuard<H> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if self.0.open.get() == 0
            && let Some(waker) = self.0.driver.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

struct Driver<S, H> {
    h2: h2::server::Connection<Corked<S>, Bytes>,
    cork: Cork<S>,
    timer: Timer,
    shared: Rc<Shared<H>>,
    /// Streams taken so far.
    streams: u64,
    /// GOAWAY has been sent, or is about to be.
    leaving: bool,
    /// It said `ENHANCE_YOUR_CALM`.
    calmed: bool,
}

impl<S: Transport, H: Handler> Driver<S, H> {
    /// Ready when the connection is over but for what the cork still holds.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.driver.borrow_mut().take();
        match self.shared.connection.seat.poll_phase(cx) {
            Phase::Running => {}
            Phase::Draining => self.leave(),
            Phase::Closing => return Poll::Ready(()),
        }
        if let Some(flood) = self.flood()
            && !self.calmed
        {
            self.shared.connection.counters().framing_faults.add(flood);
            (self.leaving, self.calmed) = (true, true);
            self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
        while let Poll::Ready(accepted) = self.h2.poll_accept(cx) {
            let Some(Ok((request, respond))) = accepted else { return Poll::Ready(()) };
            self.streams += 1;
            self.shared.payload.set(self.shared.payload.get() + STREAM);
            if self.streams >= STREAMS {
                self.leave();
            }
            // What is answered at once (a hit) needs no task of its own.
            let mut exchange = Box::pin(stream::run(request, respond, Rc::clone(&self.shared)));
            if exchange.as_mut().poll(cx).is_pending() {
                tokio::task::spawn_local(exchange);
            }
        }
        self.poll_write(cx)
    }

    /// Why the client is to be sent away, if it is.
    fn flood(&self) -> Option<&'static str> {
        if self.shared.resets.get().count > RESETS {
            return Some("http2_reset_flood");
        }
        let noise = self.cork.received() > QUIET + NOISE * self.shared.payload.get();
        noise.then_some("http2_noise_flood")
    }

    fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            self.h2.graceful_shutdown();
        }
    }

    /// Lets go of what the crate wrote, and watches the clock.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeouts = &self.shared.connection.settings.timeouts;
        let mut progress = false;
        let released = self.cork.poll_release(cx, &mut progress);
        if progress || released.is_ready() {
            self.timer.clear(Side::Write);
        }
        match released {
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(())) => {}
            Poll::Pending => self.timer.start(Side::Write, timeouts.write),
        }
        *self.shared.driver.borrow_mut() = Some(cx.waker().clone());
        if self.shared.open.get() == 0 {
            self.timer.start(Side::Read, timeouts.idle);
        } else {
            self.timer.clear(Side::Read);
        }
        match self.timer.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Side::Write) => Poll::Ready(()),
            // Sent away already, and still there after one more silence.
            Poll::Ready(Side::Read) if self.leaving => Poll::Ready(()),
            Poll::Ready(Side::Read) => {
                self.leave();
                // The GOAWAY is written on the next turn.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}
