//! An optimiser that fails again and again on what one URL brings is left out there for a while.

use std::time::Duration;

use crate::clock::Now;

/// Failures within [`WITHIN`] that lead to quarantine.
const STRIKES: u32 = 3;
/// How long a failure counts.
const WITHIN: Duration = Duration::from_secs(3600);
/// How long the quarantine lasts.
pub const TERM: Duration = Duration::from_secs(24 * 3600);

/// What is remembered of one optimiser on one URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    strikes: u32,
    /// When the first of them came.
    first: Now,
    /// Since when it is in quarantine.
    since: Option<Now>,
}

impl Record {
    /// The record after a failure at `now`; `former` is what was remembered.
    #[must_use]
    pub fn after(former: Option<Self>, now: Now) -> Self {
        let fresh = Self { strikes: 0, first: now, since: None };
        let record = former.filter(|record| !record.is_over(now)).unwrap_or(fresh);
        let strikes = record.strikes.saturating_add(1);
        Self { strikes, since: record.since.or((strikes >= STRIKES).then_some(now)), ..record }
    }

    /// Since when it is in quarantine; `None` while it is not, or no longer.
    #[must_use]
    pub fn since(self, now: Now) -> Option<Now> {
        self.since.filter(|_| !self.is_over(now))
    }

    /// True when it says nothing any more.
    #[must_use]
    pub fn is_over(self, now: Now) -> bool {
        let (since, lasts) = match self.since {
            Some(since) => (since, TERM),
            None => (self.first, WITHIN),
        };
        now.since(since) >= lasts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn three_failures_within_an_hour_are_a_day() {
        let start = Clock::System.now();
        let at = |minutes: u64| start.plus(Duration::from_secs(60 * minutes));
        let record = |times: &[u64]| times.iter().fold(None, |former, time| Some(Record::after(former, at(*time))));
        let held = |times: &[u64], now: u64| record(times).and_then(|record| record.since(at(now))).is_some();
        assert!(!held(&[0, 1], 1));
        assert!(held(&[0, 1, 2], 2));
        assert!(!held(&[0, 1, 61], 61), "the first is forgotten after an hour");
        assert!(held(&[0, 1, 2], 2 + 24 * 60 - 1));
        assert!(!held(&[0, 1, 2], 2 + 24 * 60));
        assert!(!held(&[0, 1, 2, 3 + 24 * 60], 3 + 24 * 60), "and begins anew");
        assert!(record(&[0]).is_some_and(|record| record.is_over(at(60))));
    }
}
