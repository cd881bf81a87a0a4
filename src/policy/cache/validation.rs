//! Conditional requests on both sides: asking the origin whether a stored response still holds, applying its 304 or its
//! answer to HEAD, and answering a client's own conditions from what is stored (RFC 9111 §4.3, RFC 9110 §13).

use std::time::SystemTime;

use http::header::{
    ACCEPT_RANGES, AGE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, SET_COOKIE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::dates;
use crate::clock::Now;
use crate::policy::fields;
use crate::policy::validators::{EntityTag, none_match_hits};

/// The head of a stored response.
#[derive(Debug, Clone, Copy)]
pub struct StoredView<'a> {
    /// Its fields, after mandatory rewriting.
    pub headers: &'a HeaderMap,
    /// Fingerprint of the mandatory rules; 0 = none, and then the bytes and their tag are the origin's.
    pub rules: u64,
}

impl<'a> StoredView<'a> {
    /// The tag as the origin knows it. Only a suffix that was added here is taken off: an origin may be a Tidegate too.
    fn origin_tag(self) -> Option<EntityTag<'a>> {
        let tag = EntityTag::parse(self.headers.get(ETAG)?.as_bytes())?;
        match tag.split() {
            (origin, Some(derivation)) if self.rules != 0 && derivation.rules == self.rules => Some(origin),
            _ => Some(tag),
        }
    }
}

/// Makes `request` ask the origin whether `stored` still holds; the client's own conditions give way (§4.3.1). Returns
/// false when `stored` has no validator: then the request goes out unconditionally.
pub fn ask(request: &mut HeaderMap, stored: StoredView<'_>) -> bool {
    clear(request);
    let tag = stored.origin_tag();
    if let Some(tag) = tag {
        request.insert(IF_NONE_MATCH, tag.to_value());
    }
    let modified = stored.headers.get(LAST_MODIFIED).filter(|_| dates::read(stored.headers, &LAST_MODIFIED).is_some());
    if let Some(modified) = modified {
        request.insert(IF_MODIFIED_SINCE, modified.clone());
    }
    tag.is_some() || modified.is_some()
}

/// Removes the conditions that a cache answers by itself, and `Range`: a fetch that is to be stored must bring the whole
/// response.
pub fn clear(request: &mut HeaderMap) {
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, RANGE] {
        request.remove(name);
    }
}

/// True when a 304 speaks of `stored`: its validators, where it has any, are those of the stored response (§4.3.4). A 304
/// that speaks of something else is no answer; the request is sent again without conditions.
#[must_use]
pub fn confirms(not_modified: &HeaderMap, stored: StoredView<'_>) -> bool {
    same_tag(not_modified, stored).or_else(|| same_date(not_modified, stored)).unwrap_or(true)
}

/// Whether the tag of an answer is that of `stored`; `None` when it has none. Weak comparison: that the content is
/// equivalent is all that was asked.
fn same_tag(answer: &HeaderMap, stored: StoredView<'_>) -> Option<bool> {
    let given = EntityTag::parse(answer.get(ETAG)?.as_bytes());
    Some(given.zip(stored.origin_tag()).is_some_and(|(given, kept)| given.opaque == kept.opaque))
}

/// Whether the `Last-Modified` of an answer is that of `stored`; `None` when it has none that is a date.
fn same_date(answer: &HeaderMap, stored: StoredView<'_>) -> Option<bool> {
    let given = dates::read(answer, &LAST_MODIFIED)?;
    let kept = dates::read(stored.headers, &LAST_MODIFIED);
    // Of a rewritten body the stored date may be that of the rules, which the origin cannot know.
    Some(if stored.rules == 0 { kept == Some(given) } else { kept.is_some_and(|kept| given <= kept) })
}

/// What an answer to HEAD says about a stored answer to GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadVerdict {
    /// They are the same: the stored one is freshened as by a 304.
    Confirms,
    /// The stored one is out of date.
    Contradicts,
    /// Nothing.
    Silent,
}

/// A stored response as an answer to HEAD is compared with it.
#[derive(Debug, Clone, Copy)]
pub struct StoredWhole<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub view: StoredView<'a>,
    /// Bytes of its body.
    pub length: u64,
}

/// What an answer to HEAD, asked with the fields of the fetch that was stored, says about the stored response (§4.3.5).
///
/// A 200 confirms a stored 200 when every validator it has, and its `Content-Length`, are those of the stored response. Two
/// choices are on the safe side: a length alone confirms nothing, for another content can be as long; and 404 or 410 where
/// something else is stored speak as clearly as a 200 that differs.
#[must_use]
pub fn compare_head(status: StatusCode, head: &HeaderMap, stored: &StoredWhole<'_>) -> HeadVerdict {
    if !matches!(status, StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::GONE) {
        return HeadVerdict::Silent;
    }
    if status != stored.status {
        return HeadVerdict::Contradicts;
    }
    let validators = [same_tag(head, stored.view), same_date(head, stored.view)];
    // The origin cannot know how long a rewritten body is.
    let length = content_length(head).filter(|_| stored.view.rules == 0).map(|length| length == stored.length);
    if validators.into_iter().chain([length]).any(|same| same == Some(false)) {
        HeadVerdict::Contradicts
    } else if status == StatusCode::OK && validators.contains(&Some(true)) {
        HeadVerdict::Confirms
    } else {
        HeadVerdict::Silent
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Fields that describe the stored bytes, the content of the message they came in (a 304 has none), or one exchange: a
/// 304 never changes them (§3.2).
const KEPT: [HeaderName; 7] = [
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    ETAG,
    SET_COOKIE,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
];

/// Fields that describe the origin's bytes: a 304 does not bring them back where the stored bytes are rewritten ones.
/// The media type is among them, for its charset is the one the rules were applied in.
const OF_ORIGINAL: [HeaderName; 5] = [
    ACCEPT_RANGES,
    CONTENT_TYPE,
    LAST_MODIFIED,
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// The head of a stored response freshened by a 304 that [`confirms`] it, or an answer to HEAD that does (§3.2): every field of the 304 replaces all of
/// that name, but for those that describe the stored bytes. The tag stays too, for the 304 can only repeat it and ours may
/// be a derived one. `Age` and `Date` are always those of the 304, since the stored ones would make the result old.
#[must_use]
pub fn freshen(stored: StoredView<'_>, not_modified: &HeaderMap, received: Now) -> HeaderMap {
    let mut head = stored.headers.clone();
    head.remove(AGE);
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(received.wall)) {
        head.insert(DATE, date);
    }
    let kept = |name: &HeaderName| KEPT.contains(name) || (stored.rules != 0 && OF_ORIGINAL.contains(name));
    for name in not_modified.keys().filter(|name| !kept(name)) {
        head.remove(name);
        for value in not_modified.get_all(name) {
            head.append(name.clone(), value.clone());
        }
    }
    head
}

/// A response as the client's conditions see it.
#[derive(Debug, Clone, Copy)]
pub struct ConditionFacts<'a> {
    /// Its status: conditions mean nothing unless it is a 2xx (RFC 9110 §13.2.1).
    pub status: StatusCode,
    /// Its fields, with the `ETag` of the base or the child that would be sent.
    pub headers: &'a HeaderMap,
    /// When it arrived: stands in for a missing `Last-Modified` and `Date` (RFC 9111 §4.3.2).
    pub received: SystemTime,
}

/// True when a GET or HEAD with these conditions is to be answered 304 from the stored response: `If-None-Match` decides
/// alone where it is present, else `If-Modified-Since` (RFC 9110 §13.2.2).
#[must_use]
pub fn is_not_modified(request: &HeaderMap, stored: &ConditionFacts<'_>) -> bool {
    if !stored.status.is_success() {
        return false;
    }
    if fields::has(request, &IF_NONE_MATCH) {
        let current = stored.headers.get(ETAG).and_then(|tag| EntityTag::parse(tag.as_bytes()));
        return none_match_hits(request, current);
    }
    let Some(since) = dates::read(request, &IF_MODIFIED_SINCE) else { return false };
    let changed = dates::read(stored.headers, &LAST_MODIFIED).or_else(|| dates::read(stored.headers, &DATE));
    changed.unwrap_or(stored.received) <= since
}

/// Turns the head of a stored response into that of a 304: what describes the content goes (RFC 9110 §15.4.5).
/// `Last-Modified` stays only where no tag says more.
pub fn strip_for_not_modified(head: &mut HeaderMap) {
    for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE] {
        head.remove(name);
    }
    if head.contains_key(ETAG) {
        head.remove(LAST_MODIFIED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::tests::headers;

    type Lines<'a> = &'a [(&'static str, &'a str)];

    fn view(headers: &HeaderMap, rules: u64) -> StoredView<'_> {
        StoredView { headers, rules }
    }

    #[test]
    fn asking() {
        for (stored, rules, expected, conditional) in [
            (&[("etag", "\"a\"")][..], 0, &[("if-none-match", "\"a\"")][..], true),
            (&[("etag", "W/\"a--id0.7\"")], 7, &[("if-none-match", "W/\"a\"")], true),
            (&[("etag", "\"a--id0.7\"")], 0, &[("if-none-match", "\"a--id0.7\"")], true),
            (&[("etag", "\"a--id0.7--id0.9\"")], 9, &[("if-none-match", "\"a--id0.7\"")], true),
            (&[("etag", "unquoted")], 0, &[], false),
            (&[("last-modified", "@0")], 0, &[("if-modified-since", "@0")], true),
            (
                &[("etag", "\"a\""), ("last-modified", "@0")],
                0,
                &[("if-none-match", "\"a\""), ("if-modified-since", "@0")],
                true,
            ),
            (&[("last-modified", "yesterday")], 0, &[], false),
            (&[], 0, &[], false),
        ] {
            let now = Clock::System.now();
            let mut request = headers(&[("if-none-match", "\"client\""), ("if-modified-since", "@-5")], now);
            assert_eq!(ask(&mut request, view(&headers(stored, now), rules)), conditional, "{stored:?}");
            assert_eq!(request, headers(expected, now), "{stored:?}");
        }
    }

    #[test]
    fn which_304_counts() {
        let now = Clock::System.now();
        for (given, stored, rules, expected) in [
            (&[][..], &[("etag", "\"a\"")][..], 0, true),
            (&[("etag", "\"a\"")], &[("etag", "\"a\"")], 0, true),
            (&[("etag", "\"a\"")], &[("etag", "W/\"a\"")], 0, true),
            (&[("etag", "\"a\"")], &[("etag", "\"a--id0.7\"")], 7, true),
            (&[("etag", "\"a\"")], &[("etag", "\"a--id0.7\"")], 0, false),
            (&[("etag", "\"b\"")], &[("etag", "\"a\"")], 0, false),
            (&[("etag", "\"b\"")], &[("last-modified", "@0")], 0, false),
            (&[("last-modified", "@0")], &[("last-modified", "@0")], 0, true),
            (&[("last-modified", "@9")], &[("last-modified", "@0")], 0, false),
            (&[("last-modified", "@-9")], &[("last-modified", "@0")], 0, false),
            (&[("last-modified", "@-9")], &[("last-modified", "@0")], 7, true),
        ] {
            let (given, stored) = (headers(given, now), headers(stored, now));
            assert_eq!(confirms(&given, view(&stored, rules)), expected, "{given:?} {stored:?} {rules}");
        }
    }

    #[test]
    fn what_an_answer_to_head_says() {
        use HeadVerdict::{Confirms, Contradicts, Silent};
        let now = Clock::System.now();
        let tagged: Lines<'_> = &[("etag", "\"a\""), ("last-modified", "@-9")];
        for (status, head, stored, rules, expected) in [
            (200, tagged, tagged, 0, Confirms),
            (200, &[("etag", "W/\"a\"")][..], tagged, 0, Confirms),
            (200, &[("etag", "\"a\""), ("content-length", "5")], tagged, 0, Confirms),
            (200, &[("etag", "\"a\""), ("content-length", "6")], tagged, 0, Contradicts),
            (200, &[("etag", "\"a\""), ("content-length", "6")], tagged, 7, Confirms),
            (200, &[("etag", "\"a\""), ("last-modified", "@-8")], tagged, 0, Contradicts),
            (200, &[("etag", "\"b\""), ("last-modified", "@-9")], tagged, 0, Contradicts),
            (200, &[("etag", "\"a\"")], &[], 0, Contradicts),
            (200, &[("etag", "unquoted")], tagged, 0, Contradicts),
            (200, &[("content-length", "5")], tagged, 0, Silent),
            (200, &[("content-length", "5")], &[], 0, Silent),
            (200, &[("content-length", "6")], &[], 0, Contradicts),
            (200, &[], tagged, 0, Silent),
            (404, tagged, tagged, 0, Contradicts),
            (410, &[], tagged, 0, Contradicts),
            (405, &[], tagged, 0, Silent),
            (403, &[("etag", "\"b\"")], tagged, 0, Silent),
            (302, &[], tagged, 0, Silent),
        ] {
            let (head, stored) = (headers(head, now), headers(stored, now));
            let status = StatusCode::from_u16(status).expect("a status");
            let whole = StoredWhole { status: StatusCode::OK, view: view(&stored, rules), length: 5 };
            assert_eq!(compare_head(status, &head, &whole), expected, "{status} {head:?} {stored:?} {rules}");
        }
        let none = HeaderMap::new();
        let missing = StoredWhole { status: StatusCode::NOT_FOUND, view: view(&none, 0), length: 5 };
        for (status, expected) in [(200, Contradicts), (404, Silent), (410, Contradicts)] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(compare_head(status, &none, &missing), expected, "{status}");
        }
    }

    #[test]
    fn freshening() {
        let now = Clock::System.now();
        let stored: Lines<'_> = &[
            ("etag", "\"a--id0.7\""),
            ("content-type", "text/html"),
            ("content-length", "5"),
            ("age", "90"),
            ("date", "@-100"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("cache-control", "max-age=1"),
            ("last-modified", "@-50"),
        ];
        let given: Lines<'_> = &[
            ("etag", "\"a\""),
            ("content-type", "text/plain"),
            ("content-length", "0"),
            ("set-cookie", "a=b"),
            ("x-a", "3"),
            ("x-b", "4"),
            ("cache-control", "max-age=9"),
            ("last-modified", "@-90"),
            ("accept-ranges", "bytes"),
            ("content-md5", "of nothing"),
        ];
        let always: Lines<'_> = &[
            ("etag", "\"a--id0.7\""),
            ("content-length", "5"),
            ("date", "@0"),
            ("x-a", "3"),
            ("x-b", "4"),
            ("cache-control", "max-age=9"),
        ];
        let as_it_came: Lines<'_> =
            &[("last-modified", "@-90"), ("accept-ranges", "bytes"), ("content-type", "text/plain")];
        let rewritten: Lines<'_> = &[("last-modified", "@-50"), ("content-type", "text/html")];
        for (rules, then) in [(0, as_it_came), (7, rewritten)] {
            let fresh = freshen(view(&headers(stored, now), rules), &headers(given, now), now);
            assert_eq!(fresh, headers(&[always, then].concat(), now), "rules {rules}");
        }
        let times = headers(&[("age", "4"), ("date", "@-4")], now);
        let aged = freshen(view(&headers(stored, now), 0), &times, now);
        assert_eq!((aged.get(AGE), aged.get(DATE)), (times.get(AGE), times.get(DATE)));
    }

    #[test]
    fn client_conditions() {
        let now = Clock::System.now();
        let tagged: Lines<'_> = &[("etag", "\"a--br5.0\""), ("last-modified", "@-100")];
        for (request, status, stored, expected) in [
            (&[("if-none-match", "\"a\"")][..], 200, tagged, true),
            (&[("if-none-match", "\"x\", W/\"a--gzip6.0\"")], 200, tagged, true),
            (&[("if-none-match", "\"x\""), ("if-none-match", "\"a\"")], 200, tagged, true),
            (&[("if-none-match", "*")], 200, &[], true),
            (&[("if-none-match", "\"x\""), ("if-modified-since", "@0")], 200, tagged, false),
            (&[("if-none-match", "\"a\"")], 404, tagged, false),
            (&[("if-none-match", "\"a\"")], 200, &[], false),
            (&[("if-modified-since", "@-100")], 200, tagged, true),
            (&[("if-modified-since", "@-101")], 200, tagged, false),
            (&[("if-modified-since", "@0")], 200, &[("date", "@-1")], true),
            (&[("if-modified-since", "@-2")], 200, &[("date", "@-1")], false),
            (&[("if-modified-since", "@-2")], 200, &[], false),
            (&[("if-modified-since", "soon")], 200, tagged, false),
            (&[], 200, tagged, false),
        ] {
            let (request, stored) = (headers(request, now), headers(stored, now));
            let status = StatusCode::from_u16(status).expect("a status");
            let facts = ConditionFacts { status, headers: &stored, received: now.wall };
            assert_eq!(is_not_modified(&request, &facts), expected, "{request:?} {status} {stored:?}");
        }
    }
}
