//! Tests: what a thread caches stays within its bound, and no magazine is lost.

use super::Heap;
use crate::config::{MAGAZINE_BLOCKS_FIRST, MAGAZINE_BYTES_FIRST};
use crate::options::Options;
use crate::size_class::{self, shape};
use crate::sys::fake::FakePages;
use crate::thread_cache::Cached;
use crate::units::ClassIndex;

/// Allocates and frees `count` blocks of a class at once.
fn burst(heap: &Heap<FakePages>, cached: &Cached<'_, FakePages>, class: ClassIndex, count: usize) {
    let allocate = || {
        let popped = cached.cache.tops().pop(class);
        if popped.is_null() { heap.allocate_small(Some(cached), class) } else { popped }
    };
    let blocks: Vec<*mut u8> = (0..count).map(|_| allocate()).collect();
    for block in blocks {
        assert!(!block.is_null());
        if !cached.cache.tops().push(class, block) {
            heap.free_small(Some(cached), class, block);
        }
    }
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
            most = most.max(cached.cache.counts().cached_bytes);
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

/// What every class may hold in any case.
fn first_blocks() -> usize {
    let first = |class| {
        let bytes = shape(class).bytes as usize;
        (MAGAZINE_BYTES_FIRST / bytes).clamp(1, MAGAZINE_BLOCKS_FIRST) * bytes
    };
    classes().map(first).sum()
}

#[test]
fn a_cache_stays_within_its_bound() {
    for bound in [0, 256 << 10, 1 << 20] {
        let most = cached_after_bursts(bound);
        assert!(most <= bound + first_blocks(), "{most} bytes cached at a bound of {bound}");
    }
    assert!(cached_after_bursts(64 << 20) > 2 << 20, "a high bound is used");
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
fn a_class_that_misses_seldom_stays_small() {
    let (often, seldom) = (cached_with_pauses(0), cached_with_pauses(10));
    assert!(often >= 2 * usize::from(shape(size_class::class_of(64, 8).expect("a class")).magazine_blocks), "{often}");
    assert!(seldom <= 2 * MAGAZINE_BLOCKS_FIRST, "{seldom}");
}
