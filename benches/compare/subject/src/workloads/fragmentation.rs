//! Phases of different block sizes, each with survivors all over its memory: what an allocator can give back of pages that
//! are almost free, and how much of one phase's memory serves the next.

use super::text::mix;
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;
use std::collections::VecDeque;

/// Bursts of blocks that leave a fortieth of them behind.
pub const FRAGMENTATION: Workload = Workload {
    name: "fragmentation",
    stands_for: "bursts of 150 MiB in changing sizes, of which each fortieth block stays: caches and logs of a server",
    operations: "blocks",
    threads_per_core: 0,
    shown: Shown::RowAndMemory,
    run,
};

type Block = Box<[u8]>;

/// Bytes that a phase allocates.
const VOLUME: usize = 150 << 20;
/// One block of so many survives its phase.
const SURVIVOR_OF: usize = 40;
/// Survivors of so many phases are live at once.
const GENERATIONS: usize = 3;
/// Phases at full length, and the fewest with which old survivors are released.
const PHASES: usize = 8;
const LEAST_PHASES: usize = GENERATIONS + 1;
/// Least and greatest size of the blocks of a phase, in turn.
const SIZES: [(usize, usize); 4] = [(16, 256), (300, 2_000), (64, 640), (1_500, 6_000)];

fn run(parameters: &Parameters) -> Outcome {
    run_volume(parameters, VOLUME)
}

fn run_volume(parameters: &Parameters, volume: usize) -> Outcome {
    let phases = parameters.scaled(PHASES).max(LEAST_PHASES);
    let mut random = Random::new(parameters.seed);
    let mut generations: VecDeque<Vec<Block>> = VecDeque::new();
    let mut burst: Vec<Block> = Vec::with_capacity(volume / 128);
    let (mut checksum, mut operations) = (0, 0);
    for phase in 0..phases {
        let (least, most) = SIZES[phase % SIZES.len()];
        let mut bytes = 0;
        while bytes < volume {
            let size = random.between(least, most);
            // Never 0: the pages of zeroes would not be touched.
            burst.push(vec![size as u8 | 1; size].into_boxed_slice());
            bytes += size;
        }
        operations += burst.len() as u64;
        generations.push_back(release(&mut burst, &mut random, &mut checksum));
        if generations.len() > GENERATIONS {
            let old = generations.pop_front().expect("there are more than none");
            checksum = old.iter().fold(checksum, sum);
        }
    }
    let kept: Vec<Block> = generations.into_iter().flatten().collect();
    checksum = kept.iter().fold(checksum, sum);
    Outcome { kept: Some(Box::new(kept)), ..Outcome::new(operations, checksum) }
}

/// Frees the blocks of a burst in two passes over all of it, so that the first leaves holes between the second's. Returns
/// the survivors.
fn release(burst: &mut Vec<Block>, random: &mut Random, checksum: &mut u64) -> Vec<Block> {
    for one_of in [2, SURVIVOR_OF / 2] {
        burst.retain(|block| {
            let stays = random.below(one_of) == 0;
            if !stays {
                *checksum = sum(*checksum, block);
            }
            stays
        });
    }
    // The burst keeps its memory for the next phase.
    let mut survivors = Vec::with_capacity(burst.len());
    survivors.append(burst);
    survivors
}

fn sum(sum: u64, block: &Block) -> u64 {
    mix(sum, ((block.len() as u64) << 16) | (u64::from(block[0]) << 8) | u64::from(block[block.len() - 1]))
}

#[cfg(test)]
mod tests {
    use super::{Block, GENERATIONS, SIZES, SURVIVOR_OF, run_volume};
    use crate::workloads::Parameters;

    const VOLUME: usize = 2 << 20;

    #[test]
    fn same_checksum_twice() {
        let parameters = Parameters { scale: 0.001, threads: 1, seed: 3 };
        let first = run_volume(&parameters, VOLUME);
        assert_eq!(run_volume(&parameters, VOLUME).checksum, first.checksum);
        assert_eq!(run_volume(&Parameters { threads: 5, ..parameters.clone() }, VOLUME).checksum, first.checksum);
        assert_ne!(run_volume(&Parameters { seed: 4, ..parameters }, VOLUME).checksum, first.checksum);
    }

    #[test]
    fn survivors_of_the_last_phases_stay() {
        let parameters = Parameters { scale: 0.001, threads: 1, seed: 3 };
        let outcome = run_volume(&parameters, VOLUME);
        let kept = outcome.kept.expect("something is kept").downcast::<Vec<Block>>().expect("blocks");
        let bytes: usize = kept.iter().map(|block| block.len()).sum();
        let expected = VOLUME * GENERATIONS / SURVIVOR_OF;
        assert!(bytes > expected / 2 && bytes < expected * 2, "{bytes} instead of {expected}");
        // The first phase's have been released: all others have greater blocks.
        assert!(kept.iter().all(|block| block.len() >= SIZES[2].0));
    }
}
