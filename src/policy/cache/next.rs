//! What happens to a request, given what stands in the store for it.
//!
//! The stage that looks up and the one that explains ask the same question here, so the two cannot differ. Facts that
//! cost something to learn are asked for only where the answer depends on them.

use super::CacheParams;
use super::bypass::{Participation, ReuseOnly};
use super::directives::RequestDirectives;
use super::refresh::Setback;
use super::reuse::{self, Reuse, Validate};
use super::stale::{self, Stale, StaleFacts};
use super::status::Forwarded;
use super::storing::Terms;
use crate::clock::Now;

/// What is stored under the key.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// A response that this request selects, on these terms.
    Selected(&'a Terms),
    /// Responses, but none that this request selects.
    OtherVariants,
    /// Nothing.
    Nothing,
}

/// What the decision rests on; the request is not one that passes the cache by.
#[derive(Debug, Clone, Copy)]
pub struct NextFacts<'a> {
    /// How far the cache takes part.
    pub participation: Participation,
    /// Of the client; after `ignore_request_directives`.
    pub request: &'a RequestDirectives,
    /// What is there.
    pub stored: Stored<'a>,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The stored response answers.
    Hit,
    /// The stored response answers although it is not fresh.
    Stale(Stale),
    /// Nothing stored may answer, and the client forbade fetching: 504.
    OnlyIfCached,
    /// It goes to the farm alone, and its answer is not stored.
    Alone(Forwarded, &'static str),
    /// It asks for a part of what is not stored: the farm sends that, unless the whole is on its way already.
    Part(Forwarded),
    /// One fetch for everybody who asks; what is stored is validated by it, for this reason.
    Fetch(Forwarded, Option<Validate>),
}

impl Next {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale(Stale { refresh: true, .. }) => "hit_stale_and_refresh",
            Self::Stale(_) => "hit_stale",
            Self::OnlyIfCached => "only_if_cached",
            Self::Alone(..) => "forward_alone",
            Self::Part(_) => "forward_part",
            Self::Fetch(_, None) => "fetch",
            Self::Fetch(_, Some(_)) => "validate",
        }
    }
}

/// What comes next. `setback` is that of the selected response, `refusal` why answers under the key were lately not
/// stored; neither is asked for a fresh response. Cost: a few comparisons.
#[must_use]
pub fn decide(
    facts: &NextFacts<'_>,
    setback: impl FnOnce() -> Option<Setback>,
    refusal: impl FnOnce() -> Option<&'static str>,
    params: &CacheParams,
    now: Now,
) -> Next {
    let (forwarded, validates) = match facts.stored {
        Stored::Selected(terms) => match reuse::decide(terms, facts.request, now) {
            Reuse::Fresh => return Next::Hit,
            needs @ (Reuse::OnlyIfCached(why) | Reuse::Validate(why)) => {
                let stale = StaleFacts { terms, request: facts.request, setback: setback() };
                if let Ok(stale) = stale::at_once(&stale, params, now) {
                    return Next::Stale(stale);
                }
                if matches!(needs, Reuse::OnlyIfCached(_)) {
                    return Next::OnlyIfCached;
                }
                (Forwarded::from(why), Some(why))
            }
        },
        Stored::OtherVariants => (Forwarded::VaryMiss, None),
        Stored::Nothing => (Forwarded::UriMiss, None),
    };
    let is_stored = matches!(facts.stored, Stored::Selected(_));
    if !is_stored && facts.request.only_if_cached {
        return Next::OnlyIfCached;
    }
    let is_part = match facts.participation {
        Participation::ReuseOnly(ReuseOnly::Range) => true,
        // What is stored is validated by it (RFC 9111 §4.3.5).
        Participation::ReuseOnly(ReuseOnly::Head) if is_stored => false,
        Participation::ReuseOnly(reason) => return Next::Alone(forwarded, reason.token()),
        Participation::Bypass(reason) => return Next::Alone(forwarded, reason.token()),
        Participation::Full => false,
    };
    if let Some(reason) = refusal() {
        return Next::Alone(forwarded, reason);
    }
    if is_part && !is_stored { Next::Part(forwarded) } else { Next::Fetch(forwarded, validates) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::tests::{headers, params, terms};
    use std::time::Duration;

    /// What is found, where a response on these terms may be.
    type Look = fn(&Terms) -> Stored<'_>;

    /// What happens to a GET with this `Cache-Control` while `stored`, fresh for 60 s and `age` seconds old, is there.
    fn check(age: u64, stored: Look, participation: Participation, request: &str) -> &'static str {
        let terms = terms();
        let now = terms.freshness.received.plus(Duration::from_secs(age));
        let request = RequestDirectives::parse(&headers(&[("cache-control", request)], Clock::System.now()));
        let facts = NextFacts { participation, request: &request, stored: stored(&terms) };
        let params = CacheParams { stale_while_revalidate: Some(Duration::from_secs(30)), ..params() };
        let next = decide(&facts, || None, || None, &params, now);
        let refused = decide(&facts, || None, || Some("private"), &params, now);
        let goes = matches!(next, Next::Part(_) | Next::Fetch(..));
        assert_eq!(matches!(refused, Next::Alone(_, "private")), goes, "a refusal concerns fetches alone: {refused:?}");
        next.token()
    }

    #[test]
    fn each_state_has_its_next() {
        use Participation::{Full, ReuseOnly as Some};
        let (selected, others, nothing): (Look, Look, Look) =
            (|terms| Stored::Selected(terms), |_| Stored::OtherVariants, |_| Stored::Nothing);
        for (age, stored, participation, request, expected) in [
            (0, selected, Full, "", "hit"),
            (0, selected, Full, "only-if-cached", "hit"),
            (0, selected, Full, "no-cache", "validate"),
            (60, selected, Full, "", "hit_stale_and_refresh"),
            (90, selected, Full, "", "hit_stale_and_refresh"),
            (91, selected, Full, "", "validate"),
            (91, selected, Full, "max-stale=40", "hit_stale"),
            (91, selected, Full, "only-if-cached", "only_if_cached"),
            (91, selected, Some(ReuseOnly::Range), "", "validate"),
            (91, selected, Some(ReuseOnly::Head), "", "validate"),
            (0, nothing, Some(ReuseOnly::Head), "", "forward_alone"),
            (91, selected, Some(ReuseOnly::RequestNoStore), "", "forward_alone"),
            (0, others, Full, "", "fetch"),
            (0, others, Full, "only-if-cached", "only_if_cached"),
            (0, nothing, Full, "", "fetch"),
            (0, nothing, Full, "only-if-cached", "only_if_cached"),
            (0, nothing, Some(ReuseOnly::Range), "", "forward_part"),
            (0, nothing, Some(ReuseOnly::RequestNoStore), "", "forward_alone"),
        ] {
            assert_eq!(check(age, stored, participation, request), expected, "{age} {participation:?} {request}");
        }
    }
}
