//! A small seeded generator: a failing test prints its seed, and `REPLAY_SEED` runs that seed again.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64.
#[derive(Debug)]
pub struct Rng {
    seed: u64,
    state: u64,
}

impl Rng {
    /// Seeded by `REPLAY_SEED`, or by chance.
    pub fn new() -> Self {
        let replayed = std::env::var("REPLAY_SEED").ok().map(|seed| seed.parse().expect("REPLAY_SEED is a number"));
        let seed = replayed.unwrap_or_else(|| RandomState::new().hash_one(0));
        Self { seed, state: seed }
    }

    /// With this seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of `0..n`; the bias of the modulus does not matter here.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

impl Drop for Rng {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to run this again: REPLAY_SEED={}", self.seed);
        }
    }
}
