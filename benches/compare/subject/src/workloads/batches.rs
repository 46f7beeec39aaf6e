//! Batches of blocks that are freed in different orders, after what is published about the benchmark shbench: sizes of
//! 1 to 1,000 bytes, many more small than large ones, freed as allocated, in reverse, and in no order.

use super::raw::{Block, finish_all, share, together};
use super::{Outcome, Parameters, Shown, Workload, sizes};
use crate::random::Random;
use crossbeam_channel::bounded;

/// Batches that are freed by the thread that allocated them.
pub const BATCHES: Workload = Workload {
    name: "batches",
    stands_for: "two threads per core allocate batches of 1 to 1,000 B and free them in order, in reverse or at random",
    operations: "blocks",
    threads_per_core: 2,
    shown: Shown::RowAndThreads,
    run: own,
};

/// Batches that are freed by another thread.
pub const BATCHES_HANDED: Workload = Workload {
    name: "batches-handed",
    stands_for: "the same, but each batch is freed by the next thread: work that is handed on",
    operations: "blocks",
    threads_per_core: 2,
    shown: Shown::Row,
    run: handed,
};

const BLOCKS: usize = 14_000_000;

const BATCH: usize = 2_000;

/// Batches that may wait for a thread: it has something to do while the others have the processors.
const WAITING: usize = 16;

fn own(parameters: &Parameters) -> Outcome {
    let batches = parameters.scaled(BLOCKS / BATCH);
    let threads = parameters.threads;
    let checksum = together(threads, |index| {
        let mut random = Random::new(parameters.seed.wrapping_add(index as u64));
        let mut batch = Vec::with_capacity(BATCH);
        let mut sum = 0_u64;
        for round in 0..share(batches, threads, index) {
            fill(&mut batch, &mut random);
            sum = sum.wrapping_add(empty(&mut batch, round, &mut random));
        }
        sum
    });
    Outcome::new((batches * BATCH) as u64, checksum)
}

/// Each thread hands its batches to the next one and frees those of the previous one. As all have as many rounds, and a
/// round sends one batch and receives one, not all queues can be full at the same time: nobody waits forever.
fn handed(parameters: &Parameters) -> Outcome {
    let threads = parameters.threads;
    let rounds = parameters.scaled(BLOCKS / BATCH).div_ceil(threads);
    let queues: Vec<_> = (0..threads).map(|_| bounded(WAITING)).collect();
    let checksum = together(threads, |index| {
        let next = &queues[(index + 1) % threads].0;
        let previous = &queues[index].1;
        let mut random = Random::new(parameters.seed.wrapping_add(index as u64));
        let mut batch = Vec::with_capacity(BATCH);
        let mut sum = 0_u64;
        for round in 0..rounds {
            fill(&mut batch, &mut random);
            next.send(batch).expect("the queues outlive the threads");
            batch = previous.recv().expect("the queues outlive the threads");
            sum = sum.wrapping_add(empty(&mut batch, round, &mut random));
        }
        sum
    });
    Outcome::new((threads * rounds * BATCH) as u64, checksum)
}

fn fill(batch: &mut Vec<Block>, random: &mut Random) {
    for _ in 0..BATCH {
        batch.push(Block::new(sizes::falling(random), random.number()));
    }
}

/// Frees a batch, in an order by the number of the round.
fn empty(batch: &mut Vec<Block>, round: usize, random: &mut Random) -> u64 {
    bring_in_order(batch, round, random);
    finish_all(batch.drain(..))
}

/// As it is, in reverse, or in none.
fn bring_in_order<T>(batch: &mut [T], round: usize, random: &mut Random) {
    match round % 3 {
        0 => {}
        1 => batch.reverse(),
        _ => random.shuffle(batch),
    }
}

#[cfg(test)]
mod tests {
    use super::super::raw::tests::{assert_repeatable, assert_same_work};
    use super::*;

    #[test]
    fn batches_are_repeatable() {
        assert_repeatable(&BATCHES, 1e-3);
        assert_same_work(&BATCHES, 1e-3);
    }

    #[test]
    fn handed_batches_are_repeatable() {
        assert_repeatable(&BATCHES_HANDED, 1e-3);
    }

    #[test]
    fn batches_have_three_orders() {
        let order = |round| {
            let mut batch: Vec<usize> = (0..BATCH).collect();
            bring_in_order(&mut batch, round, &mut Random::new(1));
            batch
        };
        assert!(order(3).is_sorted());
        assert!(order(4).iter().rev().is_sorted());
        let steps = order(5).windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((BATCH / 3..BATCH * 2 / 3).contains(&steps), "{steps} of {BATCH} steps go up");
    }

    #[test]
    fn order_does_not_change_the_sum() {
        let sums = [0, 1, 2].map(|round| {
            let mut batch = Vec::new();
            fill(&mut batch, &mut Random::new(1));
            empty(&mut batch, round, &mut Random::new(2))
        });
        assert!(sums[0] == sums[1] && sums[1] == sums[2]);
    }
}
