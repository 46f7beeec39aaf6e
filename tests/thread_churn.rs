//! Ten thousand short threads: what a thread leaves behind serves the next ones, so memory and records stay bounded.

mod common;

use common::Block;
use std::collections::VecDeque;
use std::thread;

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

const THREADS: usize = 10_000;
/// Threads that run at the same time.
const TOGETHER: usize = 4;
/// Blocks of ended threads that are live at the same time.
const LEFT_MAX: usize = 200;
const CHUNK: u64 = 4 << 20;

/// Allocates and frees some of each size; every third thread leaves blocks behind.
fn short_life(number: usize) -> Vec<Block> {
    let sizes = [16, 100, 640, 5_000, 30_000];
    let mut blocks: Vec<_> = sizes.iter().flat_map(|&size| (0..2).map(move |_| Block::new(size, 8))).collect();
    if number.is_multiple_of(50) {
        blocks.push(Block::new(100_000, 16));
    }
    if number.is_multiple_of(3) {
        blocks.drain(..blocks.len() - 3);
        return blocks;
    }
    Vec::new()
}

#[test]
fn ten_thousand_threads_leave_memory_and_records_bounded() {
    let mut left = VecDeque::new();
    let mut early = None;
    for round in 0..THREADS / TOGETHER {
        let handles: Vec<_> =
            (0..TOGETHER).map(|index| thread::spawn(move || short_life(round * TOGETHER + index))).collect();
        for handle in handles {
            left.extend(handle.join().expect("the thread ends well"));
        }
        // Their threads are gone; the blocks come home all the same.
        while left.len() > LEFT_MAX {
            left.pop_front();
        }
        if (round + 1) * TOGETHER == THREADS / 10 {
            early = Some(magalloc::stats());
        }
    }
    let early = early.expect("a tenth of the threads");
    let late = magalloc::stats();
    // Beside this thread, libtest has one.
    assert!(late.threads <= 2 && early.threads <= 2, "early {early:?}\nlate {late:?}");
    assert!(late.committed <= early.committed + 2 * CHUNK, "early {early:?}\nlate {late:?}");
    assert!(late.metadata <= early.metadata + CHUNK, "early {early:?}\nlate {late:?}");
    assert!(late.slabs <= early.slabs + 64, "early {early:?}\nlate {late:?}");
    drop(left);
    magalloc::flush_thread();
    assert_eq!(magalloc::stats().large_blocks, 0);
    magalloc::check();
}
