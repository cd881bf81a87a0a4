//! Weighted least connections: the smallest load (in_flight + 1) / weight.
//!
//! The one added is the exchange being placed; without it an idle endpoint of weight 1 and one of weight 10 would look
//! alike. Ties go round: the search starts behind the last pick, so equal idle endpoints take turns.

use super::EndpointView;

#[derive(Debug, Default)]
pub(super) struct LeastConnections {
    /// Where the search starts: one behind the last pick.
    start: usize,
}

impl LeastConnections {
    pub(super) fn choose(&mut self, views: &[EndpointView], may: impl Fn(&EndpointView) -> bool) -> Option<usize> {
        let turned = views.iter().enumerate().skip(self.start).chain(views.iter().enumerate().take(self.start));
        let mut best: Option<(usize, &EndpointView)> = None;
        for (index, view) in turned.filter(|(_, view)| may(view)) {
            if best.is_none_or(|(_, least)| has_less_load(view, least)) {
                best = Some((index, view));
            }
        }
        let (index, _) = best?;
        self.start = index + 1;
        Some(index)
    }
}

/// Compares the two fractions without dividing.
fn has_less_load(one: &EndpointView, other: &EndpointView) -> bool {
    let cross = |a: &EndpointView, b: &EndpointView| (u64::from(a.in_flight) + 1) * u64::from(b.weight);
    cross(one, other) < cross(other, one)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::up;
    use super::*;

    /// Picks `count` times; every exchange stays in flight.
    fn fill(weights: &[u32], in_flight: &[u32], count: usize) -> Vec<usize> {
        let mut views: Vec<_> = weights
            .iter()
            .zip(in_flight)
            .map(|(&weight, &in_flight)| EndpointView { in_flight, ..up(weight) })
            .collect();
        let mut state = LeastConnections::default();
        let mut picks = Vec::new();
        for _ in 0..count {
            let pick = state.choose(&views, |_| true).expect("somebody");
            views[pick].in_flight += 1;
            picks.push(pick);
        }
        picks
    }

    #[test]
    fn load_is_levelled_by_weight() {
        for (weights, in_flight, expected) in [
            (&[1, 1, 1][..], &[0, 0, 0][..], &[0, 1, 2, 0, 1][..]),
            (&[1, 1], &[3, 0], &[1, 1, 1, 0]),
            (&[3, 1], &[0, 0], &[0, 0, 1, 0, 0, 0, 1, 0]),
            (&[1, 2], &[u32::MAX, 0], &[1]),
        ] {
            assert_eq!(fill(weights, in_flight, expected.len()), expected, "{weights:?} {in_flight:?}");
        }
    }

    #[test]
    fn ties_go_round() {
        let mut state = LeastConnections::default();
        let views = [up(1), up(1), up(1)];
        let picks: Vec<_> = (0..6).filter_map(|_| state.choose(&views, |_| true)).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
        assert_eq!(state.choose(&views[..1], |_| true), Some(0), "a shorter list is taken up");
    }

    proptest! {
        #[test]
        fn nobody_with_less_load_is_passed_over(
            pool in proptest::collection::vec((1..=1000_u32, 0..100_u32), 1..8),
            start in 0..8_usize,
        ) {
            let views: Vec<_> = pool.iter().map(|&(weight, in_flight)| EndpointView { in_flight, ..up(weight) }).collect();
            let pick = LeastConnections { start }.choose(&views, |_| true).expect("somebody");
            prop_assert!(!views.iter().any(|view| has_less_load(view, &views[pick])));
        }
    }
}
