//! Every alignment and every size at which something changes: blocks are aligned, disjoint and keep their contents;
//! what cannot be served gets null.

mod common;

use common::{Block, CHUNK, GRANULE, class_sizes, expect_disjoint, layout};
use std::alloc::GlobalAlloc;

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

/// The largest alignment served.
const ALIGN_MAX: usize = 1 << 30;

fn around(edges: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut sizes: Vec<_> = edges.into_iter().flat_map(|edge| [edge - 1, edge, edge + 1]).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn powers_of_two(most: usize) -> impl Iterator<Item = usize> {
    (0..=most.ilog2()).map(|shift| 1 << shift)
}

/// Dropping a block verifies it.
fn verify_and_free(blocks: Vec<Block>) {
    expect_disjoint(&blocks);
    drop(blocks);
}

#[test]
fn small_sizes_at_page_alignments_are_aligned_and_disjoint() {
    let sizes = around(class_sizes().into_iter().chain([1]));
    let mut blocks = Vec::new();
    for align in powers_of_two(4096) {
        blocks.extend(sizes.iter().map(|&size| Block::new(size, align)));
    }
    verify_and_free(blocks);
}

#[test]
fn small_sizes_many_of_each_are_disjoint() {
    let sizes = class_sizes().into_iter().flat_map(|size| (0..40).map(move |_| size));
    verify_and_free(sizes.map(|size| Block::new(size, 1)).collect());
}

#[test]
fn large_sizes_at_page_alignments_are_aligned_and_disjoint() {
    let sizes = around([32 << 10, GRANULE, 2 * GRANULE, 3 * GRANULE, CHUNK, 2 * CHUNK]);
    let mut kept = Vec::new();
    for align in powers_of_two(4096) {
        let mut blocks: Vec<_> = sizes.iter().map(|&size| Block::new(size, align)).collect();
        expect_disjoint(&blocks);
        // What is kept sits among the blocks of the next alignments.
        kept.push(blocks.swap_remove(align.ilog2() as usize % 9));
        verify_and_free(blocks);
    }
    verify_and_free(kept);
}

#[test]
fn alignments_up_to_a_gibibyte_are_served() {
    let sizes = around([2, 64, 32 << 10, GRANULE, CHUNK]);
    let mut kept = Vec::new();
    for align in powers_of_two(ALIGN_MAX).filter(|&align| align > 4096) {
        let mut blocks: Vec<_> = sizes.iter().map(|&size| Block::new(size, align)).collect();
        blocks.push(Block::zeroed(100, align));
        expect_disjoint(&blocks);
        kept.push(blocks.swap_remove(0));
        verify_and_free(blocks);
    }
    verify_and_free(kept);
}

#[test]
fn a_hundred_mebibytes_at_several_alignments_are_disjoint() {
    let sizes = [(100 << 20) - 1, 100 << 20];
    let blocks = [1, 4096, GRANULE, CHUNK, 128 << 20].into_iter().flat_map(|align| sizes.map(|size| (size, align)));
    verify_and_free(blocks.map(|(size, align)| Block::new(size, align)).collect());
}

#[test]
fn zero_size_is_served_at_every_alignment() {
    let mut blocks = Vec::new();
    for align in powers_of_two(ALIGN_MAX) {
        blocks.push(Block::new(0, align));
        blocks.push(Block::zeroed(0, align));
    }
    verify_and_free(blocks);
}

#[test]
fn alignment_above_a_gibibyte_gets_null() {
    for shift in 31..63 {
        for size in [1, 100, 32 << 10, GRANULE, CHUNK + 1] {
            assert!(Block::try_new(size, 1 << shift).is_none(), "size {size} align 2^{shift}");
            let layout = layout(size, 1 << shift);
            // SAFETY: a valid layout, not of size zero.
            assert!(unsafe { GLOBAL.alloc_zeroed(layout) }.is_null(), "zeroed, size {size} align 2^{shift}");
        }
    }
}

#[test]
fn sizes_near_the_largest_layout_get_null_and_later_calls_succeed() {
    for align in powers_of_two(ALIGN_MAX) {
        let most = isize::MAX as usize - (align - 1);
        for size in [most, most - 1, most - GRANULE, most - CHUNK + 1, most / 2, 1 << 48] {
            assert!(Block::try_new(size, align).is_none(), "size {size:#x} align {align:#x}");
            let layout = layout(size, align);
            // SAFETY: a valid layout, not of size zero.
            assert!(unsafe { GLOBAL.alloc_zeroed(layout) }.is_null(), "zeroed, size {size:#x} align {align:#x}");
        }
        drop(Block::new(100, align));
    }
}

#[test]
fn realloc_to_an_impossible_size_gets_null_and_keeps_the_block() {
    for size in [8, 1000, 32 << 10, GRANULE, CHUNK + 1, 3 * CHUNK] {
        let mut block = Block::new(size, 16);
        for impossible in [isize::MAX as usize - 15, isize::MAX as usize / 2, 1 << 48] {
            assert!(!block.try_resize(impossible), "{size} to {impossible:#x}");
        }
        block.resize(size + 1);
    }
}
