//! What the cache would do with a request, as plain values: what `tidegate explain` prints.
//!
//! Gathered on demand, beside the workers. Every text is bounded by [`SHOWN_MAX`], every list by what the store bounds it
//! with or by [`TAGS_SHOWN`].

use std::fmt::Write as _;
use std::time::SystemTime;

use serde::Serialize;

use super::timestamp;

/// Most bytes shown of a key, a field's value or a tag.
pub const SHOWN_MAX: usize = 1024;

/// Most tags shown of one response.
pub const TAGS_SHOWN: usize = 64;

/// What the cache makes of one request.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Explanation {
    /// NAME of the cache policy.
    pub policy: String,
    /// Why the request passes the cache by; everything below is then empty.
    pub bypass: Option<&'static str>,
    /// The primary key's text.
    pub key: Option<String>,
    /// Why its answer could not be stored whatever it is, though a stored one may answer it.
    pub reuse_only: Option<&'static str>,
    /// What would happen now, as a stable token.
    pub next: &'static str,
    /// The reason behind that, as a stable token.
    pub reason: Option<&'static str>,
    /// `fwd` of the `Cache-Status` it would get.
    pub fwd: Option<&'static str>,
    /// Why a stored response that is not fresh would not answer at once.
    pub stale_refused: Option<&'static str>,
    /// It would wait for a fetch that is under way, not begin one.
    pub joins: bool,
    /// Fetches under way for this key, of whichever variant.
    pub fetches: usize,
    /// The last answer that was not stored, where that is remembered and nothing was stored since.
    pub refusal: Option<RefusalNote>,
    /// What would become of an answer like the stored one.
    pub would_store: Option<WouldStore>,
    /// What is stored under the key, newest first.
    pub stored: Vec<StoredNote>,
}

/// An answer that was not stored.
#[derive(Debug, Clone, Serialize)]
pub struct RefusalNote {
    /// Why.
    pub reason: &'static str,
    /// For how many seconds more requests go alone because of it; 0 = no more.
    pub alone_for: u64,
}

/// Whether an answer would be stored.
#[derive(Debug, Clone, Serialize)]
pub struct WouldStore {
    /// It would.
    pub stored: bool,
    /// Why not, or who says for how long it is fresh.
    pub reason: &'static str,
}

/// One stored response.
#[derive(Debug, Clone, Serialize)]
pub struct StoredNote {
    /// The request selects it.
    pub selected: bool,
    /// The rewrite rules in force are those it was rewritten by; otherwise nobody gets it any more.
    pub rules_in_force: bool,
    /// The origin's status.
    pub status: u16,
    /// `fresh`, or why it needs a validation.
    pub state: &'static str,
    /// Seconds.
    pub age: u64,
    /// Seconds of freshness left, negative once stale.
    pub ttl: i64,
    /// Seconds.
    pub lifetime: u64,
    /// Who said so.
    pub lifetime_by: &'static str,
    /// It must never answer stale.
    pub must_revalidate: bool,
    /// Seconds, where the origin said so.
    pub stale_while_revalidate: Option<u64>,
    /// Seconds, where the origin said so.
    pub stale_if_error: Option<u64>,
    /// When its head arrived, or was last confirmed.
    #[serde(serialize_with = "timestamp::serialize")]
    pub received: SystemTime,
    /// `ETag`
    pub etag: Option<String>,
    /// `Last-Modified`
    pub last_modified: Option<String>,
    /// `Content-Type`
    pub content_type: Option<String>,
    /// `Content-Encoding` of the base.
    pub content_encoding: Option<String>,
    /// The request fields it varies by, with the values that select it.
    pub vary: Vec<VaryNote>,
    /// Its tags, at most [`TAGS_SHOWN`].
    pub tags: Vec<String>,
    /// How many there are.
    pub tags_total: usize,
    /// Bytes of the body.
    pub body: u64,
    /// Bytes it takes, overhead included, children not.
    pub bytes: u64,
    /// The body stands in a file of memory.
    pub in_file: bool,
    /// How often it was found.
    pub hits: u64,
    /// It is being fetched anew behind its answers.
    pub refreshing: bool,
    /// The last try to fetch it anew failed.
    pub failing: bool,
    /// The family of files it is a version of, and how many versions are kept to code it against, or why it has none; on
    /// routes with dictionaries.
    pub dictionary: Option<String>,
    /// What was made from it.
    pub children: Vec<ChildNote>,
}

/// One field a response varies by.
#[derive(Debug, Clone, Serialize)]
pub struct VaryNote {
    /// Its name.
    pub name: String,
    /// Its value; `None` = absent.
    pub value: Option<String>,
}

/// Something made from a stored response.
#[derive(Debug, Clone, Serialize)]
pub struct ChildNote {
    /// The content coding; `None` = taken off.
    pub coding: Option<&'static str>,
    /// The encoder's level.
    pub level: u8,
    /// Bytes of the body.
    pub body: u64,
}

/// Bytes as text of bounded length: what is no UTF-8 or would talk to a terminal is replaced, what is cut off is said.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let cut = bytes.get(..SHOWN_MAX);
    let text = String::from_utf8_lossy(cut.unwrap_or(bytes));
    let mut text: String = text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if bytes.len() > SHOWN_MAX {
        // Writing to a string cannot fail.
        let _ = write!(text, "... ({} bytes)", bytes.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_bounded() {
        assert_eq!(shown(b"a\xff\xc2\x9b"), "a\u{fffd}\u{fffd}");
        assert_eq!(shown(&[b'x'; SHOWN_MAX]).len(), SHOWN_MAX);
        let long = shown(&[b'x'; SHOWN_MAX + 1]);
        assert!(long.ends_with("x... (1025 bytes)"), "{long}");
    }
}
