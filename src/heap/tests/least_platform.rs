//! Tests: a heap on a platform that can do no more than a port must fill in. What it cannot do is never asked for (the fake
//! sees to that), and nothing is lost by it but speed.

use super::purging::{allocate, free, heap, release, resident_bytes};
use crate::config::{CHUNK_BYTES, GRANULE_BYTES, HUGE_PAGES_FROM_BYTES, POPULATE_BYTES_FIRST, RELOCATE_BYTES_MIN};
use crate::heap::Heap;
use crate::options::{HugePages, Options};
use crate::purge::pace::Due;
use crate::size_class::class_of;
use crate::sys::fake::FakePages;

const MIB: usize = 1 << 20;

fn least(options: Options) -> Box<Heap<FakePages>> {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.depot().os.pages().do_the_least();
    heap.configure(&options);
    heap
}

/// Gives all that is free back.
fn purge(heap: &Heap<FakePages>) {
    heap.purge().epoch(Due::All, || false);
    heap.check();
}

/// Allocates enough for all that depends on the size of the heap, and frees it.
fn use_and_free(heap: &Heap<FakePages>) {
    let cached = heap.register().expect("a cache");
    let class = class_of(2000, 8).expect("small");
    let bytes = POPULATE_BYTES_FIRST.max(HUGE_PAGES_FROM_BYTES) + 16 * MIB;
    let blocks: Vec<*mut u8> = (0..bytes / 2000).map(|_| allocate(heap, &cached, class)).collect();
    // At first some stay, so that pages between them go.
    for rest in [false, true] {
        for (_, &block) in blocks.iter().enumerate().filter(|(index, _)| index.is_multiple_of(50) == rest) {
            free(heap, &cached, class, block);
        }
        heap.flush(&cached);
        purge(heap);
    }
    assert_eq!(resident_bytes(heap), 0);
    heap.unregister(&cached);
}

#[test]
fn small_blocks_come_and_go_with_any_option() {
    for huge_pages in [HugePages::Auto, HugePages::Always, HugePages::System, HugePages::Never] {
        let heap = least(Options { huge_pages, extra_calls: true, ..Options::new() });
        use_and_free(&heap);
        use_and_free(&heap);
        release(&heap);
    }
}

#[test]
#[cfg(target_pointer_width = "64")]
fn places_that_are_held_are_left_at_the_end_and_not_before() {
    for is_least in [true, false] {
        let heap = Box::new(Heap::new(FakePages::new()));
        let pages = heap.depot().os.pages();
        pages.hold_places();
        if is_least {
            pages.do_the_least();
        }
        heap.configure(&Options::new());
        use_and_free(&heap);
        // A region, the records and the magazines. The fake sees to it that nothing is committed beside them, nor left in them.
        assert_eq!(pages.held_places().len(), 3);
        release(&heap);
        assert_eq!((pages.held_places(), pages.mapped()), (vec![], vec![]));
    }
}

#[test]
fn huge_pages_that_are_not_there_are_not_counted() {
    let heap = least(Options { huge_pages: HugePages::Always, ..Options::new() });
    let block = heap.allocate_large(GRANULE_BYTES, 8, false);
    assert_eq!((heap.depot().budget.held(), heap.stats().dirty), (GRANULE_BYTES, 0));
    heap.free_large(block);
    release(&heap);
}

#[test]
fn a_large_block_grows_in_place_or_is_left_to_be_copied() {
    let heap = least(Options::new());
    let block = heap.allocate_large(2 * RELOCATE_BYTES_MIN, 8, false);
    assert_eq!(heap.resize_large(block, 3 * RELOCATE_BYTES_MIN, 8), block);
    let obstacle = heap.allocate_large(GRANULE_BYTES, 8, false);
    assert!(heap.resize_large(block, 5 * RELOCATE_BYTES_MIN, 8).is_null());
    [block, obstacle].into_iter().for_each(|block| heap.free_large(block));
    purge(&heap);
    assert_eq!((heap.depot().budget.held(), resident_bytes(&heap)), (0, 0));
    release(&heap);
}

#[test]
fn reused_memory_is_made_zero() {
    let heap = least(Options::new());
    let bytes = 16 * MIB;
    let block = heap.allocate_large(bytes, 8, false);
    // SAFETY: a block of that size.
    unsafe { block.write_bytes(7, bytes) };
    heap.free_large(block);
    let again = heap.allocate_large(bytes, 8, true);
    // SAFETY: a live block of that size.
    assert!(unsafe { std::slice::from_raw_parts(again, bytes) }.iter().all(|&byte| byte == 0));
    heap.free_large(again);
    release(&heap);
}

#[test]
#[cfg(target_pointer_width = "64")]
fn a_mapping_that_shrinks_keeps_its_length_and_not_its_pages() {
    use crate::config::MAPPED_BYTES_MIN;
    let heap = least(Options::new());
    let block = heap.allocate_large(MAPPED_BYTES_MIN + 8 * MIB, 8, false);
    let behind = core::ptr::NonNull::new(block.wrapping_add(MAPPED_BYTES_MIN)).expect("a block");
    // SAFETY: the end of the block.
    unsafe { behind.write_bytes(7, 8 * MIB) };
    assert_eq!(heap.resize_large(block, MAPPED_BYTES_MIN, 8), block);
    assert_eq!(heap.depot().os.pages().resident(behind, 8 * MIB), 0);
    assert!(heap.resize_large(block, 2 * MAPPED_BYTES_MIN, 8).is_null());
    heap.free_large(block);
    assert_eq!(heap.depot().budget.held(), 0);
    release(&heap);
}

#[test]
#[cfg(target_pointer_width = "64")]
fn the_largest_block_that_has_no_mapping_shrinks_in_place() {
    use crate::config::MAPPED_BYTES_MIN;
    let heap = least(Options::new());
    heap.depot().os.pages().limit_mappings(MIB);
    let block = heap.allocate_large(2 * MAPPED_BYTES_MIN, 8, false);
    heap.depot().os.pages().limit_mappings(usize::MAX);
    assert_eq!(heap.resize_large(block, MAPPED_BYTES_MIN, 8), block);
    heap.free_large(block);
    release(&heap);
}

/// A late look at it would meet memory that another thread is giving back.
#[test]
fn metadata_stays_where_purged_memory_cannot_be_read() {
    let metadata_purged = |heap: &Heap<FakePages>| {
        let calls = || heap.stats().purges;
        let block = heap.allocate_large(CHUNK_BYTES, CHUNK_BYTES, false);
        // SAFETY: a block of that size.
        unsafe { block.write_bytes(7, CHUNK_BYTES) };
        heap.free_large(block);
        let before = calls();
        purge(heap);
        calls() - before
    };
    let (most, least) = (heap(Options::new()), least(Options::new()));
    assert_eq!((metadata_purged(&most), metadata_purged(&least)), (2, 1));
    [most, least].iter().for_each(|heap| release(heap));
}
