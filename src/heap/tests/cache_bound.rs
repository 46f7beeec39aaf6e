//! Tests: what a thread caches stays within its bound, and no magazine is lost.

use super::purging::{allocate, free};
use crate::config::{MAGAZINE_BLOCKS_FIRST, MAGAZINE_BYTES_FIRST};
use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::options::Options;
use crate::size_class::{self, shape};
use crate::sys::fake::FakePages;
use crate::units::ClassIndex;

/// Allocates `count` blocks of a class.
fn take(heap: &Heap<FakePages>, cached: &LocalHeap<'_, FakePages>, class: ClassIndex, count: usize) -> Vec<*mut u8> {
    (0..count).map(|_| allocate(heap, cached, class)).collect()
}

fn give(heap: &Heap<FakePages>, cached: &LocalHeap<'_, FakePages>, class: ClassIndex, blocks: Vec<*mut u8>) {
    blocks.into_iter().for_each(|block| free(heap, cached, class, block));
}

/// Allocates and frees `count` blocks of a class at once.
fn burst(heap: &Heap<FakePages>, cached: &LocalHeap<'_, FakePages>, class: ClassIndex, count: usize) {
    give(heap, cached, class, take(heap, cached, class, count));
}

/// The classes of the test: those whose first magazine takes little.
fn classes() -> impl Iterator<Item = ClassIndex> {
    size_class::all().filter(|&class| shape(class).bytes <= 1024)
}

/// Goes through the classes again and again, so that each grows, is starved, and grows again.
fn cached_after_bursts(bound: usize) -> usize {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(&Options { cache_bytes_max: bound, ..Options::new() });
    let cached = heap.register().expect("memory");
    let mut most = 0;
    for round in 0..4 {
        for class in classes().filter(|class| (class.get() + round) % 3 != 0) {
            (0..6).for_each(|_| burst(&heap, &cached, class, 300));
            most = most.max(cached.cache.cached_bytes());
        }
    }
    heap.check();
    heap.unregister(&cached);
    let (made, spare) = heap.depot().magazines.count();
    assert!(made > 0);
    assert_eq!(made, spare, "every magazine is in the pool when no thread has a cache");
    // SAFETY: the heap is this test's, and all its blocks are freed.
    unsafe { heap.release() };
    most
}

/// Blocks of a class's first magazine.
fn first(class: ClassIndex) -> usize {
    (MAGAZINE_BYTES_FIRST / shape(class).bytes as usize).clamp(1, MAGAZINE_BLOCKS_FIRST)
}

/// Bytes that every class of these may hold in any case.
fn first_bytes(classes: impl Iterator<Item = ClassIndex>) -> usize {
    classes.map(|class| first(class) * shape(class).bytes as usize).sum()
}

#[test]
fn a_cache_stays_within_its_bound() {
    for bound in [0, 256 << 10, 1 << 20] {
        let most = cached_after_bursts(bound);
        assert!(most <= bound + first_bytes(classes()), "{most} bytes cached at a bound of {bound}");
    }
    assert!(cached_after_bursts(64 << 20) > 2 << 20, "a high bound is used");
}

#[test]
fn large_blocks_that_are_only_freed_do_not_stay_beside_a_full_cache() {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(&Options::new());
    let [producer, consumer] = [(), ()].map(|()| heap.register().expect("memory"));
    let large = size_class::class_of(16 << 10, 8).expect("a small size");
    let free_some = |count| {
        (0..count).for_each(|_| {
            give(&heap, &consumer, large, take(&heap, &producer, large, 1));
            // So seldom that none are stashed.
            heap.depot().os.pages().pass_ms(100);
        });
    };
    free_some(20);
    assert!(consumer.cache.blocks(large) > 0);
    // Loaded magazines have more than a quarter of the bound from now on, which is what such classes may have.
    classes().for_each(|class| (0..6).for_each(|_| burst(&heap, &consumer, class, 300)));
    // Not so many that they take room from classes that rest.
    free_some(5);
    assert_eq!(consumer.cache.blocks(large), 0);
    [producer, consumer].iter().for_each(|cached| heap.unregister(cached));
    let (made, spare) = heap.depot().magazines.count();
    assert_eq!(made, spare);
    heap.check();
    // SAFETY: the heap is this test's, and all its blocks are freed.
    unsafe { heap.release() };
}

/// Blocks that one class has cached at most when it is used in a way that misses often, with `pause_ms` after each use.
fn cached_with_pauses(pause_ms: u64) -> usize {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(&Options::new());
    let cached = heap.register().expect("memory");
    let class = size_class::class_of(64, 8).expect("a small size");
    let mut most = 0;
    for _ in 0..100 {
        // Two blocks more than there are, so that malloc misses once, and free once or twice.
        let count = cached.cache.blocks(class) + 2;
        burst(&heap, &cached, class, count);
        most = most.max(cached.cache.blocks(class));
        heap.depot().os.pages().pass_ms(pause_ms);
    }
    heap.unregister(&cached);
    // SAFETY: the heap is this test's, and all its blocks are freed.
    unsafe { heap.release() };
    most
}

#[test]
fn a_class_that_missed_often_goes_on_so_after_a_gap() {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(&Options::new());
    let cached = heap.register().expect("memory");
    let class = size_class::class_of(64, 8).expect("a small size");
    // A busy step, in which the magazine has become as large as it may.
    (0..100).for_each(|_| burst(&heap, &cached, class, 300));
    let flushes = cached.cache.counts().flushes;
    heap.depot().os.pages().pass_ms(20);
    // Ordered blocks are stashed where the class misses often.
    burst(&heap, &cached, class, 300);
    assert_eq!(cached.cache.counts().flushes, flushes);
    heap.unregister(&cached);
    // SAFETY: the heap is this test's, and all its blocks are freed.
    unsafe { heap.release() };
}

#[test]
fn a_class_that_misses_seldom_stays_small() {
    let often = cached_with_pauses(0);
    assert!(often >= 2 * usize::from(shape(size_class::class_of(64, 8).expect("a class")).magazine_blocks), "{often}");
    // The last one is where a count of steps in eight bits would begin anew.
    for pause_ms in [10, 1_000, 1_024] {
        let seldom = cached_with_pauses(pause_ms);
        assert!(seldom <= 2 * MAGAZINE_BLOCKS_FIRST, "{seldom} blocks with pauses of {pause_ms} ms");
    }
}

/// Blocks that one class has cached at most when it frees 3,000 at a time, in an order that is lost, at home in words
/// where `is_live` says which blocks never are free.
fn cached_without_order(is_live: impl Fn(usize) -> bool) -> usize {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(&Options::new());
    let cached = heap.register().expect("memory");
    let class = size_class::class_of(64, 8).expect("a small size");
    let mut blocks = take(&heap, &cached, class, 100_000);
    blocks.sort_unstable();
    let mut index = 0..;
    let (live, others) = blocks.into_iter().partition(|_| index.next().is_some_and(&is_live));
    give(&heap, &cached, class, others);
    heap.flush(&cached);
    let mut most = 0;
    for _ in 0..50 {
        let mut blocks = take(&heap, &cached, class, 3_000);
        // As if at random: 1,009 and 3,000 have no common divisor.
        (0..blocks.len()).for_each(|index| blocks.swap(index, index * 1_009 % 3_000));
        give(&heap, &cached, class, blocks);
        most = most.max(cached.cache.blocks(class));
    }
    give(&heap, &cached, class, live);
    heap.unregister(&cached);
    // SAFETY: the heap is this test's, and all its blocks are freed.
    unsafe { heap.release() };
    most
}

#[test]
fn blocks_without_neighbours_at_home_stay_in_the_cache() {
    let (sparse, dense) =
        (cached_without_order(|index| index % 16 != 0), cached_without_order(|index| index % 16 == 0));
    assert!(sparse >= 2_000, "{sparse}");
    assert!(dense <= 1_000, "{dense}");
}

#[test]
fn the_stash_serves_misses_but_every_eighth_which_does_the_rest() {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(&Options::new());
    let cached = heap.register().expect("memory");
    let class = size_class::class_of(64, 8).expect("a small size");
    // So many that fills show what is missing, and the stash grows.
    (0..8).for_each(|_| burst(&heap, &cached, class, 4000));
    let (mut taken, mut at_once, mut most) = (Vec::new(), 0, 0);
    let (before, cached_bytes) = (cached.cache.counts(), cached.cache.cached_bytes());
    while taken.len() * 64 < cached_bytes {
        let popped = cached.pop(class);
        let stashed = if popped.is_null() { cached.allocate_stashed(class) } else { popped };
        if popped.is_null() {
            at_once = if stashed.is_null() { 0 } else { at_once + 1 };
            most = most.max(at_once);
        }
        taken.push(if stashed.is_null() { heap.allocate_small(Some(&cached), class) } else { stashed });
    }
    assert_eq!(cached.cache.counts().refills, before.refills, "all of it was cached");
    assert_eq!(most, 7, "the eighth goes the whole way");
    let unlike: std::collections::BTreeSet<_> = taken.iter().collect();
    assert_eq!(unlike.len(), taken.len());
    give(&heap, &cached, class, taken);
    heap.check();
    heap.unregister(&cached);
    let (made, spare) = heap.depot().magazines.count();
    assert_eq!(made, spare, "every magazine is in the pool when no thread has a cache");
    // SAFETY: the heap is this test's, and all its blocks are freed.
    unsafe { heap.release() };
}
