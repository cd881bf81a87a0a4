//! One exchange on one stream: handler, interim heads, response, body.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, StatusCode};
use http_body::Body as _;

use super::Shared;
use super::request::{self, BodyNews};
use super::tunnel;
use crate::body::http2::StreamTunnel;
use crate::body::{Body, Interim, Response};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::listener::timer::{Side, Timer};
use crate::listener::{Handler, Sent, date};

/// Bytes asked of flow control at a time; what is granted is sent, so that a slow stream holds no more than this.
const PIECE: usize = 64 * 1024;

/// How long a client may go on with an upload that was answered already, before the stream is reset.
const LINGER: Duration = Duration::from_secs(1);

/// Runs the exchange to its end. Counts itself in `shared` while it lasts.
pub(super) async fn run<H: Handler>(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Rc<Shared<H>>,
) {
    let _open = shared.open();
    let connection = &shared.connection;
    let head_only = request.method() == Method::HEAD;
    let news = Rc::new(BodyNews { payload: Rc::clone(&shared.payload), ..BodyNews::default() });
    let has_body = !request.body().is_end_stream();
    let mut tunnel = None;
    let read = request::read(request, connection.scheme(), &connection.settings, &news, &mut tunnel);
    let (response, record) = match read {
        Ok(request) => {
            let interim = request.interim.clone();
            let handling = connection.handler.handle(Rc::clone(&connection.peer), request);
            let mut handling = pin!(handling);
            let answer = poll_fn(|cx| {
                let answer = handling.as_mut().poll(cx);
                forward_interim(cx, &interim, &news, &mut respond, answer.is_pending());
                match answer {
                    Poll::Ready(answer) => Poll::Ready(Some(answer)),
                    Poll::Pending => respond.poll_reset(cx).map(|_| None),
                }
            });
            match answer.await {
                Some(answer) => answer,
                None => return shared.client_reset(),
            }
        }
        Err(kind) => {
            news.abandoned.set(has_body);
            connection.counters().framing_faults.add(kind.row().reason);
            connection.handler.refuse(&connection.peer, ProxyError::new(kind, Stage::Listener))
        }
    };
    let sent = match (response.upgrade.is_some(), tunnel) {
        (true, Some(receive)) => switch(response, &mut respond, receive, &shared).await,
        _ => send(response, head_only, &mut respond, &shared).await,
    };
    connection.handler.sent(record, sent);
    if news.abandoned.get() {
        // Letting go of the stream resets it, which asks the client to stop its upload (RFC 9113 §8.1). Clients that see
        // the reset together with the answer lose the answer, so it comes later.
        let _ = tokio::time::timeout(LINGER, poll_fn(|cx| respond.poll_reset(cx))).await;
    }
}

/// Sends the interim heads that are due. A failure shows again when the response is sent.
fn forward_interim(
    cx: &mut Context<'_>,
    interim: &Interim,
    news: &BodyNews,
    respond: &mut SendResponse<Bytes>,
    waiting: bool,
) {
    let mut send = |status: StatusCode, headers: HeaderMap| {
        let mut head = http::Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = headers;
        let _ = respond.send_informational(head);
    };
    if news.continue_wanted.take() {
        send(StatusCode::CONTINUE, HeaderMap::new());
    }
    loop {
        let next = if waiting { interim.poll_take(cx) } else { interim.take().map_or(Poll::Pending, Poll::Ready) };
        let Poll::Ready((status, mut headers)) = next else { return };
        // 101 does not exist here (RFC 9113 §8.6), and 100 was sent when the body was asked for.
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS && status != StatusCode::CONTINUE {
            remove_framing(&mut headers);
            send(status, headers);
        }
    }
}

/// Says that the stream has left HTTP, and copies both ways.
async fn switch<H: Handler>(
    response: Response,
    respond: &mut SendResponse<Bytes>,
    receive: RecvStream,
    shared: &Shared<H>,
) -> Sent {
    let mut head = http::Response::new(());
    *head.headers_mut() = response.headers;
    remove_framing(head.headers_mut());
    // What HTTP/1.1 proves with it, `:protocol` says.
    head.headers_mut().remove("sec-websocket-accept");
    match (respond.send_response(head, false), response.upgrade) {
        (Ok(send), Some(upgrade)) => {
            tunnel::run(StreamTunnel::new(send, receive, Rc::clone(&shared.payload)), *upgrade).await
        }
        _ => Sent { body_bytes: 0, complete: false, error: Some(client_gone()) },
    }
}

/// Sends a final response.
async fn send<H: Handler>(
    mut response: Response,
    head_only: bool,
    respond: &mut SendResponse<Bytes>,
    shared: &Shared<H>,
) -> Sent {
    let gone = |error| Sent { body_bytes: 0, complete: false, error: Some(error) };
    if response.status.is_informational() {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return gone(ProxyError::new(ErrorKind::Internal("unexpected_upgrade"), Stage::Listener));
    }
    let bodiless = head_only || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let announced = length(head_only, &response);
    let body = std::mem::take(&mut response.body);
    let ends = bodiless || body.is_end_stream();
    let mut head = http::Response::new(());
    *head.status_mut() = response.status;
    *head.headers_mut() = response.headers;
    remove_framing(head.headers_mut());
    if !head.headers().contains_key(DATE) {
        head.headers_mut().insert(DATE, date::field(shared.connection.clock.now()));
    }
    if let Some(length) = announced {
        head.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    let Ok(stream) = respond.send_response(head, ends) else { return gone(client_gone()) };
    if ends {
        return match announced {
            Some(length) if length > 0 && !bodiless => gone(truncated()),
            _ => Sent { body_bytes: 0, complete: true, error: None },
        };
    }
    let payload = Rc::clone(&shared.payload);
    let mut sending =
        Sending { stream, body, announced, payload, taken: 0, piece: Bytes::new(), timer: Timer::default() };
    let timeout = shared.connection.settings.timeouts.write;
    let ended = poll_fn(|cx| sending.poll(cx, timeout)).await;
    let error = match ended {
        Ok(()) => None,
        Err(Failure::Reset) => {
            shared.client_reset();
            Some(client_gone())
        }
        Err(Failure::Cut(error, reason)) => {
            sending.stream.send_reset(reason);
            Some(error)
        }
    };
    Sent { body_bytes: sending.taken, complete: error.is_none(), error }
}

/// The `Content-Length` to announce.
fn length(head_only: bool, response: &Response) -> Option<u64> {
    match response.status {
        StatusCode::NO_CONTENT => None,
        StatusCode::NOT_MODIFIED => response.content_length,
        // The empty body of an answer to HEAD says nothing about what GET would send.
        _ if head_only => response.content_length.or(response.body.exact_len().filter(|length| *length > 0)),
        _ => response.body.exact_len(),
    }
}

/// Removes the fields that HTTP/2 does not know (RFC 9113 §8.2.2) or that are the driver's to write.
fn remove_framing(headers: &mut HeaderMap) {
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE, TE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

fn client_gone() -> ProxyError {
    ProxyError::new(ErrorKind::ClientGone, Stage::Listener)
}

fn truncated() -> ProxyError {
    ProxyError::new(ErrorKind::ResponseTruncated, Stage::Listener)
}

/// Why a body did not reach its end.
enum Failure {
    /// The client reset the stream, or the connection is gone.
    Reset,
    /// We cut it.
    Cut(ProxyError, Reason),
}

/// A response body on its way out.
struct Sending {
    stream: SendStream<Bytes>,
    body: Body,
    announced: Option<u64>,
    /// Bytes of messages on this connection.
    payload: Rc<Cell<u64>>,
    /// Bytes given to the stream.
    taken: u64,
    /// What is left of the present piece.
    piece: Bytes,
    timer: Timer,
}

impl Sending {
    fn poll(&mut self, cx: &mut Context<'_>, stall: Duration) -> Poll<Result<(), Failure>> {
        loop {
            if !self.piece.is_empty() {
                match self.poll_piece(cx) {
                    Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(false)) => self.timer.clear(Side::Write),
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Pending => {
                        self.timer.start(Side::Write, stall);
                        return self.timer.poll(cx).map(|_| Err(Failure::Cut(client_gone(), Reason::CANCEL)));
                    }
                }
                continue;
            }
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Failure::Reset));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else { return Poll::Pending };
            match frame {
                None => return Poll::Ready(self.finish(None)),
                Some(Err(error)) => return Poll::Ready(Err(Failure::Cut(error, Reason::INTERNAL_ERROR))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => self.piece = piece,
                    Err(frame) => return Poll::Ready(self.finish(frame.into_trailers().ok())),
                },
            }
            if self.announced.is_some_and(|announced| self.taken + self.piece.len() as u64 > announced) {
                let error = ProxyError::new(ErrorKind::Internal("body_longer_than_announced"), Stage::Listener);
                return Poll::Ready(Err(Failure::Cut(error, Reason::INTERNAL_ERROR)));
            }
        }
    }

    /// Gives the stream as much of the piece as flow control allows; true when that ended it: a last piece that is known
    /// to be the last spares an empty frame.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Failure>> {
        self.stream.reserve_capacity(self.piece.len().min(PIECE));
        while self.stream.capacity() == 0 {
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(Err(Failure::Reset)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let part = self.piece.split_to(self.stream.capacity().min(self.piece.len()));
        self.taken += part.len() as u64;
        self.payload.set(self.payload.get() + part.len() as u64);
        let whole = self.announced.is_none_or(|announced| self.taken == announced);
        let last = self.piece.is_empty() && whole && self.body.is_end_stream();
        Poll::Ready(self.stream.send_data(part, last).map(|()| last).or(Err(Failure::Reset)))
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Failure> {
        if self.announced.is_some_and(|announced| self.taken < announced) {
            return Err(Failure::Cut(truncated(), Reason::INTERNAL_ERROR));
        }
        let ended = match trailers {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        };
        ended.or(Err(Failure::Reset))
    }
}
