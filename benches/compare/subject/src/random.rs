//! Random numbers, the same in every run: xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift
//! generators, scrambled", 2016), and what is drawn with them. Neither allocates.

/// A sequence of numbers, determined by its seed.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence of a seed. Any seed will do; the streams of `seed` and `seed + 1` have nothing in common.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // The finaliser of splitmix64 spreads small seeds; xorshift must not start with 0.
        let mut state = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self { state: (state ^ (state >> 31)) | 1 }
    }

    /// The next number.
    #[inline]
    pub fn number(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, which is not 0.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        // The upper half is the better one. The product maps it to the range without a division.
        (((self.number() >> 32) * bound as u64) >> 32) as usize
    }

    /// A number of `range`, bounds included.
    #[inline]
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// True in `share` of 100 cases.
    #[inline]
    pub fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }

    /// Puts `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
