//! The primary cache key: what two requests must share to be answered by one stored response.
//!
//! Scheme, host, normalised client-facing path and query (before prefix edits), the cache policy, the route where it
//! matches on more than host and path, of a QUERY its content, then what the policy's `key` adds. The parts are joined by single spaces, which
//! occur in none of them (anything outside printable ASCII is percent-encoded while joining), so two different requests
//! cannot spell the same text.
//!
//! The text is hashed to 128 bits with seeds given by the caller: keyed SipHash twice, so that a client who does not
//! know the seeds cannot make two keys meet.

use std::fmt::Write as _;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::query::{self, ContentDigest};
use super::search::SearchRule;
use super::{KeyParams, cookies, pattern};

/// Parameters that tell marketing tools where a visitor came from and never change a page (`key.tracking`). Taken from
/// the lists browsers and blockers strip.
const TRACKING: &[&str] = &[
    "utm_*",
    "gclid",
    "gclsrc",
    "gbraid",
    "wbraid",
    "dclid",
    "gad_source",
    "gad_campaignid",
    "_ga",
    "_gl",
    "fbclid",
    "fb_action_ids",
    "fb_action_types",
    "fb_source",
    "msclkid",
    "twclid",
    "ttclid",
    "li_fat_id",
    "igshid",
    "igsh",
    "yclid",
    "ysclid",
    "_openstat",
    "mc_cid",
    "mc_eid",
    "mkt_tok",
    "_hsenc",
    "_hsmi",
    "__hssc",
    "__hstc",
    "__hsfp",
    "hsctatracking",
    "vero_id",
    "vero_conv",
    "oly_anon_id",
    "oly_enc_id",
    "_kx",
    "_branch_match_id",
    "rb_clickid",
    "s_cid",
    "wickedid",
    "epik",
    "srsltid",
    "matomo_*",
    "mtm_*",
    "pk_*",
    "piwik_*",
    "hsa_*",
];

/// Seeds of the key hash: random, one pair per process.
#[derive(Debug, Clone)]
pub struct Seeds {
    /// Upper half.
    pub first: RandomState,
    /// Lower half, and everything that needs only 64 bits.
    pub second: RandomState,
}

/// What the primary key is made of.
#[derive(Debug, Clone, Copy)]
pub struct KeyFacts<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Lower case, with the port where the client named one that is not the scheme's own.
    pub host: &'a str,
    /// Normalised, client-facing.
    pub path: &'a str,
    /// Normalised, without `?`.
    pub query: Option<&'a str>,
    /// NAME of the cache policy.
    pub policy: &'a str,
    /// The route's name, where it matches on more than host and path.
    pub route: Option<&'a str>,
    /// Of a QUERY: its content; `None` = GET or HEAD.
    pub content: Option<&'a ContentDigest>,
    /// The request's fields, for `key.headers` and `key.cookies`.
    pub headers: &'a HeaderMap,
}

/// A primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheKey {
    /// Printable ASCII; for `Cache-Status`, `explain` and logs.
    pub text: Box<str>,
    /// What the store and the flights go by.
    pub hash: u128,
    /// The hash of host, path and query alone: shared by every response of one URL, whatever scheme, policy, route and
    /// request made of it, for invalidation and purging.
    pub uri: u128,
    /// The rule that the query in `text` is canonical by; `None` = it stands as it was asked for.
    pub search: Option<Arc<SearchRule>>,
}

impl CacheKey {
    /// The key of all requests that are the same as this one by `rule`: apart from every key without a rule, or with
    /// another. To be asked of a key without one. Cost: as [`build`].
    #[must_use]
    pub fn under(&self, rule: &Arc<SearchRule>, seeds: &Seeds) -> Self {
        let scheme = self.place().scheme;
        let location = self.location();
        let rest = self.text.get(scheme.len() + "://".len() + location.len()..).unwrap_or_default();
        let canonical = canonical(location, rule);
        let mut text = format!("{scheme}://{canonical}{rest} search=");
        push_value(&mut text, rule.text().as_bytes());
        let mut digest = Digest::ruled(&canonical, rule, seeds);
        let uri = digest.clone().finish();
        digest.write(rest);
        digest.write(scheme);
        Self { hash: digest.finish(), uri, text: text.into(), search: Some(Arc::clone(rule)) }
    }

    /// Names host and path alone: shared by every key of one path, whatever its query. See [`Location::place`].
    #[must_use]
    pub fn path_hash(&self, seeds: &Seeds) -> u128 {
        path_hash(self.location(), seeds)
    }

    /// Host, path and query, as the text has them.
    fn location(&self) -> &str {
        let url = self.text.split(' ').next().unwrap_or_default();
        url.split_once("://").unwrap_or_default().1
    }

    /// Scheme, host with port, path and query, read back from the text.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        let url = self.text.split(' ').next().unwrap_or_default();
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (host, path) = rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len())).unwrap_or_default();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        Place { scheme, host, path, query }
    }

    /// True when nothing but URL, policy and route is in it: no content, and no field or cookie of a request.
    #[must_use]
    pub fn is_of_url(&self) -> bool {
        let mut parts = self.text.split(' ').skip(1);
        parts.all(|part| part.starts_with("cache=") || part.starts_with("route="))
    }
}

/// Where a keyed response is found; see [`CacheKey::place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// With the port where it is not the scheme's own.
    pub host: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// As the key has it, without `?`.
    pub query: Option<&'a str>,
}

/// What comes before the name of the policy in a key's text.
const CACHE: &str = " cache=";
/// And before that of the route.
const ROUTE: &str = " route=";

/// The primary key of a request. Cost: one string, two SipHash passes over it; sorting allocates a list.
#[must_use]
pub fn build(facts: &KeyFacts<'_>, params: &KeyParams, seeds: &Seeds) -> CacheKey {
    // Exactly what a plain key takes, so that nothing has to be given back.
    let location = facts.host.len() + facts.path.len() + facts.query.map_or(0, |query| 1 + query.len());
    let named = facts.policy.len() + facts.route.map_or(0, |route| ROUTE.len() + route.len());
    let mut text = String::with_capacity(facts.scheme.len() + "://".len() + location + CACHE.len() + named);
    text.push_str(facts.scheme);
    text.push_str("://");
    push_location(&mut text, facts.host, facts.path, facts.query, params);
    let location = facts.scheme.len() + "://".len()..text.len();
    text.push_str(CACHE);
    push_value(&mut text, facts.policy.as_bytes());
    if let Some(route) = facts.route {
        text.push_str(ROUTE);
        push_value(&mut text, route.as_bytes());
    }
    if let Some(content) = facts.content {
        text.push_str(" method=QUERY content=");
        content.push(&mut text);
        push_headers(&mut text, facts.headers, &query::METADATA);
    }
    push_headers(&mut text, facts.headers, &params.headers);
    push_cookies(&mut text, facts.headers, params);
    let mut digest = Digest::new(seeds);
    digest.write(text.get(location.clone()).unwrap_or_default());
    let uri = digest.clone().finish();
    digest.write(text.get(location.end..).unwrap_or_default());
    digest.write(facts.scheme);
    CacheKey { hash: digest.finish(), uri, text: text.into(), search: None }
}

/// One URL as the keys of a policy have it: what purges and invalidations name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// [`CacheKey::uri`] of the responses stored for exactly this URL.
    pub uri: u128,
    /// Names host and path alone; those whose query is canonical by some rule are told apart by [`Location::under`].
    pub place: u128,
    text: Box<str>,
}

impl Location {
    /// The location of a URL under a policy with this `key`.
    #[must_use]
    pub fn new(host: &str, path: &str, query: Option<&str>, params: &KeyParams, seeds: &Seeds) -> Self {
        let mut text = String::new();
        push_location(&mut text, host, path, query, params);
        let mut digest = Digest::new(seeds);
        digest.write(&text);
        Self { uri: digest.finish(), place: path_hash(&text, seeds), text: text.into() }
    }

    /// [`CacheKey::uri`] of the responses that answer this URL by `rule`.
    #[must_use]
    pub fn under(&self, rule: &SearchRule, seeds: &Seeds) -> u128 {
        Digest::ruled(&canonical(&self.text, rule), rule, seeds).finish()
    }
}

/// A location with its query in canonical form.
fn canonical(location: &str, rule: &SearchRule) -> String {
    let (path, query) = location.split_once('?').unwrap_or((location, ""));
    let mut text = path.to_owned();
    push(&mut text, rule.canonical(query).as_bytes());
    text
}

fn path_hash(location: &str, seeds: &Seeds) -> u128 {
    let mut digest = Digest::new(seeds);
    digest.write("path");
    digest.write(location.split('?').next().unwrap_or_default());
    digest.finish()
}

/// 128 bits of keyed hash, readable half way.
#[derive(Clone)]
struct Digest(DefaultHasher, DefaultHasher);

impl Digest {
    fn new(seeds: &Seeds) -> Self {
        Self(seeds.first.build_hasher(), seeds.second.build_hasher())
    }

    /// Of a canonical location; `Hash` for `str` ends every text, so no other sequence of texts is the same.
    fn ruled(canonical: &str, rule: &SearchRule, seeds: &Seeds) -> Self {
        let mut digest = Self::new(seeds);
        digest.write("search");
        digest.write(rule.text());
        digest.write(canonical);
        digest
    }

    fn write(&mut self, text: &str) {
        text.hash(&mut self.0);
        text.hash(&mut self.1);
    }

    fn finish(self) -> u128 {
        (u128::from(self.0.finish()) << 64) | u128::from(self.1.finish())
    }
}

/// Host, path and query as the key has them.
fn push_location(text: &mut String, host: &str, path: &str, query: Option<&str>, params: &KeyParams) {
    push(text, host.as_bytes());
    push(text, path.as_bytes());
    push_query(text, query, params);
}

fn push_query(text: &mut String, query: Option<&str>, params: &KeyParams) {
    let Some(query) = query else { return };
    if !params.sort_query && !params.tracking && params.ignore_query.is_empty() {
        text.push('?');
        return push(text, query.as_bytes());
    }
    let mut kept: Vec<&str> = query.split('&').filter(|item| !is_ignored(name_of(item), params)).collect();
    if params.sort_query {
        // By name only and stable: the order of equal names can mean something to an origin.
        kept.sort_by_key(|item| name_of(item));
    }
    // A query of which nothing is left is the same as none; one that was empty from the start ("/?") stays apart.
    let mut separator = '?';
    for item in kept {
        text.push(separator);
        push(text, item.as_bytes());
        separator = '&';
    }
}

fn name_of(item: &str) -> &str {
    item.split_once('=').map_or(item, |(name, _)| name)
}

fn is_ignored(name: &str, params: &KeyParams) -> bool {
    pattern::any(&params.ignore_query, name)
        || (params.tracking && TRACKING.iter().any(|tracking| pattern::matches(tracking, name)))
}

fn push_headers(text: &mut String, headers: &HeaderMap, names: &[HeaderName]) {
    for name in names {
        text.push_str(" header:");
        text.push_str(name.as_str());
        // No `=` when absent: an absent and an empty field are two things.
        for (number, value) in headers.get_all(name).iter().enumerate() {
            text.push(if number == 0 { '=' } else { ',' });
            push_value(text, value.as_bytes());
        }
    }
}

fn push_cookies(text: &mut String, headers: &HeaderMap, params: &KeyParams) {
    for name in &params.cookies {
        text.push_str(" cookie:");
        push_value(text, name.as_bytes());
        for (number, (_, value)) in cookies::pairs(headers).filter(|(found, _)| found == name).enumerate() {
            text.push(if number == 0 { '=' } else { ',' });
            push_value(text, value);
        }
    }
}

/// Appends URI text; it carries its own percent-encoding.
fn push(text: &mut String, part: &[u8]) {
    escape(text, part, |byte| byte.is_ascii_graphic());
}

/// Appends a value; `%`, and the `,` that joins several values, are encoded too.
fn push_value(text: &mut String, part: &[u8]) {
    escape(text, part, |byte| byte.is_ascii_graphic() && !matches!(byte, b'%' | b','));
}

fn escape(text: &mut String, part: &[u8], plain: impl Fn(u8) -> bool) {
    for &byte in part {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn key(query: Option<&str>, headers: &[(&'static str, &str)], params: &KeyParams) -> CacheKey {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::try_from(*value).expect("valid")))
            .collect();
        let facts = KeyFacts {
            scheme: "https",
            host: "shop.example",
            path: "/a",
            query,
            policy: "static",
            route: None,
            content: None,
            headers: &headers,
        };
        let seeds = Seeds { first: RandomState::new(), second: RandomState::new() };
        build(&facts, params, &seeds)
    }

    fn query(query: Option<&str>, params: &KeyParams) -> String {
        let text = key(query, &[], params).text;
        text.strip_prefix("https://shop.example/a").expect("the URI first").replace(" cache=static", "")
    }

    #[test]
    fn queries() {
        let plain = KeyParams::default();
        let sorted = KeyParams { sort_query: true, ..plain.clone() };
        let ignoring = KeyParams { ignore_query: vec!["x*".into()], ..plain.clone() };
        let tracking = KeyParams { tracking: true, ..plain.clone() };
        for (params, given, expected) in [
            (&plain, None, ""),
            (&plain, Some(""), "?"),
            (&plain, Some("b=1&a=2"), "?b=1&a=2"),
            (&plain, Some("a b"), "?a%20b"),
            (&sorted, Some("b=1&a=2"), "?a=2&b=1"),
            (&sorted, Some("b=2&a&b=1"), "?a&b=2&b=1"),
            (&sorted, Some(""), "?"),
            (&ignoring, Some("a=1&x1=2&y=3"), "?a=1&y=3"),
            (&ignoring, Some("xy"), ""),
            (&tracking, Some("utm_source=n&id=1&fbclid=z"), "?id=1"),
            (&tracking, Some("UTM_SOURCE=n"), "?UTM_SOURCE=n"),
        ] {
            assert_eq!(query(given, params), expected, "{given:?} {params:?}");
        }
    }

    #[test]
    fn headers_and_cookies_are_keyed_and_cannot_be_forged() {
        let params = KeyParams {
            headers: vec![HeaderName::from_static("x-lang"), HeaderName::from_static("x-site")],
            cookies: vec!["currency".into()],
            ..KeyParams::default()
        };
        let text = |headers: &[(&'static str, &str)]| {
            let text = key(None, headers, &params).text;
            text.strip_prefix("https://shop.example/a cache=static ").expect("the fixed part").to_owned()
        };
        for (headers, expected) in [
            (&[][..], "header:x-lang header:x-site cookie:currency"),
            (&[("x-lang", "")], "header:x-lang= header:x-site cookie:currency"),
            (&[("x-lang", "de"), ("x-lang", "en")], "header:x-lang=de,en header:x-site cookie:currency"),
            (&[("x-lang", "de,en")], "header:x-lang=de%2Cen header:x-site cookie:currency"),
            (&[("x-lang", "a header:x-site=b")], "header:x-lang=a%20header:x-site=b header:x-site cookie:currency"),
            (&[("cookie", "id=1; currency=EUR")], "header:x-lang header:x-site cookie:currency=EUR"),
        ] {
            assert_eq!(text(headers), expected);
        }
    }

    #[test]
    fn hashes() {
        let params = KeyParams { headers: vec![HeaderName::from_static("x-lang")], ..KeyParams::default() };
        let seeds = Seeds { first: RandomState::new(), second: RandomState::new() };
        let build_with = |headers: &HeaderMap, route: Option<&str>, content: Option<&ContentDigest>| {
            let (scheme, host, path, policy) = ("http", "h", "/", "p");
            build(&KeyFacts { scheme, host, path, query: None, policy, route, content, headers }, &params, &seeds)
        };
        let keyed = |lang: &'static str, route| {
            let headers = [(HeaderName::from_static("x-lang"), HeaderValue::from_static(lang))].into_iter().collect();
            build_with(&headers, route, None)
        };
        let (de, en, routed) = (keyed("de", None), keyed("en", None), keyed("de", Some("r")));
        assert_eq!(de, keyed("de", None));
        assert_ne!(de.hash, en.hash);
        assert_ne!(de.hash, routed.hash);
        assert_eq!((de.uri, de.uri), (en.uri, routed.uri), "one URL");
        let located = |query| Location::new("h", "/", query, &params, &seeds);
        assert_eq!(located(None).uri, de.uri);
        assert_ne!(located(Some("x")).uri, de.uri);
        assert_eq!(located(Some("x")).place, de.path_hash(&seeds));
        assert_eq!(de.place(), Place { scheme: "http", host: "h", path: "/", query: None });
        let rules = ["params=(\"x\")", "params=(\"x\" \"y\")"].map(|field| {
            let headers = [(HeaderName::from_static("no-vary-search"), HeaderValue::from_static(field))];
            Arc::new(SearchRule::read(&headers.into_iter().collect()).expect("a rule"))
        });
        let ruled = de.under(&rules[0], &seeds);
        assert_eq!(&*ruled.text, "http://h/ cache=p header:x-lang=de search=params=(\"x\")");
        assert_eq!((ruled.place(), ruled.path_hash(&seeds)), (de.place(), de.path_hash(&seeds)));
        assert_eq!(located(Some("x=1")).under(&rules[0], &seeds), ruled.uri);
        assert_ne!(located(Some("y=1")).under(&rules[0], &seeds), ruled.uri);
        assert_ne!(located(Some("x=1")).under(&rules[1], &seeds), ruled.uri);
        assert_ne!(ruled.uri, de.uri, "what is stored by a rule is stored apart");
        assert_ne!(ruled.hash, en.under(&rules[0], &seeds).hash);
        assert_ne!(ruled.hash, de.under(&rules[1], &seeds).hash);
        let asked = |content: &str, fields: &[(&'static str, &'static str)]| {
            let fields =
                fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            build_with(&fields.collect(), None, Some(&ContentDigest::of(content.as_bytes())))
        };
        let json = [("content-type", "a/json; q=x y")];
        let query = asked("", &json);
        assert_eq!(
            &*query.text,
            "http://h/ cache=p method=QUERY \
             content=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 \
             header:content-type=a/json;%20q=x%20y header:content-encoding header:content-language header:x-lang"
        );
        assert_eq!((query.uri, query.place()), (de.uri, de.place()), "purged with its URL");
        for other in [
            asked("x", &json),
            asked("", &[]),
            asked("", &[("content-type", "a/json")]),
            asked("", &[json[0], ("content-encoding", "gzip")]),
            asked("", &[json[0], ("content-language", "de")]),
            build_with(&HeaderMap::new(), None, None),
        ] {
            assert_ne!(query.hash, other.hash, "{}", other.text);
        }
        assert_eq!(query, asked("", &json));
        assert_ne!(de.hash >> 64, de.hash & u128::from(u64::MAX), "the halves are seeded apart");
    }
}
