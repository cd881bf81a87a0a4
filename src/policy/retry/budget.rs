//! The retry budget: repeated attempts are a share of the live traffic, so that a farm in trouble is not drowned by those
//! who ask it again.
//!
//! Counted are the last five to ten seconds, in two stretches. What costs nothing is not charged: an attempt that reached
//! nobody (no connection) puts no load on the farm, and going elsewhere is the first load it makes.

use std::time::Duration;

/// Length of a stretch.
const STRETCH: Duration = Duration::from_secs(5);

/// Retries that are always allowed in the time looked at: at a few requests a second a share of them is less than one.
pub const FLOOR: u64 = 10;

/// The budget of one pool. Traffic is not counted here but read: attempts ever made, as the caller has counted them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    before: Stretch,
    running: Stretch,
    /// When `running` began, on the caller's clock, and the attempts before that.
    since: Duration,
    base: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    attempts: u64,
    retries: u64,
}

impl Budget {
    /// To be called now and then, so that what is known of the traffic is never older than two stretches. `attempts` is
    /// the number ever made; it may fall when endpoints leave.
    pub fn follow(&mut self, attempts: u64, now: Duration) {
        self.running.attempts = attempts.saturating_sub(self.base);
        let elapsed = now.saturating_sub(self.since);
        if elapsed < STRETCH {
            return;
        }
        self.before = if elapsed < 2 * STRETCH { self.running } else { Stretch::default() };
        (self.running, self.since, self.base) = (Stretch::default(), now, attempts);
    }

    /// Takes one retry out of the budget, which is the share `share` (0..=1) of the exchanges. False when it is spent.
    pub fn take(&mut self, attempts: u64, now: Duration, share: f64) -> bool {
        self.follow(attempts, now);
        let retries = self.before.retries + self.running.retries;
        let exchanges = (self.before.attempts + self.running.attempts).saturating_sub(retries);
        let allowed = ((exchanges as f64 * share) as u64).max(FLOOR);
        let within = retries < allowed;
        self.running.retries += u64::from(within);
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// How many retries are allowed at this moment; each is one attempt more.
    fn drain(budget: &mut Budget, attempts: u64, now: Duration) -> u64 {
        (0..10_000).take_while(|made| budget.take(attempts + made, now, 0.2)).count() as u64
    }

    #[test]
    fn retries_are_a_share_of_the_traffic() {
        let mut budget = Budget::default();
        assert_eq!(drain(&mut budget, 0, at(0)), FLOOR, "some are always allowed");
        let mut budget = Budget::default();
        budget.follow(0, at(10));
        assert_eq!(drain(&mut budget, 1000, at(11)), 200);
        assert_eq!(drain(&mut budget, 1400, at(12)), 40, "a fifth of what is new; the retries are among the attempts");
    }

    #[test]
    fn what_is_long_ago_counts_no_more() {
        let mut budget = Budget::default();
        budget.follow(0, at(10));
        assert_eq!(drain(&mut budget, 1000, at(14)), 200);
        assert_eq!(drain(&mut budget, 1200, at(16)), 0, "the stretch before counts");
        budget.follow(1200, at(21));
        assert_eq!(drain(&mut budget, 1200, at(22)), FLOOR, "and the one before that does not");
        budget.follow(5000, at(90));
        assert_eq!(drain(&mut budget, 5000, at(91)), FLOOR, "nor what came in a time nobody watched");
        assert_eq!(drain(&mut budget, 10, at(92)), 0, "endpoints that leave take their counts with them");
    }
}
