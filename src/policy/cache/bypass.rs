//! Whether the cache takes part in an exchange at all: decided from the request alone, before any lookup.

use http::header::{AUTHORIZATION, COOKIE, IF_MATCH, IF_UNMODIFIED_SINCE, RANGE};
use http::{HeaderName, Method};

use super::directives::RequestDirectives;
use super::{BypassRule, CacheParams, RequestFacts, cookies, deception, pattern, query, range};
use crate::policy::fields;
use crate::policy::route::behind_prefix;

/// See [`Bypass::MethodOverride`].
static METHOD_OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// How far the cache takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Participation {
    /// Look up, join or lead a fetch, store.
    Full,
    /// Look up; on a miss the request goes alone and its answer is not stored.
    ReuseOnly(ReuseOnly),
    /// Neither look up nor store.
    Bypass(Bypass),
}

/// Why an answer to this request could never be stored, though a stored one may answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReuseOnly {
    /// HEAD brings no body; a stored answer to GET serves it, and its own answer can say that the stored one still holds.
    Head,
    /// The client asked that nothing be kept (RFC 9111 §5.2.1.5).
    RequestNoStore,
    /// A part of something: cut from what is stored or arriving, else forwarded as it is, for the farm sends it sooner
    /// than the whole. Parts are never stored.
    Range,
}

/// Why a request passes the cache by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    /// Neither GET nor HEAD, nor a QUERY where the policy has `query_body`.
    Method,
    /// A field by which some origins let a GET become another method: its answer is not the URI's, and must not be
    /// everybody's.
    MethodOverride,
    /// A GET or HEAD with content: what it means is the origin's secret (RFC 9110 §9.3.1).
    RequestBody,
    /// The content of a QUERY is longer than `query_body`.
    QueryBodyTooLarge,
    /// A QUERY for a part: what that is, the origin says.
    QueryRange,
    /// `If-Match` or `If-Unmodified-Since`: only the origin may judge them (RFC 9111 §4.3.2).
    Precondition,
    /// `bypass = [{ cookie = … }]`
    CookieRule,
    /// `bypass = [{ path = … }]`, also for an origin that reads the path more loosely ([`deception::loosest`]).
    PathRule,
    /// `bypass = [{ header = … }]`
    HeaderRule,
}

impl Bypass {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::MethodOverride => "method_override",
            Self::RequestBody => "request_body",
            Self::QueryBodyTooLarge => "query_body_too_large",
            Self::QueryRange => "query_range",
            Self::Precondition => "precondition",
            Self::CookieRule => "bypass_cookie",
            Self::PathRule => "bypass_path",
            Self::HeaderRule => "bypass_header",
        }
    }
}

impl ReuseOnly {
    /// Stable name.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::RequestNoStore => "request_no_store",
            Self::Range => "range",
        }
    }
}

/// How far the cache takes part in this request. Cost: a few map lookups; no allocation.
#[must_use]
pub fn decide(request: &RequestFacts<'_>, directives: &RequestDirectives, params: &CacheParams) -> Participation {
    let headers = request.headers;
    let is_plain = *request.method == Method::GET || *request.method == Method::HEAD;
    if !is_plain && !query::takes_part(request.method, params) {
        return Participation::Bypass(Bypass::Method);
    }
    if headers.keys().any(|name| METHOD_OVERRIDES.contains(name)) {
        return Participation::Bypass(Bypass::MethodOverride);
    }
    if request.has_body && is_plain {
        return Participation::Bypass(Bypass::RequestBody);
    }
    if !is_plain && fields::has(headers, &RANGE) {
        return Participation::Bypass(Bypass::QueryRange);
    }
    if let Some(bypass) = params.bypass.iter().find_map(|rule| applies(rule, request)) {
        return Participation::Bypass(bypass);
    }
    if headers.keys().any(|name| *name == IF_MATCH || *name == IF_UNMODIFIED_SINCE) {
        return Participation::Bypass(Bypass::Precondition);
    }
    if directives.no_store {
        return Participation::ReuseOnly(ReuseOnly::RequestNoStore);
    }
    if *request.method == Method::HEAD {
        return Participation::ReuseOnly(ReuseOnly::Head);
    }
    if range::is_asked(request.method, headers) {
        return Participation::ReuseOnly(ReuseOnly::Range);
    }
    Participation::Full
}

fn applies(rule: &BypassRule, request: &RequestFacts<'_>) -> Option<Bypass> {
    match rule {
        BypassRule::Cookie(name) => cookies::pairs(request.headers)
            .any(|(found, _)| pattern::matches(name, found))
            .then_some(Bypass::CookieRule),
        BypassRule::Path(prefix) => {
            let lies_under = |path: &str| behind_prefix(path, prefix).is_some();
            let holds =
                lies_under(request.path) || deception::loosest(request.path).is_some_and(|path| lies_under(&path));
            holds.then_some(Bypass::PathRule)
        }
        BypassRule::Header(name) => fields::has(request.headers, name).then_some(Bypass::HeaderRule),
    }
}

/// Who a request is from, as far as its answer may be theirs alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personal {
    /// `Authorization` that is not in the key.
    Authorization,
    /// A cookie that is neither stripped nor in the key.
    Cookie,
}

/// What makes a request personal; `None` when nothing does. `headers` are those after `strip_cookies`.
#[must_use]
pub fn personal(request: &RequestFacts<'_>, params: &CacheParams) -> Option<Personal> {
    let keyed = &params.key.headers;
    if request.headers.contains_key(AUTHORIZATION) && !keyed.contains(&AUTHORIZATION) {
        return Some(Personal::Authorization);
    }
    let unkeyed = !keyed.contains(&COOKIE) && cookies::unkeyed(request.headers, &params.key.cookies);
    unkeyed.then_some(Personal::Cookie)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::tests::{headers, params};
    use http::{HeaderMap, HeaderName};

    fn check(method: &Method, path: &str, has_body: bool, lines: &[(&'static str, &str)]) -> Participation {
        let headers = headers(lines, Clock::System.now());
        let params = CacheParams {
            bypass: vec![
                BypassRule::Cookie("sess*".into()),
                BypassRule::Path("/account".into()),
                BypassRule::Header(HeaderName::from_static("x-no-cache")),
            ],
            ..params()
        };
        decide(
            &RequestFacts { method, path, headers: &headers, has_body },
            &RequestDirectives::parse(&headers),
            &params,
        )
    }

    #[test]
    fn a_query_takes_part_where_the_policy_says_so() {
        use Participation::{Bypass as No, Full, ReuseOnly as Some};
        let method = Method::from_bytes(b"QUERY").expect("a method");
        let ask = |lines: &[(&'static str, &str)], params: &CacheParams| {
            let headers = headers(lines, Clock::System.now());
            let facts = RequestFacts { method: &method, path: "/", headers: &headers, has_body: true };
            decide(&facts, &RequestDirectives::parse(&headers), params)
        };
        let bypass = vec![BypassRule::Header(HeaderName::from_static("x-no-cache"))];
        let on = CacheParams { query_body: Option::Some(10), bypass, ..params() };
        assert_eq!(ask(&[], &params()), No(Bypass::Method));
        for (lines, expected) in [
            (&[][..], Full),
            (&[("if-none-match", "\"1\"")], Full),
            (&[("cache-control", "no-store")], Some(ReuseOnly::RequestNoStore)),
            (&[("range", "bytes=0-1")], No(Bypass::QueryRange)),
            (&[("if-match", "\"1\"")], No(Bypass::Precondition)),
            (&[("x-http-method", "GET")], No(Bypass::MethodOverride)),
            (&[("x-no-cache", "")], No(Bypass::HeaderRule)),
        ] {
            assert_eq!(ask(lines, &on), expected, "{lines:?}");
        }
        let post = RequestFacts { method: &Method::POST, path: "/", headers: &HeaderMap::new(), has_body: true };
        assert_eq!(decide(&post, &RequestDirectives::default(), &on), No(Bypass::Method));
    }

    #[test]
    fn participation() {
        use Participation::{Bypass as No, Full, ReuseOnly as Some};
        let get = &Method::GET;
        for (method, path, has_body, lines, expected) in [
            (get, "/", false, &[][..], Full),
            (get, "/", true, &[], No(Bypass::RequestBody)),
            (get, "/", false, &[("x-http-method-override", "DELETE")], No(Bypass::MethodOverride)),
            (&Method::HEAD, "/", false, &[("range", "bytes=0-1")], Some(ReuseOnly::Head)),
            (&Method::HEAD, "/", false, &[("cache-control", "no-store")], Some(ReuseOnly::RequestNoStore)),
            (&Method::POST, "/", false, &[], No(Bypass::Method)),
            (get, "/", false, &[("range", "bytes=0-1")], Some(ReuseOnly::Range)),
            (get, "/", false, &[("range", "bytes=0-1"), ("if-match", "\"a\"")], No(Bypass::Precondition)),
            (
                get,
                "/",
                false,
                &[("range", "bytes=0-1"), ("cache-control", "no-store")],
                Some(ReuseOnly::RequestNoStore),
            ),
            (get, "/", false, &[("if-match", "\"a\"")], No(Bypass::Precondition)),
            (get, "/", false, &[("cookie", "a=1; session=2")], No(Bypass::CookieRule)),
            (get, "/", false, &[("cookie", "a=session")], Full),
            (get, "/account", false, &[], No(Bypass::PathRule)),
            (get, "/account/x", false, &[], No(Bypass::PathRule)),
            (get, "/account;x", false, &[], No(Bypass::PathRule)),
            (get, "/account;x=1/y", false, &[], No(Bypass::PathRule)),
            (get, "/account%2Fy", false, &[], No(Bypass::PathRule)),
            (get, "/account%3By", false, &[], No(Bypass::PathRule)),
            (get, "/;/account/y", false, &[], No(Bypass::PathRule)),
            (get, "/accounts;/account", false, &[], Full),
            (get, "/accounts", false, &[], Full),
            (get, "/", false, &[("x-no-cache", "")], No(Bypass::HeaderRule)),
            (get, "/", false, &[("cache-control", "no-store")], Some(ReuseOnly::RequestNoStore)),
        ] {
            assert_eq!(check(method, path, has_body, lines), expected, "{method} {path} {lines:?}");
        }
    }
}
