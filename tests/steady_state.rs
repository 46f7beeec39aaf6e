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

/// Long enough that a step of the work is seldom disturbed for a fifth of it, also on a busy machine.
const DELAY_MS: u32 = 400;
/// How long the work goes on before it is observed, and again after a disturbance.
const WARM_UP: Duration = Duration::from_millis(3 * DELAY_MS as u64);
/// How long it is observed.
const WINDOW: Duration = Duration::from_millis(3 * DELAY_MS as u64);
/// Page faults that the test itself may cause.
const FAULTS_BESIDE: u64 = 16;
/// Where the machine has other work for so long, memory may rightly be given back: free for half the delay.
const DISTURBANCE: Duration = Duration::from_millis(DELAY_MS as u64 / 5);
/// Windows until one is not disturbed: for minutes, so that a machine may be busy for a while. A test fails only if it is
/// so all the time.
const WINDOWS_MAX: usize = 250;

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

/// How much a workload may give back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// Nothing: each time, it needs as much as before, of each size. A window in which an edge moved is followed by another.
    Nothing,
    /// A tenth of what is resident, in each turn (half a delay): it needs now more of one size, now of another,
    /// and some pages at the edges are rightly free for so long.
    Edges,
}

/// Page faults of this process that needed no disk: pages that were given back and are used again are among them.
fn faults() -> u64 {
    // SAFETY: zeroes are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) }, 0);
    usage.ru_minflt as u64
}

/// Pages at the edges of size classes that come and go in a window: measured, some 100 at most.
const EDGE_PURGES_MAX: u64 = 1000;

/// Purges and page faults of a window in which only the edge of the work's size class has moved: where the machine is busy,
/// the cache is refilled at other moments, and other pages than before are those of the few hundred blocks that there are
/// beyond the 10,000 of a step. What gives back memory that the work uses gives 150 pages back, in each turn.
const EDGE_PAGES: u64 = 8;
/// So many such windows in a row are no accident any more.
const EDGE_WINDOWS_MAX: u32 = 4;

/// Bytes of a block that stays: more than a chunk, because the allocator has no thread of its own in smaller heaps.
const KEPT: usize = 5 << 20;

/// Bytes of a block that the second thread had, and of which it has some cached: of a class that no work uses, since nothing
/// would be given back after the work of a page that the two threads share.
const SLEEPERS: usize = 3000;

/// Runs `step` all the time, until a while of it could be observed: no more is purged then than is `allowed`.
///
/// A second thread, which sleeps, makes it the allocator's own that purges.
fn steady(allowed: Allowed, step: impl FnMut()) {
    let (end, is_end) = mpsc::channel::<()>();
    let (begun, is_begun) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        give(&MAGALLOC, take(&MAGALLOC, SLEEPERS), SLEEPERS);
        begun.send(()).expect("the main thread");
        let _ = is_end.recv();
    });
    is_begun.recv().expect("the sleeper");
    // Threads count that have caches, as those have that use small blocks.
    give(&MAGALLOC, take(&MAGALLOC, 64), 64);
    steady_alone(allowed, step, || ());
    drop(end);
    sleeper.join().expect("the sleeper ends well");
}

/// The same in a program of one thread, which purges on its way: `on_the_way` takes it there when the work is over.
fn steady_alone(allowed: Allowed, mut step: impl FnMut(), on_the_way: impl Fn()) {
    watched::end_on_panic();
    let [block, ballast] = [take(&MAGALLOC, KEPT), take(&MAGALLOC, BALLAST)];
    give(&MAGALLOC, ballast, BALLAST);
    let mut is_given_back = || {
        go_on(WARM_UP, &mut step);
        stats().purges > 0
    };
    assert!((0..WINDOWS_MAX).any(|_| is_given_back()), "the ballast was not given back\n{:?}", stats());
    let mut edge_windows = 0;
    let is_observed = (0..WINDOWS_MAX).any(|window| {
        let warm_up = go_on(WARM_UP, &mut step);
        let (before, faults_before) = (stats(), faults());
        let longest = go_on(WINDOW, &mut step).max(warm_up);
        let (faults, after) = (faults() - faults_before, stats());
        let purges = after.purges - before.purges;
        println!(
            "window {window}: {} purges before, {purges} and {faults} page faults in it, steps of up to {longest:?}",
            before.purges
        );
        if longest >= DISTURBANCE {
            return false;
        }
        let is_edge = purges.max(faults.saturating_sub(FAULTS_BESIDE)) <= EDGE_PAGES;
        if allowed == Allowed::Nothing && purges != 0 && is_edge && edge_windows < EDGE_WINDOWS_MAX {
            edge_windows += 1;
            return false;
        }
        let most = match allowed {
            Allowed::Nothing => 0,
            Allowed::Edges => EDGE_PURGES_MAX,
        };
        assert!(purges <= most, "more than {most} purges during the work\n{before:?}\n{after:?}");
        assert!(faults <= most + FAULTS_BESIDE, "more than {most} page faults during the work\n{before:?}\n{after:?}");
        true
    });
    assert!(is_observed, "the machine has too much else to do");
    // What the work had in use is given back when it ends.
    drop(step);
    magalloc::flush_thread();
    let end = stats();
    let is_purged = || {
        on_the_way();
        stats().purges > end.purges
    };
    assert!(wait_until(is_purged), "no purge after the work\n{end:?}\n{:?}", stats());
    give(&MAGALLOC, block, KEPT);
}

fn pair() {
    steady(Allowed::Nothing, || {
        for _ in 0..10_000 {
            give(&MAGALLOC, take(&MAGALLOC, 64), 64);
        }
    });
}

fn bursts() {
    let mut blocks = Vec::with_capacity(10_000);
    steady(Allowed::Nothing, move || {
        blocks.extend((0..10_000).map(|_| take(&MAGALLOC, 64)));
        blocks.drain(..).for_each(|block| give(&MAGALLOC, block, 64));
    });
}

fn bursts_alone() {
    let mut blocks = Vec::with_capacity(10_000);
    let step = move || {
        blocks.extend((0..10_000).map(|_| take(&MAGALLOC, 64)));
        blocks.drain(..).for_each(|block| give(&MAGALLOC, block, 64));
    };
    steady_alone(Allowed::Nothing, step, magalloc::flush_thread);
}

fn bursts_of_many_sizes() {
    let mut random = Random::new();
    let sizes: Vec<usize> = (0..10_000).map(|_| 1 + random.size_below(1000)).collect();
    let mut blocks = Vec::with_capacity(sizes.len());
    // More than a cache may hold, so that classes take capacity from each other.
    steady(Allowed::Edges, move || {
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

/// Each block is replaced, sooner or later, by one whose size `replace` tells.
fn random_lifetimes(allowed: Allowed, replace: impl Fn(&mut Random, usize) -> usize) {
    let mut random = Random::new();
    let mut held = Held::new((0..100_000).map(|_| 1 + random.below(1000)));
    steady(allowed, move || {
        for _ in 0..1000 {
            let index = random.below(held.0.len());
            let (block, size) = &mut held.0[index];
            give(&MAGALLOC, *block, *size);
            *size = replace(&mut random, *size);
            *block = take(&MAGALLOC, *size);
        }
    });
}

fn random_lifetimes_same_sizes() {
    random_lifetimes(Allowed::Nothing, |_, size| size);
}

fn random_lifetimes_random_sizes() {
    random_lifetimes(Allowed::Edges, |random, _| 1 + random.below(1000));
}

fn buffers_in_turn() {
    const BYTES: usize = 5 << 20;
    steady(Allowed::Nothing, || {
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
    const BATCH_BLOCKS: usize = 10_000;

    fn new() -> Self {
        let (batches, receiver) = mpsc::channel::<Batch>();
        let (sender, emptied) = mpsc::channel();
        sender.send(Batch(Vec::with_capacity(Self::BATCH_BLOCKS))).expect("the receiver is here");
        let consume = move || {
            for mut batch in receiver {
                batch.0.drain(..).for_each(|block| give(&MAGALLOC, block, Self::BLOCK_BYTES));
                sender.send(batch).expect("the producer");
            }
        };
        Self { batches: Some(batches), emptied, thread: Some(thread::spawn(consume)) }
    }

    /// Makes blocks for it, when it has freed those before: as many are on their way each time.
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
    steady(Allowed::Nothing, move || consumer.produce());
}

fn main() {
    process::main(
        &[
            ("pair", pair),
            ("bursts", bursts),
            ("bursts_alone", bursts_alone),
            ("bursts_of_many_sizes", bursts_of_many_sizes),
            ("random_lifetimes_same_sizes", random_lifetimes_same_sizes),
            ("random_lifetimes_random_sizes", random_lifetimes_random_sizes),
            ("buffers_in_turn", buffers_in_turn),
            ("cross_thread", cross_thread),
        ],
        &[
            ("pairs_purge_nothing", || passes("pair")),
            ("bursts_purge_nothing", || passes("bursts")),
            ("bursts_of_a_program_of_one_thread_purge_nothing", || passes("bursts_alone")),
            ("bursts_of_many_sizes_purge_edges_only", || passes("bursts_of_many_sizes")),
            ("random_lifetimes_purge_nothing", || passes("random_lifetimes_same_sizes")),
            ("random_lifetimes_of_random_sizes_purge_edges_only", || passes("random_lifetimes_random_sizes")),
            ("buffers_in_turn_purge_nothing", || passes("buffers_in_turn")),
            ("blocks_freed_by_another_thread_purge_nothing", || passes("cross_thread")),
        ],
    );
}
