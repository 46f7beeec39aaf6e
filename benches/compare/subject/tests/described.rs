//! Do the workloads do what their lines say? Told by what they ask of the allocator, which here is one that counts.

use magalloc_compare_subject::{Parameters, workloads};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The system's allocator, with what is asked of it counted; a reallocation is a new block.
struct Counting;

// Relaxed throughout: read when all threads have ended.
static BLOCKS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static LIVE_PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);
/// Threads that have allocated.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BLOCKS.fetch_add(1, Relaxed);
        LARGEST.fetch_max(layout.size(), Relaxed);
        if !IS_COUNTED.replace(true) {
            THREADS.fetch_add(1, Relaxed);
        }
        LIVE_PEAK.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// What a workload asked for.
#[derive(Debug)]
struct Asked {
    operations: usize,
    blocks: usize,
    live_peak: usize,
    largest: usize,
    threads: usize,
}

/// Runs a workload.
fn asked(name: &str, scale: f64, threads: usize) -> Asked {
    let [blocks, live, threads_before] = [&BLOCKS, &LIVE, &THREADS].map(|count| count.load(Relaxed));
    LIVE_PEAK.store(live, Relaxed);
    LARGEST.store(0, Relaxed);
    let workload = workloads::find(name).expect("a workload's name");
    let outcome = (workload.run)(&Parameters { scale, threads, seed: 42 });
    let asked = Asked {
        operations: outcome.operations as usize,
        blocks: BLOCKS.load(Relaxed) - blocks,
        live_peak: LIVE_PEAK.load(Relaxed) - live,
        largest: LARGEST.load(Relaxed),
        threads: THREADS.load(Relaxed) - threads_before,
    };
    println!("{name}: {asked:?}");
    asked
}

/// Is it, within a twentieth?
fn is_about(number: usize, expected: usize) -> bool {
    number.abs_diff(expected) <= expected / 20
}

// One test: what is counted is the process's.
#[test]
fn workloads_ask_for_what_their_lines_say() {
    let pair = asked("pair", 1e-4, 1);
    assert!(pair.largest == 256 && pair.live_peak == 256 && is_about(pair.blocks, pair.operations));

    let burst = asked("burst", 1e-3, 1);
    assert!(is_about(burst.live_peak, 10_000 * (64 + size_of::<[usize; 2]>())) && burst.blocks >= burst.operations);

    let small = asked("mix-small", 1e-2, 1);
    assert!(small.live_peak > 15 * MIB && small.live_peak < 40 * MIB);

    let wide = asked("mix-wide", 1e-2, 1);
    assert!(wide.live_peak > 60 * MIB && wide.live_peak < 130 * MIB);

    // 16,000,000 replacements in lives of 40,000: a thread that starts each of them.
    let larson = asked("larson", 0.05, 2);
    assert!(larson.threads >= 20, "blocks are left to new threads");
    assert!(is_about(larson.live_peak, 20_000 * 504 + 20_000 * size_of::<[usize; 2]>()));

    let asymmetric = asked("asymmetric", 1e-2, 2);
    assert!(asymmetric.blocks >= 160_000 && asymmetric.threads >= 2);

    let batches = asked("batches", 1e-2, 4);
    assert!(batches.blocks >= 140_000 && batches.threads == 4);

    let churn = asked("thread-churn", 0.01, 2);
    assert_eq!(churn.operations, 120);
    assert!(churn.threads >= 120 && churn.blocks >= 120 * 400);

    let growth = asked("growth", 1e-3, 1);
    assert_eq!(growth.largest, 256 * MIB);

    let buffers = asked("buffers", 0.02, 2);
    assert!(buffers.largest > 20 * MIB && buffers.largest <= 25 * MIB);
    assert!(buffers.live_peak > 50 * MIB && buffers.live_peak < 16 * 25 * MIB);

    let idle = asked("burst-idle", 0.1, 2);
    assert!(is_about(idle.live_peak, 300 * MIB + idle.blocks * size_of::<[usize; 2]>()));

    let start = asked("first-touch", 1.0, 1);
    assert!(start.blocks >= 100 && is_about(start.live_peak, 50 * KIB));
}
