//! Whether a response that is stale, or that a client did not want as it is, may answer all the same (RFC 9111 §4.2.4,
//! RFC 5861).
//!
//! | granted by | when | for how long |
//! |---|---|---|
//! | `stale-while-revalidate`, of the origin, else of the policy | at once, and it is fetched anew behind the answer | as it says |
//! | the client's `max-stale` | at once | as it says |
//! | `stale-if-error`, of the origin, else of the policy; or of the client | the origin has no usable answer | as it says |
//! | the policy's `stale_if_unreachable` | nobody answers at all | as it says |
//!
//! `no-cache`, `must-revalidate`, `proxy-revalidate` and `s-maxage` (RFC 9111 §5.2.2.10) forbid every one of them. A
//! client that wants freshness (`no-cache`, `min-fresh`, or `max-age` without `max-stale`, §5.2.1.1) is not answered
//! stale at once; in trouble it is, for it can have no better (RFC 5861 §4: "regardless of other freshness information").
//!
//! An origin that failed a moment ago counts as failing: the stale answer is then given without asking it, see
//! [`super::refresh`].

use std::time::Duration;

use http::StatusCode;

use super::CacheParams;
use super::directives::RequestDirectives;
use super::refresh::Setback;
use super::storing::Terms;
use crate::clock::Now;
use crate::error::{ErrorKind, Source};

/// Why an origin has no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// No connection, nobody to connect to, a timeout, or a cut before the head was whole.
    Unreachable,
    /// An answer that tells of an error (500, 502, 503, 504), or one that is no HTTP.
    Error,
    /// The body broke off.
    CutOff,
}

impl Trouble {
    /// The trouble this failure means; `None` for failures that are not the origin's.
    #[must_use]
    pub fn of_error(kind: ErrorKind) -> Option<Self> {
        match kind {
            ErrorKind::MalformedResponse(_) | ErrorKind::ResponseHeaderTooLarge => Some(Self::Error),
            kind => (kind.row().source == Source::Upstream).then_some(Self::Unreachable),
        }
    }

    /// The trouble an answer with this status tells of (RFC 5861 §4).
    #[must_use]
    pub fn of_status(status: StatusCode) -> Option<Self> {
        matches!(status.as_u16(), 500 | 502..=504).then_some(Self::Error)
    }
}

/// What allows the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grant {
    /// `stale-while-revalidate`
    WhileRevalidate,
    /// The client's `max-stale`.
    MaxStale,
    /// `stale-if-error`
    IfError,
    /// `stale_if_unreachable`
    IfUnreachable,
    /// It is fresh; only the client wanted it validated, and that failed.
    StillFresh,
}

impl Grant {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::WhileRevalidate => "stale_while_revalidate",
            Self::MaxStale => "max_stale",
            Self::IfError => "stale_if_error",
            Self::IfUnreachable => "stale_if_unreachable",
            Self::StillFresh => "validation_failed",
        }
    }
}

/// Why it may not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotStale {
    /// It was stored with `no-cache`.
    NoCache,
    /// `must-revalidate`, `proxy-revalidate` or `s-maxage`.
    MustRevalidate,
    /// The client wants it fresher.
    Wish,
    /// Nobody allows it, or no longer.
    NotGranted,
}

impl NotStale {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::NoCache => "no_cache",
            Self::MustRevalidate => "must_revalidate",
            Self::Wish => "request_wants_fresh",
            Self::NotGranted => "stale_not_granted",
        }
    }
}

/// What the decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct StaleFacts<'a> {
    /// Of the stored response.
    pub terms: &'a Terms,
    /// Of the client; after `ignore_request_directives`.
    pub request: &'a RequestDirectives,
    /// What became of the last try to fetch it anew, where that failed.
    pub setback: Option<Setback>,
}

/// An answer without asking the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale {
    /// What allows it.
    pub grant: Grant,
    /// It is to be fetched anew behind the answer.
    pub refresh: bool,
}

/// Whether a response that [`super::reuse::decide`] wants validated may answer without asking. Cost: a few comparisons.
///
/// # Errors
/// Why the origin is to be asked first.
pub fn at_once(facts: &StaleFacts<'_>, params: &CacheParams, now: Now) -> Result<Stale, NotStale> {
    let resting = facts.setback.is_some_and(|setback| setback.rests(now));
    match while_fetching(facts.terms, facts.request, params, now) {
        Ok(grant) => return Ok(Stale { grant, refresh: grant == Grant::WhileRevalidate && !resting }),
        Err(reason @ (NotStale::NoCache | NotStale::MustRevalidate)) => return Err(reason),
        Err(NotStale::Wish | NotStale::NotGranted) => {}
    }
    let trouble = facts.setback.filter(|setback| setback.counts(now)).and_then(|setback| setback.trouble);
    let grant = in_trouble(facts.terms, facts.request, params, trouble.ok_or(NotStale::NotGranted)?, now)?;
    Ok(Stale { grant, refresh: !resting })
}

fn while_fetching(
    terms: &Terms,
    request: &RequestDirectives,
    params: &CacheParams,
    now: Now,
) -> Result<Grant, NotStale> {
    forbidden(terms, now)?;
    let (age, staleness) = (terms.freshness.age(now), terms.freshness.staleness(now));
    let too_old = request.max_age.is_some_and(|limit| age > limit || request.max_stale.is_none());
    if request.no_cache || request.min_fresh.is_some() || too_old || is_fresh(terms, now) {
        return Err(NotStale::Wish);
    }
    let window = terms.stale_while_revalidate.or(params.stale_while_revalidate).unwrap_or_default();
    if !window.is_zero() && staleness <= window {
        return Ok(Grant::WhileRevalidate);
    }
    let accepted = request.max_stale.is_some_and(|limit| staleness <= limit);
    if accepted { Ok(Grant::MaxStale) } else { Err(NotStale::NotGranted) }
}

/// Whether a stored response may answer in place of an origin in trouble. One that is still fresh (the client wanted it
/// validated) always may.
///
/// # Errors
/// Why the trouble is the client's as well.
pub fn in_trouble(
    terms: &Terms,
    request: &RequestDirectives,
    params: &CacheParams,
    trouble: Trouble,
    now: Now,
) -> Result<Grant, NotStale> {
    forbidden(terms, now)?;
    let granted = terms.stale_if_error.or(params.stale_if_error).max(request.stale_if_error).unwrap_or_default();
    let unreachable = match trouble {
        Trouble::Unreachable => params.stale_if_unreachable.unwrap_or_default(),
        Trouble::Error | Trouble::CutOff => Duration::ZERO,
    };
    if is_fresh(terms, now) {
        return Ok(Grant::StillFresh);
    }
    let staleness = terms.freshness.staleness(now);
    if !granted.is_zero() && staleness <= granted {
        return Ok(Grant::IfError);
    }
    if !unreachable.is_zero() && staleness <= unreachable {
        Ok(Grant::IfUnreachable)
    } else {
        Err(NotStale::NotGranted)
    }
}

/// What the response itself forbids; a fresh one is not concerned by what holds once it is stale.
fn forbidden(terms: &Terms, now: Now) -> Result<(), NotStale> {
    if terms.no_cache {
        return Err(NotStale::NoCache);
    }
    if terms.must_revalidate && !is_fresh(terms, now) {
        return Err(NotStale::MustRevalidate);
    }
    Ok(())
}

/// A softly purged one is as good as stale.
fn is_fresh(terms: &Terms, now: Now) -> bool {
    terms.freshness.is_fresh(now) && !terms.purged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::cache::storing::{self, Storable};
    use crate::policy::cache::tests::{headers, params};
    use crate::policy::cache::{RequestFacts, ResponseFacts};
    use http::Method;

    /// A response with this `Cache-Control`, and how many seconds old it is.
    struct Case {
        stored: &'static str,
        age: u64,
        request: &'static str,
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    impl Case {
        fn facts(&self) -> (Terms, RequestDirectives, Now) {
            let now = crate::clock::Clock::System.now();
            let response = headers(&[("cache-control", self.stored), ("etag", "\"a\"")], now);
            let request = headers(&[("cache-control", self.request)], now);
            let facts =
                RequestFacts { method: &Method::GET, path: "/", headers: &http::HeaderMap::new(), has_body: false };
            let response = ResponseFacts { status: StatusCode::OK, headers: &response, sent: now, received: now };
            let Storable { terms, .. } = storing::decide(&facts, &response, &params()).expect("storable");
            (terms, RequestDirectives::parse(&request), now.plus(seconds(self.age)))
        }

        fn at_once(&self, params: &CacheParams, trouble: Option<(Trouble, u64)>) -> String {
            let (terms, request, now) = self.facts();
            let received = terms.freshness.received;
            let setback = trouble.map(|(trouble, at)| Setback::after(None, Some(trouble), received.plus(seconds(at))));
            let facts = StaleFacts { terms: &terms, request: &request, setback };
            match super::at_once(&facts, params, now) {
                Ok(stale) => format!("{}{}", stale.grant.token(), if stale.refresh { " refresh" } else { "" }),
                Err(reason) => reason.token().to_owned(),
            }
        }

        fn in_trouble(&self, params: &CacheParams, trouble: Trouble) -> &'static str {
            let (terms, request, now) = self.facts();
            super::in_trouble(&terms, &request, params, trouble, now).map_or_else(NotStale::token, Grant::token)
        }
    }

    #[test]
    fn without_asking() {
        let plain = params();
        let config = CacheParams { stale_while_revalidate: Some(seconds(5)), ..params() };
        let (granted, swr) = ("stale_while_revalidate refresh", "max-age=10, stale-while-revalidate=20");
        for (params, stored, age, request, expected) in [
            (&plain, swr, 10, "", granted),
            (&plain, swr, 30, "", granted),
            (&plain, swr, 31, "", "stale_not_granted"),
            (&plain, "max-age=10", 11, "", "stale_not_granted"),
            (&config, "max-age=10", 11, "", granted),
            (&config, "max-age=10", 16, "", "stale_not_granted"),
            (&config, "max-age=10, stale-while-revalidate=0", 11, "", "stale_not_granted"),
            (&config, "max-age=10, stale-while-revalidate=x", 11, "", "stale_not_granted"),
            (&plain, "max-age=10, stale-while-revalidate=20, must-revalidate", 11, "", "must_revalidate"),
            (&config, "max-age=10, proxy-revalidate", 11, "", "must_revalidate"),
            (&config, "s-maxage=10", 11, "", "must_revalidate"),
            (&config, "max-age=10, no-cache", 11, "", "no_cache"),
            (&plain, swr, 11, "no-cache", "stale_not_granted"),
            (&plain, swr, 11, "max-age=100", "stale_not_granted"),
            (&plain, swr, 11, "max-age=100, max-stale", granted),
            (&plain, swr, 11, "max-age=10, max-stale", "stale_not_granted"),
            (&plain, swr, 11, "min-fresh=1", "stale_not_granted"),
            (&plain, "max-age=10", 15, "max-stale=5", "max_stale"),
            (&plain, "max-age=10", 16, "max-stale=5", "stale_not_granted"),
            (&plain, "max-age=10", 1000, "max-stale", "max_stale"),
            (&plain, "max-age=10", 11, "max-stale=x", "stale_not_granted"),
            (&plain, "max-age=10", 11, "max-stale, min-fresh=1", "stale_not_granted"),
            (&plain, "max-age=10, must-revalidate", 11, "max-stale", "must_revalidate"),
        ] {
            assert_eq!(Case { stored, age, request }.at_once(params, None), expected, "{stored} at {age}, {request}");
        }
    }

    #[test]
    fn an_origin_that_failed_a_moment_ago_is_not_asked_first() {
        let swr = "max-age=10, stale-while-revalidate=20, stale-if-error=90";
        let config = CacheParams { stale_if_unreachable: Some(seconds(600)), ..params() };
        let (error, gone) = (Trouble::Error, Trouble::Unreachable);
        for (stored, age, trouble, expected) in [
            (swr, 20, (error, 20), "stale_while_revalidate"),
            (swr, 21, (error, 20), "stale_while_revalidate refresh"),
            (swr, 40, (error, 40), "stale_if_error"),
            (swr, 41, (error, 40), "stale_if_error refresh"),
            (swr, 99, (error, 40), "stale_if_error refresh"),
            (swr, 100, (error, 40), "stale_not_granted"),
            (swr, 101, (error, 100), "stale_not_granted"),
            ("max-age=10", 40, (gone, 40), "stale_if_unreachable"),
            ("max-age=10", 40, (error, 40), "stale_not_granted"),
            ("max-age=10, must-revalidate", 40, (gone, 40), "must_revalidate"),
        ] {
            let case = Case { stored, age, request: "" };
            assert_eq!(case.at_once(&config, Some(trouble)), expected, "{stored} at {age}");
        }
        let fresh = Case { stored: "max-age=10", age: 5, request: "no-cache" };
        assert_eq!(fresh.at_once(&config, Some((gone, 5))), "validation_failed");
        assert_eq!(fresh.at_once(&config, None), "stale_not_granted");
    }

    #[test]
    fn in_place_of_a_failing_origin() {
        use Trouble::{CutOff, Error, Unreachable as Gone};
        let default = CacheParams { stale_if_unreachable: Some(seconds(600)), ..params() };
        let config = CacheParams { stale_if_error: Some(seconds(30)), ..params() };
        for (params, stored, age, request, trouble, expected) in [
            (&default, "max-age=10, stale-if-error=20", 30, "", Error, "stale_if_error"),
            (&default, "max-age=10, stale-if-error=20", 30, "", CutOff, "stale_if_error"),
            (&default, "max-age=10, stale-if-error=20", 30, "", Gone, "stale_if_error"),
            (&default, "max-age=10, stale-if-error=20", 31, "", Error, "stale_not_granted"),
            (&default, "max-age=10, stale-if-error=20", 31, "", Gone, "stale_if_unreachable"),
            (&default, "max-age=10", 610, "", Gone, "stale_if_unreachable"),
            (&default, "max-age=10", 611, "", Gone, "stale_not_granted"),
            (&default, "max-age=10", 11, "", Error, "stale_not_granted"),
            (&default, "max-age=10", 11, "", CutOff, "stale_not_granted"),
            (&config, "max-age=10", 40, "", Error, "stale_if_error"),
            (&config, "max-age=10", 41, "", Error, "stale_not_granted"),
            (&config, "max-age=10, stale-if-error=0", 11, "", Error, "stale_not_granted"),
            (&default, "max-age=10", 20, "stale-if-error=10", Error, "stale_if_error"),
            (&default, "max-age=10", 21, "stale-if-error=10", Error, "stale_not_granted"),
            (&config, "max-age=10", 20, "no-cache", Error, "stale_if_error"),
            (&config, "max-age=10", 20, "max-age=0", Error, "stale_if_error"),
            (&config, "max-age=10, must-revalidate", 11, "", Gone, "must_revalidate"),
            (&config, "max-age=10, proxy-revalidate", 11, "stale-if-error=99", Gone, "must_revalidate"),
            (&config, "s-maxage=10, stale-if-error=99", 11, "", Error, "must_revalidate"),
            (&config, "max-age=10, no-cache", 1, "", Gone, "no_cache"),
            (&default, "max-age=10, must-revalidate", 5, "no-cache", Error, "validation_failed"),
            (&default, "max-age=10", 5, "max-age=0", Gone, "validation_failed"),
        ] {
            let case = Case { stored, age, request };
            assert_eq!(case.in_trouble(params, trouble), expected, "{stored} at {age}, {request}, {trouble:?}");
        }
    }

    #[test]
    fn what_counts_as_trouble() {
        use ErrorKind as K;
        for (kind, expected) in [
            (K::ConnectRefused, Some(Trouble::Unreachable)),
            (K::FirstByteTimeout, Some(Trouble::Unreachable)),
            (K::ResponseTruncated, Some(Trouble::Unreachable)),
            (K::NoEndpoint, Some(Trouble::Unreachable)),
            (K::PoolFull, Some(Trouble::Unreachable)),
            (K::MalformedResponse("x"), Some(Trouble::Error)),
            (K::ClientGone, None),
            (K::Internal("x"), None),
        ] {
            assert_eq!(Trouble::of_error(kind), expected, "{kind:?}");
        }
        for (status, expected) in
            [(500, true), (502, true), (503, true), (504, true), (501, false), (505, false), (429, false)]
        {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(Trouble::of_status(status).is_some(), expected, "{status}");
        }
    }
}
