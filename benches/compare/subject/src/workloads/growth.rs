//! Vectors that grow: what `realloc` costs, and whether it has to copy.

use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;

/// Growing vectors, one large and several in turn.
pub const GROWTH: Workload = Workload {
    name: "growth",
    stands_for: "a vector grows to 256 MiB by doubling, eight in turn to 4 MiB by half: data that comes in pieces",
    operations: "reallocations",
    threads_per_core: 0,
    shown: Shown::Row,
    run,
};

const LARGE_ROUNDS: usize = 2;

/// Rounds of vectors that grow in turn. They are by far the more frequent in programs.
const IN_TURN_ROUNDS: usize = 16;

/// Words of the large vector.
const LARGE: usize = 256 * 1024 * 1024 / size_of::<u64>();

/// Words that are added to it at once.
const LARGE_CHUNK: usize = 1024;

/// Vectors that grow in turn.
const IN_TURN: usize = 8;

/// Bytes of each of them.
const MEDIUM: usize = 4 * 1024 * 1024;

/// At most so many bytes are added to one of them at once.
const MEDIUM_CHUNK: usize = 4096;

fn run(parameters: &Parameters) -> Outcome {
    let mut random = Random::new(parameters.seed);
    let mut outcome = Outcome::new(0, 0);
    for _ in 0..parameters.scaled(LARGE_ROUNDS) {
        grow_large(&mut random, &mut outcome);
    }
    for _ in 0..parameters.scaled(IN_TURN_ROUNDS) {
        grow_in_turn(&mut random, &mut outcome);
    }
    outcome
}

/// One vector, with the standard library's growth, which is by doubling.
fn grow_large(random: &mut Random, outcome: &mut Outcome) {
    let mut chunk = [0; LARGE_CHUNK];
    let mut words: Vec<u64> = Vec::new();
    while words.len() < LARGE {
        // One word is enough to see that each chunk is where it should be.
        chunk[0] = random.number();
        let capacity = words.capacity();
        words.extend_from_slice(&chunk);
        outcome.operations += u64::from(words.capacity() != capacity);
    }
    let sum = words.iter().step_by(LARGE_CHUNK).copied().fold(0, u64::wrapping_add);
    outcome.checksum = outcome.checksum.wrapping_add(sum);
}

/// Several vectors, so that none can grow in place for long, each by half of its size.
fn grow_in_turn(random: &mut Random, outcome: &mut Outcome) {
    let mut chunk = [0; MEDIUM_CHUNK];
    let mut vectors: [Vec<u8>; IN_TURN] = Default::default();
    while vectors.iter().any(|bytes| bytes.len() < MEDIUM) {
        for bytes in &mut vectors {
            let count = random.between(64, MEDIUM_CHUNK).min(MEDIUM - bytes.len());
            chunk[0] = random.number() as u8;
            let capacity = bytes.capacity();
            if bytes.len() + count > capacity {
                bytes.reserve_exact((capacity + capacity / 2).max(bytes.len() + count) - bytes.len());
            }
            bytes.extend_from_slice(&chunk[..count]);
            outcome.operations += u64::from(bytes.capacity() != capacity);
        }
    }
    for bytes in &vectors {
        let sum = bytes.iter().copied().map(u64::from).fold(0, u64::wrapping_add);
        outcome.checksum = outcome.checksum.wrapping_add(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::super::raw::tests::assert_repeatable;
    use super::*;

    #[test]
    fn vectors_in_turn_are_repeatable() {
        let outcomes = [1, 1].map(|seed| {
            let mut outcome = Outcome::new(0, 0);
            grow_in_turn(&mut Random::new(seed), &mut outcome);
            (outcome.operations, outcome.checksum)
        });
        assert_eq!(outcomes[0], outcomes[1]);
        // 4 KiB to 4 MiB by half is 17 steps; the first ones are smaller than that.
        assert!(outcomes[0].0 >= 17 * IN_TURN as u64, "{}", outcomes[0].0);
    }

    #[test]
    fn growth_is_repeatable() {
        assert_repeatable(&GROWTH, 1e-3);
    }
}
