//! Blocks that one thread allocates and another frees, and threads that come and go. Each group shows magalloc and
//! the system's allocator.
//!
//! | group | question |
//! |---|---|
//! | `cross_thread` | What does a block cost that one thread allocates and another frees, of one size and of many? |
//! | `thread_churn` | What do a short thread's blocks cost, half of which outlive it? |
//!
//! `thread_churn` includes the thread itself, start to end; its line "thread alone" says what that costs.

#[path = "common/blocks.rs"]
mod blocks;
mod common;

use blocks::{Block, Random, allocate, both, free, layout};
use criterion::{Bencher, Criterion, Throughput};
use std::alloc::GlobalAlloc;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

fn main() {
    let mut criterion = common::criterion();
    cross_thread(&mut criterion);
    thread_churn(&mut criterion);
    criterion.final_summary();
}

/// Blocks that change the thread at once, so that the channel's own cost is spread thin.
const BATCH: usize = 1_000;
/// Batches that may wait for the thread that frees.
const WAITING: usize = 8;

fn cross_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cross_thread");
    group.throughput(Throughput::Elements(BATCH as u64));
    both!(group, "64 bytes", |bencher, allocator| pass_on(bencher, allocator, |_| 64));
    both!(group, "many sizes", |bencher, allocator| pass_on(bencher, allocator, Random::size));
}

/// This thread allocates batches, a second one frees them; the empty vectors come back.
fn pass_on<A: GlobalAlloc + Sync>(bencher: &mut Bencher<'_>, allocator: &A, size: fn(&mut Random) -> usize) {
    bencher.iter_custom(|batches| {
        let mut random = Random::new();
        let (full, to_free) = sync_channel::<Vec<Block>>(WAITING);
        let (emptied, empty) = channel::<Vec<Block>>();
        let start = Instant::now();
        thread::scope(|scope| {
            scope.spawn(move || {
                for mut batch in to_free {
                    for block in batch.drain(..) {
                        free(allocator, block);
                    }
                    // The other side may have all it needs.
                    let _ = emptied.send(batch);
                }
            });
            for _ in 0..batches {
                let mut batch = empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH));
                batch.extend((0..BATCH).map(|_| allocate(allocator, layout(size(&mut random)))));
                full.send(batch).expect("the other thread receives until this one hangs up");
            }
            drop(full);
        });
        start.elapsed()
    });
}

/// Blocks of a short thread.
const BLOCKS: usize = 200;

fn thread_churn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("thread_churn");
    group.measurement_time(Duration::from_secs(2));
    group.bench_function("thread alone", |bencher| bencher.iter(|| in_a_thread(Vec::new)));
    both!(group, BLOCKS, |bencher, allocator| {
        bencher.iter(|| {
            for block in in_a_thread(|| leave_half(allocator)) {
                free(allocator, block);
            }
        });
    });
}

/// What `work`, done in a thread of its own, returns.
fn in_a_thread(work: impl FnOnce() -> Vec<Block> + Send) -> Vec<Block> {
    thread::scope(|scope| scope.spawn(work).join().expect("it does not panic"))
}

/// Allocates blocks, frees every other one, and leaves the rest.
fn leave_half<A: GlobalAlloc>(allocator: &A) -> Vec<Block> {
    let mut random = Random::new();
    let mut left = Vec::with_capacity(BLOCKS / 2);
    for _ in 0..BLOCKS / 2 {
        left.push(allocate(allocator, layout(random.size())));
        free(allocator, allocate(allocator, layout(random.size())));
    }
    left
}
