//! One attempt: a request on a connection, up to the response head.
//!
//! What an origin may do with a head (RFC 9112 §6) and what becomes of it:
//!
//! | origin sends | outcome |
//! |---|---|
//! | `Transfer-Encoding` and `Content-Length`, or any transfer coding but `chunked` | `MalformedResponse` |
//! | differing `Content-Length`s, obs-fold, HTTP/0.9, no status line | `MalformedResponse` |
//! | more than 64 KiB or 100 fields | `ResponseHeaderTooLarge` |
//! | 100 | dropped; other 1xx are passed on; more than 32 are `MalformedResponse` |
//! | 101 nobody asked for | `MalformedResponse` |

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::answer::{self, Account, Exchange};
use super::client::{Connections, Failure, OutRequest};
use super::fault;
use super::link::Link;
use super::outgoing::{Outgoing, Upload};
use super::patience::{Awaited, Exceeded};
use super::pool::{Pool, authority};
use crate::body::{Body, Interim, Response};
use crate::error::{ErrorKind, ProxyError, Retry, Stage};

/// Everything an attempt needs but the request.
pub(super) struct Attempt {
    pub(super) connections: Rc<Connections>,
    pub(super) pool: Arc<Pool>,
    pub(super) link: Box<Link>,
    pub(super) account: Account,
    pub(super) index: usize,
    pub(super) started: Instant,
    pub(super) reused: bool,
}

impl Attempt {
    /// The response once its head is there.
    pub(super) async fn run(self, request: OutRequest) -> Result<Response, Failure> {
        let Self { connections, pool, mut link, account, index, started, reused } = self;
        let spare = spare(&request);
        let OutRequest { method, target, mut headers, body, interim, upgrade } = request;
        let protocol = headers.get(UPGRADE).filter(|_| upgrade).cloned();
        let Ok(uri) = Uri::from_maybe_shared(target) else {
            let error = ProxyError::new(ErrorKind::BadRequest("target_not_forwardable"), Stage::Forward);
            return Err(Failure { error, request: None });
        };
        if let Some(host) = pool.host(index) {
            headers.insert(HOST, host.clone());
        } else if !headers.contains_key(HOST) {
            // HTTP/1.0 clients may name none; our hop is HTTP/1.1, which needs one (RFC 9112 §3.2).
            let address = authority(account.endpoint().address());
            headers.extend(HeaderValue::try_from(address).ok().map(|address| (HOST, address)));
        }
        frame(&mut headers, &method, &body);
        let upload = Upload::new(body);
        let mut outgoing = http::Request::new(Outgoing(Rc::clone(&upload)));
        *outgoing.method_mut() = method.clone();
        *outgoing.uri_mut() = uri;
        *outgoing.headers_mut() = headers;
        link.interims.begin();
        let interims = Arc::clone(&link.interims);
        hyper::ext::on_informational(&mut outgoing, move |head| interims.push(head.status(), head.headers()));
        link.patience.begin(started, pool.params.timeouts.total);

        let mut exchange = Exchange { link, upload, account, connections, pool };
        let fault = match head(&mut exchange, outgoing, &interim).await {
            Ok(head) if is_acceptable(&head, protocol.as_ref()) => {
                return Ok(answer::response(exchange, head, &method).await);
            }
            Ok(_) => HeadFault::from(ErrorKind::MalformedResponse),
            Err(fault) => fault,
        };
        if let Some(error) = exchange.upload.fault() {
            return Err(Failure { error, request: None });
        }
        let stale = reused && !exchange.account.has_read();
        let (kind, unsent) = (fault.kind, fault.unsent.is_some());
        let request = spare.or_else(|| recover(fault, &exchange.upload, interim, upgrade));
        let failure = failure(kind, unsent, stale, request);
        // An origin may close a connection that idles; that we noticed late is not its failure.
        if failure.error.retry != Retry::StaleConnection {
            exchange.account.endpoint().count_failure(kind);
        }
        Err(failure)
    }
}

/// A second copy of a request whose body is at hand. `None` where it is a stream: once begun, that cannot be repeated.
fn spare(request: &OutRequest) -> Option<OutRequest> {
    let body = match &request.body {
        Body::Empty => Body::Empty,
        Body::Full(bytes) => Body::Full(bytes.clone()),
        Body::Stored(_) | Body::Spool(_) | Body::Stream(_) => return None,
    };
    Some(OutRequest {
        method: request.method.clone(),
        target: request.target.clone(),
        headers: request.headers.clone(),
        body,
        interim: request.interim.clone(),
        upgrade: request.upgrade,
    })
}

/// Sets the fields that say where the request ends (RFC 9112 §6).
fn frame(headers: &mut HeaderMap, method: &Method, body: &Body) {
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONTENT_LENGTH);
    let expects_body = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    match body.exact_len() {
        // RFC 9110 §8.6: a method that has a meaning for a body says that there is none.
        Some(0) if !expects_body => (),
        Some(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        None => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

/// Why there is no head, and the request where hyper never began to send it.
struct HeadFault {
    kind: ErrorKind,
    unsent: Option<Box<http::Request<Outgoing>>>,
}

impl From<ErrorKind> for HeadFault {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, unsent: None }
    }
}

impl From<TrySendError<http::Request<Outgoing>>> for HeadFault {
    fn from(mut error: TrySendError<http::Request<Outgoing>>) -> Self {
        let unsent = error.take_message().map(Box::new);
        Self { kind: fault::of_head(&error.into_error()), unsent }
    }
}

/// Sends the request and drives the connection until the head is there.
async fn head(
    exchange: &mut Exchange,
    request: http::Request<Outgoing>,
    interim: &Interim,
) -> Result<http::Response<Incoming>, HeadFault> {
    let mut response = pin!(exchange.link.sender.try_send_request(request));
    std::future::poll_fn(|cx| {
        exchange.link.drive(cx);
        if !exchange.link.interims.pass_on(interim) {
            return Poll::Ready(Err(ErrorKind::MalformedResponse.into()));
        }
        if let Poll::Ready(outcome) = response.as_mut().poll(cx) {
            return Poll::Ready(outcome.map_err(HeadFault::from));
        }
        poll_patience(exchange, cx).map(|kind| Err(kind.into()))
    })
    .await
}

/// Ready with the timeout that was hit while waiting for a head.
fn poll_patience(exchange: &mut Exchange, cx: &mut Context<'_>) -> Poll<ErrorKind> {
    let bounds = exchange.pool.params.timeouts;
    let upload = &exchange.upload;
    let sent = Awaited::Head(exchange.link.meter.written.get());
    let (awaited, silence, kind) = match (upload.finished(), upload.waiting()) {
        (true, _) => (sent, Some(bounds.first_byte), ErrorKind::FirstByteTimeout),
        (false, false) => (sent, Some(bounds.idle), ErrorKind::WriteTimeout),
        // A slow client is the listener's business.
        (false, true) => (Awaited::Client, None, ErrorKind::BodyTimeout),
    };
    exchange.link.patience.poll(cx, awaited, silence).map(|exceeded| match exceeded {
        Exceeded::Silence => kind,
        Exceeded::Total => ErrorKind::TotalTimeout,
    })
}

/// False for heads whose framing could be read in two ways, and for a 101 to another protocol than the one asked for: the
/// client would go on in HTTP where we see a tunnel, or the reverse (RFC 9110 §7.8).
fn is_acceptable(head: &http::Response<Incoming>, protocol: Option<&HeaderValue>) -> bool {
    let mut codings = head.headers().get_all(TRANSFER_ENCODING).iter();
    let framing_is_clear = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && !head.headers().contains_key(CONTENT_LENGTH)
        }
        (Some(_), Some(_)) => false,
    };
    let agreed = || {
        let named = head.headers().get(UPGRADE).zip(protocol);
        named.is_some_and(|(named, asked)| named.as_bytes().eq_ignore_ascii_case(asked.as_bytes()))
    };
    framing_is_clear && (head.status() != StatusCode::SWITCHING_PROTOCOLS || agreed())
}

/// The request out of what hyper gave back unsent.
fn recover(fault: HeadFault, upload: &Upload, interim: Interim, upgrade: bool) -> Option<OutRequest> {
    let (parts, _) = fault.unsent?.into_parts();
    let body = upload.take_untouched()?;
    let target = parts.uri.path_and_query().map_or("*", |target| target.as_str());
    let target = Bytes::copy_from_slice(target.as_bytes());
    Some(OutRequest { method: parts.method, target, headers: parts.headers, body, interim, upgrade })
}

/// What a failed attempt is: `unsent` when nothing of the request went out, `stale` when a kept-alive connection gave no
/// byte of an answer.
fn failure(kind: ErrorKind, unsent: bool, stale: bool, request: Option<OutRequest>) -> Failure {
    use ErrorKind as K;
    let retry = match kind {
        _ if request.is_none() => Retry::No,
        _ if unsent => Retry::NothingSent,
        K::ConnectionClosed | K::ConnectionReset if stale => Retry::StaleConnection,
        K::ConnectionClosed | K::ConnectionReset | K::FirstByteTimeout | K::WriteTimeout => Retry::IfIdempotent,
        _ => Retry::No,
    };
    let request = request.filter(|_| retry != Retry::No);
    Failure { error: ProxyError::new(kind, Stage::Forward).with_retry(retry), request }
}
