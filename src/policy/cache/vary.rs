//! `Vary`: which request fields chose a stored response, and whether a new request would choose it too (RFC 9111 §4.1).
//!
//! `Accept-Encoding` never takes part: every cacheable fetch sends one fixed value, so what is stored does not depend on
//! the client's, and the codings a client gets are made here. Nor does `Available-Dictionary`, which no such fetch sends.

use std::hash::{BuildHasher, Hash};

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY};
use http::{HeaderMap, HeaderName};

use super::key::Seeds;
use crate::policy::dictionary::AVAILABLE_DICTIONARY;

/// Most field names a `Vary` may list; more is a mistake or an attack and is not stored.
pub const MAX_NAMES: usize = 16;

/// What `Vary` says about a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaryRule {
    /// It depends on these request fields only: sorted, each once, without these two. Usually empty.
    Names(Box<[HeaderName]>),
    /// It depends on something no cache can see (`*`, or a member that is no field name).
    Star,
    /// More than [`MAX_NAMES`] names.
    TooMany,
}

impl VaryRule {
    /// The rule of all `Vary` lines together. Cost without `Vary`: one map lookup, no allocation.
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for line in headers.get_all(VARY) {
            for member in line.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                match HeaderName::from_bytes(member) {
                    _ if member.is_empty() => {}
                    // `*` is a valid token, but it is not a field's name here.
                    Ok(name) if name.as_str() == "*" => return Self::Star,
                    Ok(name) if [ACCEPT_ENCODING, AVAILABLE_DICTIONARY].contains(&name) || names.contains(&name) => {}
                    Ok(_) if names.len() == MAX_NAMES => return Self::TooMany,
                    Ok(name) => names.push(name),
                    Err(_) => return Self::Star,
                }
            }
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        Self::Names(names.into())
    }
}

/// The secondary key: the fields a response varies on, with the values of the request that fetched it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selecting(Box<[Selected]>);

/// One field with its value; `None` = absent.
type Selected = (HeaderName, Option<Box<[u8]>>);

impl Selecting {
    /// The values of `names` in `request`. Empty, without an allocation, where nothing varies.
    #[must_use]
    pub fn new(names: &[HeaderName], request: &HeaderMap) -> Self {
        Self(names.iter().map(|name| (name.clone(), normalised(request, name))).collect())
    }

    /// True when `request` has the same values (RFC 9111 §4.1: after joining lines and dropping idle whitespace).
    /// Cost: nothing where nothing varies.
    #[must_use]
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| normalised(request, name) == *value)
    }

    /// The secondary key `request` would have among responses that vary on the same fields.
    #[must_use]
    pub fn of_request(&self, request: &HeaderMap) -> Self {
        Self(self.0.iter().map(|(name, _)| (name.clone(), normalised(request, name))).collect())
    }

    /// The fields with their values; `None` = absent.
    pub fn fields(&self) -> impl Iterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (name, value.as_deref()))
    }

    /// True when one response answers every request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A hash that distinguishes variants of one primary key; 0 where nothing varies.
    #[must_use]
    pub fn hash(&self, seeds: &Seeds) -> u64 {
        if self.is_empty() { 0 } else { seeds.second.hash_one(self) }
    }

    /// Bytes this takes in memory, for the ledger.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0
            .iter()
            .map(|(name, value)| 64 + (name.as_str().len() + value.as_ref().map_or(0, |v| v.len())) as u64)
            .sum()
    }
}

/// All lines of a field as one list, members trimmed and joined by a comma; `None` when the field is absent. A comma
/// inside a quoted string is treated alike on both sides, so equality stays exact up to whitespace beside commas.
/// Language tags mean the same in upper and lower case (RFC 5646 §2.1.1); the order of members stays, for origins that
/// take it as a preference.
fn normalised(headers: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    let mut lines = headers.get_all(name).iter().peekable();
    lines.peek()?;
    let mut joined = Vec::new();
    for member in lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii) {
        if !joined.is_empty() {
            joined.push(b',');
        }
        joined.extend_from_slice(member);
    }
    if *name == ACCEPT_LANGUAGE {
        joined.make_ascii_lowercase();
    }
    Some(joined.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::COOKIE;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, line)| (name.clone(), HeaderValue::try_from(*line).expect("a valid value"))).collect()
    }

    fn names(names: &[&'static str]) -> VaryRule {
        VaryRule::Names(names.iter().map(|name| HeaderName::from_static(name)).collect())
    }

    #[test]
    fn rules() {
        for (lines, expected) in [
            (&[][..], names(&[])),
            (&[""][..], names(&[])),
            (&["Accept-Encoding"], names(&[])),
            (&["accept-encoding, Cookie"], names(&["cookie"])),
            (&["accept-encoding, available-dictionary"], names(&[])),
            (&["Foo", "bar, FOO"], names(&["bar", "foo"])),
            (&["*"], VaryRule::Star),
            (&["Foo", " * "], VaryRule::Star),
            (&["foo bar"], VaryRule::Star),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| (VARY, *line)).collect();
            assert_eq!(VaryRule::parse(&headers(&lines)), expected, "{lines:?}");
        }
        let many: Vec<_> = (0..=MAX_NAMES).map(|n| format!("x-{n}")).collect();
        assert_eq!(VaryRule::parse(&headers(&[(VARY, many.join(",").as_str())])), VaryRule::TooMany);
        assert_eq!(VaryRule::parse(&headers(&[(VARY, many[1..].join(",").as_str())])), {
            let mut sorted: Vec<_> = many[1..].iter().map(|n| HeaderName::try_from(n).expect("a name")).collect();
            sorted.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
            VaryRule::Names(sorted.into())
        });
    }

    #[test]
    fn selection() {
        let english = headers(&[(ACCEPT_LANGUAGE, "en, de")]);
        let selecting = Selecting::new(&[ACCEPT_LANGUAGE], &english);
        for (request, expected) in [
            (&[(ACCEPT_LANGUAGE, "en, de")][..], true),
            (&[(ACCEPT_LANGUAGE, "en,de")], true),
            (&[(ACCEPT_LANGUAGE, "en"), (ACCEPT_LANGUAGE, " de")], true),
            (&[(ACCEPT_LANGUAGE, "en, de"), (COOKIE, "a=b")], true),
            (&[(ACCEPT_LANGUAGE, "de, en")], false),
            (&[(ACCEPT_LANGUAGE, "EN, de")], true),
            (&[], false),
        ] {
            assert_eq!(selecting.matches(&headers(request)), expected, "{request:?}");
        }
        let absent = Selecting::new(&[ACCEPT_LANGUAGE], &headers(&[]));
        assert!(absent.matches(&headers(&[])));
        assert!(!absent.matches(&headers(&[(ACCEPT_LANGUAGE, "")])), "absent and empty differ");
    }
}
