//! Four allocators in one process, each called through `GlobalAlloc`, in turn: A B C D A B C D ...
//!
//! `cargo run --release --manifest-path benches/beside/Cargo.toml [WORKLOAD [RUNS]]` prints the median of each
//! workload in nanoseconds per malloc and free, and the ratio of magalloc to mimalloc and to jemalloc.

use allocators::{JEMALLOC, MAGALLOC, MIMALLOC, SEED, SYSTEM, random_numbers};
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

mod allocators;

const NAMES: [&str; 4] = ["magalloc", "mimalloc", "jemalloc", "system"];
const RUNS: usize = 9;

type Allocator = dyn Workloads + Sync;
type Measure = fn(&'static Allocator) -> f64;

/// Workload, what it asks, how it is measured.
const WORKLOADS: [(&str, &str, Measure); 10] = [
    ("pair", "malloc and free of 64 B at once: the fast path", |a| a.pair()),
    ("burst", "10,000 x 64 B, freed in the same order", |a| a.burst(Order::Same)),
    ("burst-reversed", "10,000 x 64 B, freed in reverse", |a| a.burst(Order::Reversed)),
    ("burst-shuffled", "10,000 x 64 B, freed in random order", |a| a.burst(Order::Shuffled)),
    ("random-128", "100,000 live, sizes to 128 B, a random one replaced", |a| a.random(128)),
    ("random-256", "the same, sizes to 256 B", |a| a.random(256)),
    ("random-1000", "the same, sizes to 1,000 B", |a| a.random(1000)),
    ("random-8000", "the same, sizes to 8,000 B", |a| a.random(8000)),
    ("cross-thread", "64 B, batches of 1,000 freed by another thread", |a| a.cross_thread()),
    ("large", "5 MiB, each 64 KiB touched", |a| a.large()),
];

/// The measurements, monomorphic for each allocator, so that its fast path is inlined as in a real program.
trait Workloads {
    fn pair(&self) -> f64;
    fn burst(&self, order: Order) -> f64;
    fn random(&self, size_max: u64) -> f64;
    fn cross_thread(&'static self) -> f64;
    fn large(&self) -> f64;
}

/// In which order a burst is freed.
#[derive(Clone, Copy)]
enum Order {
    Same,
    Reversed,
    Shuffled,
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(black_box(size), 8).expect("a small size")
}

fn nanoseconds(start: Instant, operations: usize) -> f64 {
    start.elapsed().as_nanos() as f64 / operations as f64
}

/// A block, written to once.
fn allocate(allocator: &impl GlobalAlloc, layout: Layout) -> *mut u8 {
    // SAFETY: no size here is 0.
    let block = unsafe { allocator.alloc(layout) };
    assert!(!block.is_null());
    // SAFETY: a block of at least a byte.
    unsafe { block.write(1) };
    block
}

impl<A: GlobalAlloc + Sync> Workloads for A {
    fn pair(&self) -> f64 {
        const PAIRS: usize = 5_000_000;
        let layout = layout(64);
        let start = Instant::now();
        for _ in 0..PAIRS {
            // SAFETY: not 0.
            let block = black_box(unsafe { self.alloc(layout) });
            // SAFETY: just allocated with that layout.
            unsafe { self.dealloc(block, layout) };
        }
        nanoseconds(start, PAIRS)
    }

    fn burst(&self, order: Order) -> f64 {
        const BLOCKS: usize = 10_000;
        const ROUNDS: usize = 200;
        let layout = layout(64);
        let mut blocks = vec![std::ptr::null_mut(); BLOCKS];
        // Which block is freed when.
        let mut order_of_frees: Vec<usize> = (0..BLOCKS).collect();
        match order {
            Order::Same => {}
            Order::Reversed => order_of_frees.reverse(),
            Order::Shuffled => {
                let mut random = random_numbers(SEED);
                (1..BLOCKS).for_each(|last| order_of_frees.swap(last, (random() % (last as u64 + 1)) as usize));
            }
        }
        let start = Instant::now();
        for _ in 0..ROUNDS {
            for block in &mut blocks {
                *block = allocate(self, layout);
            }
            for &index in &order_of_frees {
                // SAFETY: each was allocated with that layout and is freed once.
                unsafe { self.dealloc(blocks[index], layout) };
            }
        }
        nanoseconds(start, BLOCKS * ROUNDS)
    }

    fn random(&self, size_max: u64) -> f64 {
        const LIVE: u64 = 100_000;
        const REPLACEMENTS: usize = 2_000_000;
        let mut random = random_numbers(SEED);
        let mut blocks: Vec<(*mut u8, Layout)> = (0..LIVE)
            .map(|_| layout(1 + (random() % size_max) as usize))
            .map(|layout| (allocate(self, layout), layout))
            .collect();
        let start = Instant::now();
        for _ in 0..REPLACEMENTS {
            let slot = &mut blocks[(random() % LIVE) as usize];
            // SAFETY: allocated with that layout, and replaced in the list.
            unsafe { self.dealloc(slot.0, slot.1) };
            let layout = layout(1 + (random() % size_max) as usize);
            *slot = (allocate(self, layout), layout);
        }
        let result = nanoseconds(start, REPLACEMENTS);
        for (block, layout) in blocks {
            // SAFETY: allocated with that layout; the list ends here.
            unsafe { self.dealloc(block, layout) };
        }
        result
    }

    fn cross_thread(&'static self) -> f64 {
        const BATCH: usize = 1000;
        const BATCHES: usize = 1000;
        let layout = layout(64);
        let (full, to_free) = sync_channel::<Vec<usize>>(4);
        let (empty, returned) = sync_channel::<Vec<usize>>(8);
        let start = Instant::now();
        let consumer = std::thread::spawn(move || {
            for mut batch in to_free {
                for block in batch.drain(..) {
                    // SAFETY: allocated with that layout by the producer, which gave it up.
                    unsafe { self.dealloc(block as *mut u8, layout) };
                }
                if empty.send(batch).is_err() {
                    return;
                }
            }
        });
        let mut spare: Vec<Vec<usize>> = (0..6).map(|_| Vec::with_capacity(BATCH)).collect();
        for _ in 0..BATCHES {
            let mut batch = spare.pop().unwrap_or_else(|| returned.recv().expect("the consumer lives"));
            batch.extend((0..BATCH).map(|_| allocate(self, layout) as usize));
            full.send(batch).expect("the consumer lives");
            spare.extend(returned.try_iter());
        }
        drop(full);
        drop(returned);
        consumer.join().expect("the consumer frees and ends");
        nanoseconds(start, BATCH * BATCHES)
    }

    fn large(&self) -> f64 {
        const BYTES: usize = 5 << 20;
        const PAIRS: usize = 2000;
        let layout = layout(BYTES);
        let start = Instant::now();
        for _ in 0..PAIRS {
            let block = black_box(allocate(self, layout));
            for offset in (0..BYTES).step_by(64 << 10) {
                // SAFETY: within the block; volatile, so that it is not left out.
                unsafe { block.add(offset).write_volatile(1) };
            }
            // SAFETY: just allocated with that layout.
            unsafe { self.dealloc(block, layout) };
        }
        nanoseconds(start, PAIRS)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn usage(problem: &str) -> ! {
    eprintln!("magalloc-beside: {problem}\nusage: magalloc-beside [WORKLOAD [RUNS]]\nworkloads:");
    for (name, question, _) in WORKLOADS {
        eprintln!("  {name:15} {question}");
    }
    std::process::exit(2);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let only = arguments.next();
    let runs = arguments.next().map_or(Ok(RUNS), |text| text.parse());
    let Ok(runs @ 1..) = runs else { usage("RUNS is a whole number above 0") };
    if let Some(more) = arguments.next() {
        usage(&format!("{more:?} is one argument too many"));
    }
    if let Some(name) = &only
        && !WORKLOADS.iter().any(|workload| workload.0 == name)
    {
        usage(&format!("no workload is called {name:?}"));
    }
    let allocators: [&'static Allocator; 4] = [&MAGALLOC, &MIMALLOC, &JEMALLOC, &SYSTEM];
    println!("ns per malloc and free, median of {runs} alternating runs");
    println!("{:15}{}  /mimalloc /jemalloc", "", NAMES.map(|name| format!("{name:>11}")).concat());
    for (name, _, measure) in WORKLOADS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..runs {
            for (allocator, times) in allocators.iter().zip(&mut times) {
                times.push(measure(*allocator));
            }
        }
        let medians = times.map(median);
        let columns = medians.map(|median| format!("{median:11.2}")).concat();
        println!("{name:15}{columns} {:10.2} {:9.2}", medians[0] / medians[1], medians[0] / medians[2]);
    }
}
