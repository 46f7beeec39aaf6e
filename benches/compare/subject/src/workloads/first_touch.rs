//! A process that allocates next to nothing: what an allocator costs by being there.

use super::text::mix;
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;

/// Starts, allocates a hundred blocks, and ends.
pub const FIRST_TOUCH: Workload = Workload {
    name: "first-touch",
    stands_for: "starts, allocates a hundred blocks, 50 KB in all, and ends: a command of a shell script",
    operations: "processes",
    threads_per_core: 0,
    shown: Shown::Process,
    run,
};

const BLOCKS: usize = 100;

fn run(parameters: &Parameters) -> Outcome {
    let mut random = Random::new(parameters.seed);
    let blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|index| vec![index as u8 + 1; random.between(24, 976)]).collect();
    let checksum = blocks.iter().fold(0, |sum, block| mix(sum, block.len() as u64 + u64::from(block[block.len() - 1])));
    Outcome::new(1, checksum)
}

#[cfg(test)]
mod tests {
    use super::FIRST_TOUCH;
    use crate::workloads::Parameters;

    #[test]
    fn one_operation_at_any_scale() {
        let run = |scale, threads, seed| (FIRST_TOUCH.run)(&Parameters { scale, threads, seed });
        let outcome = run(1.0, 1, 7);
        assert_eq!(outcome.operations, 1);
        assert_eq!(run(0.001, 5, 7).checksum, outcome.checksum);
        assert_ne!(run(1.0, 1, 8).checksum, outcome.checksum);
    }
}
