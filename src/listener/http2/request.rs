//! A request out of a HEADERS frame: what the `h2` crate leaves to check (RFC 9113 §8), and its body.
//!
//! The crate has refused connection-specific fields, upper-case names, broken pseudo-fields, and a body that is not as
//! long as its `Content-Length`. Here: one authority, the limits, field names and targets that HTTP/1 origins would read
//! differently.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::{Frame, SizeHint};

use crate::authority::Authority;
use crate::body::{Body, Interim, Request, Source};
use crate::error::{ErrorKind, ProxyError, Stage};
use crate::listener::Settings;
use crate::listener::http1::look_alike;
use crate::listener::timer::{Side, Timer};

/// What an exchange hears of its request body.
#[derive(Debug, Default)]
pub(super) struct BodyNews {
    /// The reader waits for a client that waits for 100.
    pub(super) continue_wanted: Cell<bool>,
    /// The body was dropped before its end.
    pub(super) abandoned: Cell<bool>,
    /// Bytes of messages on this connection.
    pub(super) payload: Rc<Cell<u64>>,
}

/// The request, or the reason to refuse it. Extended CONNECT becomes what it would be in HTTP/1.1, a GET that asks to
/// leave HTTP, and the stream goes to `tunnel` (RFC 8441 §5).
pub(super) fn read(
    request: http::Request<RecvStream>,
    scheme: Scheme,
    settings: &Settings,
    news: &Rc<BodyNews>,
    tunnel: &mut Option<RecvStream>,
) -> Result<Request, ErrorKind> {
    let (mut head, stream) = request.into_parts();
    let mut headers = head.headers;
    let upgrade: Option<Box<str>> = head.extensions.get::<Protocol>().map(|protocol| protocol.as_str().into());
    match (head.method == Method::CONNECT, &upgrade) {
        (true, None) => return Err(ErrorKind::MethodRefused),
        (true, Some(protocol)) if !protocol.eq_ignore_ascii_case("websocket") => {
            return Err(ErrorKind::BadRequest("connect_protocol"));
        }
        (true, Some(_)) => head.method = Method::GET,
        (false, _) => {}
    }
    if headers.len() > settings.limits.headers {
        return Err(ErrorKind::TooManyHeaders);
    }
    check_fields(&headers)?;
    let target = target(&head.method, &head.uri, settings.limits.uri)?;
    let authority = agree(&head.uri, &mut headers)?;
    join_cookies(&mut headers);
    let expects_continue = match headers.get(EXPECT) {
        None => false,
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => return Err(ErrorKind::ExpectationFailed),
    };
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = if upgrade.is_some() {
        *tunnel = Some(stream);
        Body::Empty
    } else if stream.is_end_stream() {
        Body::Empty
    } else {
        Body::stream(Incoming {
            stream,
            remaining: length,
            timer: Timer::default(),
            silence: settings.timeouts.body,
            expects_continue,
            news: Rc::clone(news),
            done: false,
        })
    };
    Ok(Request {
        method: head.method,
        scheme,
        authority,
        target,
        version: Version::HTTP_2,
        headers,
        body,
        interim: Interim::default(),
        upgrade,
    })
}

/// Refuses names and values that change their meaning on the way to an HTTP/1 origin (RFC 9113 §8.2.1, §10.3).
fn check_fields(headers: &HeaderMap) -> Result<(), ErrorKind> {
    for (name, value) in headers {
        if let Some(reason) = look_alike(name.as_str().as_bytes()) {
            return Err(ErrorKind::AmbiguousFraming(reason));
        }
        let value = value.as_bytes();
        if value.trim_ascii().len() != value.len() {
            return Err(ErrorKind::BadRequest("field_value_spaces"));
        }
    }
    Ok(())
}

fn target(method: &Method, uri: &http::Uri, limit: usize) -> Result<Bytes, ErrorKind> {
    let target = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    if target.len() > limit {
        return Err(ErrorKind::UriTooLong);
    }
    if !target.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) {
        return Err(ErrorKind::BadRequest("target_character"));
    }
    let whole_server = target == "*" && *method == Method::OPTIONS;
    if !(target.starts_with('/') || whole_server) {
        return Err(ErrorKind::BadRequest("target_form"));
    }
    Ok(Bytes::copy_from_slice(target.as_bytes()))
}

/// The one authority: `:authority` and `Host` must agree, and either may be missing (RFC 9113 §8.3.1). Afterwards there
/// is exactly one `Host`.
fn agree(uri: &http::Uri, headers: &mut HeaderMap) -> Result<Authority, ErrorKind> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().map(|host| Authority::parse(host.as_bytes()));
    if hosts.next().is_some() {
        return Err(ErrorKind::BadRequest("host_repeated"));
    }
    let named = uri
        .authority()
        .map(|named| Authority::parse(named.as_str().as_bytes()).or(Err(ErrorKind::BadRequest("authority_invalid"))));
    match (named.transpose()?, host.transpose()?) {
        (Some(named), Some(host)) if named != host => Err(ErrorKind::BadRequest("host_differs")),
        (_, Some(host)) => Ok(host),
        (Some(named), None) => {
            let value = HeaderValue::from_str(named.as_str()).or(Err(ErrorKind::BadRequest("authority_invalid")))?;
            headers.insert(HOST, value);
            Ok(named)
        }
        (None, None) => Err(ErrorKind::BadRequest("host_missing")),
    }
}

/// Joins the crumbs of `Cookie` into the one field HTTP/1 knows (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb);
    }
    // Values that were valid apart are valid joined.
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(COOKIE, joined);
    }
}

/// A request body. Flow control gives the client new room as pieces are taken.
struct Incoming {
    stream: RecvStream,
    /// What is left of the announced length.
    remaining: Option<u64>,
    timer: Timer,
    /// `timeouts.body`
    silence: std::time::Duration,
    /// The client waits for 100.
    expects_continue: bool,
    news: Rc<BodyNews>,
    done: bool,
}

impl Incoming {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ErrorKind>>> {
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(piece)) => {
                // Fails only for a stream that is gone, which the next poll will say.
                let _ = self.stream.flow_control().release_capacity(piece.len());
                self.news.payload.set(self.news.payload.get() + piece.len() as u64);
                self.remaining = self.remaining.map(|left| left.saturating_sub(piece.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Some(Err(_)) => Poll::Ready(Some(Err(ErrorKind::ClientGone))),
            None => {
                let trailers = ready!(self.stream.poll_trailers(cx));
                self.done = true;
                Poll::Ready(match trailers {
                    Ok(trailers) => trailers.map(|fields| Ok(Frame::trailers(fields))),
                    Err(_) => Some(Err(ErrorKind::ClientGone)),
                })
            }
        }
    }
}

impl Source for Incoming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let next = match self.poll_next(cx) {
            Poll::Ready(next) => {
                self.timer.clear(Side::Read);
                self.expects_continue = false;
                next
            }
            Poll::Pending => {
                if std::mem::take(&mut self.expects_continue) {
                    self.news.continue_wanted.set(true);
                }
                self.timer.start(Side::Read, self.silence);
                ready!(self.timer.poll(cx));
                Some(Err(ErrorKind::BodyTimeout))
            }
        };
        self.done |= matches!(next, Some(Err(_)));
        Poll::Ready(next.map(|frame| frame.map_err(|kind| ProxyError::new(kind, Stage::Listener))))
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    fn is_end(&self) -> bool {
        self.done || self.stream.is_end_stream()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.news.abandoned.set(!self.is_end());
    }
}
