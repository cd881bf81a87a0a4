//! Writing a response: which framing it gets, and its head (RFC 9112 §4, §6).

use bytes::{BufMut, BytesMut};
use http::header::{DATE, TRAILER, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use crate::body::Response;
use crate::body::http1::{field, fields, length_field};

/// What of the request decides how its response is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// The client cannot take chunks or interim answers.
    pub(super) version: Version,
    /// The answer to HEAD has no body.
    pub(super) head_only: bool,
    /// The client can carry on with this connection.
    pub(super) keep_alive: bool,
}

impl Asked {
    /// What a request with this head line can be answered with.
    pub(super) fn new(method: &Method, version: Version, keep_alive: bool) -> Self {
        Self { version, head_only: *method == Method::HEAD, keep_alive }
    }

    /// For an answer to bytes that were no request.
    pub(super) const NOTHING_READABLE: Self = Self { version: Version::HTTP_11, head_only: false, keep_alive: false };
}

/// How the end of a response body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// No body is sent; the length is announced all the same where known (HEAD, 304).
    None(Option<u64>),
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The end of the connection; HTTP/1.0 only.
    Close,
}

/// The framing of `response` (RFC 9112 §6.3). A body with a known length is chunked all the same when its head announces
/// trailers, which would be lost otherwise.
pub(super) fn framing(asked: Asked, response: &Response) -> BodyFraming {
    match response.status {
        status if status.is_informational() || status == StatusCode::NO_CONTENT => BodyFraming::None(None),
        StatusCode::NOT_MODIFIED => BodyFraming::None(response.content_length),
        // The empty body of an answer to HEAD says nothing about what GET would send.
        _ if asked.head_only => {
            let at_hand = response.body.exact_len().filter(|length| *length > 0);
            BodyFraming::None(response.content_length.or(at_hand))
        }
        _ => match response.body.exact_len() {
            Some(length) if asked.version < Version::HTTP_11 || response.headers.keys().all(|name| name != TRAILER) => {
                BodyFraming::Length(length)
            }
            _ if asked.version < Version::HTTP_11 => BodyFraming::Close,
            _ => BodyFraming::Chunked,
        },
    }
}

/// Appends a final response head. `close`: the connection ends after it. `date`: for heads without one.
pub(super) fn head(
    to: &mut BytesMut,
    asked: Asked,
    response: &Response,
    framing: BodyFraming,
    close: bool,
    date: &HeaderValue,
) {
    status_line(to, response.status);
    fields(to, &response.headers);
    if response.headers.keys().all(|name| name != DATE) {
        field(to, b"date", date.as_bytes());
    }
    match framing {
        BodyFraming::None(Some(length)) | BodyFraming::Length(length) => length_field(to, length),
        BodyFraming::Chunked => to.put_slice(b"transfer-encoding: chunked\r\n"),
        BodyFraming::None(None) | BodyFraming::Close => {}
    }
    match (close, asked.version) {
        (true, _) => to.put_slice(b"connection: close\r\n"),
        (false, Version::HTTP_10) => to.put_slice(b"connection: keep-alive\r\n"),
        (false, _) => {}
    }
    to.put_slice(b"\r\n");
}

/// Appends the head that leaves HTTP for `protocol` (RFC 9110 §7.8); the origin's own spelling wins.
pub(super) fn switching(to: &mut BytesMut, response: &Response, protocol: &str) {
    status_line(to, StatusCode::SWITCHING_PROTOCOLS);
    fields(to, &response.headers);
    let protocol = response.headers.get(UPGRADE).map_or(protocol.as_bytes(), HeaderValue::as_bytes);
    field(to, b"upgrade", protocol);
    to.put_slice(b"connection: upgrade\r\n\r\n");
}

/// Appends an interim head (RFC 9110 §15.2).
pub(super) fn interim(to: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    status_line(to, status);
    fields(to, headers);
    to.put_slice(b"\r\n");
}

fn status_line(to: &mut BytesMut, status: StatusCode) {
    to.put_slice(b"HTTP/1.1 ");
    to.put_slice(status.as_str().as_bytes());
    to.put_slice(b" ");
    to.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    to.put_slice(b"\r\n");
}
