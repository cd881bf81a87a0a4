//! The request head as HEADERS (RFC 9113 §8.3.1): the authority by the pool's `host`, no field of a connection.

use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TE, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, Method, Request, Uri, Version};

use super::sessions::Place;
use crate::error::ErrorKind;
use crate::policy::websocket;
use crate::upstream::client::OutRequest;
use crate::upstream::http1;
use crate::upstream::pool::authority;

const UNWRITABLE: ErrorKind = ErrorKind::BadRequest("target_not_forwardable");

/// The head that goes out for `request`. `length` of its body, where known.
///
/// # Errors
/// `BadRequest` for a target or host that cannot stand in one.
pub(in crate::upstream) fn head(
    request: &OutRequest,
    place: Place<'_>,
    length: Option<u64>,
) -> Result<Request<()>, ErrorKind> {
    let mut head = Request::new(());
    *head.version_mut() = Version::HTTP_2;
    *head.method_mut() = request.method.clone();
    *head.uri_mut() = uri(request, place)?;
    *head.headers_mut() = fields(&request.headers);
    if let Some(protocol) = protocol(request) {
        *head.method_mut() = Method::CONNECT;
        // `:protocol` says what this proves in HTTP/1.1 (RFC 8441 §5.1).
        head.headers_mut().remove(websocket::KEY);
        head.extensions_mut().insert(Protocol::from(protocol));
        return Ok(head);
    }
    if let Some(length) = length.filter(|length| *length > 0 || means_a_body(&request.method)) {
        head.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    Ok(head)
}

/// What the request wants to leave HTTP for, where it does.
pub(super) fn protocol(request: &OutRequest) -> Option<&str> {
    request.headers.get(UPGRADE).filter(|_| request.upgrade)?.to_str().ok()
}

/// RFC 9110 §8.6: a method that has a meaning for a body says that there is none.
fn means_a_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

fn uri(request: &OutRequest, place: Place<'_>) -> Result<Uri, ErrorKind> {
    if !http1::is_writable(&request.target) {
        return Err(UNWRITABLE);
    }
    let host = place.pool.host(place.index).or_else(|| request.headers.get(HOST));
    let authority = match host {
        Some(host) => Authority::try_from(host.as_bytes()),
        None => Authority::try_from(authority(place.endpoint.address())),
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if place.pool.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority.or(Err(ErrorKind::BadRequest("host_not_forwardable")))?);
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(request.target.clone()).or(Err(UNWRITABLE))?);
    Uri::from_parts(parts).or(Err(UNWRITABLE))
}

/// The fields without those that HTTP/2 forbids (RFC 9113 §8.2.2), and without those that are written here.
fn fields(given: &HeaderMap) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(given.len() + 1);
    for (name, value) in given.iter().filter(|(name, value)| passes(name, value)) {
        fields.append(name.clone(), value.clone());
    }
    fields
}

fn passes(name: &HeaderName, value: &HeaderValue) -> bool {
    match name.as_str() {
        "host" | "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
        | "content-length" | "http2-settings" => false,
        _ if *name == TE => value == "trailers",
        _ => true,
    }
}
