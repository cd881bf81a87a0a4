//! How long a response is fresh and how old it is (RFC 9111 §4.2).
//!
//! Both clocks take part: what other machines wrote (`Date`, `Expires`, `Last-Modified`) is compared on the wall clock,
//! once, when the head arrives; the time a response then spends here is measured on the monotonic clock, so a wall clock
//! that jumps makes nothing older or younger.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{AGE, DATE, EXPIRES, LAST_MODIFIED};

use super::directives::{MAX_DELTA, ResponseDirectives};
use super::{CacheParams, ResponseFacts, dates};
use crate::clock::Now;

/// The share of a response's age at arrival (`Date` − `Last-Modified`) that counts as fresh when nobody says how long:
/// the tenth that RFC 9111 §4.2.2 names as typical.
const HEURISTIC_DIVISOR: u32 = 10;

/// No guess is longer than this: the RFC asks for care with guesses, and a day is what peers take.
const HEURISTIC_MAX: Duration = Duration::from_secs(24 * 3600);

/// Who said how long a response stays fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a directive, a field or a config key")]
pub enum LifetimeSource {
    SMaxAge,
    MaxAge,
    Expires,
    OverrideTtl,
    StatusTtl,
    Ttl,
    Heuristic,
    /// Nobody: stale from the start, so every reuse needs a validation.
    Nobody,
}

impl LifetimeSource {
    /// Stable name, for `explain`.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::SMaxAge => "s_maxage",
            Self::MaxAge => "max_age",
            Self::Expires => "expires",
            Self::OverrideTtl => "override_ttl",
            Self::StatusTtl => "status_ttl",
            Self::Ttl => "ttl",
            Self::Heuristic => "heuristic",
            Self::Nobody => "nobody",
        }
    }
}

/// A freshness lifetime and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Counted from the moment the response was made (its `Date`), not from its arrival.
    pub duration: Duration,
    /// Who said so.
    pub source: LifetimeSource,
}

/// Freshness of one response, computed once when its head arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// How long it is fresh.
    pub lifetime: Lifetime,
    /// `corrected_initial_age` (§4.2.3).
    pub initial_age: Duration,
    /// `response_time`.
    pub received: Now,
}

impl Freshness {
    /// `current_age` (§4.2.3). Cost: one subtraction.
    #[must_use]
    pub fn age(&self, now: Now) -> Duration {
        self.initial_age + now.since(self.received)
    }

    /// True while the lifetime exceeds the age (§4.2).
    #[must_use]
    pub fn is_fresh(&self, now: Now) -> bool {
        self.lifetime.duration > self.age(now)
    }

    /// Time since it became stale; zero while it is fresh.
    #[must_use]
    pub fn staleness(&self, now: Now) -> Duration {
        self.age(now).saturating_sub(self.lifetime.duration)
    }

    /// Whole seconds of freshness left, negative once stale: the `ttl` of `Cache-Status`.
    #[must_use]
    pub fn ttl(&self, now: Now) -> i64 {
        let (lifetime, age) = (self.lifetime.duration, self.age(now));
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        if lifetime >= age { seconds(lifetime - age) } else { -seconds(age - lifetime) }
    }
}

/// `corrected_initial_age` (§4.2.3). A missing or unreadable `Date` counts as the time of arrival, one in the future as
/// no age at all; an `Age` that is no number is ignored (§5.1), one too large saturates.
#[must_use]
pub fn initial_age(response: &ResponseFacts<'_>) -> Duration {
    let dated = dates::read(response.headers, &DATE);
    let apparent = dated.and_then(|date| response.received.wall.duration_since(date).ok()).unwrap_or_default();
    let delay = response.received.since(response.sent);
    apparent.max(age_value(response) + delay).min(MAX_DELTA)
}

/// The first `Age` member (RFC 9111 §5.1: of several, the first counts).
fn age_value(response: &ResponseFacts<'_>) -> Duration {
    let Some(line) = response.headers.get(AGE) else { return Duration::ZERO };
    let first = line.as_bytes().split(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
    let digits = std::str::from_utf8(first).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits {
        Some("") | None => Duration::ZERO,
        Some(digits) => digits.parse().map_or(MAX_DELTA, |seconds| Duration::from_secs(seconds).min(MAX_DELTA)),
    }
}

/// The lifetime the response itself states: `s-maxage`, else `max-age`, else `Expires` − `Date` (§4.2.1). An `Expires`
/// that is no date has passed already (§5.3); beside a targeted field it does not count at all (RFC 9213 §2.2).
#[must_use]
pub fn explicit(
    response: &ResponseFacts<'_>,
    directives: &ResponseDirectives,
    expires_counts: bool,
) -> Option<Lifetime> {
    if let Some(duration) = directives.s_maxage {
        return Some(Lifetime { duration, source: LifetimeSource::SMaxAge });
    }
    if let Some(duration) = directives.max_age {
        return Some(Lifetime { duration, source: LifetimeSource::MaxAge });
    }
    if !expires_counts || !response.headers.contains_key(EXPIRES) {
        return None;
    }
    let date = made(response);
    let duration = dates::read(response.headers, &EXPIRES)
        .and_then(|expires| expires.duration_since(date).ok())
        .unwrap_or_default()
        .min(MAX_DELTA);
    Some(Lifetime { duration, source: LifetimeSource::Expires })
}

/// The lifetime where the response states none: `status_ttl`, else `ttl`, else a tenth of how long it had not changed,
/// at most a day (§4.2.2). The last two only for statuses a cache may guess about, or marked `public`.
#[must_use]
pub fn assigned(
    response: &ResponseFacts<'_>,
    directives: &ResponseDirectives,
    params: &CacheParams,
) -> Option<Lifetime> {
    if let Some(&duration) = params.status_ttl.get(&response.status.as_u16()) {
        return Some(Lifetime { duration, source: LifetimeSource::StatusTtl });
    }
    if !is_heuristically_cacheable(response.status) && !directives.public {
        return None;
    }
    if let Some(duration) = params.ttl {
        return Some(Lifetime { duration, source: LifetimeSource::Ttl });
    }
    let modified = dates::read(response.headers, &LAST_MODIFIED)?;
    let unchanged = made(response).duration_since(modified).ok()?;
    Some(Lifetime { duration: (unchanged / HEURISTIC_DIVISOR).min(HEURISTIC_MAX), source: LifetimeSource::Heuristic })
}

/// When the response was made: its `Date`, or the time of its arrival in whole seconds, as a `Date` would say it.
pub(super) fn made(response: &ResponseFacts<'_>) -> SystemTime {
    dates::read(response.headers, &DATE)
        .unwrap_or_else(|| SystemTime::UNIX_EPOCH + Duration::from_secs(response.received.unix_seconds()))
}

/// The statuses RFC 9110 §15.1 defines as heuristically cacheable, without 206, which is never stored.
#[must_use]
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::tests::{date, headers, params};

    /// Lifetime and age in seconds of a 200 that arrives 2 s after it was asked for; dates as offsets from its arrival.
    fn check(lines: &[(&'static str, &str)]) -> (Option<u64>, u64) {
        let sent = Clock::System.now();
        let received = sent.plus(Duration::from_secs(2));
        let map = headers(lines, received);
        let facts = ResponseFacts { status: StatusCode::OK, headers: &map, sent, received };
        let directives = ResponseDirectives::parse(&map);
        let lifetime = explicit(&facts, &directives, true).or_else(|| assigned(&facts, &directives, &params()));
        (lifetime.map(|lifetime| lifetime.duration.as_secs()), initial_age(&facts).as_secs())
    }

    #[test]
    fn lifetimes() {
        for (lines, expected) in [
            (&[("cache-control", "max-age=60")][..], Some(60)),
            (&[("cache-control", "max-age=60, s-maxage=5")], Some(5)),
            (&[("cache-control", "max-age=60"), ("expires", "@-10")], Some(60)),
            (&[("expires", "@100"), ("date", "@0")], Some(100)),
            (&[("expires", "@100"), ("date", "@-50")], Some(150)),
            (&[("expires", "@100")], Some(100)),
            (&[("expires", "@-100"), ("date", "@0")], Some(0)),
            (&[("expires", "0")], Some(0)),
            (&[("expires", "@100"), ("expires", "@200")], Some(0)),
            (&[("last-modified", "@-1000"), ("date", "@0")], Some(100)),
            (&[("last-modified", "@-90000000"), ("date", "@0")], Some(86_400)),
            (&[("last-modified", "@1000"), ("date", "@0")], None),
            (&[("last-modified", "garbage")], None),
            (&[], None),
        ] {
            assert_eq!(check(lines).0, expected, "{lines:?}");
        }
    }

    #[test]
    fn ages() {
        for (lines, expected) in [
            (&[][..], 2),
            (&[("date", "@0")], 2),
            (&[("date", "@-30")], 30),
            (&[("date", "@30")], 2),
            (&[("age", "10")], 12),
            (&[("age", "10"), ("date", "@-30")], 30),
            (&[("age", "10, 20")], 12),
            (&[("age", "-3")], 2),
            (&[("age", "99999999999999999999999")], 1 << 31),
            (&[("date", "long ago")], 2),
        ] {
            assert_eq!(check(lines).1, expected, "{lines:?}");
        }
    }

    #[test]
    fn time_passes_on_the_monotonic_clock() {
        let received = Clock::System.now();
        let lifetime = Lifetime { duration: Duration::from_secs(10), source: LifetimeSource::MaxAge };
        let freshness = Freshness { lifetime, initial_age: Duration::from_secs(3), received };
        let later = |seconds| received.plus(Duration::from_secs(seconds));
        assert!(freshness.is_fresh(later(6)));
        assert!(!freshness.is_fresh(later(7)), "equal is stale");
        assert_eq!(freshness.ttl(later(4)), 3);
        assert_eq!(freshness.ttl(later(9)), -2);
        let jumped = Now { wall: received.wall - Duration::from_secs(86_400), ..later(1) };
        assert_eq!(freshness.age(jumped).as_secs(), 4);
        assert_eq!(date("@0", received), httpdate::fmt_http_date(received.wall));
    }
}
