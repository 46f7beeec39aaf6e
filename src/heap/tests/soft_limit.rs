//! Tests: near the soft limit memory goes back in steps, and the control group's limit sets one.

use super::purging::{allocate, free};
use crate::config::CACHE_BYTES_SURE;
use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::options::{Options, SoftLimit};
use crate::size_class;
use crate::sys::fake::FakePages;

const MIB: usize = 1 << 20;
const LIMIT: usize = 100 * MIB;

fn release(heap: &Heap<FakePages>) {
    heap.check();
    // SAFETY: the heap is this test's, and its blocks are not used any more.
    let (mapped, unmapped) = unsafe { heap.release() };
    assert_eq!(mapped, unmapped);
}

fn heap(soft_limit: SoftLimit) -> Box<Heap<FakePages>> {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(&Options { soft_limit, ..Options::new() });
    heap
}

fn take(heap: &Heap<FakePages>, bytes: usize) -> *mut u8 {
    let block = heap.allocate_large(bytes, 8, false);
    assert!(!block.is_null());
    block
}

#[test]
fn the_control_groups_limit_counts_by_default() {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.depot().os.pages().set_memory_limit(LIMIT);
    heap.configure(&Options::new());
    let below = take(&heap, LIMIT / 100 * 80);
    assert!(!heap.depot().is_pressed());
    let above = take(&heap, LIMIT / 100 * 10);
    assert!(heap.depot().is_pressed());
    [below, above].into_iter().for_each(|block| heap.free_large(block));
    release(&heap);
}

#[test]
fn a_group_without_a_limit_sets_none() {
    let heap = heap(SoftLimit::default());
    let block = take(&heap, LIMIT);
    assert!(!heap.depot().is_pressed());
    heap.free_large(block);
    release(&heap);
}

#[test]
fn files_are_read_once_if_the_environment_says_nothing_of_the_limit() {
    let (before, after) = (Options::new(), Options { report_exit: true, ..Options::new() });
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.depot().os.pages().set_memory_limit(LIMIT);
    heap.configure(&before);
    heap.depot().os.pages().set_memory_limit(2 * LIMIT);
    heap.reconfigure(before.soft_limit, &after);
    assert_eq!(heap.depot().settings.soft_limit(), LIMIT / 100 * 85);
    heap.reconfigure(before.soft_limit, &Options { soft_limit: SoftLimit::CgroupPercent(50), ..after });
    assert_eq!(heap.depot().settings.soft_limit(), LIMIT);
    assert!(heap.depot().settings.report_exit());
}

/// Calls of the kernel to give memory back while 1000 blocks are taken and freed in turn, with `in_use` bytes in use.
fn purges_of_pairs(in_use: usize) -> u64 {
    let heap = heap(SoftLimit::Bytes(LIMIT));
    let block = take(&heap, in_use);
    let before = heap.stats().purges;
    (0..1000).for_each(|_| heap.free_large(take(&heap, MIB / 16)));
    let purges = heap.stats().purges - before;
    heap.free_large(block);
    release(&heap);
    purges
}

#[test]
fn a_byte_more_than_the_limit_changes_little() {
    for in_use in [LIMIT / 2, LIMIT - MIB, LIMIT, LIMIT + MIB, 2 * LIMIT] {
        assert_eq!(purges_of_pairs(in_use), 0, "{in_use} bytes in use");
    }
}

#[test]
fn what_exceeds_the_limit_goes_back_in_steps() {
    let heap = heap(SoftLimit::Bytes(LIMIT));
    let kept = take(&heap, LIMIT);
    let blocks: Vec<*mut u8> = (0..1024).map(|_| take(&heap, MIB / 16)).collect();
    let before = heap.stats().purges;
    for block in blocks {
        heap.free_large(block);
        assert!(heap.depot().dirty_bytes() <= LIMIT / 50);
    }
    let purges = heap.stats().purges - before;
    assert!((30..=130).contains(&purges), "64 MiB in {purges} calls");
    heap.free_large(kept);
    release(&heap);
}

/// In use in the tests that follow: far below the limit, about it, and above.
const IN_USE: [usize; 5] = [LIMIT / 2, LIMIT - MIB, LIMIT - MIB / 16, LIMIT + MIB / 16, 2 * LIMIT];

/// What 200 rounds cost after the first few, with `in_use` bytes in use besides: calls of the kernel that give memory
/// back, and trips of blocks between slabs and the cache. Each round, 10 ms pass, and an epoch where one is due then.
fn cost_of(in_use: usize, round: impl Fn(&Heap<FakePages>, &LocalHeap<'_, FakePages>)) -> (u64, u64) {
    let heap = heap(SoftLimit::Bytes(LIMIT));
    let local = heap.register().unwrap();
    let kept = take(&heap, in_use);
    let counts = || {
        let stats = heap.stats();
        (stats.purges, stats.refills + stats.flushes)
    };
    let mut before = counts();
    for number in 0..220 {
        if number == 20 {
            before = counts();
        }
        round(&heap, &local);
        heap.depot().os.pages().pass_ms(10);
        heap.purge().tick();
    }
    let after = counts();
    heap.unregister(&local);
    heap.free_large(kept);
    release(&heap);
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn a_buffer_that_is_taken_again_stays_on_both_sides_of_the_limit() {
    for in_use in IN_USE {
        let (purges, _) = cost_of(in_use, |heap, _| heap.free_large(take(heap, 5 * MIB)));
        assert!(purges <= 10, "{purges} calls in 200 rounds, {in_use} bytes in use");
    }
}

#[test]
fn bursts_of_small_blocks_cost_the_same_on_both_sides_of_the_limit() {
    let class = size_class::class_of(1024, 8).unwrap();
    let burst = |heap: &Heap<FakePages>, local: &LocalHeap<'_, FakePages>| {
        let blocks: Vec<_> = (0..4000).map(|_| allocate(heap, local, class)).collect();
        blocks.into_iter().for_each(|block| free(heap, local, class, block));
    };
    let (_, trips_below) = cost_of(IN_USE[0], burst);
    for in_use in IN_USE {
        let (purges, trips) = cost_of(in_use, burst);
        assert!(purges <= 200, "{purges} calls in 200 rounds, {in_use} bytes in use");
        assert!(trips <= 2 * trips_below, "{trips} trips to slabs and back, {trips_below} far below the limit");
    }
}

/// Ticks until `ms` have passed.
fn pass(heap: &Heap<FakePages>, ms: u64) {
    for _ in 0..ms / 10 {
        heap.depot().os.pages().pass_ms(10);
        heap.purge().tick();
    }
}

#[test]
fn what_is_not_taken_again_goes_though_it_was_before() {
    for watched in [false, true] {
        let heap = heap(SoftLimit::Bytes(LIMIT));
        heap.depot().set_watched(watched);
        let kept = take(&heap, LIMIT - MIB);
        // The clock has begun.
        pass(&heap, 1000);
        for _ in 0..20 {
            let buffer = take(&heap, 30 * MIB);
            let peak = heap.depot().budget.held();
            heap.free_large(buffer);
            let held = heap.depot().budget.held();
            let most = if watched { peak } else { LIMIT / 8 * 9 };
            assert!(held <= most, "{held} bytes, {peak} at the peak");
        }
        assert!(heap.depot().budget.held() > LIMIT / 50 * 51, "nothing stayed");
        pass(&heap, 1500);
        let held = heap.depot().budget.held();
        assert!(held <= LIMIT / 50 * 51, "{held} bytes, of which {} are dirty", heap.depot().dirty_bytes());
        heap.free_large(kept);
        release(&heap);
    }
}

#[test]
fn a_burst_beyond_the_limit_goes_at_once() {
    let heap = heap(SoftLimit::Bytes(LIMIT));
    let kept = take(&heap, LIMIT / 2);
    let blocks: Vec<*mut u8> = (0..LIMIT / MIB).map(|_| take(&heap, MIB)).collect();
    blocks.into_iter().for_each(|block| heap.free_large(block));
    let held = heap.depot().budget.held();
    assert!(held <= LIMIT / 50 * 51, "{held} bytes");
    heap.free_large(kept);
    release(&heap);
}

#[test]
fn all_caches_together_hold_a_share_of_a_small_limit() {
    const SMALL: usize = 16 * MIB;
    const THREADS: usize = 16;
    let heap = heap(SoftLimit::Bytes(SMALL));
    let class = size_class::class_of(1024, 8).unwrap();
    let threads: Vec<_> = (0..THREADS).map(|_| heap.register().unwrap()).collect();
    for local in &threads {
        for _ in 0..4 {
            let blocks: Vec<_> = (0..2000).map(|_| allocate(&heap, local, class)).collect();
            blocks.into_iter().for_each(|block| free(&heap, local, class, block));
        }
    }
    let cached = heap.stats().cached as usize;
    let most = SMALL / 8 + THREADS * CACHE_BYTES_SURE;
    assert!(cached <= most, "{cached} bytes are cached, more than {most}");
    threads.iter().for_each(|local| heap.unregister(local));
    release(&heap);
}
