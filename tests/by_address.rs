//! Blocks without layouts: allocated by size, freed by address, resized where they are if possible.

mod common;

use common::{GRANULE, MAGALLOC, Random, SMALL_MAX};
use std::slice;

/// The bytes of a live block.
fn bytes<'b>(block: *mut u8, len: usize) -> &'b mut [u8] {
    assert!(!block.is_null());
    // SAFETY: the tests pass live blocks that are at least so long, one at a time.
    unsafe { slice::from_raw_parts_mut(block, len) }
}

fn free(block: *mut u8) {
    // SAFETY: the tests pass live blocks, and forget them.
    unsafe { MAGALLOC.free(block) };
}

fn usable(block: *mut u8) -> usize {
    // SAFETY: the tests pass live blocks.
    unsafe { MAGALLOC.usable_size(block) }
}

fn resize(block: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: the tests pass live blocks, and forget them.
    unsafe { MAGALLOC.reallocate(block, size) }
}

#[test]
fn every_size_is_aligned_usable_and_known() {
    for size in (0..=SMALL_MAX + 100).chain([GRANULE, GRANULE + 1, 1 << 20, 5 << 20]) {
        let block = MAGALLOC.allocate(size);
        let align = if size > 8 { 16 } else { 8 };
        assert!(block.addr().is_multiple_of(align), "{size} bytes at {block:p}");
        assert!(usable(block) >= size && MAGALLOC.owns(block));
        bytes(block, usable(block)).fill(1);
        free(block);
    }
}

#[test]
fn every_alignment_is_served() {
    for shift in 0..=30 {
        for size in [0, 1, 100, 5000, 40_000, 3 << 20] {
            let block = MAGALLOC.allocate_aligned(size, 1 << shift);
            assert!(
                !block.is_null() && block.addr().is_multiple_of(1 << shift),
                "{size} bytes at 2^{shift}: {block:p}"
            );
            assert!(usable(block) >= size);
            bytes(block, size).fill(2);
            free(block);
        }
    }
    assert!(MAGALLOC.allocate_aligned(1, 1 << 31).is_null());
    assert!(MAGALLOC.allocate_aligned(1, 48).is_null() && MAGALLOC.allocate_aligned(1, 0).is_null());
}

#[test]
fn too_much_is_refused_and_leaves_a_block_as_it_was() {
    let block = MAGALLOC.allocate(1000);
    bytes(block, 1000).fill(3);
    for size in [usize::MAX, usize::MAX - 100_000, isize::MAX as usize, isize::MAX as usize + 1, 1 << 50] {
        assert!(MAGALLOC.allocate(size).is_null() && MAGALLOC.allocate_zeroed(size).is_null(), "{size}");
        assert!(MAGALLOC.allocate_aligned(size, 4096).is_null() && resize(block, size).is_null(), "{size}");
    }
    assert!(bytes(block, 1000).iter().all(|&byte| byte == 3));
    free(block);
}

#[test]
fn zeroed_blocks_are_zero_where_others_were() {
    for size in [1, 64, 1000, SMALL_MAX, 100_000, 3 << 20] {
        for _ in 0..3 {
            let block = MAGALLOC.allocate_zeroed(size);
            assert!(bytes(block, size).iter().all(|&byte| byte == 0), "{size}");
            bytes(block, usable(block)).fill(0xff);
            free(block);
        }
    }
}

#[test]
fn contents_survive_resizing() {
    let mut random = Random::new();
    let (mut block, mut len) = (std::ptr::null_mut(), 0);
    for round in 0..3000 {
        let size = random.size_below(8 << 20).max(1);
        block = resize(block, size);
        let kept = len.min(size);
        assert!(usable(block) >= size);
        let pattern = (round % 251) as u8;
        assert!(bytes(block, kept).iter().all(|&byte| byte == pattern), "round {round}: {len} to {size} bytes");
        bytes(block, size).fill(((round + 1) % 251) as u8);
        len = size;
    }
    free(block);
}

#[test]
fn block_stays_where_it_fits_and_shrinks_where_most_is_waste() {
    let block = MAGALLOC.allocate(1000);
    assert_eq!(resize(block, usable(block)), block);
    assert_eq!(resize(block, 600), block);
    let smaller = resize(block, 100);
    assert!(usable(smaller) < 200);
    free(smaller);
}

#[test]
fn null_is_no_block() {
    free(std::ptr::null_mut());
    assert_eq!(usable(std::ptr::null_mut()), 0);
    assert!(!MAGALLOC.owns(std::ptr::null()) && !MAGALLOC.owns((&raw const MAGALLOC).cast()));
}

#[test]
fn blocks_by_address_and_by_layout_are_the_same_blocks() {
    use std::alloc::{GlobalAlloc, Layout};
    for size in [1, 100, 10_000, 100_000] {
        let layout = Layout::from_size_align(size, 8).unwrap();
        // SAFETY: the size is not 0.
        free(unsafe { MAGALLOC.alloc(layout) });
        // SAFETY: a live block that was allocated for that layout's size.
        unsafe { MAGALLOC.dealloc(MAGALLOC.allocate(size), layout) };
    }
    magalloc::flush_thread();
}
