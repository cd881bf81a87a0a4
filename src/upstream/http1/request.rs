//! Writing a request head (RFC 9112 §3, §5, §6).

use bytes::{BufMut, BytesMut};
use http::header::HeaderValue;
use http::{HeaderMap, Method};

use crate::body::Body;
use crate::body::http1::{Framing, field, length_field};

/// What goes into a request head.
#[derive(Debug, Clone, Copy)]
pub(in crate::upstream) struct RequestHead<'a> {
    pub(in crate::upstream) method: &'a Method,
    /// Origin form, or `*`.
    pub(in crate::upstream) target: &'a [u8],
    pub(in crate::upstream) host: &'a HeaderValue,
    /// Everything else. `Host` and the fields that frame the body are not taken from here.
    pub(in crate::upstream) headers: &'a HeaderMap,
    pub(in crate::upstream) framing: Framing,
}

/// How `body` will be framed.
pub(in crate::upstream) fn framing(body: &Body) -> Framing {
    match body.exact_len() {
        Some(0) => Framing::Empty,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// True when `target` can stand in a request line: nothing in it ends the target, or the line.
pub(in crate::upstream) fn is_writable(target: &[u8]) -> bool {
    let rooted = target.first() == Some(&b'/') || target == b"*";
    rooted && target.iter().all(|byte| matches!(byte, 0x21..=0x7e) && *byte != b'#')
}

impl RequestHead<'_> {
    /// See [`is_writable`].
    pub(in crate::upstream) fn is_writable(&self) -> bool {
        is_writable(self.target)
    }

    /// Appends the head. Cost: no allocation while `to` has room.
    pub(in crate::upstream) fn write(&self, to: &mut BytesMut) {
        to.put_slice(self.method.as_str().as_bytes());
        to.put_slice(b" ");
        to.put_slice(self.target);
        to.put_slice(b" HTTP/1.1\r\n");
        field(to, b"host", self.host.as_bytes());
        for (name, value) in self.headers {
            if !matches!(name.as_str(), "host" | "content-length" | "transfer-encoding") {
                field(to, name.as_str().as_bytes(), value.as_bytes());
            }
        }
        match self.framing {
            // RFC 9110 §8.6: a method that has a meaning for a body says that there is none.
            Framing::Empty if matches!(*self.method, Method::POST | Method::PUT | Method::PATCH) => length_field(to, 0),
            Framing::Empty => {}
            Framing::Length(length) => length_field(to, length),
            Framing::Chunked => field(to, b"transfer-encoding", b"chunked"),
        }
        to.put_slice(b"\r\n");
    }
}
