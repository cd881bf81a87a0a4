//! A hash for maps whose keys are numbers that this process gave out itself: nobody outside can choose them, so they
//! need no protection from being chosen, and every exchange looks up three.

use std::hash::{BuildHasherDefault, Hasher};

/// See the module.
pub(super) type OwnNumbers = BuildHasherDefault<NumberHasher>;

/// One multiplication a number.
#[derive(Debug, Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // The odd number next to 2^64 divided by the golden ratio: consecutive numbers end up far apart.
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn consecutive_numbers_differ_where_a_map_looks() {
        let hashes: Vec<u64> = (0..128_u64).map(|number| OwnNumbers::default().hash_one((number, 0_u64))).collect();
        let distinct = |part: fn(&u64) -> u64| hashes.iter().map(part).collect::<HashSet<_>>().len();
        assert_eq!(distinct(|hash| *hash), 128);
        assert!(distinct(|hash| hash % 256) > 80, "the bucket");
        assert!(distinct(|hash| hash >> 57) > 60, "the tag within it");
    }
}
