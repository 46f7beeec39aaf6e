//! What both programs have in common: the four allocators, and numbers that look random.

use std::alloc::System;

pub static MAGALLOC: magalloc::Magalloc = magalloc::Magalloc::new();
pub static MIMALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;
pub static JEMALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
pub static SYSTEM: System = System;

pub const SEED: u64 = 0x0123_4567_89ab_cdef;

/// The same numbers for the same seed, in every run.
pub fn random_numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}
