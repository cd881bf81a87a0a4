//! Outlier ejection: what the traffic itself says about an endpoint, between two probes or without any.
//!
//! An endpoint is ejected after `consecutive_errors` failures in a row, or when the share of its attempts that failed
//! reaches `error_share` over `WINDOW`. It comes back by itself after `eject_for`, twice as long with every ejection
//! that follows soon, and as much shorter again as it has behaved well since. Never more than `max_ejected` of a pool
//! are out at once: what fails everywhere is not an outlier.

use std::time::Duration;

use crate::error::ErrorKind;

/// The stretch over which `error_share` is taken.
const WINDOW: Duration = Duration::from_secs(10);

/// Fewest attempts within it that say something about a share.
const ATTEMPTS: u64 = 20;

/// No ejection lasts longer than this, unless `eject_for` itself does.
const LONGEST: Duration = Duration::from_secs(300);

/// `outlier`
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierParams {
    /// `consecutive_errors`
    pub consecutive_errors: u32,
    /// `error_share` as a share 0..=1; `None` = shares are not looked at.
    pub error_share: Option<f64>,
    /// `on`: what counts.
    pub on: Vec<Failing>,
    /// `eject_for`
    pub eject_for: Duration,
    /// `max_ejected` as a share 0..=1 of the endpoints in state up.
    pub max_ejected: f64,
}

/// How an endpoint failed an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failing {
    /// No connection: refused, unroutable, no name, TLS.
    Connect,
    /// A connection that broke, or an answer that is none.
    Reset,
    /// Nothing came in time, or nothing more.
    Timeout,
    /// An answer with 5xx.
    ServerError,
}

impl Failing {
    /// What a failed attempt says; `None` when it is not the endpoint's failure.
    #[must_use]
    pub fn of_error(kind: ErrorKind) -> Option<Self> {
        use ErrorKind as K;
        match kind {
            K::ConnectRefused
            | K::ConnectTimeout
            | K::TlsTimeout
            | K::DestinationUnroutable
            | K::DnsError
            | K::TlsHandshake
            | K::TlsCertificate => Some(Self::Connect),
            K::ConnectionReset
            | K::ConnectionClosed
            | K::MalformedResponse(_)
            | K::ResponseHeaderTooLarge
            | K::ResponseTruncated => Some(Self::Reset),
            K::FirstByteTimeout | K::ReadTimeout | K::WriteTimeout | K::TotalTimeout => Some(Self::Timeout),
            _ => None,
        }
    }

    /// The word of `on`.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::ServerError => "5xx",
        }
    }
}

/// One failed attempt.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// Whose: a number that stays with the endpoint.
    pub endpoint: u64,
    /// How.
    pub failing: Failing,
    /// Failures in a row, this one included.
    pub streak: u32,
    /// Attempts at the endpoint so far, this one included; only grows.
    pub attempts: u64,
}

/// An endpoint is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Until when, on the caller's clock.
    pub until: Duration,
    /// For how long.
    pub lasts: Duration,
    /// `consecutive_errors` or `error_share`.
    pub reason: &'static str,
    /// How the last failure looked.
    pub failing: Failing,
}

/// What is remembered of the endpoints of one pool. The owner publishes each [`Ejection`].
#[derive(Debug, Clone, Default)]
pub struct Outliers {
    records: Vec<Record>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    endpoint: u64,
    /// End of the last ejection.
    until: Duration,
    /// How long that was; zero = never ejected.
    lasted: Duration,
    /// When the window began, and the attempts before it.
    since: Duration,
    attempts: u64,
    errors: u64,
}

impl Outliers {
    /// Takes in one failed attempt. `up` are the endpoints in state up; others are forgotten once they are not out.
    pub fn observe(
        &mut self,
        failure: &Failure,
        up: &[u64],
        now: Duration,
        params: &OutlierParams,
    ) -> Option<Ejection> {
        if !params.on.contains(&failure.failing) {
            return None;
        }
        // One that drains while it is out may be back up before it is back in.
        self.records.retain(|record| record.until > now || up.contains(&record.endpoint));
        if !self.records.iter().any(|record| record.endpoint == failure.endpoint) {
            let fresh =
                Record { endpoint: failure.endpoint, since: now, attempts: failure.attempts - 1, ..Record::default() };
            self.records.push(fresh);
        }
        let out = self.records.iter().filter(|record| record.until > now && up.contains(&record.endpoint)).count();
        let may_go = (out + 1) as f64 <= params.max_ejected * up.len() as f64;
        let record = self.records.iter_mut().find(|record| record.endpoint == failure.endpoint)?;
        if record.until > now {
            // What was under way when it was ejected says nothing new.
            return None;
        }
        let reason = record.judge(failure, now, params)?;
        may_go.then(|| {
            let lasts = record.next_duration(now, params);
            *record = Record { endpoint: record.endpoint, until: now + lasts, lasted: lasts, ..Record::default() };
            Ejection { until: record.until, lasts, reason, failing: failure.failing }
        })
    }
}

impl Record {
    /// Why it should go.
    fn judge(&mut self, failure: &Failure, now: Duration, params: &OutlierParams) -> Option<&'static str> {
        if now.saturating_sub(self.since) >= WINDOW {
            (self.since, self.attempts, self.errors) = (now, failure.attempts - 1, 0);
        }
        self.errors += 1;
        if failure.streak >= params.consecutive_errors {
            return Some("consecutive_errors");
        }
        let attempts = failure.attempts.saturating_sub(self.attempts);
        let share = self.errors as f64 / attempts as f64;
        (attempts >= ATTEMPTS && params.error_share.is_some_and(|most| share >= most)).then_some("error_share")
    }

    /// Twice the last one, halved for every time as long that it has been well.
    fn next_duration(&self, now: Duration, params: &OutlierParams) -> Duration {
        if self.lasted.is_zero() {
            return params.eject_for;
        }
        let well = now.saturating_sub(self.until).as_secs_f64() / self.lasted.as_secs_f64();
        let factor = 2_f64 / 2_f64.powf(well.floor().min(64.0));
        self.lasted.mul_f64(factor).clamp(params.eject_for, LONGEST.max(params.eject_for))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: [u64; 4] = [1, 2, 3, 4];

    fn params() -> OutlierParams {
        OutlierParams {
            consecutive_errors: 3,
            error_share: None,
            on: vec![Failing::Connect, Failing::Reset, Failing::Timeout, Failing::ServerError],
            eject_for: Duration::from_secs(10),
            max_ejected: 0.5,
        }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failure(endpoint: u64, streak: u32) -> Failure {
        Failure { endpoint, failing: Failing::Reset, streak, attempts: u64::from(streak) }
    }

    fn lasts(outliers: &mut Outliers, now: u64) -> Option<u64> {
        outliers.observe(&failure(1, 3), &UP, at(now), &params()).map(|ejection| ejection.lasts.as_secs())
    }

    #[test]
    fn a_series_ejects_and_stragglers_do_not_prolong() {
        let mut outliers = Outliers::default();
        for streak in 1..3 {
            assert_eq!(outliers.observe(&failure(1, streak), &UP, at(1), &params()), None);
        }
        let ejection = outliers.observe(&failure(1, 3), &UP, at(1), &params()).expect("three in a row");
        assert_eq!((ejection.until, ejection.reason), (at(11), "consecutive_errors"));
        assert_eq!(outliers.observe(&failure(1, 4), &UP, at(10), &params()), None, "it is out already");
    }

    #[test]
    fn ejections_double_and_good_behaviour_halves() {
        let mut outliers = Outliers::default();
        assert_eq!(lasts(&mut outliers, 0), Some(10));
        assert_eq!(lasts(&mut outliers, 10), Some(20), "at once again");
        assert_eq!(lasts(&mut outliers, 31), Some(40));
        assert_eq!(lasts(&mut outliers, 71 + 45), Some(40), "well for as long as it was out");
        assert_eq!(lasts(&mut outliers, 156 + 85), Some(20), "twice as long");
        assert_eq!(lasts(&mut outliers, 100_000), Some(10), "never below eject_for");
        let mut longest = 0;
        let mut now = 200_000;
        for _ in 0..20 {
            longest = lasts(&mut outliers, now).expect("out again");
            now += longest;
        }
        assert_eq!(longest, 300, "five minutes at most");
    }

    #[test]
    fn no_more_than_the_share_goes() {
        let mut outliers = Outliers::default();
        let mut go =
            |endpoint, up: &[u64], now| outliers.observe(&failure(endpoint, 9), up, at(now), &params()).is_some();
        assert_eq!([go(1, &UP, 0), go(2, &UP, 0), go(3, &UP, 0)], [true, true, false]);
        assert!(go(3, &UP, 10), "two have come back");
        assert!(!go(4, &[4], 10), "the only one stays");
        assert!(!go(4, &[3, 4], 11), "one that was down meanwhile is still out");
        assert!(!go(5, &[4, 5, 6], 10) || !go(6, &[4, 5, 6], 10), "half of three is one");
    }

    #[test]
    fn a_share_of_errors_ejects_without_a_series() {
        let by_share = OutlierParams { error_share: Some(0.4), consecutive_errors: 100, ..params() };
        let mut outliers = Outliers::default();
        let mut ejected_at = None;
        for attempt in 1..=60_u64 {
            if attempt % 2 == 0 {
                let failure = Failure { endpoint: 1, failing: Failing::ServerError, streak: 1, attempts: attempt };
                if outliers.observe(&failure, &UP, Duration::from_millis(attempt * 10), &by_share).is_some() {
                    ejected_at.get_or_insert(attempt);
                }
            }
        }
        assert_eq!(ejected_at, Some(22), "the window begins with the first failure, and needs twenty attempts");
        let sparse = OutlierParams { error_share: Some(0.6), ..by_share };
        let mut outliers = Outliers::default();
        for attempt in (2..=200_u64).step_by(2) {
            let failure = Failure { endpoint: 1, failing: Failing::ServerError, streak: 1, attempts: attempt };
            assert_eq!(outliers.observe(&failure, &UP, Duration::from_millis(attempt * 10), &sparse), None);
        }
    }

    #[test]
    fn only_what_is_named_counts() {
        let connects = OutlierParams { on: vec![Failing::Connect], ..params() };
        let mut outliers = Outliers::default();
        assert_eq!(outliers.observe(&failure(1, 9), &UP, at(0), &connects), None);
        let refused = Failure { failing: Failing::Connect, ..failure(1, 3) };
        assert!(outliers.observe(&refused, &UP, at(0), &connects).is_some());
    }

    #[test]
    fn failures_have_kinds() {
        for (kind, expected) in [
            (ErrorKind::ConnectTimeout, Some("connect")),
            (ErrorKind::TlsCertificate, Some("connect")),
            (ErrorKind::MalformedResponse("x"), Some("reset")),
            (ErrorKind::FirstByteTimeout, Some("timeout")),
            (ErrorKind::ClientGone, None),
            (ErrorKind::Overloaded, None),
        ] {
            assert_eq!(Failing::of_error(kind).map(Failing::token), expected, "{kind:?}");
        }
    }
}
