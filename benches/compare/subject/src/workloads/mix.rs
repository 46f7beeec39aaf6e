//! Blocks of mixed sizes with lifetimes as programs have them: most die young, the others live for any time.

use super::raw::{Block, finish_all, share, together};
use super::{Outcome, Parameters, Shown, Workload, sizes};
use crate::random::Random;

/// Mixed lifetimes, sizes of an object program.
pub const MIX_SMALL: Workload = Workload {
    name: "mix-small",
    stands_for: "200,000 live blocks of 8 B to 1 KiB, replaced at random, most of them young: an object program",
    operations: "replacements",
    threads_per_core: 1,
    shown: Shown::RowAndThreads,
    run: |parameters| run(parameters, 18_000_000, 200_000, sizes::small),
};

/// Mixed lifetimes, sizes with a heavy tail.
pub const MIX_WIDE: Workload = Workload {
    name: "mix-wide",
    stands_for: "100,000 live blocks of 16 B to 32 KiB, replaced at random; four fifths of the bytes are in large ones",
    operations: "replacements",
    threads_per_core: 1,
    shown: Shown::Row,
    run: |parameters| run(parameters, 8_000_000, 100_000, sizes::wide),
};

/// Slots of each thread for blocks that die young. Few enough that they stay in a processor's cache.
const YOUNG: usize = 256;

/// How many of 100 replacements are of a young block.
const YOUNG_PERCENT: usize = 70;

/// The threads share the work and the slots: `replacements` at full length, and `live` blocks.
fn run(
    parameters: &Parameters,
    replacements: usize,
    live: usize,
    size: impl Fn(&mut Random) -> usize + Copy + Sync,
) -> Outcome {
    let replacements = parameters.scaled(replacements);
    let threads = parameters.threads;
    let checksum = together(threads, |index| {
        let slots = share(live, threads, index).max(YOUNG + 1);
        let random = Random::new(parameters.seed.wrapping_add(index as u64));
        replace(random, slots, share(replacements, threads, index), size)
    });
    Outcome::new(replacements as u64, checksum)
}

/// Fills the slots and replaces blocks.
fn replace(mut random: Random, count: usize, replacements: usize, size: impl Fn(&mut Random) -> usize) -> u64 {
    let mut slots: Vec<Option<Block>> = Vec::with_capacity(count);
    slots.extend((0..count).map(|_| Some(Block::new(size(&mut random), random.number()))));
    let mut checksum = 0_u64;
    for _ in 0..replacements {
        let among = if random.percent(YOUNG_PERCENT) { YOUNG } else { count };
        let slot = &mut slots[random.below(among)];
        if let Some(old) = slot.take() {
            checksum = checksum.wrapping_add(old.finish());
        }
        *slot = Some(Block::new(size(&mut random), random.number()));
    }
    checksum.wrapping_add(finish_all(slots.into_iter().flatten()))
}

#[cfg(test)]
mod tests {
    use super::super::raw::tests::{assert_repeatable, assert_same_work};
    use super::*;

    #[test]
    fn mixes_are_repeatable() {
        assert_repeatable(&MIX_SMALL, 1e-4);
        assert_repeatable(&MIX_WIDE, 1e-4);
    }

    #[test]
    fn mixes_share_their_work() {
        assert_same_work(&MIX_SMALL, 1e-4);
    }
}
