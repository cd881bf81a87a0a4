//! Slow start: an endpoint that comes back gets its share bit by bit, so that cold caches and just-started processes are
//! not met by all of it at once.
//!
//! The share grows in a straight line over the ramp, from a tenth: with less than that, an endpoint of small weight would
//! see nothing at all to warm up on.

use std::time::Duration;

/// Parts in which weights are counted where a share may be a fraction of a weight.
pub const PARTS: u32 = 1000;

/// The part of its share that an endpoint begins with.
const FIRST: u32 = PARTS / 10;

/// `weight` in [`PARTS`] of a unit, for an endpoint that came back `since` ago; `None` = it was never away. Not 0 unless
/// `weight` is.
#[must_use]
pub fn share(weight: u16, since: Option<Duration>, ramp: Duration) -> u32 {
    let parts = match since {
        Some(since) if since < ramp => {
            let done = since.as_secs_f64() / ramp.as_secs_f64();
            (FIRST + (f64::from(PARTS - FIRST) * done) as u32).min(PARTS)
        }
        _ => PARTS,
    };
    u32::from(weight) * parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_in_a_straight_line() {
        let ramp = Duration::from_secs(30);
        for (since, expected) in
            [(None, 2000), (Some(0), 200), (Some(10), 800), (Some(15), 1100), (Some(30), 2000), (Some(300), 2000)]
        {
            assert_eq!(share(2, since.map(Duration::from_secs), ramp), expected, "{since:?}");
        }
        assert_eq!(share(0, None, ramp), 0, "weight 0 drains, slow start or not");
    }
}
