//! Threads that live for a few hundred blocks.

use super::raw::{Block, finish_all};
use super::{Outcome, Parameters, Shown, Workload, sizes};
use crate::random::Random;
use std::collections::VecDeque;
use std::thread::{self, JoinHandle};

/// Short threads, some of their blocks outlive them.
pub const THREAD_CHURN: Workload = Workload {
    name: "thread-churn",
    stands_for: "threads start, allocate 400 blocks, free most, leave 8 to the thread that started them, and end",
    operations: "threads",
    threads_per_core: 1,
    shown: Shown::Row,
    run,
};

const THREADS: usize = 12_000;

/// Blocks of a thread.
const BLOCKS: usize = 400;

/// One of this many blocks outlives its thread.
const SURVIVING: usize = 50;

/// Survivors that stay live, of all threads together.
const SURVIVORS: usize = 4_000;

fn run(parameters: &Parameters) -> Outcome {
    let threads = parameters.scaled(THREADS);
    let mut running = VecDeque::with_capacity(parameters.threads);
    let mut survivors = VecDeque::with_capacity(SURVIVORS + BLOCKS);
    let mut checksum = 0_u64;
    for number in 0..threads {
        if running.len() == parameters.threads {
            checksum = checksum.wrapping_add(end_oldest(&mut running, &mut survivors));
        }
        let random = Random::new(parameters.seed.wrapping_add(number as u64));
        running.push_back(thread::spawn(|| live(random)));
    }
    while !running.is_empty() {
        checksum = checksum.wrapping_add(end_oldest(&mut running, &mut survivors));
    }
    Outcome::new(threads as u64, checksum.wrapping_add(finish_all(survivors)))
}

/// What a thread does: its sum, and the blocks that outlive it.
fn live(mut random: Random) -> (u64, Vec<Block>) {
    let mut blocks = Vec::with_capacity(BLOCKS);
    for _ in 0..BLOCKS {
        blocks.push(Block::new(sizes::small(&mut random), random.number()));
    }
    let mut survivors = Vec::with_capacity(BLOCKS / SURVIVING);
    let mut sum = 0_u64;
    for (index, block) in blocks.into_iter().enumerate() {
        if index % SURVIVING == 0 {
            survivors.push(block);
        } else {
            sum = sum.wrapping_add(block.finish());
        }
    }
    (sum, survivors)
}

/// Waits for the thread that was started first, and takes its blocks; the oldest survivors die. The sum of all that.
fn end_oldest(running: &mut VecDeque<JoinHandle<(u64, Vec<Block>)>>, survivors: &mut VecDeque<Block>) -> u64 {
    let oldest = running.pop_front().expect("there is one");
    let (sum, left) = oldest.join().expect("no thread panics");
    survivors.extend(left);
    let excess = survivors.len().saturating_sub(SURVIVORS);
    sum.wrapping_add(finish_all(survivors.drain(..excess)))
}

#[cfg(test)]
mod tests {
    use super::super::raw::tests::{assert_repeatable, assert_same_work};
    use super::*;

    #[test]
    fn thread_churn_is_repeatable() {
        // Enough threads that survivors die.
        let scale = (SURVIVORS * SURVIVING / BLOCKS + 100) as f64 / THREADS as f64;
        assert_repeatable(&THREAD_CHURN, scale);
        assert_same_work(&THREAD_CHURN, scale);
    }
}
