//! The answer's body, while it comes. The origin's window opens as the client takes it (back-pressure).
//!
//! What is left of the upload goes on while the answer is read: both directions may stream (gRPC).

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Error, Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, UPGRADE};
use http::{Method, Response as HttpResponse, StatusCode};
use http_body::{Frame, SizeHint};

use super::exchange::{Exchange, first_piece};
use super::fault::{Within, of_stream};
use super::fits;
use crate::body::http2::StreamTunnel;
use crate::body::{Body, Response, Source, Upgrade};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::policy::health::outlier::Failing;
use crate::policy::websocket;
use crate::upstream::answer::{TUNNEL_IDLE, clean};
use crate::upstream::client::OutRequest;

/// The response to a head. A body that has come with it as a whole is not streamed.
pub(super) async fn response(mut exchange: Exchange, head: HttpResponse<RecvStream>, method: &Method) -> Response {
    let (head, stream) = head.into_parts();
    let mut response = Response::new(head.status, Body::Empty);
    let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let head_only = *method == Method::HEAD;
    response.headers = head.headers;
    if head_only || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        if head_only || head.status == StatusCode::NOT_MODIFIED {
            response.content_length = length;
        }
        return response;
    }
    if let Some(upload) = &mut exchange.upload {
        upload.forget();
        upload.rest();
    }
    if stream.is_end_stream() {
        return response;
    }
    let mut body = AnswerBody { exchange: Some(exchange), stream, remaining: length, first: None, taken: 0 };
    body.first = match first_piece(&mut body.stream).await {
        Poll::Ready(piece) => Some(piece),
        Poll::Pending => None,
    };
    response.body = body.into_body();
    response
}

/// The answer to an extended CONNECT that was granted, as HTTP/1.1 would say it (RFC 8441 §5.1).
pub(super) fn switch(
    exchange: Exchange,
    send: Option<SendStream<Bytes>>,
    head: HttpResponse<RecvStream>,
    request: &OutRequest,
) -> Response {
    let (head, receive) = head.into_parts();
    let mut response = Response::new(StatusCode::SWITCHING_PROTOCOLS, Body::Empty);
    response.headers = head.headers;
    if let Some(protocol) = request.headers.get(UPGRADE) {
        response.headers.insert(UPGRADE, protocol.clone());
    }
    if let Some(key) = request.headers.get(websocket::KEY) {
        response.headers.insert(websocket::ACCEPT, websocket::accept(key));
    }
    let Exchange { slot, lease, .. } = exchange;
    let payload = lease.session.payload();
    response.upgrade = send.map(|send| {
        Box::new(Upgrade {
            io: Box::new(StreamTunnel::new(send, receive, payload)),
            read_ahead: Bytes::new(),
            idle: TUNNEL_IDLE,
            guard: Box::new((slot.guard, lease)),
        })
    });
    response
}

/// A body on its way from the origin.
struct AnswerBody {
    /// Gone once the body has ended or failed: the slot is free, the stream closed or reset.
    exchange: Option<Exchange>,
    stream: RecvStream,
    /// What is left of the announced length.
    remaining: Option<u64>,
    /// What was read with the head.
    first: Option<Option<Result<Bytes, Error>>>,
    /// Bytes taken so far.
    taken: u64,
}

impl AnswerBody {
    fn into_body(mut self) -> Body {
        let length = self.remaining;
        match self.first.take() {
            Some(Some(Ok(piece))) if length == Some(piece.len() as u64) && self.stream.is_end_stream() => {
                self.take(piece.len());
                Body::full(piece)
            }
            first => {
                self.first = first;
                Body::stream(self)
            }
        }
    }

    /// Counts a piece, and opens the window for as much.
    fn take(&mut self, length: usize) {
        // Fails only for a stream that is gone, which the next poll will say.
        let _ = self.stream.flow_control().release_capacity(length);
        self.taken += length as u64;
        self.remaining = self.remaining.map(|left| left.saturating_sub(length as u64));
        if let Some(exchange) = &self.exchange {
            exchange.lease.session.count_payload(length as u64);
        }
        if self.stream.is_end_stream() {
            self.exchange = None;
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        match self.first.take() {
            Some(piece) => Poll::Ready(piece),
            None => self.stream.poll_data(cx),
        }
    }

    /// The next frame of the stream; `Err` with what broke it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match ready!(self.poll_data(cx)) {
                Some(Ok(piece)) if piece.is_empty() && !self.stream.is_end_stream() => {}
                Some(Ok(piece)) => {
                    self.take(piece.len());
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                // Behind a whole answer it asks for the end of the upload (RFC 9113 §8.1).
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) && self.is_whole() => break,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => break,
            }
        }
        let trailers = match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers,
            Err(error) if error.reason() == Some(Reason::NO_ERROR) && self.is_whole() => None,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(clean(trailers)))))
    }

    /// The frame to be passed on; trailers end the exchange.
    fn pass(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        match frame.trailers_ref() {
            Some(trailers) if !fits(trailers) => self.fail(ErrorKind::MalformedResponse("trailers_too_large")),
            Some(_) => {
                self.exchange = None;
                Poll::Ready(Some(Ok(frame)))
            }
            None => Poll::Ready(Some(Ok(frame))),
        }
    }

    /// True when nothing can be missing, whatever became of the stream: the announced length is there. Without one
    /// only END_STREAM tells the end.
    fn is_whole(&self) -> bool {
        self.remaining == Some(0)
    }

    /// The failure behind a broken body: the client's own, where that broke it, else the origin's.
    fn fail(&mut self, kind: ErrorKind) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        Poll::Ready(self.exchange.take().map(|exchange| {
            Err(exchange.client_fault().unwrap_or_else(|| {
                let endpoint = exchange.slot.guard.endpoint();
                endpoint.count_failure(kind);
                if let Some(failing) = Failing::of_error(kind) {
                    exchange.pool.blame(endpoint, failing);
                }
                ProxyError::new(kind, Stage::Forward)
            }))
        }))
    }
}

impl Source for AnswerBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        if !exchange.is_sent() {
            exchange.poll_send(cx);
            if let Some(error) = exchange.client_fault() {
                self.exchange = None;
                return Poll::Ready(Some(Err(error)));
            }
        }
        match self.poll_next(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                // Until the client has taken this one, nobody asks for the next.
                if let Some(upload) = self.exchange.as_mut().and_then(|exchange| exchange.upload.as_mut()) {
                    upload.rest();
                }
                return self.pass(frame);
            }
            Poll::Ready(Some(Err(error))) => {
                let session = self.exchange.as_ref().map(|exchange| &exchange.lease.session);
                let kind =
                    session.map_or(ErrorKind::ResponseTruncated, |session| of_stream(&error, session, Within::Body));
                return self.fail(kind);
            }
            Poll::Ready(None) => {
                self.exchange = None;
                return Poll::Ready(None);
            }
            Poll::Pending => {}
        }
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        // Time while the client takes nothing is not the origin's silence: every frame came since the last look.
        let moved = self.taken + exchange.sent();
        let kind = ready!(exchange.patience.poll_body(cx, moved));
        self.fail(kind)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    fn is_end(&self) -> bool {
        self.exchange.is_none()
    }
}
