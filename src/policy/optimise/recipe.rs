//! What a route wants made of a body, when it is worth the work, and what became of it.

use super::optimiser::Optimisers;
use crate::policy::encoding::Coding;

/// All that a route wants made of its stored bodies. Compared on every hit, hence small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recipe {
    /// Optimisers that are on.
    pub optimisers: Optimisers,
    /// Codings are made again at their strongest level once a body is in demand.
    pub strong: bool,
}

impl Recipe {
    /// True when there is nothing to make.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The recipe as 24 bits; 0 = nothing to make.
    #[must_use]
    pub fn number(self) -> u32 {
        u32::from(self.optimisers.0) << 1 | u32::from(self.strong)
    }
}

/// What became of the making for one coding of one base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Nobody has asked yet.
    Unasked,
    /// It is waiting or being made.
    UnderWay,
    /// Nothing is better than what a hit has at hand.
    Nothing,
    /// A child with this level and these rules.
    Child {
        /// Of the encoder; 0 without a coding.
        level: u8,
        /// Fingerprint of the optimisers; 0 = the base's bytes.
        rules: u64,
    },
}

/// Hits from which a body counts as in demand. One that is asked for once or twice costs more to improve than it saves.
const DEMAND: u64 = 3;
/// Body bytes for which one more hit is asked: strong codings take seconds of processor time per megabyte.
const DEMAND_STEP: u64 = 64 * 1024;

/// Whether a base of so many bytes, found so often, is worth the work.
#[must_use]
pub fn is_in_demand(hits: u64, bytes: u64) -> bool {
    hits >= DEMAND.max(bytes / DEMAND_STEP)
}

/// Largest body, decoded, that is worked on. Larger ones are rarely text, and would hold the one thread for long.
pub const BODY_MAX: u64 = 4 * 1024 * 1024;

/// The strongest level of a coding that stays within the window a client must have (RFC 8878 §3.1.1.1.2, RFC 9659).
#[must_use]
pub fn strong_level(coding: Coding) -> u8 {
    match coding {
        Coding::Gzip => 9,
        Coding::Br => 11,
        Coding::Zstd => 19,
    }
}

/// Whether `smaller` gains enough on `larger` to be worth its place: 1 %, and 128 bytes.
#[must_use]
pub fn is_gain(larger: u64, smaller: u64) -> bool {
    larger.saturating_sub(smaller) >= (larger / 100).max(128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_grows_with_size_and_a_gain_must_show() {
        assert!(!is_in_demand(2, 10) && is_in_demand(3, 10));
        assert!(!is_in_demand(15, 1024 * 1024) && is_in_demand(16, 1024 * 1024));
        assert!(is_gain(1000, 872) && !is_gain(1000, 873));
        assert!(is_gain(100_000, 99_000) && !is_gain(100_000, 99_001) && !is_gain(10, 20));
    }
}
