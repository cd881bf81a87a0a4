//! gRPC: which requests are calls, and what a failure of ours is to them.
//!
//! A gRPC client reads the outcome of a call from `grpc-status`, in trailers or, for a call that fails at once, in the
//! only head there is ("Trailers-Only"). A 502 with a page it would have to guess from.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use crate::error::ErrorKind;

/// Status codes of gRPC, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named by gRPC")]
pub enum Code {
    Cancelled = 1,
    Unknown = 2,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// True for a request that is a gRPC call: `application/grpc`, alone or with a suffix (`+proto`). Not gRPC-Web, whose
/// clients read HTTP.
#[must_use]
pub fn is_call(request: &HeaderMap) -> bool {
    let Some(kind) = request.get(CONTENT_TYPE) else { return false };
    let Some((kind, rest)) = kind.as_bytes().split_at_checked(b"application/grpc".len()) else { return false };
    kind.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// What a failure is to a call. A call that did not reach the origin is `Unavailable`, which clients may repeat; one
/// that ran out of time has its deadline; the rest goes by the HTTP status it would have had, as the gRPC specification
/// maps them.
#[must_use]
pub fn code(kind: ErrorKind) -> Code {
    use ErrorKind as K;
    match kind {
        K::FirstByteTimeout | K::ReadTimeout | K::WriteTimeout | K::TotalTimeout => Code::DeadlineExceeded,
        K::PoolFull | K::Overloaded | K::NoEndpoint => Code::Unavailable,
        K::ClientGone => Code::Cancelled,
        K::HeaderTooLarge | K::TooManyHeaders => Code::ResourceExhausted,
        K::MalformedResponse(_) | K::ResponseHeaderTooLarge => Code::Internal,
        other => match other.row().status {
            StatusCode::BAD_REQUEST | StatusCode::INTERNAL_SERVER_ERROR => Code::Internal,
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
            _ => Code::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_content_type() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/GRPC; charset=x", true),
            ("application/grpc-web+proto", false),
            ("application/grpcish", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
            assert_eq!(is_call(&headers), expected, "{kind}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn failures_have_the_codes_clients_act_on() {
        use ErrorKind as K;
        for (kind, expected) in [
            (K::ConnectRefused, Code::Unavailable),
            (K::ConnectionReset, Code::Unavailable),
            (K::ConnectTimeout, Code::Unavailable),
            (K::TlsCertificate, Code::Unavailable),
            (K::NoEndpoint, Code::Unavailable),
            (K::PoolFull, Code::Unavailable),
            (K::FirstByteTimeout, Code::DeadlineExceeded),
            (K::TotalTimeout, Code::DeadlineExceeded),
            (K::MalformedResponse("x"), Code::Internal),
            (K::NoRoute, Code::Unimplemented),
            (K::BadRequest("x"), Code::Internal),
            (K::ClientGone, Code::Cancelled),
        ] {
            assert_eq!(code(kind), expected, "{kind:?}");
        }
    }
}
