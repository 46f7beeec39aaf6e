//! Tests: the kernel does not move pages, or does not map them anew, and nothing is lost.

use super::purging::{heap, release, resident_bytes};
use crate::config::{GRANULE_BYTES, RELOCATE_BYTES_MIN};
use crate::heap::Heap;
use crate::options::Options;
use crate::purge::pace::Due;
use crate::sys::fake::{FakePages, Moves};

const OLD: usize = 2 * RELOCATE_BYTES_MIN;
const NEW: usize = 5 * RELOCATE_BYTES_MIN;

/// A block with something behind it, so that it cannot grow in place; and that.
fn hemmed_in(heap: &Heap<FakePages>) -> (*mut u8, *mut u8) {
    let block = heap.allocate_large(OLD, 8, false);
    let obstacle = heap.allocate_large(GRANULE_BYTES, 8, false);
    // SAFETY: a block of that size.
    unsafe { block.write_bytes(7, OLD) };
    (block, obstacle)
}

fn has_contents(block: *mut u8) -> bool {
    // SAFETY: a live block of at least so many bytes.
    unsafe { std::slice::from_raw_parts(block, OLD) }.iter().all(|&byte| byte == 7)
}

/// Bytes held and resident after all that is free was given back.
fn left(heap: &Heap<FakePages>) -> (usize, usize) {
    heap.purge().epoch(Due::All, || false);
    heap.check();
    (heap.depot().budget.held(), resident_bytes(heap))
}

#[test]
fn where_moves_are_refused_blocks_are_copied_and_all_goes_back() {
    let heap = heap(Options::new());
    heap.depot().os.pages().set_moves(Moves::Refused);
    let (block, obstacle) = hemmed_in(&heap);
    let moved = heap.resize_large(block, NEW, 8);
    assert!(!moved.is_null() && moved != block && has_contents(moved));
    [moved, obstacle].into_iter().for_each(|block| heap.free_large(block));
    assert_eq!(left(&heap), (0, 0));
    release(&heap);
}

#[test]
fn where_a_target_is_lost_the_block_stays_and_only_that_is_gone() {
    let heap = heap(Options::new());
    heap.depot().os.pages().set_moves(Moves::Lost);
    let (block, obstacle) = hemmed_in(&heap);
    assert!(heap.resize_large(block, NEW, 8).is_null());
    assert!(has_contents(block));
    [block, obstacle].into_iter().for_each(|block| heap.free_large(block));
    assert_eq!(left(&heap), (OLD, 0), "as much as was to be moved");
    release(&heap);
}

#[test]
fn a_moved_block_that_cannot_be_mapped_anew_is_freed_all_the_same() {
    let heap = heap(Options::new());
    let (block, obstacle) = hemmed_in(&heap);
    let moved = heap.resize_large(block, NEW, 8);
    assert!(!moved.is_null() && moved != block && has_contents(moved));
    heap.depot().os.pages().set_moves(Moves::Refused);
    // Its end, and then the rest.
    assert_eq!(heap.resize_large(moved, OLD, 8), moved);
    assert!(has_contents(moved));
    heap.free_large(moved);
    // It is known not to be zero.
    let again = heap.allocate_large(NEW, 8, true);
    // SAFETY: a live block of that size.
    assert!(unsafe { std::slice::from_raw_parts(again, NEW) }.iter().all(|&byte| byte == 0));
    [again, obstacle].into_iter().for_each(|block| heap.free_large(block));
    assert_eq!(left(&heap), (0, 0));
    release(&heap);
}

#[test]
fn a_kernel_that_refuses_moves_is_not_asked_for_each() {
    for refusal in [Moves::Refused, Moves::Lost] {
        let heap = heap(Options::new());
        let asked = || heap.depot().os.pages().moves_asked();
        let grow = |times: usize| {
            for _ in 0..times {
                let (block, obstacle) = hemmed_in(&heap);
                let moved = heap.resize_large(block, NEW, 8);
                [if moved.is_null() { block } else { moved }, obstacle].into_iter().for_each(|it| heap.free_large(it));
            }
        };
        heap.depot().os.pages().set_moves(refusal);
        // Passed by between them: 4, 8, 16, 32, 64, 64.
        grow(200);
        assert_eq!(asked(), 7, "{refusal:?}");
        // Granted again: after what is left of the last pause, each is asked for.
        heap.depot().os.pages().set_moves(Moves::Granted);
        grow(64);
        let before = asked();
        grow(10);
        assert_eq!(asked(), before + 10, "{refusal:?}");
        release(&heap);
    }
}
