//! `Cache-Control` and `Pragma`, read on the safe side (RFC 9111 §5.2, §5.4).
//!
//! - Names are case-insensitive; unknown ones are ignored (§5.2.3).
//! - An argument may be a token or a quoted string (§5.2); commas inside quotes do not separate.
//! - A delta too large to hold is 2^31 seconds (§1.2.2). One that is not a number counts as 0: invalid freshness is no
//!   freshness (§4.2.1). Of two different values the smaller one counts.
//! - The qualified forms `no-cache="f"` and `private="f"` count as the unqualified ones, which is stricter.
//! - A quote that is never closed could hide a directive, so such a line is split at every comma and grants no freshness.

use std::time::Duration;

use http::header::{CACHE_CONTROL, PRAGMA};
use http::{HeaderMap, HeaderName};

use crate::policy::fields;

/// The largest delta that is told apart from "forever" (RFC 9111 §1.2.2).
pub const MAX_DELTA: Duration = Duration::from_secs(1 << 31);

/// What a response's `Cache-Control` says to a shared cache. Fields are named after the directives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "each is the directive of the same name")]
pub struct ResponseDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub no_transform: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub immutable: bool,
    pub max_age: Option<Duration>,
    pub s_maxage: Option<Duration>,
    pub stale_while_revalidate: Option<Duration>,
    pub stale_if_error: Option<Duration>,
}

impl ResponseDirectives {
    /// The directives of all `Cache-Control` lines together. Cost: one pass, no allocation.
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        each(headers, &CACHE_CONTROL, |name, argument| match name {
            "no-store" => found.no_store = true,
            "no-cache" => found.no_cache = true,
            "no-transform" => found.no_transform = true,
            "private" => found.private = true,
            "public" => found.public = true,
            "must-revalidate" => found.must_revalidate = true,
            "proxy-revalidate" => found.proxy_revalidate = true,
            "must-understand" => found.must_understand = true,
            "immutable" => found.immutable = true,
            "max-age" => lower(&mut found.max_age, argument),
            "s-maxage" => lower(&mut found.s_maxage, argument),
            "stale-while-revalidate" => lower(&mut found.stale_while_revalidate, argument),
            "stale-if-error" => lower(&mut found.stale_if_error, argument),
            UNCLOSED => {
                found.max_age = Some(Duration::ZERO);
                found.s_maxage = Some(Duration::ZERO);
                found.stale_while_revalidate = Some(Duration::ZERO);
                found.stale_if_error = Some(Duration::ZERO);
            }
            _ => {}
        });
        found
    }
}

/// What a request's `Cache-Control` asks of a cache. `max-stale` without an argument accepts any age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "each is the directive of the same name")]
pub struct RequestDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub no_transform: bool,
    pub only_if_cached: bool,
    pub max_age: Option<Duration>,
    pub min_fresh: Option<Duration>,
    pub max_stale: Option<Duration>,
    pub stale_if_error: Option<Duration>,
}

impl RequestDirectives {
    /// The directives of all `Cache-Control` lines; without any, `Pragma: no-cache` counts as `no-cache` (§5.4).
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        if !fields::has(headers, &CACHE_CONTROL) {
            each(headers, &PRAGMA, |name, _| found.no_cache |= name == "no-cache");
            return found;
        }
        each(headers, &CACHE_CONTROL, |name, argument| match name {
            "no-store" => found.no_store = true,
            "no-cache" => found.no_cache = true,
            "no-transform" => found.no_transform = true,
            "only-if-cached" => found.only_if_cached = true,
            "max-age" => lower(&mut found.max_age, argument),
            // The other way round: asking for more freshness is the safe reading.
            "min-fresh" => found.min_fresh = found.min_fresh.max(Some(delta(argument).unwrap_or(MAX_DELTA))),
            "max-stale" if argument.is_none() => found.max_stale = found.max_stale.or(Some(MAX_DELTA)),
            "max-stale" => lower(&mut found.max_stale, argument),
            "stale-if-error" => lower(&mut found.stale_if_error, argument),
            _ => {}
        });
        found
    }

    /// Without what would make a cache fetch although it has a fresh response (`ignore_request_directives`). What a client
    /// accepts (`max-stale`, `stale-if-error`) and what it forbids (`no-store`, `only-if-cached`) stays.
    #[must_use]
    pub fn without_wishes(self) -> Self {
        Self { no_cache: false, max_age: None, min_fresh: None, ..self }
    }
}

/// Reported in place of a name when a line has a quote that is never closed; no directive can have this name.
const UNCLOSED: &str = "\"";

/// Longest directive name that is looked at; all known ones are shorter.
const LONGEST_NAME: usize = 24;

fn lower(place: &mut Option<Duration>, argument: Option<&[u8]>) {
    let value = delta(argument).unwrap_or(Duration::ZERO);
    *place = Some(place.map_or(value, |before| before.min(value)));
}

/// `delta-seconds`: digits only, saturating at [`MAX_DELTA`]; `None` when it is anything else.
fn delta(argument: Option<&[u8]>) -> Option<Duration> {
    let digits = argument.filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))?;
    let seconds = digits.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(Duration::from_secs(seconds).min(MAX_DELTA))
}

/// Calls `found` with the lower-cased name and the unquoted argument of each directive.
fn each(headers: &HeaderMap, field: &HeaderName, mut found: impl FnMut(&str, Option<&[u8]>)) {
    for line in fields::lines(headers, field) {
        let line = line.as_bytes();
        let closed = is_closed(line);
        if !closed {
            found(UNCLOSED, None);
        }
        let mut quoted = false;
        let mut escaped = false;
        for item in line.split(|&byte| {
            if closed && quoted {
                (quoted, escaped) = after_quoted(byte, escaped);
                return false;
            }
            quoted = byte == b'"';
            byte == b','
        }) {
            directive(item, &mut found);
        }
    }
}

/// State of a quoted string behind `byte`: still inside?, next byte escaped?
fn after_quoted(byte: u8, escaped: bool) -> (bool, bool) {
    match byte {
        _ if escaped => (true, false),
        b'\\' => (true, true),
        b'"' => (false, false),
        _ => (true, false),
    }
}

fn is_closed(line: &[u8]) -> bool {
    let (quoted, _) =
        line.iter().fold(
            (false, false),
            |(quoted, escaped), &byte| {
                if quoted { after_quoted(byte, escaped) } else { (byte == b'"', false) }
            },
        );
    !quoted
}

fn directive(item: &[u8], found: &mut impl FnMut(&str, Option<&[u8]>)) {
    let item = item.trim_ascii();
    let (name, argument) = match item.iter().position(|&byte| byte == b'=') {
        Some(at) => (item.get(..at).unwrap_or_default(), item.get(at + 1..)),
        None => (item, None),
    };
    // "max-age =1" is no directive by the grammar, yet `no-store =x` must not get lost: the name is taken either way.
    let name = name.trim_ascii();
    let mut buffer = [0; LONGEST_NAME];
    let Some(lowered) = buffer.get_mut(..name.len()) else { return };
    lowered.copy_from_slice(name);
    lowered.make_ascii_lowercase();
    let Ok(name) = std::str::from_utf8(lowered) else { return };
    let argument = argument
        .map(|argument| argument.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(argument));
    found(name, argument);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (name.clone(), HeaderValue::try_from(*line).expect("a valid value"))).collect()
    }

    fn response(lines: &[&str]) -> ResponseDirectives {
        ResponseDirectives::parse(&headers(&CACHE_CONTROL, lines))
    }

    fn request(lines: &[&str]) -> RequestDirectives {
        RequestDirectives::parse(&headers(&CACHE_CONTROL, lines))
    }

    #[test]
    fn deltas() {
        for (lines, seconds) in [
            (&["max-age=60"][..], Some(60)),
            (&["MAX-AGE=60"], Some(60)),
            (&["  max-age=60  , x"], Some(60)),
            (&["max-age=\"60\""], Some(60)),
            (&["max-age=060"], Some(60)),
            (&["max-age=60, max-age=5"], Some(5)),
            (&["max-age=5", "max-age=60"], Some(5)),
            (&["max-age=99999999999999999999999"], Some(1 << 31)),
            (&["max-age=2147483649"], Some(1 << 31)),
            (&["max-age=-1"], Some(0)),
            (&["max-age=1.5"], Some(0)),
            (&["max-age"], Some(0)),
            (&["max-age="], Some(0)),
            (&["max-age= 60"], Some(0)),
            (&["max-age=60s"], Some(0)),
            (&["max-age='60'"], Some(0)),
            (&["max-age=60, max-age=x"], Some(0)),
            (&["xmax-age=60"], None),
            (&["x=\"max-age=60\""], None),
            (&["x=\"a, max-age=60\", max-age=7"], Some(7)),
            (&["x=\"a\\\", max-age=60\", max-age=7"], Some(7)),
            (&["max-age=60, x=\"never closed"], Some(0)),
            (&[""], None),
            (&[",,,"], None),
        ] {
            assert_eq!(response(lines).max_age, seconds.map(Duration::from_secs), "{lines:?}");
        }
    }

    #[test]
    fn stale_answers_are_granted_on_the_safe_side_too() {
        for (line, expected) in [
            ("max-age=1, stale-while-revalidate=60, stale-if-error=90", (Some(60), Some(90))),
            ("stale-while-revalidate=60, stale-while-revalidate=5", (Some(5), None)),
            ("stale-while-revalidate, stale-if-error=x", (Some(0), Some(0))),
            ("stale-while-revalidate=60, x=\"never closed", (Some(0), Some(0))),
        ] {
            let found = response(&[line]);
            let seconds = |delta: Option<Duration>| delta.map(|delta| delta.as_secs());
            assert_eq!((seconds(found.stale_while_revalidate), seconds(found.stale_if_error)), expected, "{line}");
        }
    }

    #[test]
    fn flags() {
        assert!(response(&["No-Store"]).no_store);
        assert!(response(&["foo, no-store"]).no_store);
        assert!(response(&["foo", "bar=1,no-store"]).no_store);
        assert!(response(&["no-store=x"]).no_store);
        assert!(response(&["x=\"y, no-store"]).no_store, "an unclosed quote hides nothing");
        assert!(!response(&["x=\"no-store\""]).no_store);
        assert!(!response(&["x=\"a, no-store, b\""]).no_store);
        assert!(response(&["private=\"set-cookie, x\""]).private);
        assert!(response(&["no-cache=\"set-cookie\""]).no_cache);
        assert!(response(&["a_name_that_is_longer_than_any_directive, public"]).public);
    }

    #[test]
    fn requests() {
        assert_eq!(request(&["max-age=0"]).max_age, Some(Duration::ZERO));
        assert_eq!(request(&["min-fresh=5, min-fresh=9"]).min_fresh, Some(Duration::from_secs(9)));
        assert_eq!(request(&["min-fresh=x"]).min_fresh, Some(MAX_DELTA));
        assert!(request(&["only-if-cached"]).only_if_cached);
        let pragma = headers(&PRAGMA, &["no-cache"]);
        assert!(RequestDirectives::parse(&pragma).no_cache);
        let mut both = pragma;
        both.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=10"));
        assert!(!RequestDirectives::parse(&both).no_cache, "Cache-Control wins over Pragma");
    }
}
