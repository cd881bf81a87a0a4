//! Random two: two endpoints drawn by weight, the one with less in flight per unit of weight gets the exchange.
//!
//! Nearly as level as least-connections, and many workers or nodes that look at the same figures do not all run to the
//! same endpoint. The draw is by weight and two idle endpoints leave it as drawn, so an idle farm sees the weights exactly.

use super::EndpointView;

/// The choice that the number `random` makes.
pub(super) fn choose(views: &[EndpointView], may: impl Fn(&EndpointView) -> bool, random: u64) -> Option<usize> {
    let candidates = || views.iter().enumerate().filter(|(_, view)| may(view));
    let total: u64 = candidates().map(|(_, view)| u64::from(view.weight)).sum();
    let (first, one) = at(candidates(), below(random, total))?;
    let others = || candidates().filter(|(index, _)| *index != first);
    let rest = total - u64::from(one.weight);
    match at(others(), below(mix(random), rest)) {
        Some((second, other)) if has_less_load(other, one) => Some(second),
        _ => Some(first),
    }
}

/// The candidate that owns the `place` when all stand in a row, each as long as its weight.
fn at<'a>(
    candidates: impl Iterator<Item = (usize, &'a EndpointView)>,
    mut place: u64,
) -> Option<(usize, &'a EndpointView)> {
    for (index, view) in candidates {
        match place.checked_sub(u64::from(view.weight)) {
            Some(left) => place = left,
            None => return Some((index, view)),
        }
    }
    None
}

/// `random` brought into `0..bound`.
fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// Another number made of a random one (the finaliser of SplitMix64).
pub(super) fn mix(random: u64) -> u64 {
    let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Compares the loads with the exchange placed, as least-connections does; among the idle there is nothing to compare.
fn has_less_load(one: &EndpointView, other: &EndpointView) -> bool {
    let cross = |a: &EndpointView, b: &EndpointView| (u64::from(a.in_flight) + 1) * u64::from(b.weight);
    (one.in_flight > 0 || other.in_flight > 0) && cross(one, other) < cross(other, one)
}

#[cfg(test)]
mod tests {
    use super::super::tests::up;
    use super::*;

    #[test]
    fn an_idle_farm_sees_its_weights() {
        let views = [up(1), up(3), up(6)];
        let mut counts = [0_u32; 3];
        for turn in 0..100_000_u64 {
            counts[choose(&views, |_| true, mix(turn)).expect("somebody")] += 1;
        }
        for (count, fair) in counts.into_iter().zip([10_000, 30_000, 60_000]) {
            assert!(count.abs_diff(fair) < 600, "{counts:?}");
        }
    }

    #[test]
    fn the_busier_of_two_is_never_taken() {
        let views = [EndpointView { in_flight: 9, ..up(3) }, EndpointView { in_flight: 2, ..up(1) }];
        assert!((0..1000).all(|turn| choose(&views, |_| true, mix(turn)) == Some(1)), "3/1 is less than 10/3");
        assert_eq!(choose(&views[..1], |_| true, 7), Some(0), "alone is alone");
        assert_eq!(choose(&views, |_| false, 7), None);
    }
}
