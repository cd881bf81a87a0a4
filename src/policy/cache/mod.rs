//! RFC 9111 for a shared cache: what may be stored, under which key, how long it stays fresh, when it may be reused, and
//! how it is validated, freshened and invalidated.
//!
//! The order in which an exchange meets these files: [`bypass`] (does the cache take part at all?), [`key`] (where to
//! look), [`search`] (or where else, by the origin's word), [`vary`] (which of the stored responses), [`reuse`] (may it be used now?), [`stale`] (or although it is stale?),
//! [`refresh`] (should it be fetched anew behind the answer?), [`next`] (what all of that comes to), [`validation`]
//! (what to ask the origin, and what a 304 means), [`storing`] (may the answer be kept, and on which [`storing::Terms`]), [`invalidation`]
//! (what an unsafe request made untrue), [`range`] (which part of it the client gets), [`status`] (how the outcome is
//! told). Beside them: [`deception`] (paths that are not what they seem), [`query`] (the one method with content that takes
//! part), [`tags`] and [`groups`] (what responses are called) and [`purge`] (who may have them forgotten).
//!
//! All of it is pure; every refusal is a named reason with a stable token.

pub mod bypass;
pub mod cookies;
pub mod dates;
pub mod deception;
pub mod directives;
pub mod freshness;
pub mod groups;
pub mod invalidation;
pub mod key;
pub mod next;
pub mod pattern;
pub mod purge;
pub mod query;
pub mod range;
pub mod refresh;
pub mod reuse;
pub mod search;
pub mod stale;
pub mod status;
pub mod storing;
mod structured;
pub mod tags;
pub mod targeted;
pub mod validation;
pub mod vary;

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use crate::clock::Now;

/// What the cache asks about a request. `headers` are those that would be forwarded: cookies already stripped.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// As sent.
    pub method: &'a Method,
    /// Normalised client-facing path, without query.
    pub path: &'a str,
    /// All end-to-end fields.
    pub headers: &'a HeaderMap,
    /// True when the request carries content.
    pub has_body: bool,
}

/// What the cache asks about a response head.
#[derive(Debug, Clone, Copy)]
pub struct ResponseFacts<'a> {
    /// The final status.
    pub status: StatusCode,
    /// All end-to-end fields, as the origin sent them.
    pub headers: &'a HeaderMap,
    /// When the request for it was sent (RFC 9111 §4.2.3 `request_time`).
    pub sent: Now,
    /// When its head arrived (`response_time`).
    pub received: Now,
}

/// `[cache.NAME]`, as far as decisions go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheParams {
    /// `max_object` in bytes.
    pub max_object: u64,
    /// `ttl`: freshness for answers that name none; `None` = heuristics of RFC 9111 §4.2.2 only.
    pub ttl: Option<Duration>,
    /// `status_ttl`: likewise, for one status.
    pub status_ttl: BTreeMap<u16, Duration>,
    /// `override_ttl`: whatever the origin says, except private, no-store and Set-Cookie.
    pub override_ttl: Option<Duration>,
    /// `stale_while_revalidate`, for answers that say nothing of it.
    pub stale_while_revalidate: Option<Duration>,
    /// `stale_if_error`, for answers that say nothing of it.
    pub stale_if_error: Option<Duration>,
    /// `stale_if_unreachable`
    pub stale_if_unreachable: Option<Duration>,
    /// `ignore_request_directives`
    pub ignore_request_directives: bool,
    /// `key`
    pub key: KeyParams,
    /// `strip_cookies`: glob patterns.
    pub strip_cookies: Vec<String>,
    /// `bypass`: any that holds.
    pub bypass: Vec<BypassRule>,
    /// `fill_after_abort`: a fetch goes on when every client that waited for it has gone.
    pub fill_after_abort: bool,
    /// `early_refresh`: what is asked for often is fetched anew before it is stale.
    pub early_refresh: bool,
    /// `deception_guard`: pages under paths of static files are not stored.
    pub deception_guard: bool,
    /// `query_body` in bytes: the longest content of a QUERY that is gathered for its key; `None` = QUERY passes the cache by.
    pub query_body: Option<u64>,
    /// `cache_status_key`: the key's text goes into `Cache-Status`.
    pub cache_status_key: bool,
    /// `tags`: the response fields that carry tags.
    pub tags: Vec<http::HeaderName>,
    /// `purge`; `None` = nobody may purge over a traffic listener.
    pub purge: Option<purge::PurgeParams>,
}

impl CacheParams {
    /// What a request's fields ask of this cache, as far as the policy lets clients ask.
    #[must_use]
    pub fn directives(&self, headers: &HeaderMap) -> directives::RequestDirectives {
        let directives = directives::RequestDirectives::parse(headers);
        if self.ignore_request_directives { directives.without_wishes() } else { directives }
    }
}

/// `key`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyParams {
    /// `ignore_query`: glob patterns of parameter names that are not in the key (still forwarded).
    pub ignore_query: Vec<String>,
    /// `tracking`: also ignore the built-in list of tracking parameters.
    pub tracking: bool,
    /// `sort_query`
    pub sort_query: bool,
    /// `headers` whose values are in the key.
    pub headers: Vec<http::HeaderName>,
    /// `cookies` whose values are in the key.
    pub cookies: Vec<String>,
}

/// One entry of `bypass`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BypassRule {
    /// `{ cookie = "session" }`: glob pattern of a name.
    Cookie(String),
    /// `{ path = "/account/" }`: prefix on whole segments, kept without the trailing slash, as a route's.
    Path(String),
    /// `{ header = "X-No-Cache" }`
    Header(http::HeaderName),
}

#[cfg(test)]
mod tests {
    //! What the tests of this folder share.

    use super::freshness::{Freshness, Lifetime, LifetimeSource};
    use super::storing::Terms;
    use super::*;
    use crate::clock::Clock;
    use http::{HeaderName, HeaderValue};

    /// Fields in order; a value `@N` is the HTTP date N seconds from `now`.
    pub(super) fn headers(lines: &[(&'static str, &str)], now: Now) -> HeaderMap {
        lines.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
            let value = HeaderValue::try_from(date(value, now)).expect("a valid value");
            map.append(HeaderName::from_static(name), value);
            map
        })
    }

    /// `@N` as an HTTP date; anything else as it is.
    pub(super) fn date(value: &str, now: Now) -> String {
        let Some(offset) = value.strip_prefix('@') else { return value.to_owned() };
        let offset: i64 = offset.parse().expect("seconds");
        let by = Duration::from_secs(offset.unsigned_abs());
        httpdate::fmt_http_date(if offset < 0 { now.wall - by } else { now.wall + by })
    }

    /// Fresh for 60 s from now on, with nothing said besides.
    pub(super) fn terms() -> Terms {
        let lifetime = Lifetime { duration: Duration::from_secs(60), source: LifetimeSource::MaxAge };
        Terms {
            freshness: Freshness { lifetime, initial_age: Duration::ZERO, received: Clock::System.now() },
            no_cache: false,
            must_revalidate: false,
            stale_while_revalidate: None,
            stale_if_error: None,
            took: Duration::ZERO,
            purged: false,
        }
    }

    /// A policy that configures nothing but `max_object = 1000`.
    pub(super) fn params() -> CacheParams {
        CacheParams {
            max_object: 1000,
            ttl: None,
            status_ttl: BTreeMap::new(),
            override_ttl: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            stale_if_unreachable: None,
            ignore_request_directives: false,
            key: KeyParams::default(),
            strip_cookies: Vec::new(),
            bypass: Vec::new(),
            fill_after_abort: true,
            early_refresh: true,
            deception_guard: true,
            query_body: None,
            cache_status_key: false,
            tags: tags::DEFAULT_FIELDS.to_vec(),
            purge: None,
        }
    }
}
