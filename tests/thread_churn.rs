//! A hundred thousand short threads: what a thread leaves behind serves the next ones, so memory and records stay
//! bounded.
//!
//! Without libtest (`harness = false`): no other thread is counted, and resident memory is the scenario's.

mod common;
mod process;
mod watched;

use common::{Block, GRANULE};
use magalloc::stats;
use std::collections::{HashSet, VecDeque};
use std::thread;
use std::time::Instant;
use watched::{Held, resident};

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

const THREADS: usize = 100_000;
/// Threads after which nothing grows any more.
const EARLY_THREADS: usize = 10_000;
/// Threads that run at the same time.
const TOGETHER: usize = 4;
/// Blocks of ended threads that are live at the same time.
const LEFT_MAX: usize = 200;
const CHUNK: u64 = 4 << 20;

/// Allocates and frees some of each size, the longer ones less often; every third thread leaves blocks behind.
fn short_life(number: usize) -> Vec<Held> {
    let often = [(16, 1), (100, 1), (640, 1), (5_000, 10), (30_000, 50), (100_000, 250)];
    let sizes = often.into_iter().filter(|(_, one_in)| number.is_multiple_of(*one_in)).map(|(size, _)| size);
    let mut blocks: Vec<_> = sizes.flat_map(|size| [size; 2]).map(|size| Held::new(&GLOBAL, size)).collect();
    let left = if number.is_multiple_of(3) { 3 } else { 0 };
    blocks.drain(..blocks.len() - left).for_each(|block| block.free(&GLOBAL));
    blocks
}

fn hundred_thousand_threads_leave_memory_and_records_bounded() {
    let mut left = VecDeque::new();
    let mut early = None;
    for round in 0..THREADS / TOGETHER {
        let handles: Vec<_> =
            (0..TOGETHER).map(|index| thread::spawn(move || short_life(round * TOGETHER + index))).collect();
        for handle in handles {
            left.extend(handle.join().expect("the thread ends well"));
        }
        // Their threads are gone; the blocks come home all the same.
        let excess = left.len().saturating_sub(LEFT_MAX);
        left.drain(..excess).for_each(|block: Held| block.free(&GLOBAL));
        if (round + 1) * TOGETHER == EARLY_THREADS {
            early = Some((stats(), resident()));
        }
    }
    let (early, early_resident) = early.expect("the first threads");
    let (late, late_resident) = (stats(), resident());
    assert!(late.threads == 1 && early.threads == 1, "early {early:?}\nlate {late:?}");
    assert!(late.committed <= early.committed, "early {early:?}\nlate {late:?}");
    assert!(late.metadata <= early.metadata, "early {early:?}\nlate {late:?}");
    assert!(late.slabs <= early.slabs + 64, "early {early:?}\nlate {late:?}");
    assert!(late_resident <= early_resident + CHUNK / 2, "{early_resident} bytes were resident, then {late_resident}");
    left.into_iter().for_each(|block| block.free(&GLOBAL));
    magalloc::flush_thread();
    assert_eq!(stats().large_blocks, 0);
}

fn a_thread_begins_with_what_the_last_one_left() {
    const THREADS: u64 = 2_000;
    /// The default purge delay, in milliseconds.
    const PURGE_DELAY_MS: u64 = 1000;
    const SIZES: [usize; 4] = [40, 300, 1_000, 6_000];
    let live = || SIZES.map(|size| Held::new(&GLOBAL, size)).into_iter().for_each(|block| block.free(&GLOBAL));
    thread::spawn(live).join().expect("the thread ends well");
    let (before, begin) = (stats(), Instant::now());
    (0..THREADS).for_each(|_| thread::spawn(live).join().expect("the thread ends well"));
    let after = stats();
    // Each thread would take from slabs and give back once for each size, but for what turns of purging take away: there
    // is one in half a purge delay, on a slow machine many in all.
    let turns = begin.elapsed().as_millis() as u64 / (PURGE_DELAY_MS / 2) + 1;
    let most = THREADS / 10 + turns * SIZES.len() as u64;
    let (refills, flushes) = (after.refills - before.refills, after.flushes - before.flushes);
    assert!(refills < most && flushes < most, "{turns} turns\nbefore {before:?}\nafter {after:?}");
    magalloc::purge_all();
    assert_eq!((stats().cached, stats().threads), (0, 1), "{:?}", stats());
}

/// Numbers of the granules that blocks begin in.
fn granules(blocks: &[Block]) -> HashSet<usize> {
    blocks.iter().map(|block| block.address() / GRANULE).collect()
}

fn orphaned_slabs_are_used_before_new_memory() {
    const SIZE: usize = 200;
    const OWNERS: usize = 8;
    const BLOCKS: usize = 5_000;
    /// One in so many blocks lives on.
    const LIVES_ONE_IN: usize = 10;
    let make = |mut blocks: Vec<Block>, count| {
        move || {
            blocks.extend((0..count).map(|_| Block::new(SIZE, 8)));
            blocks
        }
    };
    // All owners live at the same time.
    let owners: Vec<_> = (0..OWNERS).map(|_| thread::spawn(make(Vec::new(), BLOCKS))).collect();
    let blocks: Vec<Block> = owners.into_iter().flat_map(|owner| owner.join().expect("the owner ends well")).collect();
    let orphaned = granules(&blocks);
    let mut number = 0;
    let keep = |_: &Block| {
        number += 1;
        number % LIVES_ONE_IN == 0
    };
    let mut left = blocks;
    left.retain(keep);
    let freed = OWNERS * BLOCKS / LIVES_ONE_IN * (LIVES_ONE_IN - 1);
    let room = Vec::with_capacity(freed);
    magalloc::flush_thread();
    let before = stats();
    // One thread that inherits one owner's number finds what all owners left.
    let heir = move || (make(room, freed)(), stats());
    let (inherited, after) = thread::spawn(heir).join().expect("the heir ends well");
    let elsewhere = granules(&inherited).difference(&orphaned).count();
    assert_eq!(elsewhere, 0, "of {} granules\n{before:?}\n{after:?}", orphaned.len());
    assert_eq!(after.committed, before.committed, "{before:?}\n{after:?}");
}

fn main() {
    common::run(&[
        (
            "hundred_thousand_threads_leave_memory_and_records_bounded",
            hundred_thousand_threads_leave_memory_and_records_bounded,
        ),
        ("a_thread_begins_with_what_the_last_one_left", a_thread_begins_with_what_the_last_one_left),
        ("orphaned_slabs_are_used_before_new_memory", orphaned_slabs_are_used_before_new_memory),
    ]);
    magalloc::flush_thread();
    magalloc::check();
}
