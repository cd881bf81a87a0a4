//! Peak EWMA: the smallest latency × (in_flight + 1) / weight.
//!
//! An endpoint's latency is an estimate that jumps to every peak at once and comes down slowly: a weighted mean whose
//! older part loses 1/e of its weight each [`DECAY`]. An endpoint that nobody asks decays likewise, so that one that was
//! slow is tried again; one that owes an answer does not, since silence is no sign of speed. Measured is the time from the
//! end of the request to the response head. One that was given up counts as at least the time it had; one that failed, or
//! was answered with 5xx, as at least `FAILURE`: who refuses quickly is not quick.
//!
//! An endpoint of which nothing is known gets one exchange to learn from, and more when everybody else is worse than
//! that.

use std::time::Duration;

use super::EndpointView;

/// In this time an estimate loses all but 1/e of what it was: long enough to remember a stall, short enough to notice
/// within a few probes' time that it is over.
pub const DECAY: Duration = Duration::from_secs(10);

/// What a failed attempt counts as at least.
const FAILURE: Duration = Duration::from_secs(1);

/// What an endpoint that is being learnt of counts as meanwhile, in microseconds: worse than any that answers.
const UNKNOWN: u64 = 60_000_000;

/// An endpoint's latency as estimated at some moment. Two numbers of 32 bits, so that the owner keeps it in one atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// Microseconds; 0 = nothing known.
    micros: u32,
    /// Milliseconds of the owner's clock, wrapping.
    at: u32,
}

impl Latency {
    /// From what [`Latency::to_bits`] gave.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self { micros: (bits >> 32) as u32, at: bits as u32 }
    }

    /// Both numbers in one; 0 = nothing known.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        (u64::from(self.micros) << 32) | u64::from(self.at)
    }

    /// The estimate after one more attempt. `now` is milliseconds of any clock that starts anywhere and may wrap.
    #[must_use]
    pub fn observe(self, took: Duration, failed: bool, now: u32) -> Self {
        let took = if failed { took.max(FAILURE) } else { took };
        let sample = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        if sample >= self.micros {
            return Self { micros: sample, at: now };
        }
        let kept = self.kept(now);
        let mean = f64::from(self.micros) * kept + f64::from(sample) * (1.0 - kept);
        Self { micros: (mean as u32).max(1), at: now }
    }

    /// The estimate after an attempt that was given up unanswered: it would have taken longer than `took`, however much
    /// longer. That can only raise the estimate.
    #[must_use]
    pub fn at_least(self, took: Duration, now: u32) -> Self {
        let bound = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if bound > self.micros(now) { Self { micros: bound, at: now } } else { self }
    }

    /// The estimate in microseconds when it was made; 0 = nothing known.
    #[must_use]
    pub fn undecayed(self) -> u32 {
        self.micros
    }

    /// The estimate in microseconds as of `now`; 0 = nothing known.
    #[must_use]
    pub fn micros(self, now: u32) -> u32 {
        match self.micros {
            0 => 0,
            micros => ((f64::from(micros) * self.kept(now)) as u32).max(1),
        }
    }

    /// How much of the estimate is left.
    fn kept(self, now: u32) -> f64 {
        (-f64::from(now.wrapping_sub(self.at)) / (DECAY.as_secs_f64() * 1000.0)).exp()
    }
}

#[derive(Debug, Default)]
pub(super) struct PeakEwma {
    /// Where the search starts: one behind the last pick, so that equals take turns.
    start: usize,
}

impl PeakEwma {
    pub(super) fn choose(&mut self, views: &[EndpointView], may: impl Fn(&EndpointView) -> bool) -> Option<usize> {
        let turned = views.iter().enumerate().skip(self.start).chain(views.iter().enumerate().take(self.start));
        let mut best: Option<(usize, &EndpointView)> = None;
        for (index, view) in turned.filter(|(_, view)| may(view)) {
            if best.is_none_or(|(_, least)| costs_less(view, least)) {
                best = Some((index, view));
            }
        }
        let (index, _) = best?;
        self.start = index + 1;
        Some(index)
    }
}

/// Compares the two costs without dividing.
fn costs_less(one: &EndpointView, other: &EndpointView) -> bool {
    let cost = |view: &EndpointView| match (view.latency, view.in_flight) {
        (0, 0) => 0,
        (0, in_flight) => u128::from(UNKNOWN) * (u128::from(in_flight) + 1),
        (micros, in_flight) => u128::from(micros) * (u128::from(in_flight) + 1),
    };
    cost(one) * u128::from(other.weight) < cost(other) * u128::from(one.weight)
}

#[cfg(test)]
mod tests {
    use super::super::tests::up;
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn peaks_count_at_once_and_fade() {
        let calm = Latency::default().observe(ms(2), false, 0);
        assert_eq!(calm.micros(0), 2_000);
        let peak = calm.observe(ms(500), false, 10);
        assert_eq!(peak.micros(10), 500_000, "at once");
        let decayed = peak.micros(10 + 10_000);
        assert!(decayed.abs_diff(183_939) <= 1, "1/e after the decay time: {decayed}");
        let after = peak.observe(ms(2), false, 1_010);
        assert!((450_000..455_000).contains(&after.micros(1_010)), "one good answer forgives little: {after:?}");
        assert_eq!(Latency::from_bits(peak.to_bits()), peak);
        assert_eq!(Latency::default().micros(99), 0, "nothing is known");
        assert_eq!(calm.micros(u32::MAX), 1, "and what is known never fades to nothing");
    }

    #[test]
    fn a_clock_that_wraps_is_no_leap() {
        let before = Latency::default().observe(ms(100), false, u32::MAX - 4);
        assert!(before.micros(5) > 99_000, "ten milliseconds later");
    }

    #[test]
    fn failures_are_slow_however_quick_they_were() {
        let failed = Latency::default().observe(ms(1), true, 0);
        assert_eq!(failed.micros(0), 1_000_000);
        assert_eq!(failed.observe(ms(3_000), true, 0).micros(0), 3_000_000);
    }

    #[test]
    fn what_was_given_up_can_only_make_it_worse() {
        let known = Latency::default().observe(ms(100), false, 0);
        assert_eq!(known.at_least(ms(5), 10), known, "given up before it was due");
        assert_eq!(known.at_least(ms(5_000), 5_000).micros(5_000), 5_000_000);
        assert_eq!(Latency::default().at_least(ms(7), 3).micros(3), 7_000);
        assert_eq!(known.at_least(ms(60), 10_000).micros(10_000), 60_000, "it had decayed to less");
        assert_eq!(known.undecayed(), 100_000);
    }

    #[test]
    fn the_cheapest_is_taken() {
        let view = |latency, in_flight, weight| EndpointView { latency, in_flight, ..up(weight) };
        for (views, expected) in [
            (vec![view(500_000, 0, 1), view(2_000, 0, 1)], 1),
            (vec![view(2_000, 4, 1), view(2_000, 1, 1)], 1),
            (vec![view(2_000, 0, 1), view(2_000, 0, 3)], 1),
            (vec![view(2_000, 0, 1), view(0, 0, 1)], 1),
            (vec![view(2_000, 0, 1), view(0, 1, 1)], 0),
            (vec![view(0, 3, 1), view(0, 1, 1)], 1),
            (vec![view(1_000, 300, 1), view(250_000, 0, 1)], 1),
        ] {
            assert_eq!(PeakEwma::default().choose(&views, |_| true), Some(expected), "{views:?}");
        }
        let equal = [view(9, 0, 1), view(9, 0, 1), view(9, 0, 1)];
        let mut state = PeakEwma::default();
        let turns: Vec<_> = (0..4).filter_map(|_| state.choose(&equal, |_| true)).collect();
        assert_eq!(turns, [0, 1, 2, 0], "equals take turns");
    }
}
