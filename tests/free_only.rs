//! A thread that frees what another allocates, and allocates nothing itself: what passes through it does not stay with
//! it.
//!
//! A scenario is a process, because resident memory is. The global allocator is the system's: what the test itself
//! needs lies elsewhere.

mod common;
mod process;
mod watched;

use common::Random;
use magalloc::{Magalloc, stats};
use process::{give, take};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;
use watched::{mib, passes, resident, resident_since, wait_until};

static MAGALLOC: Magalloc = Magalloc::new();

/// Bytes that pass through the thread.
const BYTES: u64 = 400 << 20;
/// Blocks that are passed on at once.
const BATCH_BLOCKS: usize = 100;
/// Batches on their way at most.
const BATCHES_MAX: usize = 4;
/// Bytes between two looks at what the thread holds.
const BYTES_PER_LOOK: u64 = 10 << 20;
/// What `Magalloc::cache_bytes_max` lets a thread have in a heap of this size: a quarter of the default.
const CACHE_BYTES_MAX: u64 = 1 << 20;

/// What a cache may hold beyond that: "the first few blocks of each".
const FIRST_BLOCKS: u64 = 160 << 10;
/// What may stay in the cache of a thread that sleeps for longer than the purge delay.
const IDLE_BYTES_MAX: u64 = 256 << 10;
/// Held all the time: a heap of less than a chunk is left alone.
const BALLAST: usize = 8 << 20;

struct Batch(Vec<(*mut u8, usize)>);

// SAFETY: blocks are memory that whoever has them uses alone.
unsafe impl Send for Batch {}

/// Frees what comes, and says so.
fn consume(batches: Receiver<Batch>, freed: std::sync::mpsc::Sender<()>) {
    for batch in batches {
        batch.0.into_iter().for_each(|(block, size)| give(&MAGALLOC, block, size));
        freed.send(()).expect("the producer");
    }
}

struct Producer {
    batches: SyncSender<Batch>,
    freed: Receiver<()>,
    /// Sent and not known to be freed.
    on_the_way: usize,
}

impl Producer {
    fn produce(&mut self, sizes: impl Iterator<Item = usize>) -> u64 {
        let batch = Batch(sizes.map(|size| (take(&MAGALLOC, size), size)).collect());
        let bytes = batch.0.iter().map(|(_, size)| *size as u64).sum();
        self.batches.send(batch).expect("the consumer");
        self.on_the_way += 1;
        bytes
    }

    /// Waits until all is freed.
    fn rest(&mut self) {
        for _ in 0..self.on_the_way {
            self.freed.recv().expect("the consumer");
        }
        self.on_the_way = 0;
    }
}

/// Passes `BYTES` on, in blocks of sizes that `size` chooses. Whenever the thread has freed all, only its cache is left.
fn pass_through(mut size: impl FnMut(&mut Random) -> usize) {
    watched::end_on_panic();
    let mut random = Random::new();
    let (batches, receiver) = sync_channel(BATCHES_MAX);
    let (sender, freed) = channel();
    let mut producer = Producer { batches, freed, on_the_way: 0 };
    let ballast = take(&MAGALLOC, BALLAST);
    let consumer = thread::spawn(|| consume(receiver, sender));
    let resident_before = resident();
    let (mut bytes, mut most_cached, mut most_resident) = (0, 0, [0; 2]);
    while bytes < BYTES {
        let next_look = bytes + BYTES_PER_LOOK;
        while bytes < next_look {
            bytes += producer.produce((0..BATCH_BLOCKS).map(|_| size(&mut random)));
        }
        // Of the time until a quarter has passed, and of all the time since.
        let most_resident = &mut most_resident[usize::from(bytes > BYTES / 4)];
        *most_resident = resident_since(resident_before).max(*most_resident);
        producer.rest();
        magalloc::flush_thread();
        most_cached = stats().cached.max(most_cached);
    }
    assert_eq!(stats().threads, 2, "{:?}", stats());
    let is_left = wait_until(|| stats().cached <= IDLE_BYTES_MAX + FIRST_BLOCKS);
    assert!(is_left, "an idle thread keeps its blocks: {:?}", stats());
    magalloc::purge_all();
    let remains = resident_since(resident_before);
    let [early, late] = most_resident;
    let [bytes, early, late, remains, cached] = [bytes, early, late, remains, most_cached].map(mib);
    println!("{bytes:.0} MiB; resident {early:.1}, later {late:.1}, at the end {remains:.1}; cached {cached:.2}");
    assert!(most_cached > 0 && most_cached <= CACHE_BYTES_MAX + FIRST_BLOCKS, "{most_cached} bytes cached");
    assert!(late <= early + 4.0, "grows");
    // Blocks in the cache, their neighbours in the same pages, and metadata.
    assert!(remains <= 4.0, "{:?}", stats());
    drop(producer);
    consumer.join().expect("the consumer ends well");
    give(&MAGALLOC, ballast, BALLAST);
    // Also what the consumer has left for the next thread.
    magalloc::purge_all();
    assert_eq!((stats().live, stats().cached), (0, 0), "{:?}", stats());
}

fn main() {
    process::main(
        &[
            ("one_size", || pass_through(|_| 640)),
            ("small", || pass_through(|random| 1 + random.below(1000))),
            ("all", || pass_through(|random| 1 + random.size_below(32 << 10))),
        ],
        &[
            ("freeing_thread_keeps_few_blocks_of_one_size", || passes("one_size")),
            ("freeing_thread_keeps_few_small_blocks", || passes("small")),
            ("freeing_thread_keeps_few_blocks_of_any_class", || passes("all")),
        ],
    );
}
