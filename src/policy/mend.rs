//! Fields that speak of a body's bytes, after the bytes were changed (RFC 9110 §8, RFC 9530).
//!
//! The entity tag becomes one derived from the origin's, so that a cache or client never takes two different byte
//! sequences for one; digests of the old bytes and offers of ranges into them go. A tag that cannot be derived from is
//! dropped: no tag is better than a wrong one.

use std::time::SystemTime;

use http::header::{ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, LAST_MODIFIED, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::cache::dates;
use super::encoding::Coding;
use super::validators::{Derivation, EntityTag};

/// Fields that describe exact bytes.
const OF_BYTES: [HeaderName; 6] = [
    ACCEPT_RANGES,
    CONTENT_LENGTH,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-digest"),
];

/// Mends `headers` of a body that went through the rules named by `derivation`. `since` is when the rules came into
/// force: a rewritten body is at least as new as its rules (RFC 9110 §8.8.2).
pub fn rewritten(headers: &mut HeaderMap, derivation: Derivation, since: SystemTime) {
    changed(headers, derivation);
    headers.remove(CONTENT_ENCODING);
    if dates::read(headers, &LAST_MODIFIED).is_some_and(|modified| modified < since)
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(since))
    {
        headers.insert(LAST_MODIFIED, date);
    }
}

/// Mends `headers` of a body that was given the content coding of `derivation`, or relieved of its own.
pub fn recoded(headers: &mut HeaderMap, derivation: Derivation) {
    changed(headers, derivation);
    match derivation.token() {
        Some(coding) => {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        None => {
            headers.remove(CONTENT_ENCODING);
        }
    }
}

/// Takes the date off altered bytes that have no tag. By its date an altered copy would be confirmed when it is no longer
/// what is served.
pub fn undate_untagged(headers: &mut HeaderMap) {
    if !headers.contains_key(ETAG) {
        headers.remove(LAST_MODIFIED);
    }
}

fn changed(headers: &mut HeaderMap, derivation: Derivation) {
    for name in &OF_BYTES {
        headers.remove(name);
    }
    let tag = headers.get(ETAG).and_then(|tag| EntityTag::parse(tag.as_bytes()).map(|tag| tag.derive(derivation)));
    match tag {
        Some(tag) => {
            headers.insert(ETAG, tag);
        }
        None => {
            headers.remove(ETAG);
        }
    }
}

/// Marks the tag of bytes that are not the same each time they are made (RFC 9110 §8.8.1).
pub fn weaken(headers: &mut HeaderMap) {
    let tag = headers.get(ETAG).and_then(|tag| EntityTag::parse(tag.as_bytes()));
    if let Some(tag) = tag.map(|tag| EntityTag { weak: true, ..tag }.to_value()) {
        headers.insert(ETAG, tag);
    }
}

/// Says that the response depends on `Accept-Encoding`, unless it does already (RFC 9110 §12.5.5).
pub fn varies_by_coding(headers: &mut HeaderMap) {
    let said = headers.get_all(VARY).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    let mut said = said.map(<[u8]>::trim_ascii);
    if !said.any(|name| name == b"*" || name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str().as_bytes())) {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// The one coding of a body, when it has exactly one and we can read it.
#[must_use]
pub fn only_coding(headers: &HeaderMap) -> Option<Coding> {
    let mut codings = super::encoding::content_codings(headers);
    match (codings.next(), codings.next()) {
        (Some(only), None) => Coding::from_token(only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_described_the_old_bytes_goes_and_the_tag_is_derived() {
        let mut fields = headers(&[
            ("etag", "\"v1\""),
            ("accept-ranges", "bytes"),
            ("content-encoding", "gzip"),
            ("repr-digest", "sha-256=:AAAA:"),
            ("last-modified", "Thu, 01 Jan 1970 00:00:10 GMT"),
            ("content-type", "text/html"),
        ]);
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        rewritten(&mut fields, Derivation { coding: None, level: 0, rules: 7, delta: None }, since);
        assert_ne!(fields[ETAG], "\"v1\"");
        assert_eq!(fields[LAST_MODIFIED], "Thu, 01 Jan 1970 00:01:00 GMT");
        let kept: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        assert_eq!(kept.len(), 3, "{kept:?}");
    }

    #[test]
    fn a_malformed_tag_is_dropped_and_vary_is_said_once() {
        let mut fields = headers(&[("etag", "v1"), ("vary", "Origin, accept-encoding")]);
        recoded(&mut fields, Derivation { coding: Some(Coding::Gzip), level: 5, rules: 0, delta: None });
        varies_by_coding(&mut fields);
        assert!(!fields.contains_key(ETAG));
        assert_eq!(fields[CONTENT_ENCODING], "gzip");
        assert_eq!(fields.get_all(VARY).iter().count(), 1);
        let mut fields = headers(&[]);
        varies_by_coding(&mut fields);
        assert_eq!(fields[VARY], "Accept-Encoding");
    }
}
