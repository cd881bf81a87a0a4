//! Writing what heads and chunks are made of (RFC 9112 §5, §7).

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName};

/// Appends one field line. Neither part may hold a line break, which the types of `http` see to.
pub fn field(to: &mut BytesMut, name: &[u8], value: &[u8]) {
    to.reserve(name.len() + value.len() + 4);
    to.put_slice(name);
    to.put_slice(b": ");
    to.put_slice(value);
    to.put_slice(b"\r\n");
}

/// Appends all fields but those that only a driver may write ([`is_hop_field`]).
pub fn fields(to: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        if !is_hop_field(name) {
            field(to, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

/// Appends `content-length`.
pub fn length_field(to: &mut BytesMut, length: u64) {
    let mut digits = [0_u8; 20];
    let mut rest = length;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    field(to, b"content-length", digits.get(digits.len() - used..).unwrap_or_default());
}

/// Appends the line in front of a chunk.
pub fn chunk_head(to: &mut BytesMut, length: usize) {
    let mut digits = [0_u8; 16];
    let mut rest = length;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef".get(rest & 0xf).copied().unwrap_or(b'0');
        rest >>= 4;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    to.put_slice(digits.get(digits.len() - used..).unwrap_or_default());
    to.put_slice(b"\r\n");
}

/// Appends what follows the last chunk: the trailer section.
pub fn last_chunk(to: &mut BytesMut, trailers: Option<&HeaderMap>) {
    to.put_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        fields(to, trailers);
    }
    to.put_slice(b"\r\n");
}

/// True for the fields that speak about one hop: whoever writes a head decides what they say.
#[must_use]
pub fn is_hop_field(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "content-length" | "transfer-encoding" | "upgrade" | "te" | "keep-alive" | "proxy-connection"
    )
}
