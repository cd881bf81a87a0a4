//! Whether a stored response may answer a request without asking the origin (RFC 9111 §4.2, §5.2.1).
//!
//! A stored response that would need a validation may still answer at once: that is for [`super::stale`] to say.

use super::directives::RequestDirectives;
use super::storing::Terms;
use crate::clock::Now;

/// What may be done with a stored response that matches the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Answer with it.
    Fresh,
    /// Ask the origin whether it still holds.
    Validate(Validate),
    /// It would need a validation, and the client forbade asking (`only-if-cached`): 504.
    OnlyIfCached(Validate),
}

/// Why a stored response needs a validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validate {
    /// It is stale.
    Stale,
    /// It was softly purged.
    Purged,
    /// It was stored with `no-cache`.
    NoCache,
    /// The client said `no-cache`.
    RequestNoCache,
    /// It is older than the client's `max-age`.
    RequestMaxAge,
    /// It is not fresh for as long as the client's `min-fresh`.
    RequestMinFresh,
}

impl Validate {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Purged => "purged",
            Self::NoCache => "no_cache",
            Self::RequestNoCache => "request_no_cache",
            Self::RequestMaxAge => "request_max_age",
            Self::RequestMinFresh => "request_min_fresh",
        }
    }

    /// True when the client's wish is the reason, not the state of the stored response.
    #[must_use]
    pub fn is_wish(self) -> bool {
        matches!(self, Self::RequestNoCache | Self::RequestMaxAge | Self::RequestMinFresh)
    }
}

/// What may be done with a stored response on these terms. Cost: a few comparisons.
#[must_use]
pub fn decide(terms: &Terms, request: &RequestDirectives, now: Now) -> Reuse {
    let Some(reason) = needs_validation(terms, request, now) else { return Reuse::Fresh };
    if request.only_if_cached { Reuse::OnlyIfCached(reason) } else { Reuse::Validate(reason) }
}

fn needs_validation(terms: &Terms, request: &RequestDirectives, now: Now) -> Option<Validate> {
    let age = terms.freshness.age(now);
    let left = terms.freshness.lifetime.duration.saturating_sub(age);
    if terms.no_cache {
        return Some(Validate::NoCache);
    }
    if !terms.freshness.is_fresh(now) {
        return Some(Validate::Stale);
    }
    if terms.purged {
        return Some(Validate::Purged);
    }
    if request.no_cache {
        return Some(Validate::RequestNoCache);
    }
    if request.max_age.is_some_and(|limit| age > limit) {
        return Some(Validate::RequestMaxAge);
    }
    request.min_fresh.is_some_and(|wanted| left < wanted).then_some(Validate::RequestMinFresh)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::freshness::{Freshness, Lifetime, LifetimeSource};
    use crate::policy::cache::tests::headers;
    use std::time::Duration;

    /// A response fresh for 60 s that is `age` seconds old.
    fn check(age: u64, no_cache: bool, request: &str) -> Reuse {
        let received = Clock::System.now();
        let lifetime = Lifetime { duration: Duration::from_secs(60), source: LifetimeSource::MaxAge };
        let freshness = Freshness { lifetime, initial_age: Duration::ZERO, received };
        let request = RequestDirectives::parse(&headers(&[("cache-control", request)], received));
        let terms = Terms { freshness, no_cache, ..crate::policy::cache::tests::terms() };
        decide(&terms, &request, received.plus(Duration::from_secs(age)))
    }

    #[test]
    fn decisions() {
        use Reuse::{Fresh, OnlyIfCached, Validate as Ask};
        for (age, no_cache, request, expected) in [
            (0, false, "", Fresh),
            (59, false, "", Fresh),
            (60, false, "", Ask(Validate::Stale)),
            (60, false, "max-stale=100", Ask(Validate::Stale)),
            (60, false, "max-stale", Ask(Validate::Stale)),
            (1, true, "", Ask(Validate::NoCache)),
            (1, false, "no-cache", Ask(Validate::RequestNoCache)),
            (10, false, "max-age=10", Fresh),
            (10, false, "max-age=9", Ask(Validate::RequestMaxAge)),
            (10, false, "max-age=0", Ask(Validate::RequestMaxAge)),
            (10, false, "min-fresh=50", Fresh),
            (10, false, "min-fresh=51", Ask(Validate::RequestMinFresh)),
            (10, false, "only-if-cached", Fresh),
            (60, false, "only-if-cached", OnlyIfCached(Validate::Stale)),
            (10, false, "no-store", Fresh),
        ] {
            assert_eq!(check(age, no_cache, request), expected, "age {age} {request}");
        }
    }
}
