//! Files whose name changes with their content: browsers that are told so (`immutable`, RFC 8246) do not ask for them again
//! when a page is reloaded.
//!
//! A name alone is a promise nobody made. It is believed where it is a digest of the very bytes, or where the same bytes
//! were seen under it in three fetches over a day; and of an origin that once put other bytes under such a name, only the
//! former. What is added lengthens no life: the origin's own `max-age`, of a day or more, still says how long.

use std::time::Duration;

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::cache::directives::ResponseDirectives;
use crate::clock::Now;

/// Shortest part of a name that is taken for a digest.
const DIGITS_MIN: usize = 8;
/// Shortest `max-age` of a file that is meant to stay.
const AGE_MIN: Duration = Duration::from_secs(24 * 3600);
/// Fetches that must have brought the same bytes.
const FETCHES: u32 = 3;
/// The time they must span.
const SPAN: Duration = Duration::from_secs(24 * 3600);
/// How long the names of an origin that lied are not believed, and how long a file that nobody fetches is remembered.
pub const TERM: Duration = Duration::from_secs(7 * 24 * 3600);

/// The part of the path's file name that looks like a digest: the last such.
#[must_use]
pub fn version(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    let (stem, _extension) = name.rsplit_once('.')?;
    stem.rsplit(['.', '-', '_', '~']).find(|part| looks_random(part))
}

/// Eight characters or more, either lower-case hexadecimal with two digits and a letter, or letters of both cases around a
/// digit: `bootstrap5` and `20261123` are neither.
fn looks_random(part: &str) -> bool {
    let count = |is: fn(&u8) -> bool| part.bytes().filter(is).count();
    let digits = count(u8::is_ascii_digit);
    let is_hex =
        part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) && digits >= 2 && digits < part.len();
    let is_mixed = || {
        let inner = part.trim_end_matches(|c: char| c.is_ascii_digit());
        part.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && count(u8::is_ascii_lowercase) > 0
            && count(u8::is_ascii_uppercase) > 0
            && inner.bytes().any(|byte| byte.is_ascii_digit())
    };
    part.len() >= DIGITS_MIN && (is_hex || is_mixed())
}

/// True when `version` is how the hexadecimal digest of the content begins.
#[must_use]
pub fn is_beginning_of(version: &str, digest: &[u8]) -> bool {
    let expected = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let given = version.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()));
    version.len() >= DIGITS_MIN && version.len() <= 2 * digest.len() && given.zip(expected).all(|(a, b)| a == Some(b))
}

/// Whether an answer may be marked at all: it names a life of a day, and nobody has marked it yet.
#[must_use]
pub fn is_fit(status: StatusCode, headers: &HeaderMap) -> bool {
    let directives = ResponseDirectives::parse(headers);
    let lasts = directives.max_age.is_some_and(|age| age >= AGE_MIN);
    status == StatusCode::OK && lasts && !directives.no_cache && !directives.immutable
}

/// Marks an answer.
pub fn mark(headers: &mut HeaderMap) {
    headers.append(CACHE_CONTROL, HeaderValue::from_static("immutable"));
}

/// What was seen under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    digest: u128,
    fetches: u32,
    first: Now,
    last: Now,
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen often or long enough.
    NotYet,
    /// The name has kept its bytes.
    Kept,
    /// Other bytes came under the same name.
    Lied,
}

impl Witness {
    /// After one more fetch, at `now`, has brought bytes with this digest; `former` is what was known.
    #[must_use]
    pub fn after(former: Option<Self>, digest: u128, now: Now) -> (Self, Verdict) {
        let fresh = Self { digest, fetches: 1, first: now, last: now };
        match former.filter(|former| !former.is_over(now)) {
            None => (fresh, Verdict::NotYet),
            Some(former) if former.digest != digest => (fresh, Verdict::Lied),
            Some(former) => {
                let witness = Self { fetches: former.fetches.saturating_add(1), last: now, ..former };
                let kept = witness.fetches >= FETCHES && now.since(witness.first) >= SPAN;
                (witness, if kept { Verdict::Kept } else { Verdict::NotYet })
            }
        }
    }

    /// True when it says nothing any more.
    #[must_use]
    pub fn is_over(&self, now: Now) -> bool {
        now.since(self.last) >= TERM
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn names_that_look_like_digests() {
        for (path, expected) in [
            ("/assets/app.3f2a91bc.js", Some("3f2a91bc")),
            ("/assets/index-DkX3aB9q.js", Some("DkX3aB9q")),
            ("/_next/static/chunks/4bd1b696-182b6b13bdad92e3.js", Some("182b6b13bdad92e3")),
            ("/a/9e107d9d372bb6826bd81d3542a419d6.css", Some("9e107d9d372bb6826bd81d3542a419d6")),
            ("/a/bootstrap5.min.js", None),
            ("/a/report-20261123.json", None),
            ("/a/deadbeef.js", None),
            ("/a/Chapter12.html", None),
            ("/a/3f2a91b.js", None),
            ("/3f2a91bc/app.js", None),
            ("/a/3f2a91bc", None),
            ("/", None),
        ] {
            assert_eq!(version(path), expected, "{path}");
        }
    }

    #[test]
    fn a_digest_is_its_own_proof() {
        let digest = [0x3f, 0x2a, 0x91, 0xbc, 0x55];
        for (name, expected) in
            [("3f2a91bc", true), ("3f2a91bc5", true), ("3f2a91bd", false), ("3f2a91b", false), ("3f2a91bc55a", false)]
        {
            assert_eq!(is_beginning_of(name, &digest), expected, "{name}");
        }
    }

    #[test]
    fn only_what_stays_a_day_is_fit() {
        for (status, lines, expected) in [
            (200, &[("cache-control", "max-age=86400")][..], true),
            (200, &[("cache-control", "public, max-age=31536000")], true),
            (200, &[("cache-control", "max-age=86399")], false),
            (200, &[("cache-control", "s-maxage=31536000")], false),
            (200, &[("cache-control", "max-age=31536000, no-cache")], false),
            (200, &[("cache-control", "max-age=31536000, Immutable")], false),
            (200, &[], false),
            (404, &[("cache-control", "max-age=86400")], false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(is_fit(status, &headers), expected, "{lines:?}");
        }
    }

    #[test]
    fn three_fetches_over_a_day_make_a_name_credible() {
        let start = Clock::System.now();
        let at = |hours: u64| start.plus(Duration::from_secs(3600 * hours));
        let verdict = |seen: &[(u64, u128)]| {
            let first = (None, Verdict::NotYet);
            let after = |(former, _): (Option<Witness>, Verdict), &(hour, digest): &(u64, u128)| {
                let (witness, verdict) = Witness::after(former, digest, at(hour));
                (Some(witness), verdict)
            };
            seen.iter().fold(first, after).1
        };
        for (seen, expected) in [
            (&[(0, 1)][..], Verdict::NotYet),
            (&[(0, 1), (24, 1)], Verdict::NotYet),
            (&[(0, 1), (1, 1), (23, 1)], Verdict::NotYet),
            (&[(0, 1), (1, 1), (24, 1)], Verdict::Kept),
            (&[(0, 1), (1, 1), (24, 1), (25, 2)], Verdict::Lied),
            (&[(0, 1), (1, 2), (24, 2)], Verdict::NotYet),
            (&[(0, 1), (1, 1), (7 * 24 + 1, 2)], Verdict::NotYet),
        ] {
            assert_eq!(verdict(seen), expected, "{seen:?}");
        }
    }
}
