//! What can go wrong with an exchange: one closed list, one table from kind to status and token.
//!
//! An error says *what* happened ([`ErrorKind`]), on whose *side* ([`Source`]), in which *stage*, and whether the
//! request may be sent again ([`Retry`]). It becomes a response in `pipeline/respond.rs` and nowhere else.

use http::StatusCode;

/// Whose fault it is, as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The client sent something we refuse, or went away.
    Downstream,
    /// The origin, or the way to it.
    Upstream,
    /// We ran into a limit or a defect of our own.
    Internal,
}

/// What may be done with the request after the failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Nothing reached an origin (connect failure): any request may go elsewhere.
    NothingSent,
    /// A kept-alive connection was closed before a byte of the answer came: the silent retry of RFC 9112 §9.3.1.
    StaleConnection,
    /// The origin said that it did not look at the request (RFC 9113 §8.7): any request may be sent again, silently.
    Unprocessed,
    /// Bytes went out and no head came back: safe only for idempotent methods (RFC 9110 §9.2.2).
    IfIdempotent,
    /// Never: part of the answer was seen, or the fault is the client's.
    No,
}

/// The place in the flow where an error arose; the access log prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the name of a module")]
pub enum Stage {
    Listener,
    Route,
    Guard,
    Lookup,
    Forward,
    Rewrite,
    Fill,
    Encode,
}

/// Every failure an exchange can have. [`ErrorKind::row`] gives each its status, RFC 9209 token and reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "ErrorKind::row states what each one means")]
pub enum ErrorKind {
    // The client's side
    BadRequest(&'static str),
    AmbiguousFraming(&'static str),
    HeaderTooLarge,
    TooManyHeaders,
    UriTooLong,
    HeaderTimeout,
    BodyTimeout,
    ClientGone,
    MethodRefused,
    VersionRefused,
    ExpectationFailed,
    Misdirected,
    NoRoute,
    Loop,
    OnlyIfCached,
    PurgeRefused(&'static str),
    /// The length of what was asked for.
    RangeNotSatisfiable(u64),
    // The origin's side
    ConnectRefused,
    ConnectTimeout,
    DestinationUnroutable,
    DnsError,
    TlsTimeout,
    TlsHandshake,
    TlsCertificate,
    ConnectionReset,
    ConnectionClosed,
    FirstByteTimeout,
    ReadTimeout,
    WriteTimeout,
    TotalTimeout,
    MalformedResponse(&'static str),
    ResponseHeaderTooLarge,
    ResponseTruncated,
    // Ours
    NoEndpoint,
    PoolFull,
    QueueFull,
    QueueTimeout,
    Shed,
    RewriteFailed,
    Overloaded,
    Internal(&'static str),
}

/// One row of the table: how a kind is answered, and the words it is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorRow {
    /// Status of the local reply, when the head has not gone out yet.
    pub status: StatusCode,
    /// RFC 9209 §2.3 `error` token; `None` for what is the client's own doing.
    pub proxy_status: Option<&'static str>,
    /// Stable name in the access log, metrics and `Proxy-Status` details.
    pub reason: &'static str,
    /// Whose side it is.
    pub source: Source,
    /// Whether the client's connection can carry another exchange.
    pub closes: bool,
}

impl ErrorKind {
    /// The table. Cost: none.
    #[must_use]
    pub fn row(self) -> ErrorRow {
        use ErrorKind as K;
        use Source::{Downstream, Internal, Upstream};
        let (status, proxy_status, reason, source, closes) = match self {
            K::BadRequest(reason) => (StatusCode::BAD_REQUEST, None, reason, Downstream, true),
            K::AmbiguousFraming(reason) => (StatusCode::BAD_REQUEST, None, reason, Downstream, true),
            K::HeaderTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, None, "header_too_large", Downstream, true)
            }
            K::TooManyHeaders => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, None, "too_many_headers", Downstream, true)
            }
            K::UriTooLong => (StatusCode::URI_TOO_LONG, None, "uri_too_long", Downstream, true),
            K::HeaderTimeout => (StatusCode::REQUEST_TIMEOUT, None, "header_timeout", Downstream, true),
            K::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, None, "body_timeout", Downstream, true),
            // Never sent: nobody is there to read it. 499 is what operators' log tools know.
            K::ClientGone => (client_closed_request(), None, "client_gone", Downstream, true),
            K::MethodRefused => (StatusCode::METHOD_NOT_ALLOWED, None, "method_refused", Downstream, false),
            K::VersionRefused => (StatusCode::HTTP_VERSION_NOT_SUPPORTED, None, "version_refused", Downstream, true),
            K::ExpectationFailed => (StatusCode::EXPECTATION_FAILED, None, "expectation_failed", Downstream, true),
            K::Misdirected => (StatusCode::MISDIRECTED_REQUEST, None, "misdirected", Downstream, false),
            K::NoRoute => (StatusCode::NOT_FOUND, None, "no_route", Downstream, false),
            K::Loop => (StatusCode::LOOP_DETECTED, Some("proxy_loop_detected"), "loop", Downstream, false),
            // RFC 9111 §5.2.1.7: the client forbade asking the origin.
            K::OnlyIfCached => (StatusCode::GATEWAY_TIMEOUT, None, "only_if_cached", Downstream, false),
            K::RangeNotSatisfiable(_) => {
                (StatusCode::RANGE_NOT_SATISFIABLE, None, "range_not_satisfiable", Downstream, false)
            }
            K::PurgeRefused(reason) => (StatusCode::FORBIDDEN, None, reason, Downstream, false),
            K::ConnectRefused => {
                (StatusCode::BAD_GATEWAY, Some("connection_refused"), "connect_refused", Upstream, false)
            }
            K::ConnectTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, Some("connection_timeout"), "connect_timeout", Upstream, false)
            }
            K::DestinationUnroutable => {
                (StatusCode::BAD_GATEWAY, Some("destination_ip_unroutable"), "unroutable", Upstream, false)
            }
            K::DnsError => (StatusCode::BAD_GATEWAY, Some("dns_error"), "dns_error", Upstream, false),
            K::TlsTimeout => (StatusCode::GATEWAY_TIMEOUT, Some("connection_timeout"), "tls_timeout", Upstream, false),
            K::TlsHandshake => (StatusCode::BAD_GATEWAY, Some("tls_protocol_error"), "tls_handshake", Upstream, false),
            K::TlsCertificate => {
                (StatusCode::BAD_GATEWAY, Some("tls_certificate_error"), "tls_certificate", Upstream, false)
            }
            K::ConnectionReset => {
                (StatusCode::BAD_GATEWAY, Some("connection_terminated"), "connection_reset", Upstream, false)
            }
            K::ConnectionClosed => {
                (StatusCode::BAD_GATEWAY, Some("connection_terminated"), "connection_closed", Upstream, false)
            }
            K::FirstByteTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, Some("http_response_timeout"), "first_byte_timeout", Upstream, false)
            }
            K::ReadTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, Some("connection_read_timeout"), "read_timeout", Upstream, false)
            }
            K::WriteTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, Some("connection_write_timeout"), "write_timeout", Upstream, false)
            }
            K::TotalTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, Some("http_response_timeout"), "total_timeout", Upstream, false)
            }
            K::MalformedResponse(reason) => {
                (StatusCode::BAD_GATEWAY, Some("http_protocol_error"), reason, Upstream, false)
            }
            K::ResponseHeaderTooLarge => (
                StatusCode::BAD_GATEWAY,
                Some("http_response_header_section_size"),
                "response_header_too_large",
                Upstream,
                false,
            ),
            K::ResponseTruncated => {
                (StatusCode::BAD_GATEWAY, Some("http_response_incomplete"), "response_truncated", Upstream, false)
            }
            K::NoEndpoint => {
                (StatusCode::SERVICE_UNAVAILABLE, Some("destination_unavailable"), "no_endpoint", Upstream, false)
            }
            K::PoolFull => {
                (StatusCode::SERVICE_UNAVAILABLE, Some("connection_limit_reached"), "pool_full", Upstream, false)
            }
            K::QueueFull => {
                (StatusCode::SERVICE_UNAVAILABLE, Some("connection_limit_reached"), "queue_full", Upstream, false)
            }
            K::QueueTimeout => {
                (StatusCode::SERVICE_UNAVAILABLE, Some("connection_limit_reached"), "queue_timeout", Upstream, false)
            }
            // On the origin's side, so that something stale may stand in.
            K::Shed => (StatusCode::SERVICE_UNAVAILABLE, Some("connection_limit_reached"), "shed", Upstream, false),
            K::RewriteFailed => {
                (StatusCode::BAD_GATEWAY, Some("proxy_internal_response"), "rewrite_failed", Internal, false)
            }
            K::Overloaded => {
                (StatusCode::SERVICE_UNAVAILABLE, Some("proxy_internal_response"), "overloaded", Internal, true)
            }
            K::Internal(reason) => {
                (StatusCode::INTERNAL_SERVER_ERROR, Some("proxy_internal_error"), reason, Internal, false)
            }
        };
        ErrorRow { status, proxy_status, reason, source, closes }
    }
}

fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// One failure of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} in {stage:?}", kind.row().reason)]
pub struct ProxyError {
    /// What happened.
    pub kind: ErrorKind,
    /// Where in the flow.
    pub stage: Stage,
    /// Whether the request may be sent again.
    pub retry: Retry,
}

impl ProxyError {
    /// A failure after which the request is not sent again.
    #[must_use]
    pub fn new(kind: ErrorKind, stage: Stage) -> Self {
        Self { kind, stage, retry: Retry::No }
    }

    /// The same failure with another verdict on sending again.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }
}
