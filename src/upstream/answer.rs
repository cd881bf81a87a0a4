//! The answer's body: it drives the connection it comes from, and at its end gives the connection back.
//!
//! While the client takes no bytes nothing is read from the origin (back-pressure), and the upload of an exchange that
//! is answered early only goes on while the answer is being read.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::client::Connections;
use super::endpoint::{Endpoint, InFlightGuard};
use super::fault;
use super::link::Link;
use super::outgoing::Upload;
use super::patience::{Awaited, Exceeded};
use super::pool::Pool;
use super::stream::Meter;
use crate::body::{Body, Response, Source, Upgrade};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::policy::fields::forward_trailers;

/// Longest silence in a tunnel. A pool's `idle` is for bodies: chat and notification sockets are quiet for much longer,
/// and those that matter send pings well within the hour.
const TUNNEL_IDLE: Duration = Duration::from_secs(3600);

/// What an attempt uses up: a slot until it is dropped, and the bytes it moved, counted then.
#[derive(Debug)]
pub(super) struct Account {
    guard: InFlightGuard,
    meter: Rc<Meter>,
    read_before: u64,
    written_before: u64,
}

impl Account {
    pub(super) fn open(guard: InFlightGuard, meter: Rc<Meter>) -> Self {
        Self { guard, read_before: meter.read.get(), written_before: meter.written.get(), meter }
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        self.guard.endpoint()
    }

    /// True when a byte of the answer has come.
    pub(super) fn has_read(&self) -> bool {
        self.meter.read.get() > self.read_before
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let read = self.meter.read.get() - self.read_before;
        let written = self.meter.written.get() - self.written_before;
        self.endpoint().count_bytes(read, written);
    }
}

/// An exchange under way: everything that is needed to bring it to its end. Dropping it closes the connection.
pub(super) struct Exchange {
    pub(super) link: Box<Link>,
    pub(super) upload: Rc<Upload>,
    pub(super) account: Account,
    pub(super) connections: Rc<Connections>,
    pub(super) pool: Arc<Pool>,
}

impl Exchange {
    /// Keeps the connection, unless the request is still being sent: what is left of it belongs to nobody. Nor is one
    /// kept that answered in HTTP/1.0: the next request would go out in HTTP/1.0 too, which cannot frame a streamed
    /// body.
    fn finish(self, version: Version) {
        if self.upload.finished() && version == Version::HTTP_11 {
            self.connections.park(&self.pool, self.account.endpoint(), self.link);
        }
    }

    /// The failure behind a broken body: the client's own, where that broke it, else the origin's.
    fn fail(&self, kind: ErrorKind) -> ProxyError {
        self.upload.fault().unwrap_or_else(|| {
            self.account.endpoint().count_failure(kind);
            ProxyError::new(kind, Stage::Forward)
        })
    }
}

/// The response to a complete head.
pub(super) async fn response(exchange: Exchange, head: http::Response<Incoming>, method: &Method) -> Response {
    let (parts, incoming) = head.into_parts();
    let mut response = Response::new(parts.status, Body::Empty);
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        response.upgrade = Some(upgrade(exchange).await);
    } else if incoming.is_end_stream() {
        if *method == Method::HEAD || parts.status == StatusCode::NOT_MODIFIED {
            response.content_length = content_length(&parts.headers);
        }
        exchange.finish(parts.version);
    } else {
        let body = AnswerBody { exchange: Some(exchange), incoming, version: parts.version };
        response.body = Body::stream(body);
    }
    response.headers = parts.headers;
    response
}

/// What GET would send, where the origin says one number.
fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn upgrade(mut exchange: Exchange) -> Upgrade {
    // The head is parsed and the request is out, so hyper has nothing left to wait for: this ends at once.
    std::future::poll_fn(|cx| {
        exchange.link.drive(cx);
        Poll::Ready(())
    })
    .await;
    let (stream, read_ahead) = exchange.link.into_stream();
    Upgrade { io: Box::new(stream), read_ahead, idle: TUNNEL_IDLE, guard: Box::new(exchange.account) }
}

/// The frame without trailer fields that end at this hop.
pub(super) fn clean(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            forward_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// A body on its way from the origin.
struct AnswerBody {
    /// Gone once the body has ended or failed: the slot is free, the connection kept or closed.
    exchange: Option<Exchange>,
    incoming: Incoming,
    version: Version,
}

impl AnswerBody {
    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.finish(self.version);
        }
    }

    fn fail(&mut self, kind: ErrorKind) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        Poll::Ready(self.exchange.take().map(|exchange| Err(exchange.fail(kind))))
    }

    /// One look at what has arrived.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(clean(frame))))
            }
            Poll::Ready(Some(Err(error))) => self.fail(fault::of_body(&error)),
        }
    }
}

impl Source for AnswerBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        if self.exchange.is_none() {
            return Poll::Ready(None);
        }
        // The first look also tells hyper that there is room for a frame; the connection then reads one.
        if let ready @ Poll::Ready(_) = self.poll_incoming(cx) {
            return ready;
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.link.drive(cx);
        }
        if let ready @ Poll::Ready(_) = self.poll_incoming(cx) {
            return ready;
        }
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        if exchange.link.ended {
            return self.fail(ErrorKind::ResponseTruncated);
        }
        // Time while the client takes nothing is not the origin's silence: every frame came by a read since the last
        // look, so the wait begins with this one.
        let meter = &exchange.link.meter;
        let awaited = Awaited::Body(meter.read.get() + meter.written.get());
        let idle = exchange.pool.params.timeouts.idle;
        match exchange.link.patience.poll(cx, awaited, Some(idle)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Exceeded::Silence) => self.fail(ErrorKind::ReadTimeout),
            Poll::Ready(Exceeded::Total) => self.fail(ErrorKind::TotalTimeout),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    fn is_end(&self) -> bool {
        self.exchange.is_none()
    }
}
