//! Adaptive concurrency: how many exchanges a pool takes at once, found out from how long it makes them wait.
//!
//! As long as latency stays near the least seen in this minute and the one before, the limit grows by a few exchanges a
//! window; when it rises, work is queueing behind the pool, and the limit shrinks in proportion. Failures shrink it as
//! well. A window in which the limit was not half used says nothing about it. Every minute begins with half the limit, so
//! that a pool that is always full still shows what it does without a queue; one that has become slower for good is
//! believed after two minutes at most.

use std::time::Duration;

/// Shortest window; a decision needs that and [`SAMPLES`].
const WINDOW: Duration = Duration::from_millis(100);

/// Fewest answers a decision rests on.
const SAMPLES: u32 = 10;

/// How long the least latency is believed, once more after that, and then no more.
const MEMORY: Duration = Duration::from_secs(60);

/// How far latency may rise above the least before the limit shrinks: noise is not a queue.
const TOLERANCE: f64 = 1.5;

/// The part that one window has in the limit.
const STEP: f64 = 0.2;

/// The share of failures beyond which a window counts as overload, and what it leaves of the limit.
const FAILURES: f64 = 0.1;
const BACK_OFF: f64 = 0.8;

/// `adaptive`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveParams {
    /// `min`: never fewer, where it begins.
    pub min: u32,
    /// `max`: never more.
    pub max: u32,
}

/// The limit of one pool. The owner publishes what [`Adaptive::observe`] returns.
#[derive(Debug, Clone, Copy, Default)]
pub struct Adaptive {
    /// 0 = not begun.
    limit: f64,
    /// Least mean latency of a window in this stretch of [`MEMORY`], in seconds; 0 = not known.
    least: f64,
    /// The same of the stretch before.
    before: f64,
    /// When this stretch began.
    since: Duration,
    window: Window,
}

/// What has come since the last decision.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    begun: Duration,
    seconds: f64,
    samples: u32,
    failures: u32,
    in_flight: u32,
}

impl Adaptive {
    /// The limit in force.
    #[must_use]
    pub fn limit(&self, params: &AdaptiveParams) -> u32 {
        (self.limit as u32).clamp(params.min, params.max)
    }

    /// Takes one attempt that ended: how long it took to its head, whether it failed, and how many were in flight. `now`
    /// counts from anywhere. Returns the new limit when a window has ended.
    pub fn observe(
        &mut self,
        took: Duration,
        failed: bool,
        in_flight: u32,
        now: Duration,
        params: &AdaptiveParams,
    ) -> Option<u32> {
        let window = &mut self.window;
        if window.samples == 0 {
            window.begun = now;
        }
        window.samples += 1;
        window.seconds += took.as_secs_f64();
        window.failures += u32::from(failed);
        window.in_flight = window.in_flight.max(in_flight);
        if window.samples < SAMPLES || now.saturating_sub(window.begun) < WINDOW {
            return None;
        }
        let ended = std::mem::take(window);
        self.decide(&ended, now, params);
        Some(self.limit(params))
    }

    fn decide(&mut self, ended: &Window, now: Duration, params: &AdaptiveParams) {
        let (min, max) = (f64::from(params.min), f64::from(params.max));
        let limit = self.limit.clamp(min, max);
        let samples = f64::from(ended.samples);
        // A time of zero would divide; no answer takes less than a microsecond.
        let short = (ended.seconds / samples).max(1e-6);
        if f64::from(ended.failures) > FAILURES * samples {
            self.limit = (limit * BACK_OFF).clamp(min, max);
            return;
        }
        let known = |latency: f64| if latency == 0.0 { short } else { latency };
        if now.saturating_sub(self.since) >= MEMORY {
            (self.before, self.least, self.since) = (self.least, 0.0, now);
            self.limit = (limit / 2.0).clamp(min, max);
            return;
        }
        self.least = known(self.least).min(short);
        let gradient = (TOLERANCE * self.least.min(known(self.before)) / short).clamp(0.5, 1.0);
        if gradient == 1.0 && f64::from(ended.in_flight) < limit / 2.0 {
            return;
        }
        let wanted = limit * gradient + limit.sqrt();
        self.limit = (limit + STEP * (wanted - limit)).clamp(min, max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: AdaptiveParams = AdaptiveParams { min: 4, max: 200 };

    /// A pool that serves `capacity` at once in 10 ms each and queues the rest, kept full for some windows.
    fn drive(state: &mut Adaptive, now: &mut Duration, capacity: u32, windows: u32, fail: bool) -> u32 {
        for _ in 0..windows * 20 {
            let limit = state.limit(&PARAMS);
            let took = Duration::from_millis(10).mul_f64(f64::from(limit.max(capacity)) / f64::from(capacity));
            *now += Duration::from_millis(6);
            state.observe(took, fail, limit, *now, &PARAMS);
        }
        state.limit(&PARAMS)
    }

    #[test]
    fn the_limit_finds_what_the_pool_can_do() {
        let (mut state, mut now) = (Adaptive::default(), Duration::ZERO);
        assert_eq!(state.limit(&PARAMS), 4, "it begins at the least");
        let found = drive(&mut state, &mut now, 50, 200, false);
        assert!((50..=110).contains(&found), "near the capacity of 50: {found}");
        let less = drive(&mut state, &mut now, 10, 12, false);
        assert!(less < found / 2, "a pool that slows down gets less: {less} of {found}");
        let long = drive(&mut state, &mut now, 50, 5_000, false);
        assert!((50..=110).contains(&long), "after ten minutes of being full: {long}");
    }

    #[test]
    fn what_is_slow_for_good_is_believed() {
        let (mut state, mut now) = (Adaptive::default(), Duration::ZERO);
        let mut slow = |millis: u64, windows: u32| {
            for _ in 0..windows * 20 {
                now += Duration::from_millis(6);
                let in_flight = state.limit(&PARAMS);
                state.observe(Duration::from_millis(millis), false, in_flight, now, &PARAMS);
            }
            state.limit(&PARAMS)
        };
        assert_eq!(slow(10, 500), 200);
        assert!(slow(40, 60) < 60, "at first it looks like a queue");
        assert_eq!(slow(40, 1_500), 200, "three minutes later it is what the pool does");
    }

    #[test]
    fn failures_shrink_it_and_bounds_hold() {
        let (mut state, mut now) = (Adaptive::default(), Duration::ZERO);
        assert_eq!(drive(&mut state, &mut now, 1000, 500, false), 200, "never more than max");
        assert_eq!(drive(&mut state, &mut now, 1000, 30, true), 4, "and never fewer than min");
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut state = Adaptive::default();
        for step in 1..1000_u32 {
            state.observe(Duration::from_millis(5), false, 1, Duration::from_millis(u64::from(step) * 20), &PARAMS);
        }
        assert_eq!(state.limit(&PARAMS), 4);
    }
}
