//! What a WebSocket handshake over HTTP/1.1 proves (RFC 6455 §4), and one over HTTP/2 does not need to (RFC 8441 §5.1):
//! whichever side speaks HTTP/1.1 to us gets it from us.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use http::HeaderName;
use http::header::HeaderValue;

/// The name of the protocol, in `Upgrade` and `:protocol`.
pub const PROTOCOL: &str = "websocket";
/// `Sec-WebSocket-Key`
pub const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
/// `Sec-WebSocket-Accept`
pub const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// What is hashed behind the key (RFC 6455 §1.3).
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

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
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 63;
            let letter = if place <= group.len() { ALPHABET.get(index as usize).copied() } else { None };
            text.push(letter.unwrap_or(b'='));
        }
    }
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
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
    fn base64_as_in_the_rfc() {
        // RFC 4648 §10
        for (bytes, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(value(bytes.as_bytes()), expected, "{bytes}");
        }
        assert_eq!(key(1).len(), 24);
    }
}
