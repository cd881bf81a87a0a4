//! Whether a response may be stored by a shared cache, and on which terms it may then be reused (RFC 9111 §3).
//!
//! Two rules are stricter than the RFC asks: a response with `Set-Cookie` is never stored, and neither a configured `ttl`
//! nor a guess stores the answer to a request with cookies or credentials, unless the policy strips or keys them.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, ETAG, LAST_MODIFIED, SET_COOKIE};
use http::{HeaderName, Method, StatusCode};

use super::bypass::{Personal, personal};
use super::directives::{RequestDirectives, ResponseDirectives};
use super::freshness::{self, Freshness, Lifetime, LifetimeSource};
use super::search::SearchRule;
use super::tags::Tags;
use super::vary::VaryRule;
use super::{CacheParams, RequestFacts, ResponseFacts, dates, deception, query, targeted};
use crate::policy::validators::EntityTag;

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// Not the answer to a GET, nor to a QUERY where the policy has `query_body`.
    Method,
    /// The request said `no-store`.
    RequestNoStore,
    /// 206: a part is never stored as if it were the whole.
    Partial,
    /// 1xx, 304 and the like: not a response that stands for itself.
    Status,
    /// `must-understand` with a status whose caching rules are not known here (§5.2.2.3).
    NotUnderstood,
    /// The response said `no-store`.
    NoStore,
    /// The response said `private`.
    Private,
    /// The response sets a cookie.
    SetCookie,
    /// `Vary: *`
    VaryStar,
    /// `Vary` names more fields than [`super::vary::MAX_NAMES`].
    VaryTooMany,
    /// The request had `Authorization`, and nothing allows sharing the answer (§3.5).
    Authorization,
    /// The request had cookies, and only a configured or guessed lifetime would allow storing.
    Cookie,
    /// It declares itself a page or data under a path that ends like a static file ([`deception::deceives`]).
    TypeDeceives,
    /// `Content-Length` exceeds `max_object`.
    TooLarge,
    /// No lifetime stated, configured or guessable, and no validator either.
    NoFreshness,
    /// Stale on arrival, and no validator to ask with.
    NoValidator,
    /// More tags than [`super::tags::MAX_TAGS`]: a purge would miss it.
    TooManyTags,
    /// A tag longer than [`super::tags::MAX_TAG_BYTES`]: likewise.
    TagTooLong,
}

impl NotStored {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestNoStore => "request_no_store",
            Self::Partial => "partial",
            Self::Status => "status",
            Self::NotUnderstood => "not_understood",
            Self::NoStore => "no_store",
            Self::Private => "private",
            Self::SetCookie => "set_cookie",
            Self::VaryStar => "vary_star",
            Self::VaryTooMany => "vary_too_many",
            Self::Authorization => "authorization",
            Self::Cookie => "cookie",
            Self::TypeDeceives => "type_deceives",
            Self::TooLarge => "too_large",
            Self::NoFreshness => "no_freshness",
            Self::NoValidator => "no_validator",
            Self::TooManyTags => "too_many_tags",
            Self::TagTooLong => "tag_too_long",
        }
    }

    /// True when the next answer for the same key will most likely be refused as well, so that requests for it should
    /// not wait for each other (hit-for-miss). Refusals that lie in the one request are not remembered.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        match self {
            Self::NoStore
            | Self::Private
            | Self::SetCookie
            | Self::VaryStar
            | Self::VaryTooMany
            | Self::NotUnderstood
            | Self::TypeDeceives
            | Self::TooLarge
            | Self::NoFreshness
            | Self::NoValidator
            | Self::TooManyTags
            | Self::TagTooLong => true,
            Self::Method | Self::RequestNoStore | Self::Partial | Self::Status | Self::Authorization | Self::Cookie => {
                false
            }
        }
    }
}

/// On which terms a stored response may be reused. Small and `Copy`: computed once, kept with the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How old, and how long fresh.
    pub freshness: Freshness,
    /// `no-cache`: never without a validation.
    pub no_cache: bool,
    /// `must-revalidate`, `proxy-revalidate` or `s-maxage`: never stale, whatever happens (§4.2.4).
    pub must_revalidate: bool,
    /// Softly purged since it came: as if stale, and never to be stored so.
    pub purged: bool,
    /// `stale-while-revalidate`, where the origin says it.
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error`, where the origin says it.
    pub stale_if_error: Option<Duration>,
    /// How long the origin took to answer.
    pub took: Duration,
}

impl Terms {
    /// True when requests that waited for this response may be answered with it: what is stale or `no-cache` on arrival
    /// answers only the request that fetched it (§4).
    #[must_use]
    pub fn is_shareable(&self) -> bool {
        !self.no_cache && self.freshness.is_fresh(self.freshness.received)
    }
}

/// A response that may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storable {
    /// On which terms.
    pub terms: Terms,
    /// The request fields it varies on.
    pub vary: Box<[HeaderName]>,
    /// What it is called.
    pub tags: Tags,
    /// Which parts of the query matter to it; `None` = all.
    pub search: Option<SearchRule>,
}

/// Whether, and on which terms, this response to this request may be stored.
///
/// After a 304 it is asked again with the freshened head ([`super::validation::freshen`]): an origin may take back what it
/// allowed before.
///
/// # Errors
/// The first reason that forbids it, in the order of [`NotStored`].
pub fn decide(
    request: &RequestFacts<'_>,
    response: &ResponseFacts<'_>,
    params: &CacheParams,
) -> Result<Storable, NotStored> {
    let (directives, expires_counts) = targeted::directives(response);
    let is_get = *request.method == Method::GET;
    if !is_get && !query::takes_part(request.method, params) {
        return Err(NotStored::Method);
    }
    if RequestDirectives::parse(request.headers).no_store {
        return Err(NotStored::RequestNoStore);
    }
    let vary = permitted(response, &directives)?;
    if params.deception_guard && deception::deceives(request.path, response) {
        return Err(NotStored::TypeDeceives);
    }
    if content_length(response).is_some_and(|length| length > params.max_object) {
        return Err(NotStored::TooLarge);
    }
    let lifetime = lifetime(request, response, (&directives, expires_counts), params)?;
    let terms = terms(response, &directives, lifetime);
    let arrives_fresh = terms.freshness.is_fresh(response.received);
    if (!arrives_fresh || terms.no_cache) && !has_validator(response) {
        let nobody = lifetime.source == LifetimeSource::Nobody;
        return Err(if nobody { NotStored::NoFreshness } else { NotStored::NoValidator });
    }
    let tags = Tags::read(response.headers, &params.tags)?;
    let search = if is_get { SearchRule::read(response.headers) } else { None };
    Ok(Storable { terms, vary, tags, search })
}

/// The method whose answers are stored for requests with this one: GET answers HEAD as well.
#[must_use]
pub fn fetched_by(method: &Method) -> &Method {
    if *method == Method::HEAD { &Method::GET } else { method }
}

/// What the response itself forbids.
fn permitted(response: &ResponseFacts<'_>, directives: &ResponseDirectives) -> Result<Box<[HeaderName]>, NotStored> {
    if response.status == StatusCode::PARTIAL_CONTENT {
        return Err(NotStored::Partial);
    }
    if response.status.is_informational() || response.status == StatusCode::NOT_MODIFIED {
        return Err(NotStored::Status);
    }
    let understood = is_understood(response.status);
    if directives.must_understand && !understood {
        return Err(NotStored::NotUnderstood);
    }
    // must-understand overrides the no-store that stands beside it for caches that do not know the directive.
    if directives.no_store && !directives.must_understand {
        return Err(NotStored::NoStore);
    }
    if directives.private {
        return Err(NotStored::Private);
    }
    if response.headers.contains_key(SET_COOKIE) {
        return Err(NotStored::SetCookie);
    }
    match VaryRule::parse(response.headers) {
        VaryRule::Names(names) => Ok(names),
        VaryRule::Star => Err(NotStored::VaryStar),
        VaryRule::TooMany => Err(NotStored::VaryTooMany),
    }
}

/// Who says how long: the operator's `override_ttl` (with `status_ttl` as the more exact word), the response, then
/// `status_ttl`, `ttl` and the guess.
fn lifetime(
    request: &RequestFacts<'_>,
    response: &ResponseFacts<'_>,
    (directives, expires_counts): (&ResponseDirectives, bool),
    params: &CacheParams,
) -> Result<Lifetime, NotStored> {
    let personal = personal(request, params);
    let shared_by_origin = directives.public || directives.s_maxage.is_some() || directives.must_revalidate;
    if personal == Some(Personal::Authorization) && !shared_by_origin {
        return Err(NotStored::Authorization);
    }
    let explicit = freshness::explicit(response, directives, expires_counts);
    if let Some(personal) = personal {
        return explicit.ok_or(match personal {
            Personal::Authorization => NotStored::Authorization,
            Personal::Cookie => NotStored::Cookie,
        });
    }
    let may_guess = freshness::is_heuristically_cacheable(response.status) || directives.public;
    if let Some(duration) = params.override_ttl.filter(|_| may_guess || explicit.is_some()) {
        let exact = params.status_ttl.get(&response.status.as_u16()).copied();
        return Ok(Lifetime { duration: exact.unwrap_or(duration), source: LifetimeSource::OverrideTtl });
    }
    if let Some(lifetime) = explicit.or_else(|| freshness::assigned(response, directives, params)) {
        return Ok(lifetime);
    }
    // Without any lifetime a status a cache may guess about can still be kept, to be validated each time (§3).
    if may_guess || directives.no_cache {
        return Ok(Lifetime { duration: Duration::ZERO, source: LifetimeSource::Nobody });
    }
    Err(NotStored::NoFreshness)
}

fn terms(response: &ResponseFacts<'_>, directives: &ResponseDirectives, lifetime: Lifetime) -> Terms {
    let overridden = lifetime.source == LifetimeSource::OverrideTtl;
    let initial_age = freshness::initial_age(response);
    Terms {
        // An overriding lifetime counts from arrival: what the origin wrote into Date and Age is part of what it overrides.
        freshness: Freshness {
            lifetime: Lifetime {
                duration: lifetime.duration + if overridden { initial_age } else { Duration::ZERO },
                ..lifetime
            },
            initial_age,
            received: response.received,
        },
        no_cache: directives.no_cache && !overridden,
        must_revalidate: directives.must_revalidate || directives.proxy_revalidate || directives.s_maxage.is_some(),
        purged: false,
        stale_while_revalidate: directives.stale_while_revalidate,
        stale_if_error: directives.stale_if_error,
        took: response.received.since(response.sent),
    }
}

/// The statuses whose caching rules are followed here: all that RFC 9110 defines as final and whole.
fn is_understood(status: StatusCode) -> bool {
    matches!(status.as_u16(),
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 428 | 429 | 431 | 451 | 500..=505 | 511)
}

fn has_validator(response: &ResponseFacts<'_>) -> bool {
    response.headers.get(ETAG).is_some_and(|tag| EntityTag::parse(tag.as_bytes()).is_some())
        || dates::read(response.headers, &LAST_MODIFIED).is_some()
}

fn content_length(response: &ResponseFacts<'_>) -> Option<u64> {
    response.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::tests::{headers, params};

    type Lines<'a> = &'a [(&'static str, &'a str)];

    fn decide_with(
        params: &CacheParams,
        request: Lines<'_>,
        status: u16,
        response: Lines<'_>,
    ) -> Result<Storable, NotStored> {
        let now = Clock::System.now();
        let (request, response) = (headers(request, now), headers(response, now));
        decide(
            &RequestFacts { method: &Method::GET, path: "/", headers: &request, has_body: false },
            &ResponseFacts {
                status: StatusCode::from_u16(status).expect("a status"),
                headers: &response,
                sent: now,
                received: now,
            },
            params,
        )
    }

    /// The verdict as text: a reason's token, or the lifetime's source and seconds.
    fn check(params: &CacheParams, request: Lines<'_>, status: u16, response: Lines<'_>) -> String {
        match decide_with(params, request, status, response) {
            Ok(Storable { terms: Terms { freshness, .. }, .. }) => {
                format!("{} {}", freshness.lifetime.source.token(), freshness.lifetime.duration.as_secs())
            }
            Err(reason) => reason.token().to_owned(),
        }
    }

    const FRESH: (&str, &str) = ("cache-control", "max-age=60");
    const LOGIN: (&str, &str) = ("authorization", "Basic eDp5");
    const COOKIE: (&str, &str) = ("cookie", "id=1");
    const TAG: (&str, &str) = ("etag", "\"a\"");

    #[test]
    fn without_configuration() {
        for (request, status, response, expected) in [
            (&[][..], 200, &[FRESH][..], "max_age 60"),
            (&[], 299, &[FRESH], "max_age 60"),
            (&[], 599, &[FRESH], "max_age 60"),
            (&[], 302, &[FRESH], "max_age 60"),
            (&[], 206, &[FRESH], "partial"),
            (&[], 304, &[FRESH], "status"),
            (&[("cache-control", "no-store")], 200, &[FRESH], "request_no_store"),
            (&[], 200, &[("cache-control", "max-age=60, no-store")], "no_store"),
            (&[], 200, &[("cache-control", "max-age=60, private")], "private"),
            (&[], 200, &[("cache-control", "max-age=60, private=\"x\"")], "private"),
            (&[], 200, &[FRESH, ("set-cookie", "a=b")], "set_cookie"),
            (&[], 200, &[("cache-control", "public, max-age=60"), ("set-cookie", "a=b")], "set_cookie"),
            (&[], 200, &[FRESH, ("vary", "*")], "vary_star"),
            (&[], 200, &[FRESH, ("content-length", "1001")], "too_large"),
            (&[], 200, &[FRESH, ("content-length", "1000")], "max_age 60"),
            (&[], 200, &[("cache-control", "must-understand, no-store, max-age=60")], "max_age 60"),
            (&[], 299, &[("cache-control", "must-understand, max-age=60")], "not_understood"),
            (&[], 200, &[], "no_freshness"),
            (&[], 200, &[TAG], "nobody 0"),
            (&[], 302, &[TAG], "no_freshness"),
            (&[], 200, &[("last-modified", "@-1000")], "heuristic 100"),
            (&[], 302, &[("last-modified", "@-1000")], "no_freshness"),
            (&[], 302, &[("last-modified", "@-1000"), ("cache-control", "public")], "heuristic 100"),
            (&[], 200, &[("cache-control", "max-age=0")], "no_validator"),
            (&[], 200, &[("cache-control", "max-age=0"), TAG], "max_age 0"),
            (&[], 200, &[("cache-control", "max-age=60"), ("age", "60")], "no_validator"),
            (&[], 200, &[("cache-control", "no-cache, max-age=60")], "no_validator"),
            (&[], 200, &[("cache-control", "no-cache, max-age=60"), TAG], "max_age 60"),
            (&[], 200, &[("expires", "0"), ("etag", "unquoted")], "no_validator"),
        ] {
            assert_eq!(check(&params(), request, status, response), expected, "{request:?} {status} {response:?}");
        }
    }

    #[test]
    fn personal_requests() {
        let configured = CacheParams { ttl: Some(Duration::from_secs(9)), ..params() };
        let mut keyed = configured.clone();
        keyed.key.cookies = vec!["id".into()];
        keyed.key.headers = vec![http::header::AUTHORIZATION];
        for (params, request, response, expected) in [
            (&configured, &[LOGIN][..], &[FRESH][..], "authorization"),
            (&configured, &[LOGIN], &[("cache-control", "public, max-age=60")], "max_age 60"),
            (&configured, &[LOGIN], &[("cache-control", "s-maxage=60")], "s_maxage 60"),
            (&configured, &[LOGIN], &[("cache-control", "must-revalidate, max-age=60")], "max_age 60"),
            (&configured, &[LOGIN], &[("cache-control", "public")], "authorization"),
            (&configured, &[COOKIE], &[FRESH], "max_age 60"),
            (&configured, &[COOKIE], &[], "cookie"),
            (&configured, &[COOKIE], &[("last-modified", "@-1000")], "cookie"),
            (&configured, &[COOKIE], &[TAG], "cookie"),
            (&keyed, &[COOKIE], &[], "ttl 9"),
            (&keyed, &[("cookie", "id=1; other=2")], &[], "cookie"),
            (&keyed, &[LOGIN], &[], "ttl 9"),
        ] {
            assert_eq!(check(params, request, 200, response), expected, "{request:?} {response:?}");
        }
    }

    #[test]
    fn configured_lifetimes() {
        let ttl = CacheParams { ttl: Some(Duration::from_secs(9)), ..params() };
        let status =
            CacheParams { status_ttl: [(404, Duration::from_secs(5)), (302, Duration::ZERO)].into(), ..ttl.clone() };
        let all = CacheParams { override_ttl: Some(Duration::from_secs(70)), ..status.clone() };
        for (params, status, response, expected) in [
            (&ttl, 200, &[][..], "ttl 9"),
            (&ttl, 200, &[FRESH], "max_age 60"),
            (&ttl, 200, &[("last-modified", "@-1000")], "ttl 9"),
            (&ttl, 500, &[], "no_freshness"),
            (&status, 404, &[], "status_ttl 5"),
            (&status, 404, &[FRESH], "max_age 60"),
            (&status, 302, &[], "no_validator"),
            (&all, 200, &[FRESH], "override_ttl 70"),
            (&all, 200, &[("cache-control", "no-cache")], "override_ttl 70"),
            (&all, 200, &[("cache-control", "max-age=0")], "override_ttl 70"),
            (&all, 200, &[FRESH, ("age", "1000")], "override_ttl 1070"),
            (&all, 404, &[], "override_ttl 5"),
            (&all, 500, &[], "no_freshness"),
            (&all, 500, &[FRESH], "override_ttl 70"),
            (&all, 200, &[("cache-control", "private")], "private"),
            (&all, 200, &[("cache-control", "no-store")], "no_store"),
        ] {
            assert_eq!(check(params, &[], status, response), expected, "{status} {response:?}");
        }
    }

    #[test]
    fn only_what_is_fresh_answers_those_who_waited() {
        for (lines, expected) in [
            (&[FRESH][..], true),
            (&[("cache-control", "max-age=0"), TAG], false),
            (&[("cache-control", "max-age=60, no-cache"), TAG], false),
        ] {
            let storable = decide_with(&params(), &[], 200, lines).expect("storable");
            assert_eq!(storable.terms.is_shareable(), expected, "{lines:?}");
        }
    }
}
