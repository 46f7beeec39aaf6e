//! Work that goes on as it did gives nothing back: its memory is in use again before the purge delay is over, so that
//! it costs no call of the kernel and no page fault.
//!
//! A scenario is a process, in which nothing else allocates: the global allocator is the system's.

mod common;
mod process;
mod watched;

use common::Random;
use magalloc::{Magalloc, stats};
use process::{give, take};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use watched::{passes, wait_until};

static MAGALLOC: Magalloc = Magalloc::new().purge_delay_ms(DELAY_MS);

const DELAY_MS: u32 = 200;
const DELAY: Duration = Duration::from_millis(DELAY_MS as u64);
/// How long the work goes on before it is observed, and again after a disturbance.
const WARM_UP: Duration = Duration::from_millis(3 * DELAY_MS as u64);
/// How long it is observed.
const WINDOW: Duration = Duration::from_millis(3 * DELAY_MS as u64);
/// Where the machine has other work for so long, memory may rightly be given back: free for half the delay.
const DISTURBANCE: Duration = Duration::from_millis(DELAY_MS as u64 / 5);
/// Windows until one is not disturbed.
const WINDOWS_MAX: usize = 20;

/// Memory that is freed before the work begins, in bytes: the purging of it shows that purging is at work.
const BALLAST: usize = 16 << 20;

/// Runs `step`, again and again, for `time`. Returns the longest time that one took.
fn go_on(time: Duration, step: &mut impl FnMut()) -> Duration {
    let begin = Instant::now();
    let mut last = begin;
    let mut longest = Duration::ZERO;
    while last - begin < time {
        step();
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
    }
    longest
}

/// Runs `step` all the time, until a while of it could be observed: nothing is purged then.
fn steady(mut step: impl FnMut()) {
    watched::end_on_panic();
    let [block, ballast] = [take(&MAGALLOC, 200_000), take(&MAGALLOC, BALLAST)];
    give(&MAGALLOC, ballast, BALLAST);
    let is_observed = (0..WINDOWS_MAX).any(|window| {
        let warm_up = go_on(WARM_UP, &mut step);
        let before = stats();
        let longest = go_on(WINDOW, &mut step).max(warm_up);
        let after = stats();
        println!(
            "window {window}: {} purges before, {} after, a step took up to {longest:?}",
            before.purges, after.purges
        );
        let is_calm = longest < DISTURBANCE;
        assert!(before.purges > 0, "the ballast was not given back\n{before:?}");
        assert!(!is_calm || after.purges == before.purges, "purges during the work\n{before:?}\n{after:?}");
        is_calm
    });
    assert!(is_observed, "the machine has too much else to do");
    // What the work had in use is given back when it ends.
    drop(step);
    magalloc::flush_thread();
    let end = stats();
    assert!(wait_until(2 * DELAY, || stats().purges > end.purges), "no purge after the work\n{end:?}\n{:?}", stats());
    give(&MAGALLOC, block, 200_000);
}

fn pair() {
    steady(|| {
        for _ in 0..10_000 {
            give(&MAGALLOC, take(&MAGALLOC, 64), 64);
        }
    });
}

fn bursts() {
    let mut blocks = Vec::with_capacity(10_000);
    steady(move || {
        blocks.extend((0..10_000).map(|_| take(&MAGALLOC, 64)));
        blocks.drain(..).for_each(|block| give(&MAGALLOC, block, 64));
    });
}

fn bursts_of_many_sizes() {
    let mut random = Random::new();
    let sizes: Vec<usize> = (0..10_000).map(|_| 1 + random.size_below(1000)).collect();
    let mut blocks = Vec::with_capacity(sizes.len());
    steady(move || {
        blocks.extend(sizes.iter().map(|&size| (take(&MAGALLOC, size), size)));
        blocks.drain(..).for_each(|(block, size)| give(&MAGALLOC, block, size));
    });
}

/// Blocks that are freed when dropped.
struct Held(Vec<(*mut u8, usize)>);

impl Held {
    fn new(sizes: impl Iterator<Item = usize>) -> Self {
        Self(sizes.map(|size| (take(&MAGALLOC, size), size)).collect())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|(block, size)| give(&MAGALLOC, block, size));
    }
}

/// Each block is replaced by one of its size, sooner or later.
fn random_lifetimes() {
    let mut random = Random::new();
    let mut held = Held::new((0..100_000).map(|_| 1 + random.size_below(1000)));
    steady(move || {
        for _ in 0..1000 {
            let index = random.below(held.0.len());
            let (block, size) = &mut held.0[index];
            give(&MAGALLOC, *block, *size);
            *block = take(&MAGALLOC, *size);
        }
    });
}

fn buffers_in_turn() {
    const BYTES: usize = 5 << 20;
    steady(|| {
        let buffers = [take(&MAGALLOC, BYTES), take(&MAGALLOC, BYTES)];
        for buffer in buffers {
            // SAFETY: the buffer has that many bytes.
            unsafe { buffer.write_bytes(1, BYTES) };
            give(&MAGALLOC, buffer, BYTES);
        }
    });
}

/// Blocks on their way to the thread that frees them.
struct Batch(Vec<*mut u8>);

// SAFETY: blocks are memory that whoever has them uses alone.
unsafe impl Send for Batch {}

/// A thread that frees what it gets.
struct Consumer {
    batches: Option<mpsc::Sender<Batch>>,
    emptied: mpsc::Receiver<Batch>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Consumer {
    const BLOCK_BYTES: usize = 100;
    const BATCH_BLOCKS: usize = 1000;
    const BATCHES: usize = 4;

    fn new() -> Self {
        let (batches, receiver) = mpsc::channel::<Batch>();
        let (sender, emptied) = mpsc::channel();
        for _ in 0..Self::BATCHES {
            sender.send(Batch(Vec::with_capacity(Self::BATCH_BLOCKS))).expect("the receiver is here");
        }
        let consume = move || {
            for mut batch in receiver {
                batch.0.drain(..).for_each(|block| give(&MAGALLOC, block, Self::BLOCK_BYTES));
                sender.send(batch).expect("the producer");
            }
        };
        Self { batches: Some(batches), emptied, thread: Some(thread::spawn(consume)) }
    }

    /// Makes blocks for it, when it has freed those of some time ago.
    fn produce(&self) {
        let mut batch = self.emptied.recv().expect("the consumer");
        batch.0.extend((0..Self::BATCH_BLOCKS).map(|_| take(&MAGALLOC, Self::BLOCK_BYTES)));
        self.batches.as_ref().expect("not dropped").send(batch).expect("the consumer");
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        drop(self.batches.take());
        let thread = self.thread.take().expect("joined once");
        // What it sends last, nobody takes.
        for batch in &self.emptied {
            drop(batch);
        }
        thread.join().expect("the consumer ends well");
    }
}

fn cross_thread() {
    let consumer = Consumer::new();
    steady(move || consumer.produce());
}

fn main() {
    process::main(
        &[
            ("pair", pair),
            ("bursts", bursts),
            ("bursts_of_many_sizes", bursts_of_many_sizes),
            ("random_lifetimes", random_lifetimes),
            ("buffers_in_turn", buffers_in_turn),
            ("cross_thread", cross_thread),
        ],
        &[
            ("pairs_purge_nothing", || passes("pair")),
            ("bursts_purge_nothing", || passes("bursts")),
            ("bursts_of_many_sizes_purge_nothing", || passes("bursts_of_many_sizes")),
            ("random_lifetimes_purge_nothing", || passes("random_lifetimes")),
            ("buffers_in_turn_purge_nothing", || passes("buffers_in_turn")),
            ("blocks_freed_by_another_thread_purge_nothing", || passes("cross_thread")),
        ],
    );
}
