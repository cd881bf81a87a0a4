//! Smooth weighted round-robin, as nginx does it.
//!
//! Each turn every candidate's credit grows by its weight; the richest is picked and pays the sum of the candidates'
//! weights. Over one period (the sum of weights) each is picked exactly its weight times, spread out instead of in
//! runs: weights 5, 1, 1 give `a a b a c a a`. Chosen over a schedule built ahead because the candidates change with
//! every failure, and credits simply go on.

use super::EndpointView;

/// Credits by position. When the number of endpoints changes all start at zero; credits are bounded by the sum of the
/// weights, so a changed list of equal length is uneven for one period at most.
#[derive(Debug, Default)]
pub(super) struct WeightedRoundRobin {
    credits: Vec<i64>,
}

impl WeightedRoundRobin {
    pub(super) fn choose(&mut self, views: &[EndpointView], may: impl Fn(&EndpointView) -> bool) -> Option<usize> {
        if self.credits.len() != views.len() {
            self.credits.clear();
            self.credits.resize(views.len(), 0);
        }
        let mut total = 0;
        let mut best: Option<(usize, &mut i64)> = None;
        for (index, (view, credit)) in
            views.iter().zip(&mut self.credits).enumerate().filter(|(_, (view, _))| may(view))
        {
            let weight = i64::from(view.weight);
            total += weight;
            *credit += weight;
            if best.as_ref().is_none_or(|(_, most)| *credit > **most) {
                best = Some((index, credit));
            }
        }
        best.map(|(index, credit)| {
            *credit -= total;
            index
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::up;
    use super::*;

    fn turns(state: &mut WeightedRoundRobin, weights: &[u32], turns: usize) -> Vec<usize> {
        let views: Vec<_> = weights.iter().map(|&weight| up(weight)).collect();
        (0..turns).filter_map(|_| state.choose(&views, |view| view.weight > 0)).collect()
    }

    #[test]
    fn picks_are_spread_out() {
        assert_eq!(turns(&mut WeightedRoundRobin::default(), &[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns(&mut WeightedRoundRobin::default(), &[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn shares_over_any_period_are_exact() {
        for weights in [&[3, 2, 1][..], &[1000, 1], &[7], &[1, 0, 4, 9, 2]] {
            let period: usize = weights.iter().map(|&weight| weight as usize).sum();
            let mut state = WeightedRoundRobin::default();
            for _ in 0..3 {
                let picks = turns(&mut state, weights, period);
                for (index, &weight) in weights.iter().enumerate() {
                    assert_eq!(picks.iter().filter(|&&pick| pick == index).count(), weight as usize, "{weights:?}");
                }
            }
        }
    }

    #[test]
    fn a_changed_list_is_taken_up() {
        let mut state = WeightedRoundRobin::default();
        turns(&mut state, &[9, 1], 5);
        assert_eq!(turns(&mut state, &[1, 1, 1], 3), [0, 1, 2]);
        assert_eq!(turns(&mut state, &[], 1), Vec::<usize>::new());
    }
}
