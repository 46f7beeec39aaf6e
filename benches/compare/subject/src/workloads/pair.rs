//! Blocks that are freed as soon as they are allocated.

use super::raw::Block;
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;
use std::hint::black_box;

/// Allocates a block and frees it at once, over and over.
pub const PAIR: Workload = Workload {
    name: "pair",
    stands_for: "a block of 16 to 256 B is allocated and freed at once: the shortest paths of an allocator",
    operations: "pairs",
    threads_per_core: 0,
    shown: Shown::Row,
    run,
};

const SIZES: [usize; 8] = [16, 64, 32, 256, 48, 24, 128, 80];

const ROUNDS: usize = 6_000_000;

fn run(parameters: &Parameters) -> Outcome {
    // A compiler that knew the sizes could choose the size class; one that sees all uses of a block may leave it out.
    let sizes = black_box(SIZES);
    let rounds = parameters.scaled(ROUNDS);
    let mut mark = Random::new(parameters.seed).number();
    let mut checksum = 0_u64;
    for _ in 0..rounds {
        for size in sizes {
            mark = mark.wrapping_add(1);
            checksum = checksum.wrapping_add(black_box(Block::new(size, mark)).finish());
        }
    }
    Outcome::new((rounds * sizes.len()) as u64, checksum)
}

#[cfg(test)]
mod tests {
    use super::super::raw::tests::assert_repeatable;
    use super::*;

    #[test]
    fn pair_is_repeatable() {
        assert_repeatable(&PAIR, 1e-6);
    }
}
