//! Many blocks of one size, freed in the order of their allocation: the microbenchmark that most allocators quote.

use super::raw::Block;
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;

/// Allocates 10,000 blocks of 64 bytes and frees them, over and over.
pub const BURST: Workload = Workload {
    name: "burst",
    stands_for: "10,000 blocks of 64 B are allocated, then freed in the same order: the usual microbenchmark",
    operations: "blocks",
    threads_per_core: 0,
    shown: Shown::Row,
    run,
};

const BLOCKS: usize = 10_000;

const SIZE: usize = 64;

const ROUNDS: usize = 4_000;

fn run(parameters: &Parameters) -> Outcome {
    let rounds = parameters.scaled(ROUNDS);
    let mut blocks = Vec::with_capacity(BLOCKS);
    let mut mark = Random::new(parameters.seed).number();
    let mut checksum = 0_u64;
    for _ in 0..rounds {
        for _ in 0..BLOCKS {
            mark = mark.wrapping_add(1);
            blocks.push(Block::new(SIZE, mark));
        }
        for block in blocks.drain(..) {
            checksum = checksum.wrapping_add(block.finish());
        }
    }
    Outcome::new((rounds * BLOCKS) as u64, checksum)
}

#[cfg(test)]
mod tests {
    use super::super::raw::tests::assert_repeatable;
    use super::*;

    #[test]
    fn burst_is_repeatable() {
        assert_repeatable(&BURST, 1e-3);
    }
}
