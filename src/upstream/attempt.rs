//! One attempt: a request on a connection, up to the response head.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::header::{HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::answer::{self, Exchange};
use super::client::{Connections, Failure, OutRequest};
use super::endpoint::Slot;
use super::http1::{self, Head, RequestHead, Upload};
use super::link::Link;
use super::owed::Owed;
use super::patience::Progress;
use super::pool::{Pool, authority};
use crate::body::{Body, Interim, Response};
use crate::error::{ErrorKind, ProxyError, Retry, Stage};
use crate::policy::websocket;

/// Everything an attempt needs but the request.
pub(super) struct Attempt {
    pub(super) connections: Rc<Connections>,
    pub(super) pool: Arc<Pool>,
    pub(super) link: Box<Link>,
    pub(super) slot: Slot,
    pub(super) started: Instant,
    pub(super) reused: bool,
}

impl Attempt {
    /// The response once its head is there. The request is read where it is; only a body that streams is taken out of
    /// it, and put back when none of it has gone.
    pub(super) async fn run(self, request: &mut OutRequest, owed: &Owed) -> Result<Response, Failure> {
        let Self { connections, pool, mut link, slot, started, reused } = self;
        link.http.begin();
        link.patience.begin(started, request.timeouts(&pool));
        let (read_before, written_before) = (link.http.read(), link.http.written());
        let Some(upload) = write(&mut link, request, &pool, &slot) else {
            let error = ProxyError::new(ErrorKind::BadRequest("target_not_forwardable"), Stage::Forward);
            return Err(Failure { error, replayable: false });
        };
        let mut exchange = Exchange { link, upload, guard: slot.guard, connections, pool };
        let kind = match head(&mut exchange, &request.interim, owed).await {
            Ok(head) => match switch_fault(&exchange, &head, request) {
                None => return Ok(answer::response(exchange, head, &request.method)),
                Some(reason) => ErrorKind::MalformedResponse(reason),
            },
            Err(kind) => kind,
        };
        let error = exchange.client_fault();
        let (unread, unsent) =
            (exchange.link.http.read() == read_before, exchange.link.http.written() == written_before);
        let whole = request.take_back(exchange.upload.map(|upload| upload.into_untouched()));
        if let Some(error) = error {
            return Err(Failure { error, replayable: false });
        }
        let failure = failure(kind, unsent, reused && unread, whole);
        // An origin may close a connection that idles; that we noticed late is not its failure.
        if failure.error.retry != Retry::StaleConnection {
            exchange.guard.endpoint().count_failure(kind);
        }
        Err(failure)
    }
}

/// Puts the request into the connection's outbox, with its body where that is at hand, so that both leave in one write;
/// what streams comes back as an upload. `None` when the request cannot be written.
#[expect(clippy::option_option, reason = "the outer one is the refusal")]
fn write(link: &mut Link, request: &mut OutRequest, pool: &Pool, slot: &Slot) -> Option<Option<Box<Upload>>> {
    let own;
    let host = match (pool.host(slot.index), request.headers.get(HOST)) {
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => {
            // HTTP/1.0 clients may name none; our hop is HTTP/1.1, which needs one (RFC 9112 §3.2).
            own = HeaderValue::try_from(authority(slot.guard.endpoint().address())).ok()?;
            &own
        }
    };
    let framing = http1::framing(&request.body);
    let (method, target, headers) = (&request.method, &request.target[..], &request.headers);
    let head = RequestHead { method, target, host, headers, framing };
    if !head.is_writable() {
        return None;
    }
    link.http.outbox.compose(|to| head.write(to));
    Some(match &request.body {
        Body::Empty => None,
        Body::Full(bytes) => {
            link.http.outbox.push(bytes.clone());
            None
        }
        Body::Stored(_) | Body::Spool(_) | Body::Stream(_) => {
            Some(Box::new(Upload::new(std::mem::take(&mut request.body), framing)))
        }
    })
}

/// Sends the request and reads until the head is there.
async fn head(exchange: &mut Exchange, interim: &Interim, owed: &Owed) -> Result<Head, ErrorKind> {
    std::future::poll_fn(|cx| {
        exchange.poll_send(cx);
        if exchange.is_sent() {
            owed.request_sent();
        }
        if let Some(error) = exchange.client_fault() {
            return Poll::Ready(Err(error.kind));
        }
        let pass_on = |head: Head| {
            // Where too many wait for a slow client, one is dropped (RFC 9110 §15.2).
            let _kept = interim.send(head.status, head.headers);
        };
        match exchange.link.http.poll_head(cx, pass_on) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => poll_patience(exchange, cx).map(Err),
        }
    })
    .await
}

/// Ready with the timeout that was hit while waiting for a head.
fn poll_patience(exchange: &mut Exchange, cx: &mut Context<'_>) -> Poll<ErrorKind> {
    let progress = Progress {
        sent: exchange.is_sent(),
        waiting: exchange.upload.as_ref().is_some_and(|upload| upload.waiting()),
        written: exchange.link.http.written(),
    };
    exchange.link.patience.poll_head(cx, progress)
}

/// Why a 101 is none: nobody asked for it, it is to another protocol than the one asked for, or it came before the whole
/// request was out. The client would go on in HTTP where we see a tunnel, or the reverse (RFC 9110 §7.8).
fn switch_fault(exchange: &Exchange, head: &Head, request: &OutRequest) -> Option<&'static str> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    let named = |headers: &HeaderMap| headers.get(UPGRADE).cloned();
    let agreed = named(&head.headers)
        .zip(named(&request.headers).filter(|_| request.upgrade))
        .is_some_and(|(named, asked)| named.as_bytes().eq_ignore_ascii_case(asked.as_bytes()));
    let sent = exchange.is_sent() && exchange.link.http.outbox.is_settled();
    let read = request
        .websocket_key
        .as_ref()
        .is_none_or(|key| head.headers.get(websocket::ACCEPT).is_some_and(|shown| *shown == websocket::accept(key)));
    match (agreed, sent) {
        (false, _) => Some("switch_not_asked"),
        (true, false) => Some("switch_early"),
        (true, true) if !read => Some("websocket_accept"),
        (true, true) => None,
    }
}

/// What a failed attempt is: `unsent` when nothing of the request went out, `stale` when a kept-alive connection gave no
/// byte of an answer, `whole` when the request is as it was.
pub(super) fn failure(kind: ErrorKind, unsent: bool, stale: bool, whole: bool) -> Failure {
    use ErrorKind as K;
    let retry = match kind {
        _ if !whole => Retry::No,
        _ if unsent => Retry::NothingSent,
        K::ConnectionClosed | K::ConnectionReset if stale => Retry::StaleConnection,
        K::ConnectionClosed | K::ConnectionReset | K::FirstByteTimeout | K::WriteTimeout => Retry::IfIdempotent,
        _ => Retry::No,
    };
    Failure { error: ProxyError::new(kind, Stage::Forward).with_retry(retry), replayable: retry != Retry::No }
}
