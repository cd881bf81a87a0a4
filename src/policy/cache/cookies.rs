//! The `Cookie` field as names and values (RFC 6265 §4.2), read the lenient way servers read it.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use super::pattern;
use crate::policy::fields;

/// Every name and value of every `Cookie` line, in order. A value may be any bytes, and one pair that cannot be read hides
/// no other: what an origin sees of a keyed cookie must be in the key. Pairs whose name is not text are left out.
pub fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    fields::lines(headers, &COOKIE).flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).filter_map(|pair| {
        let pair = pair.trim_ascii();
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (pair.get(..at)?, pair.get(at + 1..)?),
            None => (pair, &[][..]),
        };
        let name = std::str::from_utf8(name.trim_ascii_end()).ok()?;
        (!pair.is_empty()).then_some((name, value))
    })
}

fn split(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split(';')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').map_or((pair, ""), |(name, value)| (name.trim_end(), value)))
}

/// Removes the cookies whose names match `patterns` (`strip_cookies`); an emptied `Cookie` field goes too. Lines that
/// are not UTF-8 stay untouched: then the request still has cookies, which is the safe reading. Returns how many went.
pub fn strip(headers: &mut HeaderMap, patterns: &[String]) -> usize {
    if patterns.is_empty() || !pairs(headers).any(|(name, _)| pattern::any(patterns, name)) {
        return 0;
    }
    let mut removed = 0;
    let mut lines = Vec::new();
    for line in headers.get_all(COOKIE) {
        match std::str::from_utf8(line.as_bytes()) {
            Ok(text) => {
                let (drop, keep): (Vec<_>, Vec<_>) = split(text).partition(|(name, _)| pattern::any(patterns, name));
                removed += drop.len();
                let text = keep.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
                lines.extend((!text.is_empty()).then(|| HeaderValue::try_from(text).ok()).flatten());
            }
            Err(_) => lines.push(line.clone()),
        }
    }
    headers.remove(COOKIE);
    for line in lines {
        headers.append(COOKIE, line);
    }
    removed
}

/// True when the request carries a cookie that is not in the cache key: its answer may be one person's. A `Cookie` field
/// that cannot be read counts as such.
#[must_use]
pub fn unkeyed(headers: &HeaderMap, keyed: &[String]) -> bool {
    fields::lines(headers, &COOKIE).any(|line| match std::str::from_utf8(line.as_bytes()) {
        Ok(text) => split(text).any(|(name, _)| !keyed.iter().any(|keyed| keyed == name)),
        Err(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (COOKIE, HeaderValue::try_from(*line).expect("a valid value"))).collect()
    }

    #[test]
    fn stripping_keeps_the_others_in_order() {
        let patterns = ["_ga*".to_owned(), "theme".to_owned()];
        for (given, expected, removed) in [
            (&["_ga=1; id=7; theme=dark; x"][..], &["id=7; x="][..], 3 - 1),
            (&["_ga=1", "_gat=2"][..], &[][..], 2),
            (&["id=7"][..], &["id=7"][..], 0),
            (&["id=a=b; _ga_X=1"][..], &["id=a=b"][..], 1),
        ] {
            let mut map = headers(given);
            assert_eq!(strip(&mut map, &patterns), removed, "{given:?}");
            assert_eq!(map, headers(expected), "{given:?}");
        }
    }

    #[test]
    fn no_cookie_hides_another() {
        let line = HeaderValue::from_bytes(b"lang =de; \xff=1; id=\xfe; =x;; theme").expect("a valid value");
        let map = HeaderMap::from_iter([(COOKIE, line)]);
        let found: Vec<_> = pairs(&map).collect();
        assert_eq!(found, [("lang", &b"de"[..]), ("id", b"\xfe"), ("", b"x"), ("theme", b"")]);
    }

    #[test]
    fn unkeyed_cookies_are_noticed() {
        let keyed = ["lang".to_owned()];
        for (given, expected) in
            [(&["lang=de"][..], false), (&["lang=de; id=1"], true), (&[], false), (&["\u{e9}"], true)]
        {
            assert_eq!(unkeyed(&headers(given), &keyed), expected, "{given:?}");
        }
    }
}
