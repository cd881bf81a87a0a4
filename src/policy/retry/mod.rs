//! Whether a failed attempt may be repeated on another endpoint.
//!
//! The failure says what is safe ([`Retry`]), the operator what is wanted (`retry`), and both must agree:
//!
//! | failure                                | `on`            | method     |
//! |----------------------------------------|-----------------|------------|
//! | nothing was sent                       | `"connect"`     | any        |
//! | sent, then closed or reset             | `"reset"`       | idempotent |
//! | sent, no head in time                  | `"timeout"`     | idempotent |
//! | an answer with this status             | `"502"` …       | idempotent |
//!
//! Apart from that, a kept-alive connection that turns out closed before a byte of the answer is replaced once,
//! silently: the origin closing an idle connection is no failure, so `on` is not asked and no attempt is counted
//! (RFC 9112 §9.3.1). The method must be idempotent all the same, since the origin may have read the request.
//!
//! Neither is the origin's word that it has not looked at the request, in HTTP/2 (RFC 9113 §8.7): such a request is sent
//! once more, silently, whatever its method; a second such word counts as a reset.
//!
//! In every case the body must still be whole. Bound: `attempts` plus the one silent retry, and over the whole pool the
//! [`budget`].
//!
//! Before an attempt that puts load on the farm again there is a pause: any part of `backoff`, doubled with each attempt.
//! A 503 with `Retry-After` is given that time where it is short; where it is long the answer is the client's
//! (RFC 9110 §10.2.3).

pub mod budget;

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method};

use crate::error::{ErrorKind, ProxyError, Retry};

/// `retry`
#[derive(Debug, Clone, PartialEq)]
pub struct RetryParams {
    /// `attempts` in all, 1..=10.
    pub attempts: u32,
    /// `on` contains `"connect"`.
    pub on_connect: bool,
    /// `on` contains `"reset"`: closed or reset before the response head.
    pub on_reset: bool,
    /// `on` contains `"timeout"`: no head within `first_byte`.
    pub on_timeout: bool,
    /// `on` contains `"502"`, `"503"`, `"504"`.
    pub on_status: Vec<u16>,
    /// `budget` as a share 0..=1 of the pool's traffic.
    pub budget: f64,
    /// `backoff`: the pause before the second attempt is any part of it.
    pub backoff: Duration,
}

impl Default for RetryParams {
    fn default() -> Self {
        Self {
            attempts: 2,
            on_connect: true,
            on_reset: true,
            on_timeout: false,
            on_status: Vec::new(),
            budget: 0.2,
            backoff: Duration::from_millis(25),
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Without a response head.
    Error(ProxyError),
    /// With a response of this status.
    Status(u16),
}

/// What the decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct RetryFacts<'a> {
    /// How the last attempt ended.
    pub failure: Failure,
    /// The request's method.
    pub method: &'a Method,
    /// Attempts made so far, the failed one included, the silent retry not.
    pub attempts: u32,
    /// The silent retry has been used.
    pub silent_used: bool,
    /// The request body can be sent again from its first byte: there is none, none of it was taken, or it is kept.
    pub replayable: bool,
}

/// How the exchange goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Send again on a new connection, to the same endpoint if need be; not counted as an attempt.
    Silent,
    /// Make another attempt.
    Attempt,
}

/// Why the failure stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoRetry {
    /// The failure is the client's or came after part of an answer.
    Final,
    /// `on` does not name this failure.
    NotConfigured,
    /// The method is not idempotent and the origin may have acted.
    NotIdempotent,
    /// Part of the body is gone.
    BodySpent,
    /// `attempts` were made.
    AttemptsSpent,
    /// The origin wants to be left alone for longer than a client should wait here.
    ToldToWait,
}

impl NoRetry {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::NotConfigured => "not_configured",
            Self::NotIdempotent => "not_idempotent",
            Self::BodySpent => "body_spent",
            Self::AttemptsSpent => "attempts_spent",
            Self::ToldToWait => "told_to_wait",
        }
    }
}

/// Whether to send the request again.
///
/// # Errors
/// Why not.
pub fn may_retry(facts: &RetryFacts<'_>, params: &RetryParams) -> Result<Again, NoRetry> {
    let retry = match facts.failure {
        Failure::Error(error) => error.retry,
        Failure::Status(_) => Retry::IfIdempotent,
    };
    if retry == Retry::No {
        return Err(NoRetry::Final);
    }
    let silent = matches!(retry, Retry::StaleConnection | Retry::Unprocessed) && !facts.silent_used;
    if !silent && !is_wanted(facts.failure, params) {
        return Err(NoRetry::NotConfigured);
    }
    if !matches!(retry, Retry::NothingSent | Retry::Unprocessed) && !is_idempotent(facts.method) {
        return Err(NoRetry::NotIdempotent);
    }
    if !facts.replayable {
        return Err(NoRetry::BodySpent);
    }
    if silent {
        return Ok(Again::Silent);
    }
    if facts.attempts >= params.attempts {
        return Err(NoRetry::AttemptsSpent);
    }
    Ok(Again::Attempt)
}

/// No pause is longer, whether it is the back-off's or the origin's.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The pause before the next attempt. `retry_after` is what a 503 said; `random` is any number.
///
/// # Errors
/// `ToldToWait` when the origin asks for more time than there is.
pub fn pause(
    facts: &RetryFacts<'_>,
    retry_after: Option<Duration>,
    random: u64,
    params: &RetryParams,
) -> Result<Duration, NoRetry> {
    let told = retry_after.filter(|_| facts.failure == Failure::Status(503)).unwrap_or_default();
    if told > LONGEST_PAUSE {
        return Err(NoRetry::ToldToWait);
    }
    if is_unsent(facts.failure) {
        return Ok(Duration::ZERO);
    }
    let doubled = params.backoff.saturating_mul(1 << facts.attempts.saturating_sub(1).min(16));
    // 32 bits are plenty here, and convert without loss.
    let part = f64::from((random >> 32) as u32) / f64::from(u32::MAX);
    Ok(doubled.min(LONGEST_PAUSE).mul_f64(part).max(told))
}

/// True when nothing reached an origin: another attempt puts no load on the farm that it has not been spared.
#[must_use]
pub fn is_unsent(failure: Failure) -> bool {
    matches!(failure, Failure::Error(error) if error.retry == Retry::NothingSent)
}

/// `Retry-After` as a time to wait (RFC 9110 §10.2.3); `None` when there is none that can be read.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok().map(|at| at.duration_since(now).unwrap_or_default()),
    }
}

/// Whether `on` names the failure.
fn is_wanted(failure: Failure, params: &RetryParams) -> bool {
    match failure {
        Failure::Status(status) => params.on_status.contains(&status),
        Failure::Error(error) if error.retry == Retry::NothingSent => params.on_connect,
        Failure::Error(error) => match error.kind {
            ErrorKind::FirstByteTimeout | ErrorKind::ReadTimeout | ErrorKind::WriteTimeout => params.on_timeout,
            _ => params.on_reset,
        },
    }
}

/// True for methods that do the same when done twice (RFC 9110 §9.2.2 and the registry): all safe ones, PUT and DELETE.
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE" | "QUERY" | "PROPFIND" | "REPORT" | "SEARCH"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stage;

    fn error(kind: ErrorKind, retry: Retry) -> Failure {
        Failure::Error(ProxyError::new(kind, Stage::Forward).with_retry(retry))
    }

    #[test]
    fn failures_and_what_follows() {
        let refused = error(ErrorKind::ConnectRefused, Retry::NothingSent);
        let slow = error(ErrorKind::ConnectTimeout, Retry::NothingSent);
        let reset = error(ErrorKind::ConnectionReset, Retry::IfIdempotent);
        let late = error(ErrorKind::FirstByteTimeout, Retry::IfIdempotent);
        let stale = error(ErrorKind::ConnectionClosed, Retry::StaleConnection);
        let unseen = error(ErrorKind::ConnectionClosed, Retry::Unprocessed);
        let cut = error(ErrorKind::ResponseTruncated, Retry::No);
        let busy = Failure::Status(503);

        let base = RetryParams::default();
        let none = RetryParams { attempts: 5, on_connect: false, on_reset: false, ..RetryParams::default() };
        let all = RetryParams { on_timeout: true, on_status: vec![502, 503], ..RetryParams::default() };

        let (get, post) = (Method::GET, Method::POST);
        for (failure, params, method, expected) in [
            (refused, &base, &get, Ok(Again::Attempt)),
            (refused, &base, &post, Ok(Again::Attempt)),
            (slow, &base, &post, Ok(Again::Attempt)),
            (refused, &none, &get, Err(NoRetry::NotConfigured)),
            (reset, &base, &get, Ok(Again::Attempt)),
            (reset, &base, &post, Err(NoRetry::NotIdempotent)),
            (reset, &none, &get, Err(NoRetry::NotConfigured)),
            (late, &base, &get, Err(NoRetry::NotConfigured)),
            (late, &all, &get, Ok(Again::Attempt)),
            (late, &all, &post, Err(NoRetry::NotIdempotent)),
            (busy, &base, &get, Err(NoRetry::NotConfigured)),
            (busy, &all, &get, Ok(Again::Attempt)),
            (busy, &all, &post, Err(NoRetry::NotIdempotent)),
            (Failure::Status(504), &all, &get, Err(NoRetry::NotConfigured)),
            (stale, &none, &get, Ok(Again::Silent)),
            (stale, &base, &post, Err(NoRetry::NotIdempotent)),
            (unseen, &none, &get, Ok(Again::Silent)),
            (unseen, &none, &post, Ok(Again::Silent)),
            (cut, &all, &get, Err(NoRetry::Final)),
        ] {
            let facts = RetryFacts { failure, method, attempts: 1, silent_used: false, replayable: true };
            assert_eq!(may_retry(&facts, params), expected, "{facts:?}");
            if expected.is_ok() {
                let spent = RetryFacts { replayable: false, ..facts };
                assert_eq!(may_retry(&spent, params), Err(NoRetry::BodySpent), "{facts:?}");
            }
        }
    }

    #[test]
    fn attempts_are_bounded_and_the_silent_one_is_single() {
        let params = RetryParams::default();
        for (retry, attempts, silent_used, expected) in [
            (Retry::NothingSent, 1, false, Ok(Again::Attempt)),
            (Retry::NothingSent, 2, false, Err(NoRetry::AttemptsSpent)),
            (Retry::StaleConnection, 2, false, Ok(Again::Silent)),
            (Retry::StaleConnection, 1, true, Ok(Again::Attempt)),
            (Retry::StaleConnection, 2, true, Err(NoRetry::AttemptsSpent)),
            (Retry::Unprocessed, 2, false, Ok(Again::Silent)),
            (Retry::Unprocessed, 2, true, Err(NoRetry::AttemptsSpent)),
        ] {
            let failure = error(ErrorKind::ConnectionClosed, retry);
            let facts = RetryFacts { failure, method: &Method::GET, attempts, silent_used, replayable: true };
            assert_eq!(may_retry(&facts, &params), expected, "{facts:?}");
        }
    }

    #[test]
    fn pauses_grow_and_heed_the_origin() {
        let params = RetryParams { backoff: Duration::from_millis(100), ..RetryParams::default() };
        let reset = error(ErrorKind::ConnectionReset, Retry::IfIdempotent);
        let refused = error(ErrorKind::ConnectRefused, Retry::NothingSent);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (failure, attempts, told, random, expected) in [
            (reset, 1, None, u64::MAX, Ok(100)),
            (reset, 1, None, u64::MAX / 2, Ok(50)),
            (reset, 1, None, 0, Ok(0)),
            (reset, 3, None, u64::MAX, Ok(400)),
            (reset, 9, None, u64::MAX, Ok(1000)),
            (refused, 1, None, u64::MAX, Ok(0)),
            (Failure::Status(503), 1, seconds(1), 0, Ok(1000)),
            (Failure::Status(503), 1, seconds(2), 0, Err(NoRetry::ToldToWait)),
            (Failure::Status(502), 1, seconds(9), 0, Ok(0)),
        ] {
            let facts = RetryFacts { failure, method: &Method::GET, attempts, silent_used: false, replayable: true };
            let found = pause(&facts, told, random, &params).map(|pause| pause.as_millis());
            assert_eq!(found, expected, "{failure:?} {attempts} {told:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, expected) in [
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, http::HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn idempotent_methods() {
        for (method, expected) in
            [("GET", true), ("QUERY", true), ("DELETE", true), ("POST", false), ("PATCH", false), ("get", false)]
        {
            assert_eq!(is_idempotent(&method.parse().expect("a method")), expected, "{method}");
        }
    }
}
