//! The health checking protocol of gRPC, `grpc.health.v1.Health/Check`: one message there, one back.
//!
//! Both messages have one field, so they are read and written by hand: a length-prefixed frame (gRPC over HTTP/2) around
//! a field of Protocol Buffers.

use http::HeaderMap;

/// Where the call goes.
pub const PATH: &str = "/grpc.health.v1.Health/Check";

/// `grpc-status`, in trailers or, where nothing else was said, in the head.
const STATUS: &str = "grpc-status";

/// Longest service name; its length fits into one byte of a varint with the frame's prefix far from any bound.
pub const SERVICE_BYTES: usize = 127;

/// The question about `service`, framed: `HealthCheckRequest { service = 1 }`. Names longer than [`SERVICE_BYTES`] are cut.
#[must_use]
pub fn question(service: &str) -> Vec<u8> {
    let name: Vec<u8> = service.bytes().take(SERVICE_BYTES).collect();
    let length = u8::try_from(name.len()).unwrap_or_default();
    // The default of a field is not written.
    let message = if name.is_empty() { Vec::new() } else { [&[0x0a, length], name.as_slice()].concat() };
    let prefix = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
    [&[0], prefix.as_slice(), &message].concat()
}

/// Why an answer does not say that the service is well, as a stable token; `None` = it does. `head` and `trailers` are the
/// fields before and behind `body`.
#[must_use]
pub fn fault(status: u16, head: &HeaderMap, body: &[u8], trailers: &HeaderMap) -> Option<&'static str> {
    if status != 200 {
        return Some("unexpected_status");
    }
    let code = trailers.get(STATUS).or_else(|| head.get(STATUS));
    match code.map(|code| code.as_bytes()) {
        Some(b"0") => serving(body),
        Some(b"5") => Some("grpc_not_found"),
        Some(b"12") => Some("grpc_unimplemented"),
        Some(_) => Some("grpc_error"),
        None => Some("grpc_no_status"),
    }
}

/// `HealthCheckResponse { status = 1 }`.
fn serving(body: &[u8]) -> Option<&'static str> {
    let Some((prefix, message)) = body.split_at_checked(5) else { return Some("grpc_malformed") };
    let announced = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    match (prefix.split_first(), message) {
        (Some((0, length)), _) if *length != announced => Some("grpc_malformed"),
        (Some((0, _)), [0x08, 1]) => None,
        (Some((0, _)), [] | [0x08, 0..=3]) => Some("grpc_not_serving"),
        _ => Some("grpc_malformed"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_question_is_framed() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("shop"), [0, 0, 0, 0, 6, 0x0a, 4, b's', b'h', b'o', b'p']);
        assert_eq!(question(&"x".repeat(200)).len(), 5 + 2 + SERVICE_BYTES);
    }

    #[test]
    fn only_serving_will_do() {
        let fields = |code: Option<&'static str>| {
            code.map(|code| (http::HeaderName::from_static(STATUS), HeaderValue::from_static(code)))
                .into_iter()
                .collect()
        };
        let serving = [0, 0, 0, 0, 2, 8, 1];
        for (status, head, body, trailers, expected) in [
            (200, None, &serving[..], Some("0"), None),
            (200, None, &[0, 0, 0, 0, 2, 8, 2], Some("0"), Some("grpc_not_serving")),
            (200, None, &[0, 0, 0, 0, 2, 8, 3], Some("0"), Some("grpc_not_serving")),
            (200, None, &[0, 0, 0, 0, 0], Some("0"), Some("grpc_not_serving")),
            (200, Some("12"), &[], None, Some("grpc_unimplemented")),
            (200, None, &[], Some("5"), Some("grpc_not_found")),
            (200, None, &serving, Some("14"), Some("grpc_error")),
            (200, Some("0"), &serving, Some("13"), Some("grpc_error")),
            (200, None, &serving, None, Some("grpc_no_status")),
            (200, Some("0"), &[], None, Some("grpc_malformed")),
            (200, None, &[0, 0, 0, 0, 9, 8, 1], Some("0"), Some("grpc_malformed")),
            (200, None, &[1, 0, 0, 0, 2, 8, 1], Some("0"), Some("grpc_malformed")),
            (200, None, &[0, 0, 0, 0, 2, 8, 99], Some("0"), Some("grpc_malformed")),
            (503, None, &serving, Some("0"), Some("unexpected_status")),
        ] {
            assert_eq!(
                fault(status, &fields(head), body, &fields(trailers)),
                expected,
                "{head:?} {body:?} {trailers:?}"
            );
        }
    }
}
