//! An exchange under way, and the answer's body: it drives the connection it comes from, and at its end gives the
//! connection back.
//!
//! While the client takes no bytes nothing is read from the origin (back-pressure), and the upload of an exchange that
//! is answered early only goes on while the answer is being read.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::{Frame, SizeHint};

use super::client::Connections;
use super::endpoint::{Endpoint, InFlightGuard};
use super::http1::{Head, Upload};
use super::link::Link;
use super::pool::Pool;
use crate::body::http1::{Decoded, Decoder};
use crate::body::{Body, Response, Source, Upgrade};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::policy::fields::forward_trailers;
use crate::policy::health::outlier::Failing;

/// Longest silence in a tunnel. A pool's `idle` is for bodies: chat and notification sockets are quiet for much longer,
/// and those that matter send pings well within the hour.
pub(super) const TUNNEL_IDLE: Duration = Duration::from_secs(3600);

/// An exchange under way: everything that is needed to bring it to its end. Dropping it closes the connection.
pub(super) struct Exchange {
    pub(super) link: Box<Link>,
    /// What is left of the request body; `None` when the request went out with its head.
    pub(super) upload: Option<Box<Upload>>,
    /// The slot, until the exchange ends.
    pub(super) guard: InFlightGuard,
    pub(super) connections: Rc<Connections>,
    pub(super) pool: Arc<Pool>,
}

impl Exchange {
    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        self.guard.endpoint()
    }

    /// True when all of the request is with the connection.
    pub(super) fn is_sent(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| upload.finished())
    }

    /// The failure of the client's side that ended the request body, if one did.
    pub(super) fn client_fault(&self) -> Option<ProxyError> {
        self.upload.as_ref()?.fault()
    }

    /// Sends as much of the request as there is and the connection takes.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) {
        while self.link.http.takes_writes() {
            if let Some(upload) = &mut self.upload {
                upload.poll_fill(cx, &mut self.link.http.outbox);
            }
            let all = self.link.http.poll_write(cx);
            let more = self
                .upload
                .as_ref()
                .is_some_and(|upload| !upload.finished() && !upload.waiting() && upload.fault().is_none());
            if !all || !more {
                return;
            }
        }
    }

    /// Keeps the connection where `keep_alive` says so, unless the request is still being sent: what is left of it
    /// belongs to nobody.
    fn finish(self, keep_alive: bool) {
        if keep_alive && self.is_sent() {
            self.connections.park(&self.pool, self.guard.endpoint(), self.link);
        }
    }

    /// The failure behind a broken body: the client's own, where that broke it, else the origin's.
    fn fail(&self, kind: ErrorKind) -> ProxyError {
        self.client_fault().unwrap_or_else(|| {
            self.endpoint().count_failure(kind);
            if let Some(failing) = Failing::of_error(kind) {
                self.pool.blame(self.endpoint(), failing);
            }
            ProxyError::new(kind, Stage::Forward)
        })
    }
}

/// The response to a complete head.
pub(super) fn response(mut exchange: Exchange, head: Head, method: &Method) -> Response {
    let mut response = Response::new(head.status, Body::Empty);
    let head_only = *method == Method::HEAD;
    let mut decoder = head.body(head_only);
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        response.upgrade = Some(Box::new(upgrade(exchange)));
    } else if decoder.is_done() {
        if head_only || head.status == StatusCode::NOT_MODIFIED {
            response.content_length = head.content_length();
        }
        exchange.finish(head.keep_alive);
    } else if exchange.is_sent()
        && let Some(whole) = exchange.link.http.take_whole(&mut decoder)
    {
        response.body = Body::Full(whole);
        exchange.finish(head.keep_alive);
    } else {
        let body = AnswerBody { exchange: Some(exchange), decoder, keep_alive: head.keep_alive };
        response.body = Body::stream(body);
    }
    response.headers = head.headers;
    response
}

fn upgrade(exchange: Exchange) -> Upgrade {
    let (stream, read_ahead) = exchange.link.http.into_stream();
    Upgrade { io: Box::new(stream), read_ahead, idle: TUNNEL_IDLE, guard: Box::new(exchange.guard) }
}

/// A body on its way from the origin.
struct AnswerBody {
    /// Gone once the body has ended or failed: the slot is free, the connection kept or closed.
    exchange: Option<Exchange>,
    decoder: Decoder,
    keep_alive: bool,
}

impl AnswerBody {
    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.finish(self.keep_alive);
        }
    }

    fn fail(&mut self, kind: ErrorKind) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        Poll::Ready(self.exchange.take().map(|exchange| Err(exchange.fail(kind))))
    }

    /// The frame, and the end of the exchange where it is the last one.
    fn take_in(&mut self, decoded: Decoded) -> Option<Frame<Bytes>> {
        if self.decoder.is_done() || decoded == Decoded::End {
            self.finish();
        }
        match decoded {
            Decoded::Data(piece) => Some(Frame::data(piece)),
            Decoded::Trailers(trailers) => Some(Frame::trailers(clean(trailers))),
            Decoded::Need | Decoded::End => None,
        }
    }
}

/// The trailers without fields that end at this hop.
pub(super) fn clean(mut trailers: HeaderMap) -> HeaderMap {
    forward_trailers(&mut trailers);
    trailers
}

impl Source for AnswerBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        if !exchange.is_sent() || !exchange.link.http.outbox.is_settled() {
            exchange.poll_send(cx);
            if let Some(error) = exchange.client_fault() {
                self.exchange = None;
                return Poll::Ready(Some(Err(error)));
            }
        }
        match exchange.link.http.poll_body(cx, &mut self.decoder) {
            Poll::Ready(Ok(decoded)) => return Poll::Ready(self.take_in(decoded).map(Ok)),
            Poll::Ready(Err(kind)) => return self.fail(kind),
            Poll::Pending => {}
        }
        // Time while the client takes nothing is not the origin's silence: every frame came by a read since the last
        // look, so the wait begins with this one.
        let http = &exchange.link.http;
        let moved = http.read() + http.written();
        let kind = ready!(exchange.link.patience.poll_body(cx, moved));
        self.fail(kind)
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    fn is_end(&self) -> bool {
        self.exchange.is_none()
    }
}
