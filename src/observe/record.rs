//! What is remembered of one exchange until its last byte is out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use super::format::Format;
use crate::clock::Now;

/// One finished exchange, as the access log sees it.
///
/// The pipeline opens it with [`AccessRecord::new`], fills it as things are decided and writes it once. Cost: no
/// allocation of its own beyond `attempts` and the captured fields; names are shared, client bytes are reference counted.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// When the request head was complete.
    pub time: Now,
    /// The client's address, after PROXY protocol and believed forwarding fields.
    pub client: SocketAddr,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// `TLSv1.2` or `TLSv1.3`; `None` on a plain connection.
    pub tls: Option<&'static str>,
    /// `None` when the request could not be read.
    pub method: Option<Method>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Authority as the client named it; empty when the request could not be read.
    pub host: Bytes,
    /// Path and query as sent, not normalised; split at the first `?` when written.
    pub target: Bytes,
    /// The client's version.
    pub version: Version,
    /// `X-Request-ID` of the exchange; `None` when the request could not be read.
    pub request_id: Option<HeaderValue>,
    /// `User-Agent`
    pub user_agent: Option<HeaderValue>,
    /// `Referer`
    pub referer: Option<HeaderValue>,
    /// Status of the answer, whether or not it could be sent.
    pub status: StatusCode,
    /// Body bytes written to the connection.
    pub bytes: u64,
    /// False when the client or the body broke off before the end.
    pub complete: bool,
    /// From `time` to the last byte out.
    pub duration: Duration,
    /// What the cache did: a stable token (`hit`, `miss`, `bypass` …); `None` on routes without a cache.
    pub cache: Option<&'static str>,
    /// Why it did that: a stable token.
    pub cache_detail: Option<&'static str>,
    /// What came of the dictionary the client offered: the coding it got, or why none; `None` where it offered none.
    pub dictionary: Option<&'static str>,
    /// Name of the route; `None` when none matched.
    pub route: Option<Arc<str>>,
    /// Name of the pool; `None` for local answers and hits.
    pub pool: Option<Arc<str>>,
    /// Address of the endpoint that answered.
    pub endpoint: Option<Arc<str>>,
    /// Every attempt in order; bounded by the pool's `retry.attempts`.
    pub attempts: Vec<Attempt>,
    /// Time spent on the way to the origin.
    pub phases: Phases,
    /// Why the exchange failed or was refused: a stable token of `error.rs` or of a policy.
    pub reason: Option<&'static str>,
    /// Request fields the format asks for, by [`AccessRecord::capture_request`].
    pub request_fields: Vec<(HeaderName, HeaderValue)>,
    /// Response fields the format asks for, by [`AccessRecord::capture_response`].
    pub response_fields: Vec<(HeaderName, HeaderValue)>,
}

/// One try at one endpoint.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Address of the endpoint.
    pub endpoint: Arc<str>,
    /// Stable token of its failure; `None` when it answered.
    pub error: Option<&'static str>,
    /// From the pick to the response head or the failure.
    pub duration: Duration,
}

/// Where the time went before the origin's first byte; each is of the last attempt, and absent when it did not happen
/// (a kept-alive connection has no `connect`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// TCP connect.
    pub connect: Option<Duration>,
    /// TLS handshake with the origin.
    pub tls: Option<Duration>,
    /// From the last request byte sent to the end of the response head.
    pub first_byte: Option<Duration>,
}

impl AccessRecord {
    /// A record of an exchange of which only the connection is known yet.
    #[must_use]
    pub fn new(time: Now, client: SocketAddr, listener: Arc<str>) -> Self {
        Self {
            time,
            client,
            listener,
            tls: None,
            method: None,
            scheme: "http",
            host: Bytes::new(),
            target: Bytes::new(),
            version: Version::HTTP_11,
            request_id: None,
            user_agent: None,
            referer: None,
            status: StatusCode::OK,
            bytes: 0,
            complete: true,
            duration: Duration::ZERO,
            cache: None,
            cache_detail: None,
            dictionary: None,
            route: None,
            pool: None,
            endpoint: None,
            attempts: Vec::new(),
            phases: Phases::default(),
            reason: None,
            request_fields: Vec::new(),
            response_fields: Vec::new(),
        }
    }

    /// Keeps `User-Agent`, `Referer` and the request fields that `format` prints. Cost: reference counts.
    pub fn capture_request(&mut self, format: &Format, headers: &HeaderMap) {
        self.user_agent = headers.get(http::header::USER_AGENT).cloned();
        self.referer = headers.get(http::header::REFERER).cloned();
        self.request_fields = captured(format.request_fields(), headers);
    }

    /// Keeps the response fields that `format` prints. Cost: nothing unless it prints some.
    pub fn capture_response(&mut self, format: &Format, headers: &HeaderMap) {
        self.response_fields = captured(format.response_fields(), headers);
    }

    /// The path as sent, without the query.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.target.split(|byte| *byte == b'?').next().unwrap_or_default()
    }

    /// The query as sent, without its `?`; `None` when there is no `?`.
    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        self.target.get(self.path().len() + 1..)
    }
}

fn captured<'a>(names: impl Iterator<Item = &'a HeaderName>, headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    names.filter_map(|name| headers.get(name).map(|value| (name.clone(), value.clone()))).collect()
}
