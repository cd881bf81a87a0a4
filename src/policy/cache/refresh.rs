//! When a stored response is fetched anew behind the answers it gives: how soon again after a failure.
//!
//! A try that fails is a [`Setback`], kept with the stored response. Behind it nobody asks the origin for this response
//! until a pause is over: [`FIRST_PAUSE`], doubled by each further failure, at most [`LONGEST_PAUSE`]. One object thus
//! costs a dying origin at most one request a pause, over all workers, however many clients want it.

use std::time::Duration;

use super::stale::Trouble;
use crate::clock::Now;

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
