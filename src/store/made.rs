//! What became of the making of better children, as one word for each coding, which a hit reads without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy::encoding::Coding;
use crate::policy::optimise::{Made, Recipe};

/// The words of one life. A word that was written for another recipe says nothing.
#[derive(Debug, Default)]
pub(super) struct Words([AtomicU64; 4]);

const UNDER_WAY: u64 = 1;
const NOTHING: u64 = 2;
const CHILD: u64 = 3;

impl Words {
    /// Cost: one atomic load.
    pub(super) fn read(&self, coding: Option<Coding>, recipe: Recipe) -> Made {
        let word = self.place(coding).load(Ordering::Acquire);
        if word >> 40 != u64::from(recipe.number()) {
            return Made::Unasked;
        }
        match word & 0xff {
            UNDER_WAY => Made::UnderWay,
            NOTHING => Made::Nothing,
            CHILD => Made::Child { level: word.to_le_bytes()[1], rules: word >> 16 & 0xff_ffff },
            _ => Made::Unasked,
        }
    }

    /// Claims the making; true for one caller.
    pub(super) fn claim(&self, coding: Option<Coding>, recipe: Recipe) -> bool {
        let place = self.place(coding);
        let word = place.load(Ordering::Acquire);
        let claimed = compose(recipe, Made::UnderWay);
        self.read(coding, recipe) == Made::Unasked
            && place.compare_exchange(word, claimed, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Writes down what became of it.
    pub(super) fn settle(&self, coding: Option<Coding>, recipe: Recipe, made: Made) {
        self.place(coding).store(compose(recipe, made), Ordering::Release);
    }

    fn place(&self, coding: Option<Coding>) -> &AtomicU64 {
        let [identity, zstd, br, gzip] = &self.0;
        match coding {
            None => identity,
            Some(Coding::Zstd) => zstd,
            Some(Coding::Br) => br,
            Some(Coding::Gzip) => gzip,
        }
    }
}

/// 24 bits recipe, 24 bits rules, 8 bits level, 8 bits of what it is.
fn compose(recipe: Recipe, made: Made) -> u64 {
    let (state, level, rules) = match made {
        Made::Unasked => return 0,
        Made::UnderWay => (UNDER_WAY, 0, 0),
        Made::Nothing => (NOTHING, 0, 0),
        Made::Child { level, rules } => (CHILD, level, rules & 0xff_ffff),
    };
    u64::from(recipe.number()) << 40 | rules << 16 | u64::from(level) << 8 | state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::optimise::{Optimiser, Optimisers};

    #[test]
    fn a_word_holds_for_its_coding_and_its_recipe() {
        let words = Words::default();
        let recipe = Recipe { optimisers: Optimisers::all(), strong: true };
        let other = Recipe { strong: false, ..recipe };
        let child = Made::Child { level: 11, rules: Optimiser::SvgWs.fingerprint() };
        assert_eq!(words.read(None, recipe), Made::Unasked);
        assert!(words.claim(None, recipe) && !words.claim(None, recipe));
        assert_eq!(words.read(None, recipe), Made::UnderWay);
        words.settle(None, recipe, child);
        assert_eq!((words.read(None, recipe), words.read(Some(Coding::Br), recipe)), (child, Made::Unasked));
        assert_eq!(words.read(None, other), Made::Unasked);
        assert!(words.claim(None, other), "an edited policy asks again");
        words.settle(None, other, Made::Nothing);
        assert_eq!(words.read(None, other), Made::Nothing);
        words.settle(None, other, Made::Unasked);
        assert!(words.claim(None, other));
    }
}
