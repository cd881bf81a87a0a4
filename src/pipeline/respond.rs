//! The last stage: errors become responses here and nowhere else, fields are finished, the access record is opened.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::context::Exchange;
use super::record::Record;
use super::worker::Worker;
use crate::body::{Body, Peer, Response};
use crate::error::{ErrorKind, ErrorRow, ProxyError};
use crate::policy::cache::status::CacheStatus;
use crate::policy::cache::{range, tags, targeted};
use crate::policy::grpc;
use crate::snapshot::Snapshot;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Finishes what the stages brought about: local replies for errors, `Cache-Status`, and the route's
/// response edits, which are applied here and not before the store so that an edit shows on hits too.
pub(super) fn finish(exchange: Box<Exchange>, outcome: Result<Response, ProxyError>) -> (Response, Record) {
    let (mut response, error) = match outcome {
        Ok(response) => (response, None),
        Err(error) => (local_reply(&exchange.snapshot, Some(&exchange.head.headers), error), Some(error)),
    };
    if let Some(cache) = &exchange.cache {
        targeted::remove(&mut response.headers);
        CacheStatus { key: exchange.cache_key.as_deref(), ..*cache }.add_to(&mut response.headers);
    }
    if let Some(route) = &exchange.route {
        if let Some(policy) = &route.cache {
            tags::hide(&mut response.headers, &policy.params.tags);
        }
        route.response.apply(&mut response.headers);
    }
    if exchange.head.method == Method::HEAD {
        // No body is what every answer to HEAD has; it does not tell what GET would get.
        let at_hand = response.body.exact_len().filter(|length| *length > 0);
        response.content_length = response.content_length.or(at_hand);
        response.body = Body::Empty;
    }
    let record = Record::open(exchange, response.status, &response.headers, error);
    (response, record)
}

/// Answers what never became a request: a fault of framing, a limit, a timeout of the head.
pub fn refuse(worker: &Rc<Worker>, peer: &Rc<Peer>, error: ProxyError) -> (Response, Record) {
    let snapshot = worker.snapshot();
    let mut response = local_reply(&snapshot, None, error);
    response.close = true;
    (response, Record::refused(worker, peer, error))
}

/// A response of our own for `error`: the operator's `[errors]` page, or a few built-in words, as HTML or JSON.
fn local_reply(snapshot: &Snapshot, request: Option<&HeaderMap>, error: ProxyError) -> Response {
    let row = error.kind.row();
    if request.is_some_and(grpc::is_call) {
        return failed_call(error.kind);
    }
    let (body, content_type) = match snapshot.errors.get(&row.status.as_u16()) {
        Some(page) => (page.body.clone(), page.content_type.clone()),
        None => built_in(row.status, row.reason, request),
    };
    let mut response = Response::new(row.status, Body::full(body));
    response.close = row.closes;
    response.headers.insert(CONTENT_TYPE, content_type);
    append(&mut response.headers, PROXY_STATUS, proxy_status(&row));
    match error.kind {
        // RFC 9110 §15.5.6: a 405 names what is allowed.
        ErrorKind::MethodRefused => {
            let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, QUERY");
            response.headers.insert(ALLOW, allowed);
        }
        // RFC 9110 §15.5.17: a 416 tells how much there is.
        ErrorKind::RangeNotSatisfiable(length) => {
            response.headers.insert(CONTENT_RANGE, range::unsatisfied(length));
        }
        ErrorKind::NoEndpoint
        | ErrorKind::PoolFull
        | ErrorKind::QueueFull
        | ErrorKind::QueueTimeout
        | ErrorKind::Shed
        | ErrorKind::Overloaded => {
            response.headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

/// The same for a gRPC call: "Trailers-Only", which is a head that says how the call ended.
fn failed_call(kind: ErrorKind) -> Response {
    let row = kind.row();
    let mut response = Response::new(StatusCode::OK, Body::Empty);
    response.close = row.closes;
    response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response.headers.insert("grpc-status", HeaderValue::from(grpc::code(kind) as u16));
    response.headers.insert("grpc-message", HeaderValue::from_static(row.reason));
    append(&mut response.headers, PROXY_STATUS, proxy_status(&row));
    response
}

/// `Proxy-Status` (RFC 9209). Several of our reasons share one of the registered error types, so it names the reason too.
fn proxy_status(row: &ErrorRow) -> Option<HeaderValue> {
    let token = row.proxy_status?;
    HeaderValue::try_from(format!("tidegate; error={token}; details=\"{}\"", row.reason)).ok()
}

/// The built-in body: JSON for clients that ask for JSON and not for HTML, else HTML.
fn built_in(status: StatusCode, reason: &str, request: Option<&HeaderMap>) -> (Bytes, HeaderValue) {
    let accepts = |needle: &str| {
        let values = request.map(|fields| fields.get_all(ACCEPT).into_iter()).into_iter().flatten();
        values.filter_map(|value| value.to_str().ok()).any(|value| value.contains(needle))
    };
    let (code, phrase) = (status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    if accepts("json") && !accepts("text/html") {
        let body = format!("{{\"status\":{code},\"error\":\"{phrase}\",\"reason\":\"{reason}\"}}\n");
        return (Bytes::from(body), HeaderValue::from_static("application/json"));
    }
    let body = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{code} {phrase}</title>\n<h1>{code} {phrase}</h1>\n<p>{reason}</p>\n</html>\n"
    );
    (Bytes::from(body), HeaderValue::from_static("text/html; charset=utf-8"))
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.append(name, value);
    }
}
