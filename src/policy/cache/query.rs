//! QUERY (RFC 10008): a question of which the content is a part. It is safe and idempotent; where a policy has
//! `query_body`, its answers are stored and reused as those to GET are.
//!
//! - Its key holds the content's digest and what the request says of the content (§2.7), so it meets neither a GET of the same
//!   URL nor a question in another format. Content is compared byte by byte: what two notations mean alike is known to the
//!   origin alone, and costs a fetch each.
//! - What may be stored, and for how long, is decided as for GET: unlike POST (RFC 9110 §9.3.3) it is not asked that the
//!   origin states a lifetime, so `ttl` and the guess of RFC 9111 §4.2.2 apply.
//! - `Range` means to it what the origin says: such a request passes the cache by.
//! - `No-Vary-Search` is about URLs, and not heard.
//!
//! Purges and invalidations name URLs, and reach what is stored for every question to one.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use http::header::{CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE};
use http::{HeaderName, Method};

use super::CacheParams;

/// The request fields without which content says nothing.
pub(super) static METADATA: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE];

/// True for a QUERY under a policy that stores answers to it. Cost: a comparison.
#[must_use]
pub fn takes_part(method: &Method, params: &CacheParams) -> bool {
    params.query_body.is_some() && method.as_str() == "QUERY"
}

/// SHA-256 of the content of a QUERY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentDigest([u8; 32]);

impl ContentDigest {
    /// Of all of the content, codings and all. Cost: one pass over it.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, content).as_ref());
        Self(bytes)
    }

    /// Appends it in hexadecimal.
    pub(super) fn push(&self, text: &mut String) {
        for byte in self.0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
    }
}
