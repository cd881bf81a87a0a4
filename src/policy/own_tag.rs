//! An entity-tag of our own for stored answers whose origin gives them none (RFC 9110 §8.8.3).
//!
//! It is a digest of the stored bytes, so every node that has them names them alike, and what is derived from it by the
//! algebra of [`validators`](super::validators) is as strong as what is derived from an origin's. It is made from the first
//! hit on: who got the answer before that has its date, which holds as it did.
//!
//! No origin knows such a tag. On the way to one it is taken out of `If-None-Match`.

use http::header::ETAG;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::validators::EntityTag;

/// What tells it from an origin's tag.
const MARK: &str = "tg.";

/// The tag for bytes with this digest: 128 bits, so that no two bodies of one URL will share it by accident or by intent.
#[must_use]
pub fn of_digest(digest: u128) -> HeaderValue {
    let text = format!("\"{MARK}{digest:032x}\"");
    // Only digits and letters stand between the quotes.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The digest that a tag was made from; `None` for an origin's tag.
#[must_use]
pub fn digest(tag: EntityTag<'_>) -> Option<u128> {
    let digits = std::str::from_utf8(tag.opaque).ok()?.strip_prefix(MARK)?;
    let digest = u128::from_str_radix(digits, 16).ok()?;
    // In exactly the spelling it was given.
    (of_digest(digest) == tag.to_value()).then_some(digest)
}

/// Whether a stored answer is to get one: a 200 without a tag, or with something that is none.
#[must_use]
pub fn is_wanted(status: StatusCode, headers: &HeaderMap) -> bool {
    let mut tags = headers.get_all(ETAG).iter();
    let given = tags.next().and_then(|tag| EntityTag::parse(tag.as_bytes()));
    status == StatusCode::OK && (given.is_none() || tags.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_from_others() {
        let own = of_digest(0xab);
        assert_eq!(own, "\"tg.000000000000000000000000000000ab\"");
        for (text, expected) in [
            (own.to_str().expect("ASCII"), Some(0xab)),
            ("\"tg.ab\"", None),
            ("\"tg.000000000000000000000000000000AB\"", None),
            ("\"000000000000000000000000000000ab\"", None),
            ("W/\"tg.000000000000000000000000000000ab\"", None),
        ] {
            assert_eq!(EntityTag::parse(text.as_bytes()).and_then(digest), expected, "{text}");
        }
    }

    #[test]
    fn only_a_whole_answer_without_a_tag_gets_one() {
        for (status, tags, expected) in [
            (200, &[][..], true),
            (200, &["\"a\""], false),
            (200, &["W/\"a\""], false),
            (200, &["a"], true),
            (200, &["\"a\"", "\"b\""], true),
            (404, &[], false),
            (206, &[], false),
        ] {
            let headers = HeaderMap::from_iter([]);
            let headers = tags.iter().fold(headers, |mut headers: HeaderMap, tag| {
                headers.append(ETAG, HeaderValue::from_static(tag));
                headers
            });
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(is_wanted(status, &headers), expected, "{status} {tags:?}");
        }
    }
}
