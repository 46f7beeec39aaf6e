//! Tests: the largest blocks are kernel mappings of their own, and count, move and end like other blocks.

use super::purging::{heap, release};
use crate::config::{GRANULE_BYTES, MAPPED_BYTES_MIN};
use crate::heap::{Found, Heap};
use crate::options::Options;
use crate::sys::fake::FakePages;

const MIB: usize = 1 << 20;
/// Bytes of a block that is a mapping by far.
const LONG: usize = 4 * MAPPED_BYTES_MIN;
const ALIGN: usize = 16;

fn large(heap: &Heap<FakePages>, size: usize) -> *mut u8 {
    let block = heap.allocate_large(size, ALIGN, true);
    assert!(!block.is_null());
    block
}

/// Writes a byte that tells its place to each `step` bytes of a block.
fn write(block: *mut u8, size: usize, step: usize) {
    for offset in (0..size).step_by(step) {
        // SAFETY: within the block.
        unsafe { block.add(offset).write((offset / step) as u8 | 1) };
    }
}

fn verify(block: *mut u8, size: usize, step: usize) {
    for offset in (0..size).step_by(step) {
        // SAFETY: within the block.
        assert_eq!(unsafe { block.add(offset).read() }, (offset / step) as u8 | 1, "at {offset}");
    }
}

fn held(heap: &Heap<FakePages>) -> usize {
    heap.stats().held as usize
}

#[test]
fn a_block_costs_as_many_calls_whatever_its_length() {
    let heap = heap(Options::new());
    heap.free_large(large(&heap, MAPPED_BYTES_MIN));
    let before = heap.stats();
    for size in [MAPPED_BYTES_MIN, 2 * MAPPED_BYTES_MIN, LONG] {
        let calls = heap.stats().os_calls;
        let block = large(&heap, size);
        assert_eq!(heap.find(block), Found::Large { bytes: size });
        heap.free_large(block);
        assert_eq!(heap.stats().os_calls - calls, 3, "a mapping is made, advised against huge pages, and ended");
    }
    let after = heap.stats();
    assert_eq!((after.committed, after.held, after.dirty), (before.committed, before.held, before.dirty));
    assert_eq!(after.metadata, before.metadata, "the regions know nothing of it");
    release(&heap);
}

#[test]
fn a_shorter_block_is_a_span() {
    let heap = heap(Options::new());
    let calls = heap.stats().os_calls;
    let block = large(&heap, MAPPED_BYTES_MIN - GRANULE_BYTES);
    assert!(heap.depot().regions.find(block.addr()).is_some());
    assert!(heap.depot().mappings.find(block.addr()).is_none());
    heap.free_large(block);
    let again = large(&heap, MAPPED_BYTES_MIN - GRANULE_BYTES);
    assert_eq!(block, again);
    assert!(heap.stats().os_calls > calls);
    heap.free_large(again);
    release(&heap);
}

#[test]
fn a_block_is_counted_as_long_as_it_lives() {
    let heap = heap(Options::new());
    heap.free_large(large(&heap, MAPPED_BYTES_MIN));
    let (before, held_before) = (heap.stats(), held(&heap));
    let block = large(&heap, LONG + 1);
    let stats = heap.stats();
    assert_eq!(stats.large_blocks, before.large_blocks + 1);
    assert_eq!(stats.live, before.live + (LONG + GRANULE_BYTES) as u64);
    assert_eq!(held(&heap), held_before + LONG + GRANULE_BYTES);
    heap.check();
    // As in the child of a fork.
    heap.depot().recount();
    assert_eq!(held(&heap), held_before + LONG + GRANULE_BYTES);
    heap.free_large(block);
    assert_eq!(held(&heap), held_before);
    assert_eq!(heap.find(block), Found::Foreign);
    heap.check();
    release(&heap);
}

#[test]
fn blocks_that_live_are_given_back_with_the_heap() {
    let heap = heap(Options::new());
    let _blocks: Vec<_> = (0..5).map(|_| large(&heap, MAPPED_BYTES_MIN)).collect();
    release(&heap);
    assert_eq!(heap.depot().os.pages().mapped(), []);
}

#[test]
fn the_limits_hold() {
    let heap = heap(Options { hard_limit: LONG, ..Options::new() });
    let first = large(&heap, MAPPED_BYTES_MIN);
    assert!(heap.allocate_large(LONG, ALIGN, false).is_null());
    assert!(heap.resize_large(first, LONG + MIB, ALIGN).is_null());
    let grown = heap.resize_large(first, LONG - MIB, ALIGN);
    assert!(!grown.is_null());
    assert!(heap.allocate_large(2 * MIB, ALIGN, false).is_null());
    heap.free_large(grown);
    let second = large(&heap, LONG);
    heap.free_large(second);
    // What is free and dirty makes room.
    let spans: Vec<_> = (0..10).map(|_| large(&heap, LONG / 10 - MIB)).collect();
    spans.into_iter().for_each(|span| heap.free_large(span));
    heap.free_large(large(&heap, LONG));
    heap.check();
    release(&heap);
}

#[test]
fn a_block_shrinks_where_there_is_no_room_to_move() {
    let heap = heap(Options { hard_limit: MAPPED_BYTES_MIN + 8 * MIB, ..Options::new() });
    let block = large(&heap, MAPPED_BYTES_MIN);
    write(block, MAPPED_BYTES_MIN, 100 * MIB);
    assert_eq!(heap.resize_large(block, 400 * MIB, ALIGN), block);
    verify(block, 400 * MIB, 100 * MIB);
    heap.free_large(block);
    heap.check();
    release(&heap);
}

#[test]
fn a_block_grows_and_shrinks_with_its_contents_across_the_bound() {
    let heap = heap(Options::new());
    let step = 3 * MIB + 5;
    let (small, middle) = (20 * MIB, MAPPED_BYTES_MIN - MIB);
    let mut block = large(&heap, small);
    write(block, small, step);
    let mut size = small;
    for new_size in [middle, 2 * MAPPED_BYTES_MIN, 3 * LONG, MAPPED_BYTES_MIN + 1, middle, small, LONG, 5 * MIB] {
        let resized = heap.resize_large(block, new_size, ALIGN);
        assert!(!resized.is_null(), "to {new_size}");
        block = resized;
        verify(block, size.min(new_size), step);
        write(block, new_size, step);
        size = new_size;
        let is_mapping = heap.depot().mappings.find(block.addr()).is_some();
        if !(MAPPED_BYTES_MIN / 2..MAPPED_BYTES_MIN).contains(&new_size) {
            assert_eq!(is_mapping, new_size >= MAPPED_BYTES_MIN, "{new_size}");
        }
        heap.check();
    }
    heap.free_large(block);
    let stats = heap.stats();
    assert_eq!((stats.live, stats.large_blocks), (0, 0));
    release(&heap);
}

#[test]
fn what_a_shorter_block_has_no_more_is_zero_when_it_grows_again() {
    let heap = heap(Options::new());
    let block = large(&heap, MAPPED_BYTES_MIN);
    write(block, MAPPED_BYTES_MIN, MIB);
    let short = MAPPED_BYTES_MIN / 2 + MIB;
    assert_eq!(heap.resize_large(block, short, ALIGN), block);
    verify(block, short, MIB);
    // SAFETY: still within the mapping.
    assert_eq!(unsafe { block.add(short).read() }, 0, "its pages went back");
    heap.free_large(block);
    release(&heap);
}

#[test]
fn aligned_blocks_are_aligned() {
    let heap = heap(Options::new());
    for align in [4096, 64 << 10, MIB, 32 * MIB, 1 << 30] {
        let block = heap.allocate_large(MAPPED_BYTES_MIN + 1, align, false);
        assert!(!block.is_null() && block.addr().is_multiple_of(align), "{align}");
        assert!(heap.depot().mappings.find(block.addr()).is_some());
        // One that cannot stay where it is would have to keep its alignment.
        let resized = heap.resize_large(block, LONG + 1, align);
        assert!(resized.is_null() || resized.addr().is_multiple_of(align));
        heap.free_large(if resized.is_null() { block } else { resized });
    }
    heap.check();
    release(&heap);
}

#[test]
fn a_pointer_into_a_block_is_no_block() {
    let heap = heap(Options::new());
    let block = large(&heap, LONG);
    for offset in [1, 16, GRANULE_BYTES, LONG / 2, LONG - 1] {
        assert_eq!(heap.find(block.wrapping_add(offset)), Found::Nothing);
    }
    assert_eq!(heap.find(block.wrapping_add(LONG)), Found::Foreign);
    heap.free_large(block);
    assert_eq!(heap.find(block), Found::Foreign);
    assert!(heap.depot().mappings.was_taken(block.addr()));
    release(&heap);
}

#[test]
fn a_kernel_without_a_place_gets_an_ordinary_block() {
    let heap = heap(Options::new());
    heap.free_large(large(&heap, MIB));
    heap.depot().os.pages().limit_mappings(MIB);
    let block = large(&heap, MAPPED_BYTES_MIN);
    assert!(heap.depot().regions.find(block.addr()).is_some());
    let grown = heap.resize_large(block, 2 * MAPPED_BYTES_MIN, ALIGN);
    assert!(!grown.is_null());
    heap.free_large(grown);
    heap.check();
    release(&heap);
}

#[test]
fn threads_make_and_end_mappings_at_once() {
    let heap = heap(Options::new());
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let heap = &heap;
            scope.spawn(move || {
                for round in 0..200 {
                    let size = MAPPED_BYTES_MIN + ((thread + round) % 7) * 40 * MIB;
                    let block = large(heap, size);
                    write(block, size, 64 * MIB);
                    let block = match heap.resize_large(block, size + 300 * MIB, ALIGN) {
                        null if null.is_null() => block,
                        grown => grown,
                    };
                    verify(block, size, 64 * MIB);
                    heap.free_large(block);
                }
            });
        }
    });
    heap.check();
    assert_eq!(heap.stats().large_blocks, 0);
    release(&heap);
}
