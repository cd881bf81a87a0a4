//! How the cache's part in an exchange is told: `Cache-Status` (RFC 9211) and `X-Cache`.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::reuse::Validate;

/// The field of RFC 9211.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What operators' scripts look at.
pub const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// Why a request was forwarded (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// The policy told the cache to stay out of it.
    Bypass,
    /// By its method.
    Method,
    /// Nothing stored under the key.
    UriMiss,
    /// Stored, but for other values of the fields it varies on.
    VaryMiss,
    /// Stored and fresh, but the client wanted a new one.
    Request,
    /// Stored and stale, or never to be used without asking.
    Stale,
}

impl Forwarded {
    /// The registered token.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

impl Validate {
    /// What `fwd` does not say already.
    #[must_use]
    pub fn detail(self) -> Option<&'static str> {
        (self != Self::Stale).then(|| self.token())
    }
}

impl From<Validate> for Forwarded {
    fn from(reason: Validate) -> Self {
        if reason.is_wish() { Self::Request } else { Self::Stale }
    }
}

/// The cache's part in one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStatus<'a> {
    /// `None` = not forwarded: a hit, unless `unserved`.
    pub forwarded: Option<Forwarded>,
    /// Nothing stored could answer, and the client forbade forwarding (`only-if-cached`).
    pub unserved: bool,
    /// The origin's status, where it is not the one the client gets.
    pub forwarded_status: Option<StatusCode>,
    /// Seconds of freshness left, negative for stale.
    pub ttl: Option<i64>,
    /// The answer is being kept.
    pub stored: bool,
    /// It came from another request's fetch.
    pub collapsed: bool,
    /// The origin was not asked, or had no usable answer, where it should have been; `detail` says what allows that.
    pub stale: bool,
    /// The key's text, where it may be shown; its first [`KEY_SHOWN`] bytes are.
    pub key: Option<&'a str>,
    /// The token of the reason behind it.
    pub detail: Option<&'static str>,
}

/// Most bytes of a key that are shown.
pub const KEY_SHOWN: usize = 512;

impl CacheStatus<'_> {
    /// That of the 504 for `only-if-cached`.
    #[must_use]
    pub fn only_if_cached() -> Self {
        Self { unserved: true, detail: Some("only_if_cached"), ..Self::default() }
    }

    /// The member this cache adds. Cost: one string.
    #[must_use]
    pub fn render(&self) -> Option<HeaderValue> {
        let mut text = String::with_capacity(64);
        text.push_str("tidegate");
        match self.forwarded {
            None if self.unserved => {}
            None => text.push_str("; hit"),
            Some(reason) => {
                text.push_str("; fwd=");
                text.push_str(reason.token());
            }
        }
        // Writing to a String cannot fail.
        if let Some(status) = self.forwarded_status {
            let _ = write!(text, "; fwd-status={}", status.as_u16());
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(text, "; ttl={ttl}");
        }
        if self.stored {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        if let Some(key) = self.key {
            text.push_str("; key=\"");
            let key = key.get(..KEY_SHOWN).unwrap_or(key);
            text.extend(key.chars().flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c])));
            text.push('"');
        }
        if let Some(detail) = self.detail {
            let _ = write!(text, "; detail={detail}");
        }
        HeaderValue::try_from(text).ok()
    }

    /// `HIT`, `STALE`, `REVALIDATED` (asked, and the stored response still held), `BYPASS` or `MISS`.
    #[must_use]
    pub fn x_cache(&self) -> &'static str {
        match self.forwarded {
            _ if self.stale => "STALE",
            None if self.unserved => "MISS",
            None => "HIT",
            Some(_) if self.forwarded_status == Some(StatusCode::NOT_MODIFIED) => "REVALIDATED",
            Some(Forwarded::Bypass | Forwarded::Method) => "BYPASS",
            Some(_) => "MISS",
        }
    }

    /// The same for logs and metrics: `hit`, `stale`, `collapsed`, `revalidated`, `bypass` or `miss`.
    #[must_use]
    pub fn result(&self) -> &'static str {
        match self.forwarded {
            _ if self.stale => "stale",
            None if self.unserved => "miss",
            None => "hit",
            Some(_) if self.collapsed => "collapsed",
            Some(_) if self.forwarded_status == Some(StatusCode::NOT_MODIFIED) => "revalidated",
            Some(Forwarded::Bypass | Forwarded::Method) => "bypass",
            Some(_) => "miss",
        }
    }

    /// Why it was forwarded and the token behind that, for metrics: `none` for a hit, empty where there is no reason.
    #[must_use]
    pub fn why(&self) -> (&'static str, &'static str) {
        (self.forwarded.map_or("none", Forwarded::token), self.detail.unwrap_or_default())
    }

    /// Adds both fields to a response on its way to the client: behind what caches nearer the origin said in
    /// `Cache-Status` (§2), in place of their `X-Cache`.
    pub fn add_to(&self, response: &mut HeaderMap) {
        if let Some(value) = self.render() {
            response.append(CACHE_STATUS, value);
        }
        response.insert(X_CACHE, HeaderValue::from_static(self.x_cache()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendering() {
        let none = CacheStatus::default();
        for (status, expected, x_cache) in [
            (CacheStatus { ttl: Some(30), ..none }, "tidegate; hit; ttl=30", "HIT"),
            (
                CacheStatus { forwarded: Some(Forwarded::UriMiss), stored: true, ttl: Some(60), ..none },
                "tidegate; fwd=uri-miss; ttl=60; stored",
                "MISS",
            ),
            (
                CacheStatus { forwarded: Some(Forwarded::UriMiss), collapsed: true, ..none },
                "tidegate; fwd=uri-miss; collapsed",
                "MISS",
            ),
            (CacheStatus::only_if_cached(), "tidegate; detail=only_if_cached", "MISS"),
            (
                CacheStatus { ttl: Some(-5), stale: true, detail: Some("stale_while_revalidate"), ..none },
                "tidegate; hit; ttl=-5; detail=stale_while_revalidate",
                "STALE",
            ),
            (
                CacheStatus { forwarded: Some(Forwarded::Bypass), detail: Some("range"), ..none },
                "tidegate; fwd=bypass; detail=range",
                "BYPASS",
            ),
            (
                CacheStatus {
                    forwarded: Some(Validate::Stale.into()),
                    forwarded_status: Some(StatusCode::NOT_MODIFIED),
                    ..none
                },
                "tidegate; fwd=stale; fwd-status=304",
                "REVALIDATED",
            ),
            (
                CacheStatus { forwarded: Some(Validate::RequestMaxAge.into()), key: Some("a\"b\\"), ..none },
                "tidegate; fwd=request; key=\"a\\\"b\\\\\"",
                "MISS",
            ),
        ] {
            assert_eq!(status.render().expect("printable"), expected);
            assert_eq!(status.x_cache(), x_cache, "{expected}");
        }
    }

    #[test]
    fn a_long_key_is_cut() {
        let key = "k".repeat(KEY_SHOWN + 1);
        let status = CacheStatus { key: Some(&key), ..CacheStatus::default() };
        let expected = format!("tidegate; hit; key=\"{}\"", "k".repeat(KEY_SHOWN));
        assert_eq!(status.render().expect("printable"), expected.as_str());
    }

    #[test]
    fn it_comes_behind_what_nearer_caches_said() {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_STATUS, HeaderValue::from_static("origin; hit"));
        headers.insert(X_CACHE, HeaderValue::from_static("HIT from elsewhere"));
        CacheStatus { forwarded: Some(Forwarded::UriMiss), ..CacheStatus::default() }.add_to(&mut headers);
        let values: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
        assert_eq!(values, ["origin; hit", "tidegate; fwd=uri-miss"]);
        assert_eq!(headers.get(X_CACHE).expect("set"), "MISS");
    }
}
