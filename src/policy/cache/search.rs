//! `No-Vary-Search`: an origin's word that some parts of a query do not matter (draft-ietf-httpbis-no-vary-search-05).
//!
//! A response that says so answers every query of its path that is the same once what does not matter is left out. It is
//! stored under the query's canonical form *by its own rule* ([`CacheKey::under`]), apart from what is stored for exact
//! URLs and by other rules, so that whatever is found there was stored by a response that said so itself. Which rule to
//! look by is what the path's last response said; `store::search` remembers it.
//!
//! On the safe side of the draft: a field that is no dictionary, has values of other types, both `params` and `except`, or
//! more than [`MAX_NAMES`] names counts as absent, which costs hits and nothing else; and parts of a query that are no
//! UTF-8 are compared byte by byte. `key-order` alone is honoured, as the draft's examples have it (its algorithm, read by
//! the letter, ignores it).
//!
//! [`CacheKey::under`]: super::key::CacheKey::under

use http::{HeaderMap, HeaderName};

use super::groups;
use super::structured::{self, Item};

/// The field.
pub const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// Most parameters a rule may name.
pub const MAX_NAMES: usize = 64;

/// Longest field that is read, in bytes.
pub const MAX_BYTES: usize = 4096;

/// What of a query matters. Two rules are equal when they mean the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchRule {
    names: Names,
    /// The order of parameters with different names does not matter.
    any_order: bool,
    text: Box<str>,
}

/// Decoded names, sorted, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    /// `params`: all but these matter.
    Ignored(Box<[Vec<u8>]>),
    /// `except`: only these matter.
    Counting(Box<[Vec<u8>]>),
}

impl SearchRule {
    /// The rule a response states; `None` where every byte of the query matters: the field is absent, malformed or says
    /// nothing. Cost without the field: one map lookup.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let text = structured::text(headers, &NO_VARY_SEARCH).filter(|text| text.len() <= MAX_BYTES)?;
        let (mut any_order, mut params, mut except) = (Some(false), None, None);
        structured::members(&text, |key, value| match key {
            "key-order" => any_order = if let Item::Boolean(flag) = value { Some(flag) } else { None },
            "params" => params = Some(names(value)),
            "except" => except = Some(names(value)),
            // Meant for extensions.
            _ => {}
        })?;
        let names = match (params, except) {
            (Some(_), Some(_)) => return None,
            (Some(ignored), None) => Names::Ignored(ignored?),
            (None, Some(counting)) => Names::Counting(counting?),
            (None, None) => Names::Ignored(Box::default()),
        };
        let any_order = any_order?;
        if !any_order && names == Names::Ignored(Box::default()) {
            return None;
        }
        Some(Self { text: told(&names, any_order), names, any_order })
    }

    /// The rule in its one normal form.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes it takes in memory, for the ledger.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let (Names::Ignored(names) | Names::Counting(names)) = &self.names;
        (self.text.len() * 2 + names.len() * 24) as u64
    }

    /// What matters of a query, in one form for all queries that are the same: `?a=1&b=`, or nothing. Cost: a list and two
    /// strings a parameter.
    #[must_use]
    pub fn canonical(&self, query: &str) -> String {
        let pair = |item: &str| {
            let (name, value) = item.split_once('=').unwrap_or((item, ""));
            (decoded(name.as_bytes()), decoded(value.as_bytes()))
        };
        let items = query.split('&').filter(|item| !item.is_empty());
        let mut pairs: Vec<_> = items.map(pair).filter(|(name, _)| self.counts(name)).collect();
        if self.any_order {
            pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        let mut text = String::with_capacity(query.len());
        for (name, value) in pairs {
            text.push(if text.is_empty() { '?' } else { '&' });
            encode(&mut text, &name);
            text.push('=');
            encode(&mut text, &value);
        }
        text
    }

    fn counts(&self, name: &[u8]) -> bool {
        let listed = |names: &[Vec<u8>]| names.binary_search_by(|listed| listed.as_slice().cmp(name)).is_ok();
        match &self.names {
            Names::Ignored(names) => !listed(names),
            Names::Counting(names) => listed(names),
        }
    }
}

/// The names of an inner list of strings; `None` when it is anything else, or too long.
fn names(value: Item<'_>) -> Option<Box<[Vec<u8>]>> {
    let Item::List(list) = value else { return None };
    let (mut rest, mut names) = (list.trim_start_matches(' '), Vec::new());
    while !rest.is_empty() {
        let (name, after) = groups::string(rest.as_bytes())?;
        names.push(decoded(&name));
        let after = rest.get(rest.len() - after.len()..)?;
        rest = structured::parameters(after)?.trim_start_matches(' ');
    }
    if names.len() > MAX_NAMES {
        return None;
    }
    names.sort_unstable();
    names.dedup();
    Some(names.into())
}

fn told(names: &Names, any_order: bool) -> Box<str> {
    let (key, names) = match names {
        Names::Ignored(names) => ("params", names),
        Names::Counting(names) => ("except", names),
    };
    let mut text = format!("{key}=(");
    for (number, name) in names.iter().enumerate() {
        text.push_str(if number == 0 { "\"" } else { "+\"" });
        encode(&mut text, name);
        text.push('"');
    }
    text.push_str(if any_order { "),key-order" } else { ")" });
    text.into()
}

/// As `application/x-www-form-urlencoded` has it: `+` is a space, `%XX` a byte, anything else itself.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let hex = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        bytes.push(match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                rest = after.get(2..).unwrap_or_default();
                u8::try_from(high * 16 + low).unwrap_or_default()
            }
            (b'+', _, _) => b' ',
            _ => byte,
        });
    }
    bytes
}

fn encode(text: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::tests::headers;

    fn rule(field: &str) -> Option<SearchRule> {
        SearchRule::read(&headers(&[("no-vary-search", field)], Clock::System.now()))
    }

    #[test]
    fn what_is_read() {
        for (field, expected) in [
            ("params=(\"b\" \"a\" \"b\")", Some("params=(\"a\"+\"b\")")),
            ("params=(\"a\");x, key-order", Some("params=(\"a\"),key-order")),
            ("except=(\"x\")", Some("except=(\"x\")")),
            ("except=()", Some("except=()")),
            ("key-order", Some("params=(),key-order")),
            ("key-order=?1", Some("params=(),key-order")),
            ("future=(a 1), params=(\"a\";q=1)", Some("params=(\"a\")")),
            ("params=(\"%C3%A9+b\")", Some("params=(\"%C3%A9%20b\")")),
            ("params=(\"a\\\"\\\\\")", Some("params=(\"a%22%5C\")")),
            ("params=()", None),
            ("key-order=?0", None),
            ("key-order=\"yes\"", None),
            ("key-order=\"yes\", params=(\"a\")", None),
            ("params=\"a\"", None),
            ("params=(a)", None),
            ("params=(\"a\" 1)", None),
            ("params=?1", None),
            ("params", None),
            ("params=(\"a\"), except=(\"x\")", None),
            ("params=(), except=()", None),
            ("except=?1", None),
            ("params=(\"a\"", None),
            ("params=(\"a\"\"b\")", None),
            ("params=(\"a\"),", None),
            ("PARAMS=(\"a\")", None),
            ("", None),
        ] {
            assert_eq!(rule(field).as_ref().map(SearchRule::text), expected, "{field}");
        }
        assert_eq!(rule("params=(\"b\" \"a\")"), rule("params=(\"a\";x \"%62\"), key-order=?0"));
        let many = |count: usize| (0..count).map(|n| format!("\"p{n}\"")).collect::<Vec<_>>().join(" ");
        assert!(rule(&format!("params=({})", many(MAX_NAMES))).is_some());
        assert!(rule(&format!("params=({})", many(MAX_NAMES + 1))).is_none());
        assert!(rule(&format!("params=(\"{}\")", "x".repeat(MAX_BYTES))).is_none());
        let two =
            headers(&[("no-vary-search", "params=(\"a\")"), ("no-vary-search", "key-order")], Clock::System.now());
        assert_eq!(SearchRule::read(&two), rule("params=(\"a\"), key-order"));
    }

    #[test]
    fn what_is_the_same() {
        let (without_a, only_x, sorted) = ("params=(\"a\")", "except=(\"x\")", "key-order");
        for (field, query, expected) in [
            (without_a, "", ""),
            (without_a, "a=1", ""),
            (without_a, "a", ""),
            (without_a, "b=2&%61=1&c", "?b=2&c="),
            (without_a, "A=1", "?A=1"),
            (without_a, "b=1&b=2&a=3", "?b=1&b=2"),
            (without_a, "c=1&b=2", "?c=1&b=2"),
            (only_x, "y=1&x=2&x=1", "?x=2&x=1"),
            (only_x, "y", ""),
            (sorted, "c=1&b=2&c=0", "?b=2&c=1&c=0"),
            (sorted, "a=x&&&&", "?a=x"),
            (sorted, "%61=%78", "?a=x"),
            (sorted, "a=+", "?a=%20"),
            (sorted, "a=%20", "?a=%20"),
            (sorted, "a=%", "?a=%25"),
            (sorted, "a=%f6", "?a=%F6"),
            (sorted, "a=%C3%A9", "?a=%C3%A9"),
            (sorted, "a==b", "?a=%3Db"),
            (sorted, "=", "?="),
            ("except=(\"%C3%A9+%E6%B0%97\")", "%C3%A9%20%E6%B0%97=4&b", "?%C3%A9%20%E6%B0%97=4"),
        ] {
            assert_eq!(rule(field).expect("a rule").canonical(query), expected, "{field} {query}");
        }
    }
}
