//! Active health: the verdict that a series of probes adds up to.
//!
//! An endpoint counts as healthy until probes say otherwise: `fall` failures in a row make it sick, `rise` successes in
//! a row make it healthy again. One contrary outcome resets the count, so a flapping endpoint keeps its verdict.

use std::time::Duration;

use super::HealthParams;

/// How far two probes of one interval may differ: a tenth either way keeps the probes of many endpoints, workers and
/// nodes from falling into step.
const JITTER: f64 = 0.1;

/// A changed verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// `rise` successes in a row.
    Rose,
    /// `fall` failures in a row.
    Fell,
}

/// The verdict on one endpoint and how close it is to being overturned. The owner publishes [`ActiveHealth::is_healthy`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveHealth {
    healthy: bool,
    /// Outcomes in a row that speak against the verdict.
    contrary: u32,
}

impl Default for ActiveHealth {
    fn default() -> Self {
        Self { healthy: true, contrary: 0 }
    }
}

impl ActiveHealth {
    /// Goes on from a verdict that stands: an endpoint that comes back is not well for having been away.
    #[must_use]
    pub fn standing(healthy: bool) -> Self {
        Self { healthy, contrary: 0 }
    }

    /// The verdict; true before the first one.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// True while nothing speaks against the endpoint; otherwise it is worth looking more often.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.healthy && self.contrary == 0
    }

    /// Takes the outcome of one probe.
    pub fn observe(&mut self, passed: bool, params: &HealthParams) -> Option<Transition> {
        if passed == self.healthy {
            self.contrary = 0;
            return None;
        }
        self.contrary = self.contrary.saturating_add(1);
        let needed = if self.healthy { params.fall } else { params.rise };
        if self.contrary < needed {
            return None;
        }
        *self = Self { healthy: passed, contrary: 0 };
        Some(if passed { Transition::Rose } else { Transition::Fell })
    }
}

/// The wait before the next probe: `interval` give or take a tenth. `random` is any number.
#[must_use]
pub fn next_delay(interval: Duration, random: u64) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * fraction(random))
}

/// The wait before the first probe: short, as the endpoint takes traffic unchecked until then.
#[must_use]
pub fn first_delay(interval: Duration, random: u64) -> Duration {
    interval.mul_f64(JITTER * fraction(random))
}

/// `random` as a fraction in 0..1.
fn fraction(random: u64) -> f64 {
    // 32 bits are plenty here, and convert without loss.
    f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::health::ProbeKind;

    fn params(rise: u32, fall: u32) -> HealthParams {
        HealthParams {
            kind: ProbeKind::Tcp,
            interval: Duration::from_secs(2),
            fast_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise,
            fall,
        }
    }

    /// `+` and `-` are probe outcomes; `^` and `v` stand behind the outcome that changes the verdict.
    #[track_caller]
    fn check(rise: u32, fall: u32, expected: &str) {
        let mut health = ActiveHealth::default();
        let mut seen = String::new();
        for outcome in expected.chars().filter(|c| "+-".contains(*c)) {
            seen.push(outcome);
            let before = health.is_healthy();
            match health.observe(outcome == '+', &params(rise, fall)) {
                Some(Transition::Rose) => seen.push('^'),
                Some(Transition::Fell) => seen.push('v'),
                None => assert_eq!(health.is_healthy(), before),
            }
            assert_eq!(health.is_settled(), health.is_healthy() && outcome == '+', "{seen}");
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn verdicts_take_a_series() {
        check(2, 3, "---v-+-++^--+---v");
        check(2, 3, "++++--+--+--+---v");
        check(1, 1, "-v+^+-v-+^");
        check(3, 2, "+-+-+--v++-++-+++^");
    }

    #[test]
    fn delays_stay_near_the_interval() {
        let interval = Duration::from_secs(10);
        for (random, next, first) in [(0, 9.0, 0.0), (1 << 63, 10.0, 0.5), (u64::MAX, 11.0, 1.0)] {
            assert!((next_delay(interval, random).as_secs_f64() - next).abs() < 1e-6, "{random}");
            assert!((first_delay(interval, random).as_secs_f64() - first).abs() < 1e-6, "{random}");
        }
    }
}
