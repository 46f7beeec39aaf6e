//! Threads that only allocate, and threads that only free what those have allocated.

use super::raw::{Block, finish_all, share};
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// Producers and consumers of blocks, in pairs.
pub const ASYMMETRIC: Workload = Workload {
    name: "asymmetric",
    stands_for: "half of the threads only allocate (16 to 512 B), the others only free: a pipeline",
    operations: "blocks",
    threads_per_core: 1,
    shown: Shown::Row,
    run,
};

const BLOCKS: usize = 16_000_000;

/// Blocks that change hands together, so that little of the time is spent in queues.
const BATCH: usize = 1_000;

/// Batches that may wait between a producer and its consumer.
const WAITING: usize = 8;

/// What goes back and forth: full one way, empty the other.
type Batch = Vec<Block>;

fn run(parameters: &Parameters) -> Outcome {
    let batches = parameters.scaled(BLOCKS / BATCH);
    let pairs = (parameters.threads / 2).max(1);
    let checksum = thread::scope(|scope| {
        let consumers: Vec<_> = (0..pairs)
            .map(|pair| {
                let (full, filled) = sync_channel(WAITING);
                let (empty, emptied) = channel();
                let random = Random::new(parameters.seed.wrapping_add(pair as u64));
                scope.spawn(move || produce(random, share(batches, pairs, pair), &full, &emptied));
                scope.spawn(move || consume(&filled, &empty))
            })
            .collect();
        consumers.into_iter().map(|consumer| consumer.join().expect("no consumer panics")).fold(0, u64::wrapping_add)
    });
    Outcome::new((batches * BATCH) as u64, checksum)
}

fn produce(mut random: Random, batches: usize, full: &SyncSender<Batch>, emptied: &Receiver<Batch>) {
    for _ in 0..batches {
        // Once the queue has been full, there is an empty one each time.
        let mut batch = emptied.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH));
        for _ in 0..BATCH {
            batch.push(Block::new(random.between(16, 512), random.number()));
        }
        full.send(batch).expect("the consumer ends after the producer");
    }
}

fn consume(filled: &Receiver<Batch>, empty: &Sender<Batch>) -> u64 {
    let mut sum = 0_u64;
    for mut batch in filled {
        sum = sum.wrapping_add(finish_all(batch.drain(..)));
        // The producer may have ended; then the batch is dropped.
        drop(empty.send(batch));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::raw::tests::assert_repeatable;
    use super::*;

    #[test]
    fn asymmetric_is_repeatable() {
        assert_repeatable(&ASYMMETRIC, 1e-3);
    }
}
