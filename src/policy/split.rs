//! Which of several pools an exchange goes to: by chance, or always the same one for the same client.

use super::balance::hash::score;

/// One of the pools of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its share relative to the others'.
    pub weight: u32,
    /// A number made of its name, the same in every process.
    pub seed: u64,
}

/// The part that `random` falls on, each as likely as its share of the weights; `None` when no weight is above zero.
/// Cost: no allocation.
pub fn by_chance(parts: impl Iterator<Item = Part> + Clone, random: u64) -> Option<usize> {
    let total: u64 = parts.clone().map(|part| u64::from(part.weight)).sum();
    let mut point = random.checked_rem(total)?;
    for (index, part) in parts.enumerate() {
        match point.checked_sub(u64::from(part.weight)) {
            Some(left) => point = left,
            None => return Some(index),
        }
    }
    None
}

/// The part that `key` belongs to; `None` when no weight is above zero. By weighted rendezvous: the parts' shares of the
/// keys are their weights, and when weights change, only keys whose part has lost share to another one move, in whatever
/// order the parts are written. Cost: a logarithm per part, no allocation.
pub fn by_key(parts: impl Iterator<Item = Part>, key: u64) -> Option<usize> {
    let weighted = parts.enumerate().filter(|(_, part)| part.weight > 0);
    let scored = weighted.map(|(index, part)| (index, score(key, part.seed, part.weight)));
    scored.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::super::balance::hash::digest;
    use super::*;

    type Weights = &'static [(&'static str, u32)];

    fn parts(weights: Weights) -> Vec<Part> {
        weights.iter().map(|(name, weight)| Part { weight: *weight, seed: digest(name.as_bytes()) }).collect()
    }

    #[test]
    fn chance_follows_the_weights() {
        let parts = parts(&[("a", 95), ("b", 0), ("c", 5)]);
        let picked =
            |index| (0..1000).filter(|&random| by_chance(parts.iter().copied(), random) == Some(index)).count();
        assert_eq!((picked(0), picked(1), picked(2)), (950, 0, 50));
        assert_eq!(by_chance(std::iter::empty(), 1), None);
        assert_eq!(by_chance(parts[1..2].iter().copied(), 1), None);
        assert_eq!(by_key(std::iter::empty(), 1), None);
        assert_eq!(by_key(parts[1..2].iter().copied(), 1), None);
    }

    /// Of 20 000 clients: who is where with one set of weights, and where with another.
    fn moves(before: Weights, after: Weights) -> Vec<(usize, usize)> {
        let (before, after) = (parts(before), parts(after));
        let place = |parts: &[Part], client: u64| {
            by_key(parts.iter().copied(), digest(&client.to_le_bytes())).expect("somebody")
        };
        (0..20_000).map(|client| (place(&before, client), place(&after, client))).collect()
    }

    #[test]
    fn a_key_stays_and_the_shares_are_the_weights() {
        let table: [(Weights, &[f64]); 3] = [
            (&[("main", 95), ("canary", 5)], &[0.95, 0.05]),
            (&[("main", 1), ("canary", 0)], &[1.0, 0.0]),
            (&[("a", 1), ("b", 2), ("c", 7)], &[0.1, 0.2, 0.7]),
        ];
        for (weights, shares) in table {
            let moves = moves(weights, weights);
            assert!(moves.iter().all(|(before, after)| before == after), "{weights:?}");
            for (index, share) in shares.iter().enumerate() {
                let found = moves.iter().filter(|(place, _)| *place == index).count() as f64 / 20_000.0;
                assert!((found - share).abs() < 0.01, "{weights:?}: {found} at {index}");
            }
        }
    }

    #[test]
    fn a_change_of_weights_moves_the_difference_and_nobody_else() {
        let table: [(Weights, Weights, f64); 4] = [
            (&[("main", 95), ("canary", 5)], &[("main", 90), ("canary", 10)], 0.05),
            (&[("main", 1), ("canary", 0)], &[("main", 1), ("canary", 1)], 0.5),
            (&[("main", 50), ("canary", 50)], &[("main", 100), ("canary", 100)], 0.0),
            (&[("a", 1), ("b", 1), ("canary", 0)], &[("a", 1), ("b", 1), ("canary", 2)], 0.5),
        ];
        for (before, after, share) in table {
            let moves = moves(before, after);
            let canary = before.len() - 1;
            let moved: Vec<_> = moves.into_iter().filter(|(before, after)| before != after).collect();
            assert!(moved.iter().all(|(_, after)| *after == canary), "{before:?} to {after:?}: only to the canary");
            let found = moved.len() as f64 / 20_000.0;
            assert!((found - share).abs() < 0.01, "{before:?} to {after:?}: {found} moved");
        }
    }
}
