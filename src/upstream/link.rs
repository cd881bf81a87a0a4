//! One HTTP/1.1 connection to an endpoint, busy or idle.

use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::outgoing::Outgoing;
use super::patience::Patience;
use super::stream::{Meter, Stream, Wire};
use crate::body::Interim;

/// Bytes of a response head, and hyper's read and write buffer. What origins send in practice stays under 16 KiB.
const HEAD_BYTES: usize = 64 * 1024;

/// 1xx heads one exchange may get; more is a flood.
const INTERIM_HEADS: u32 = 32;

/// A connection to an endpoint, busy or idle, with everything that is made once per connection.
pub(super) struct Link {
    pub(super) sender: http1::SendRequest<Outgoing>,
    connection: http1::Connection<TokioIo<Wire>, Outgoing>,
    pub(super) meter: Rc<Meter>,
    pub(super) patience: Patience,
    pub(super) interims: Arc<Interims>,
    /// hyper's connection must not be polled past its end.
    pub(super) ended: bool,
}

impl Link {
    /// HTTP/1.1 over a fresh stream. `first_wait` is how long its first exchange will wait at most.
    pub(super) async fn open(stream: Stream, first_wait: Duration) -> Result<Self, hyper::Error> {
        let (wire, meter) = Wire::new(stream);
        let (sender, connection) = http1::Builder::new().max_buf_size(HEAD_BYTES).handshake(TokioIo::new(wire)).await?;
        let patience = Patience::new(first_wait);
        Ok(Self { sender, connection, meter, patience, interims: Arc::default(), ended: false })
    }

    /// Lets the connection read and write what it can. Its end is reported by the response that then fails; all that is
    /// kept here is that it has ended.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        self.ended = self.ended || self.connection.poll_without_shutdown(cx).is_ready();
    }

    /// True when the connection could take a request now. Polls it once, without leaving a waker behind: nobody is to
    /// be woken for an idle connection.
    pub(super) fn is_reusable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.ended && self.sender.is_ready()
    }

    /// The stream under HTTP and what was read too far, where HTTP has ended (101).
    pub(super) fn into_stream(self) -> (Stream, Bytes) {
        let parts = self.connection.into_parts();
        (parts.io.into_inner().into_stream(), parts.read_buf)
    }
}

/// 1xx heads of the exchange at hand, between hyper's callback and the exchange. hyper wants the callback `Sync`; the
/// lock is never contended, since both ends run on one worker.
#[derive(Debug, Default)]
pub(super) struct Interims {
    seen: AtomicU32,
    heads: Mutex<Vec<(StatusCode, HeaderMap)>>,
}

impl Interims {
    pub(super) fn begin(&self) {
        self.seen.store(0, Ordering::Relaxed);
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Takes one head. 100 is for this hop only: our own side already told the client to go on.
    pub(super) fn push(&self, status: StatusCode, headers: &HeaderMap) {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        if status != StatusCode::CONTINUE && seen < INTERIM_HEADS {
            self.heads.lock().unwrap_or_else(PoisonError::into_inner).push((status, headers.clone()));
        }
    }

    /// Passes on what has come; false when the origin floods.
    pub(super) fn pass_on(&self, interim: &Interim) -> bool {
        let seen = self.seen.load(Ordering::Relaxed);
        if seen > 0 {
            for (status, headers) in self.heads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                interim.send(status, headers);
            }
        }
        seen <= INTERIM_HEADS
    }
}
