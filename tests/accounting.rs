//! What `stats` says is exact while nothing moves: `live` is the sum of what the program holds, each block rounded up
//! to its class or granules by the documented rule, and every committed byte is accounted for.
//!
//! Without libtest, and with the system's allocator as the global one (`harness = false`): only what a scenario does
//! is counted. Scenarios run in threads of their own, so that all caches are gone in between.

mod common;

use common::{ALIGN_SMALL_MAX, Block, CHUNK, GRANULE, Random, SMALL_MAX, class_sizes};
use magalloc::{Magalloc, Stats, census, stats};
use std::alloc::GlobalAlloc;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;

/// Bytes that a block of that layout takes, by the documented rule.
fn block_bytes(size: usize, align: usize) -> usize {
    let size = size.max(1);
    if size > SMALL_MAX || align > ALIGN_SMALL_MAX {
        return size.next_multiple_of(GRANULE);
    }
    let serves = |class: &usize| *class >= size && (align <= 8 || class.is_multiple_of(align));
    class_sizes().into_iter().find(serves).expect("the largest class is a multiple of every small alignment")
}

fn bytes(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| block_bytes(block.layout().size(), block.layout().align()) as u64).sum()
}

fn is_large(block: &Block) -> bool {
    block.layout().size() > SMALL_MAX || block.layout().align() > ALIGN_SMALL_MAX
}

/// Verifies every figure that follows from what is held, and returns all.
#[track_caller]
fn expect_held(blocks: &[Block]) -> Stats {
    let stats = stats();
    let large = blocks.iter().filter(|block| is_large(block)).count() as u64;
    assert_eq!((stats.live, stats.large_blocks), (bytes(blocks), large), "{stats:?}");
    let found = census();
    let held = |of: &Stats| [of.live, of.cached, of.slabs, of.large_blocks, of.large, of.unusable, of.committed];
    assert_eq!(held(&stats), held(&found), "counted {stats:?}\nfound {found:?}");
    let parts = stats.live + stats.cached + stats.free + stats.unusable + stats.metadata;
    assert_eq!(stats.committed, parts, "{stats:?}");
    assert!(stats.committed <= stats.mapped && stats.dirty <= stats.free, "{stats:?}");
    stats
}

/// Runs a scenario in a thread of its own; afterwards nothing is left of it but free spans, and what the next thread
/// would find in its cache.
fn alone(scenario: impl FnOnce() + Send + 'static) {
    thread::spawn(scenario).join().expect("the scenario passes");
    magalloc::purge_all();
    magalloc::check();
    let stats = expect_held(&[]);
    assert_eq!((stats.cached, stats.slabs, stats.threads), (0, 0, 0), "{stats:?}");
}

fn any_block(random: &mut Random) -> Block {
    Block::new(1 + random.size_below(300_000), 1 << random.below(14))
}

/// Bytes of free spans that are kept dirty.
const DIRTY_BYTES_MAX: usize = 64 << 20;

/// With it, nothing moves but what the scenarios move.
static AT_REST: Magalloc =
    Magalloc::new().background_thread(false).purge_delay_ms(u32::MAX).dirty_bytes_max(DIRTY_BYTES_MAX);

fn unused_allocator_holds_nothing() {
    assert_eq!(stats(), Stats::default());
    magalloc::flush_thread();
    assert_eq!(stats(), Stats::default());
    // The options of the first call hold.
    alone(|| {
        let layout = common::layout(8, 8);
        // SAFETY: the size is not 0.
        let block = unsafe { AT_REST.alloc(layout) };
        assert!(!block.is_null());
        // SAFETY: a live block of that layout.
        unsafe { AT_REST.dealloc(block, layout) };
    });
}

fn live_is_the_sum_of_class_bytes_at_every_corner() {
    alone(|| {
        let edges = class_sizes().into_iter().chain([64 << 10, 64 << 10 | GRANULE, CHUNK, 3 * CHUNK]);
        let mut blocks = Vec::new();
        for size in edges.flat_map(|edge| [edge - 1, edge, edge + 1]) {
            for align in [1, 8, 16, 64, 256, 4096, 16 << 10, 32 << 10, 64 << 10] {
                blocks.push(Block::new(size, align));
            }
            expect_held(&blocks);
        }
        while !blocks.is_empty() {
            blocks.truncate(blocks.len() * 9 / 10);
            expect_held(&blocks);
        }
    });
}

fn flushed_thread_caches_nothing_and_keeps_few_slabs() {
    alone(|| {
        let sizes = [8, 100, 1_000, 10_000, 32_000];
        let blocks: Vec<_> = sizes.iter().flat_map(|&size| (0..3_000).map(move |_| Block::new(size, 8))).collect();
        let full = expect_held(&blocks);
        drop(blocks);
        let cached = expect_held(&[]).cached;
        // `cache_bytes_max`, and the first blocks of each class.
        assert!(cached > 0 && cached <= 5 << 20, "{cached} bytes cached");
        magalloc::flush_thread();
        let flushed = expect_held(&[]);
        // The owner keeps a current slab and two more of each class.
        assert!(full.slabs > 100 && flushed.slabs <= 3 * sizes.len() as u64, "{full:?}\n{flushed:?}");
        assert_eq!((flushed.cached, flushed.threads), (0, 1), "{flushed:?}");
    });
}

fn resized_blocks_are_accounted_by_their_new_size() {
    alone(|| {
        let mut random = Random::new();
        let mut blocks: Vec<_> = (0..30).map(|_| any_block(&mut random)).collect();
        for _ in 0..1_000 {
            let index = random.below(blocks.len());
            blocks[index].resize(1 + random.size_below(2 << 20));
            expect_held(&blocks);
        }
    });
}

fn large_block_grows_in_place_into_free_granules() {
    alone(|| {
        let mut blocks = [Block::new(40 << 20, 8)];
        let place = blocks[0].address();
        for mebibytes in [1, 2, 9, 39, 3, 100, 200] {
            blocks[0].resize(mebibytes << 20);
            expect_held(&blocks);
            assert_eq!(blocks[0].address(), place, "{mebibytes} MiB");
        }
    });
}

fn large_block_with_a_neighbour_moves() {
    alone(|| {
        let mut blocks = vec![Block::new(8 << 20, 8), Block::new(CHUNK, CHUNK), Block::new(CHUNK, CHUNK)];
        let place = blocks[0].address();
        for mebibytes in (16..=200).step_by(23) {
            blocks[0].resize(mebibytes << 20);
            expect_held(&blocks);
            // The next step finds this one behind the block, where it does not fit before.
            blocks.push(Block::new(CHUNK, CHUNK));
        }
        assert_ne!(blocks[0].address(), place);
    });
}

fn freed_spans_stay_dirty_up_to_the_bound() {
    alone(|| {
        let blocks: Vec<_> = (0..60).map(|_| Block::new(5 << 20, 8)).collect();
        drop(blocks);
        let stats = expect_held(&[]);
        assert!(stats.dirty > 32 << 20 && stats.dirty <= DIRTY_BYTES_MAX as u64, "{stats:?}");
    });
}

fn refills_flushes_and_os_calls_grow_only_when_needed() {
    const BLOCKS: u64 = 200_000;
    alone(|| {
        let start = stats();
        let first = vec![Block::new(64, 8)];
        let after_first = expect_held(&first);
        assert_eq!(after_first.refills, start.refills + 1, "{start:?}\n{after_first:?}");
        for _ in 0..10_000 {
            drop(Block::new(64, 8));
        }
        let pairs = expect_held(&first);
        assert_eq!(pairs, after_first, "pairs of malloc and free stay in the cache");
        // More than a cache holds.
        let many: Vec<_> = (0..BLOCKS).map(|_| Block::new(64, 8)).collect();
        let refilled = stats();
        // A refill brings at most a magazine, and once that has grown, at least half of one.
        let refills = refilled.refills - pairs.refills;
        assert!((BLOCKS / 128..=BLOCKS / 60 + 8).contains(&refills), "{refills} refills");
        assert_eq!(refilled.flushes, pairs.flushes);
        drop(many);
        let flushed = stats();
        let flushes = flushed.flushes - refilled.flushes;
        let cached = (5 << 20) / 64;
        assert!(((BLOCKS - cached) / 128..=BLOCKS / 60 + 8).contains(&flushes), "{flushes} flushes");
        assert_eq!(flushed.refills, refilled.refills);
        // New memory needs the operating system; memory that was used before does not.
        drop(Block::new(300 << 20, 8));
        let larger = stats();
        assert!(larger.os_calls > flushed.os_calls);
        drop((0..10_000).map(|_| Block::new(64, 8)).collect::<Vec<_>>());
        assert_eq!(stats().os_calls, larger.os_calls);
        assert_eq!(stats().committed, larger.committed);
    });
}

fn threads_that_hold_blocks_are_counted_exactly() {
    const THREADS: usize = 4;
    alone(|| {
        let random = Random::new();
        let held = Arc::new(Mutex::new(Vec::new()));
        let barrier = Arc::new(Barrier::new(THREADS + 1));
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (held, barrier, mut random) = (Arc::clone(&held), Arc::clone(&barrier), random.fork(number as u64));
                thread::spawn(move || {
                    for _ in 0..10 {
                        for _ in 0..1_000 {
                            let block = any_block(&mut random);
                            let mut held = held.lock().expect("no thread panicked");
                            held.push(block);
                            let index = random.below(held.len());
                            // Mostly one of another thread.
                            let other = (held.len() > 300).then(|| held.swap_remove(index));
                            drop(held);
                            drop(other);
                        }
                        // All threads rest between these.
                        barrier.wait();
                        barrier.wait();
                    }
                })
            })
            .collect();
        for _ in 0..10 {
            barrier.wait();
            let stats = expect_held(&held.lock().expect("no thread panicked"));
            assert_eq!(stats.threads, THREADS as u64, "{stats:?}");
            magalloc::check();
            barrier.wait();
        }
        for thread in threads {
            thread.join().expect("the thread ends well");
        }
        let held = std::mem::take(&mut *held.lock().expect("no thread panicked"));
        assert_eq!(expect_held(&held).threads, 0);
        // What they left for the next threads goes home.
        magalloc::purge_all();
        assert_eq!(expect_held(&held).cached, 0);
        // Freed by a thread that has no other part in it; `alone` sees that nothing is left.
        drop(held);
    });
}

fn full_slabs_of_ended_threads_are_freed_by_others() {
    alone(|| {
        let sizes = [8, 100, 1_000, 10_000];
        // This thread has a number before the others have theirs.
        let own = Block::new(100, 8);
        let owners: Vec<_> = (0..3)
            .map(|_| {
                let make = move || sizes.map(|size| (0..2_000).map(|_| Block::new(size, 8)).collect::<Vec<_>>());
                thread::spawn(make)
            })
            .collect();
        let blocks = owners.into_iter().map(|owner| owner.join().expect("the owner ends well"));
        let blocks: Vec<_> = blocks.flatten().flatten().chain([own]).collect();
        let full = expect_held(&blocks);
        drop(blocks);
        magalloc::flush_thread();
        let flushed = expect_held(&[]);
        assert!(full.slabs > 100 && flushed.slabs <= 3 * sizes.len() as u64, "{full:?}\n{flushed:?}");
    });
}

fn slabs_of_an_idle_owner_are_freed_by_others() {
    alone(|| {
        let sizes = [8, 100, 1_000, 10_000];
        let (made, blocks) = mpsc::channel();
        let (stop, idle) = mpsc::channel::<()>();
        let owner = thread::spawn(move || {
            let blocks = sizes.map(|size| (0..2_000).map(|_| Block::new(size, 8)).collect::<Vec<_>>());
            made.send(blocks).expect("the test waits for them");
            // Idle until the test is over.
            idle.recv().expect_err("nothing is ever sent");
        });
        let blocks = blocks.recv().expect("the owner makes blocks");
        let full = stats();
        drop(blocks);
        magalloc::flush_thread();
        // What the owner has in its hand: the current slab and two more of each size.
        let left = stats();
        assert!(full.slabs > 100 && left.slabs <= 3 * sizes.len() as u64, "{full:?}\n{left:?}");
        drop(stop);
        owner.join().expect("the owner ends well");
    });
}

fn same_work_again_commits_nothing_more() {
    let work = || {
        alone(|| {
            let mut random = Random::with_seed(1);
            let mut blocks: Vec<_> = (0..2_000).map(|_| any_block(&mut random)).collect();
            blocks.retain(|_| random.below(2) == 0);
            expect_held(&blocks);
            blocks.extend((0..1_000).map(|_| any_block(&mut random)));
            expect_held(&blocks);
        });
        stats()
    };
    let first = work();
    for _ in 0..5 {
        let again = work();
        assert_eq!((again.committed, again.mapped), (first.committed, first.mapped), "{first:?}\n{again:?}");
    }
}

fn main() {
    common::run(&[
        ("unused_allocator_holds_nothing", unused_allocator_holds_nothing),
        ("live_is_the_sum_of_class_bytes_at_every_corner", live_is_the_sum_of_class_bytes_at_every_corner),
        ("flushed_thread_caches_nothing_and_keeps_few_slabs", flushed_thread_caches_nothing_and_keeps_few_slabs),
        ("resized_blocks_are_accounted_by_their_new_size", resized_blocks_are_accounted_by_their_new_size),
        ("large_block_grows_in_place_into_free_granules", large_block_grows_in_place_into_free_granules),
        ("large_block_with_a_neighbour_moves", large_block_with_a_neighbour_moves),
        ("freed_spans_stay_dirty_up_to_the_bound", freed_spans_stay_dirty_up_to_the_bound),
        ("refills_flushes_and_os_calls_grow_only_when_needed", refills_flushes_and_os_calls_grow_only_when_needed),
        ("threads_that_hold_blocks_are_counted_exactly", threads_that_hold_blocks_are_counted_exactly),
        ("full_slabs_of_ended_threads_are_freed_by_others", full_slabs_of_ended_threads_are_freed_by_others),
        ("slabs_of_an_idle_owner_are_freed_by_others", slabs_of_an_idle_owner_are_freed_by_others),
        ("same_work_again_commits_nothing_more", same_work_again_commits_nothing_more),
    ]);
}
