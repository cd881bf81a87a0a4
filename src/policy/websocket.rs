//! What a WebSocket handshake over HTTP/1.1 proves (RFC 6455 §4), and one over HTTP/2 does not need to (RFC 8441 §5.1):
//! whichever side speaks HTTP/1.1 to us gets it from us.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use http::HeaderName;
use http::header::HeaderValue;

use super::base64;

/// The name of the protocol, in `Upgrade` and `:protocol`.
pub const PROTOCOL: &str = "websocket";
/// `Sec-WebSocket-Key`
pub const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
/// `Sec-WebSocket-Accept`
pub const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// What is hashed behind the key (RFC 6455 §1.3).
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key out of random bytes.
#[must_use]
pub fn key(random: u128) -> HeaderValue {
    value(&random.to_be_bytes())
}

/// The answer that shows that a server has read `key`.
#[must_use]
pub fn accept(key: &HeaderValue) -> HeaderValue {
    let hashed = [key.as_bytes(), MAGIC].concat();
    value(digest(&SHA1_FOR_LEGACY_USE_ONLY, &hashed).as_ref())
}

/// Bytes as Base64, which a field value may always be.
fn value(bytes: &[u8]) -> HeaderValue {
    let text = bytes::Bytes::from(base64::encode(bytes));
    HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        // RFC 6455 §1.3
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_sixteen_bytes() {
        assert_eq!(key(1).len(), 24);
    }
}
