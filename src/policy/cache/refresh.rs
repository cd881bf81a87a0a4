//! When a stored response is fetched anew behind the answers it gives: how long before it is stale, and how soon again
//! after a failure.
//!
//! *Early*: each hit near the end of the lifetime draws lots, and the chance grows towards the end, the sooner the longer
//! the origin took to answer (XFetch: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede
//! Prevention", VLDB 2015). What is asked for often is thus renewed before anybody has to wait for it; what is asked for
//! seldom is hardly ever renewed in vain. It never happens before the last [`EARLY_SHARE`] of the lifetime, so that an
//! origin is asked at most a ninth more often than without it.
//!
//! A try that fails is a [`Setback`], kept with the stored response. Behind it nobody asks the origin for this response
//! until a pause is over: [`FIRST_PAUSE`], doubled by each further failure, at most [`LONGEST_PAUSE`]. One object thus
//! costs a dying origin at most one request a pause, over all workers, however many clients want it.

use std::time::Duration;

use super::stale::Trouble;
use super::storing::Terms;
use crate::clock::Now;

/// The last part of a lifetime in which a response may be fetched anew, as a divisor.
pub const EARLY_SHARE: u32 = 10;

/// Whether a fresh response is fetched anew behind the answer it gives now. `random` is uniform over all its values; it is
/// asked for only near the end of the lifetime. Cost before that: a few comparisons.
#[must_use]
pub fn is_due_early(terms: &Terms, random: impl FnOnce() -> u64, now: Now) -> bool {
    let lifetime = terms.freshness.lifetime.duration;
    let left = lifetime.saturating_sub(terms.freshness.age(now));
    if left > lifetime / EARLY_SHARE || terms.took.is_zero() {
        return false;
    }
    // The upper 53 bits are what a double holds; never zero, whose logarithm is infinite.
    let lot = ((random() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    left.as_secs_f64() <= terms.took.as_secs_f64() * -lot.ln()
}

/// Pause behind the first failure: long enough for a busy object to spare its origin nearly everything, short enough for
/// nobody to notice once the origin is back.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Pause behind the fifth failure in a row and all later ones.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// How long a failure says something about the present. While it does, clients are answered stale, where that is granted,
/// and the next try runs behind their answers; later the origin is asked first again.
pub const MEMORY: Duration = Duration::from_secs(60);

/// A try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setback {
    /// What the origin suffers from; `None` when it answered with something that cannot be kept.
    pub trouble: Option<Trouble>,
    at: Now,
    /// How many failed in a row, each within [`MEMORY`] of the one before.
    failures: u32,
}

impl Setback {
    /// The state behind a failure at `now`; `before` is the one there was.
    #[must_use]
    pub fn after(before: Option<Self>, trouble: Option<Trouble>, now: Now) -> Self {
        let before = before.filter(|before| before.counts(now)).map_or(0, |before| before.failures);
        Self { trouble, at: now, failures: before.saturating_add(1) }
    }

    /// True while no further try should be made.
    #[must_use]
    pub fn rests(&self, now: Now) -> bool {
        let doublings = self.failures.saturating_sub(1).min(8);
        now.since(self.at) < (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE)
    }

    /// True while it says something about the present.
    #[must_use]
    pub fn counts(&self, now: Now) -> bool {
        now.since(self.at) < MEMORY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn the_nearer_the_end_and_the_slower_the_origin_the_likelier() {
        // A lot at which -ln is about 1: 1/e of all values.
        let (never, mean, rare) = (u64::MAX, (u64::MAX as f64 / std::f64::consts::E) as u64, 0);
        for (took, left, random, expected) in [
            (1000, 900, mean, true),
            (1000, 1100, mean, false),
            (1000, 1100, mean / 2, true),
            (100, 110, mean, false),
            (1000, 1, never, false),
            (1000, 6000, rare, true),
            (1000, 6001, rare, false),
            (100, 3600, rare, true),
            (100, 3700, rare, false),
            (0, 1, rare, false),
        ] {
            let mut terms = crate::policy::cache::tests::terms();
            terms.took = Duration::from_millis(took);
            let expiry = terms.freshness.received.plus(Duration::from_secs(60));
            let now = Now { mono: expiry.mono - Duration::from_millis(left), ..expiry };
            assert_eq!(is_due_early(&terms, || random, now), expected, "{took} ms, {left} ms left, {random}");
        }
        let terms = crate::policy::cache::tests::terms();
        let unasked = || panic!("no lots are drawn in the first nine tenths");
        assert!(!is_due_early(&terms, unasked, terms.freshness.received.plus(Duration::from_secs(53))));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_forgotten() {
        let mut now = Clock::System.now();
        let mut setback = Setback::after(None, Some(Trouble::Error), now);
        for pause in [1, 2, 4, 8, 16, 16, 16] {
            let almost = now.plus(Duration::from_millis(pause * 1000 - 1));
            let over = now.plus(Duration::from_secs(pause));
            assert!(setback.rests(almost) && !setback.rests(over), "{pause}");
            now = over;
            setback = Setback::after(Some(setback), None, now);
        }
        assert_eq!(setback.trouble, None);
        assert!(setback.counts(now.plus(Duration::from_secs(59))) && !setback.counts(now.plus(MEMORY)));
        let later = now.plus(MEMORY);
        assert!(!Setback::after(Some(setback), None, later).rests(later.plus(FIRST_PAUSE)), "counted from one again");
    }
}
