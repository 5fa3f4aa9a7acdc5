//! Numbers that are the same in every run with the same seed.

/// A generator of numbers.
///
/// # Source
/// SplitMix64, by Guy Steele, Doug Lea and Christine Flood.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator that starts at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A generator for the part `number` of what `seed` stands for: independent of the other parts.
    #[must_use]
    pub fn of_part(seed: u64, number: u64) -> Self {
        let start = Self::new(number).number();
        Self::new(seed ^ start)
    }

    /// Any number.
    #[inline]
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    #[inline]
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// Whether something happens that happens `share` times in a hundred.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// A length from 0 to `longest`, drawn log-uniformly: each power of two is as likely as the
    /// next, and the longest comes once in 256 times.
    #[inline]
    pub fn length(&mut self, longest: u64) -> u64 {
        let drawn = self.number();
        if drawn.is_multiple_of(256) {
            return longest;
        }
        let bits = u64::from((longest + 1).ilog2()).max(1);
        let power = 1 << ((drawn >> 8) % bits);
        power - 1 + (drawn >> 32) % power
    }

    /// One of `choices`, which are not none.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
