//! Bursts by threads that live on: what stays resident when there is nothing more to do.

use super::text::mix;
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};

/// Bursts of 300 MiB, freed to the last block, half of it by other threads; the threads stay.
pub const BURST_IDLE: Workload = Workload {
    name: "burst-idle",
    stands_for: "bursts of 300 MiB, all freed, half by other threads, which stay parked: a thread pool after its work",
    operations: "blocks",
    threads_per_core: 1,
    shown: Shown::RowAndMemory,
    run,
};

type Block = Box<[u8]>;

/// Bytes that a burst of all threads together allocates.
const VOLUME: usize = 300 << 20;
/// Bursts at full length.
const BURSTS: usize = 6;
/// Least and greatest size of the blocks of a burst, in turn.
const SIZES: [(usize, usize); 2] = [(32, 1_000), (500, 8_000)];

/// Threads that have done their work and wait, so that what they cache is that of live threads.
struct Parked {
    /// What they wait for. Nothing is ever sent: they end when it is gone.
    release: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.release = None;
        for thread in self.threads.drain(..) {
            thread.join().expect("a parked thread does not panic");
        }
    }
}

/// One thread's part.
struct Worker {
    random: Random,
    bursts: usize,
    /// Bytes that this thread allocates in a burst.
    volume: usize,
    /// All threads are at the same point of a burst.
    barrier: Arc<Barrier>,
    /// To the next thread, and from the one before.
    to_next: Sender<Vec<Block>>,
    from_other: Receiver<Vec<Block>>,
}

fn run(parameters: &Parameters) -> Outcome {
    run_volume(parameters, VOLUME)
}

fn run_volume(parameters: &Parameters, volume: usize) -> Outcome {
    let bursts = parameters.scaled(BURSTS);
    let barrier = Arc::new(Barrier::new(parameters.threads));
    let (release, released) = bounded::<()>(0);
    let (mut senders, receivers): (Vec<_>, Vec<_>) = (0..parameters.threads).map(|_| unbounded()).unzip();
    // Each thread sends to the one after it.
    senders.rotate_left(1);
    let mut results = Vec::new();
    let mut threads = Vec::new();
    for (index, (to_next, from_other)) in senders.into_iter().zip(receivers).enumerate() {
        let worker = Worker {
            random: Random::new(parameters.seed.wrapping_add(index as u64)),
            bursts,
            volume: volume / parameters.threads,
            barrier: Arc::clone(&barrier),
            to_next,
            from_other,
        };
        let (result, done) = bounded(1);
        let released = released.clone();
        results.push(done);
        threads.push(thread::spawn(move || {
            result.send(worker.work()).expect("the main thread waits for it");
            released.recv().expect_err("nothing is sent");
        }));
    }
    let (mut checksum, mut operations) = (0, 0);
    for done in results {
        let (sum, blocks) = done.recv().expect("a worker does not panic");
        checksum = mix(checksum, sum);
        operations += blocks;
    }
    let parked = Parked { release: Some(release), threads };
    Outcome { kept: Some(Box::new(parked)), ..Outcome::new(operations, checksum) }
}

impl Worker {
    /// All bursts. Returns the sum of the blocks that this thread freed, and the number of those it allocated.
    fn work(mut self) -> (u64, u64) {
        let (mut checksum, mut allocated) = (0, 0);
        for burst in 0..self.bursts {
            let (least, most) = SIZES[burst % SIZES.len()];
            let mut blocks: Vec<Block> = Vec::with_capacity(self.volume / ((least + most) / 2) * 9 / 8);
            let mut bytes = 0;
            while bytes < self.volume {
                let size = self.random.between(least, most);
                // Never 0: the pages of zeroes would not be touched.
                blocks.push(vec![size as u8 | 1; size].into_boxed_slice());
                bytes += size;
            }
            allocated += blocks.len() as u64;
            self.random.shuffle(&mut blocks);
            // Everything is live here.
            self.barrier.wait();
            let half = blocks.split_off(blocks.len() / 2);
            self.to_next.send(half).expect("the next thread is alive");
            checksum = release(checksum, blocks);
            let half = self.from_other.recv().expect("each thread sends once in a burst");
            checksum = release(checksum, half);
            // Nothing is live here.
            self.barrier.wait();
        }
        (checksum, allocated)
    }
}

/// Frees `blocks` in their order, and adds them to the sum.
fn release(checksum: u64, blocks: Vec<Block>) -> u64 {
    blocks.into_iter().fold(checksum, |sum, block| {
        mix(sum, ((block.len() as u64) << 16) | (u64::from(block[0]) << 8) | u64::from(block[block.len() - 1]))
    })
}

#[cfg(test)]
mod tests {
    use super::{BURSTS, Parked, run_volume};
    use crate::workloads::Parameters;

    const VOLUME: usize = 1 << 20;

    #[test]
    fn same_checksum_with_any_threads() {
        for threads in [1, 2, 5] {
            let parameters = Parameters { scale: 1.0, threads, seed: 3 };
            let first = run_volume(&parameters, VOLUME);
            assert_eq!(run_volume(&parameters, VOLUME).checksum, first.checksum);
            assert_ne!(run_volume(&Parameters { seed: 99, ..parameters.clone() }, VOLUME).checksum, first.checksum);
            let least = run_volume(&Parameters { scale: 0.001, ..parameters }, VOLUME);
            // A single burst, of the smaller blocks, which are most.
            assert!(least.operations < first.operations && least.operations > first.operations / BURSTS as u64);
        }
    }

    #[test]
    fn threads_live_until_the_outcome_is_dropped() {
        let outcome = run_volume(&Parameters { scale: 0.001, threads: 3, seed: 3 }, VOLUME);
        let parked = outcome.kept.expect("the threads are kept").downcast::<Parked>().expect("as this type");
        assert_eq!(parked.threads.len(), 3);
        assert!(parked.threads.iter().all(|thread| !thread.is_finished()));
        // Joins them: the test would not end if they did not.
        drop(parked);
    }
}
