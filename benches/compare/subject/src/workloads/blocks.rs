//! What a block costs if there are many. The list of them takes 16 bytes for each, in one large block.

use super::raw::{Block, finish_all};
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;

/// Very many small blocks that are live at once.
pub const BLOCKS: Workload = Workload {
    name: "blocks",
    stands_for: "10,000,000 blocks of 16 to 128 B are allocated and written, then freed in the same order: large data",
    operations: "blocks",
    threads_per_core: 0,
    shown: Shown::Blocks,
    run,
};

const COUNT: usize = 10_000_000;

fn run(parameters: &Parameters) -> Outcome {
    let count = parameters.scaled(COUNT);
    let mut random = Random::new(parameters.seed);
    let mut blocks = Vec::with_capacity(count);
    for _ in 0..count {
        blocks.push(Block::new(size(&mut random), random.number()));
    }
    Outcome::new(count as u64, finish_all(blocks))
}

/// 16 to 128 in steps of 8, about 50 on average: the smaller of two of these sizes.
fn size(random: &mut Random) -> usize {
    16 + 8 * random.below(15).min(random.below(15))
}

#[cfg(test)]
mod tests {
    use super::super::raw::tests::assert_repeatable;
    use super::*;

    #[test]
    fn blocks_are_repeatable() {
        assert_repeatable(&BLOCKS, 1e-4);
    }

    #[test]
    fn sizes_are_as_described() {
        let mut random = Random::new(1);
        let sizes: Vec<usize> = (0..100_000).map(|_| size(&mut random)).collect();
        assert_eq!((sizes.iter().min(), sizes.iter().max()), (Some(&16), Some(&128)));
        assert!((50..54).contains(&(sizes.iter().sum::<usize>() / sizes.len())));
    }
}
