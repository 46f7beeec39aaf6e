//! `realloc` keeps contents and alignment, whichever way it takes: within a class, by a copy, in place, by moving
//! pages. `alloc_zeroed` is zero on memory that was written before. Where blocks stay in place, and what is accounted:
//! see `accounting.rs`.

mod common;

use common::{Block, Random, class_sizes};

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

#[test]
fn growth_and_shrink_through_every_class_keep_contents() {
    for align in [1, 8, 16, 64, 1024, 4096] {
        let mut block = Block::new(1, align);
        for size in class_sizes() {
            for size in [size - 1, size, size + 1] {
                block.resize(size);
            }
        }
        for size in class_sizes().into_iter().rev() {
            for size in [size + 1, size, size - 1] {
                block.resize(size);
            }
        }
    }
}

#[test]
fn within_a_class_the_block_stays() {
    let mut block = Block::new(1025, 8);
    let place = block.address();
    for size in [1152, 1100, 1025, 1152] {
        block.resize(size);
        assert_eq!(block.address(), place, "resize to {size}");
    }
}

#[test]
fn between_any_two_sizes_contents_are_kept() {
    let sizes = [1, 9, 100, 1000, 10_000, 32 * KIB, 32 * KIB + 1, 64 * KIB, 64 * KIB + 1, 200 * KIB, MIB, 5 * MIB];
    for align in [8, 4096, 64 * KIB, MIB] {
        for from in sizes {
            for to in sizes {
                let mut block = Block::new(from, align);
                block.resize(to);
                block.resize(from);
            }
        }
    }
}

#[test]
fn large_block_grows_by_small_steps_and_keeps_contents() {
    let mut block = Block::new(33 * KIB, 16);
    for size in (64 * KIB..6 * MIB).step_by(60 * KIB) {
        block.resize(size);
    }
}

#[test]
fn huge_block_with_a_neighbour_behind_moves_and_keeps_contents_and_alignment() {
    for align in [16, 64 * KIB, 8 * MIB] {
        let mut block = Block::new(8 * MIB, align);
        let mut obstacles = Vec::new();
        let mut moves = 0;
        let mut size = 8 * MIB;
        while size < 200 * MIB {
            // Blocks until one lies behind: it forbids growth in place.
            for _ in 0..64 {
                let obstacle = Block::new(64 * KIB, 16);
                let behind = obstacle.address() == block.address() + size;
                obstacles.push(obstacle);
                if behind {
                    break;
                }
            }
            obstacles.push(Block::new(4 * MIB, 4 * MIB));
            size += size / 2 / MIB * MIB;
            let place = block.address();
            block.resize(size);
            moves += usize::from(block.address() != place);
        }
        assert!(moves > 0, "a block that cannot grow in place moves");
        // Back down: the end is given back each time.
        while size > 40 * KIB {
            size /= 3;
            block.resize(size);
        }
        drop(obstacles);
    }
}

#[test]
fn moved_block_leaves_zeroed_memory_behind() {
    for _ in 0..4 {
        let mut block = Block::new(8 * MIB, 16);
        let obstacles: Vec<_> = (0..3).map(|_| Block::new(4 * MIB, 4 * MIB)).collect();
        block.dirty();
        block.resize(40 * MIB);
        let zeroed: Vec<_> = (0..6).map(|_| Block::zeroed(7 * MIB, 16)).collect();
        block.dirty();
        block.resize(20 * MIB);
        let more: Vec<_> = (0..6).map(|_| Block::zeroed(3 * MIB, 16)).collect();
        block.dirty_and_free();
        drop(Block::zeroed(50 * MIB, 16));
        drop((obstacles, zeroed, more));
    }
}

#[test]
fn random_resizes_of_many_blocks_keep_contents() {
    let mut random = Random::new();
    let mut blocks: Vec<_> = (0..40).map(|_| Block::new(1 + random.size_below(MIB), 1 << random.below(17))).collect();
    for _ in 0..2_000 {
        let index = random.below(blocks.len());
        blocks[index].resize(1 + random.size_below(4 * MIB));
    }
}

#[test]
fn zeroed_small_blocks_are_zero_on_reused_memory() {
    for size in class_sizes().into_iter().flat_map(|size| [size - 1, size]) {
        let blocks: Vec<_> = (0..100).map(|_| Block::new(size, 8)).collect();
        for block in blocks {
            block.dirty_and_free();
        }
        drop((0..100).map(|_| Block::zeroed(size, 8)).collect::<Vec<_>>());
    }
}

#[test]
fn zeroed_large_blocks_are_zero_on_reused_memory() {
    for size in [33 * KIB, 64 * KIB, 65 * KIB, 300 * KIB, MIB, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 11 * MIB] {
        for align in [8, 64 * KIB, 4 * MIB] {
            for _ in 0..3 {
                let block = Block::new(size, align);
                block.dirty_and_free();
                drop(Block::zeroed(size, align));
            }
        }
    }
}

#[test]
fn zeroed_block_over_dirty_and_purged_and_new_parts_is_zero() {
    // Freeing more than the dirty bound gives the highest parts back and keeps the lowest dirty.
    let blocks: Vec<_> = [3 * MIB, 30 * MIB, 20 * MIB, 50 * MIB, MIB].map(|size| Block::new(size, 8)).into();
    for block in blocks {
        block.dirty_and_free();
    }
    drop(Block::zeroed(150 * MIB, 8));
    // Holes of slab memory, dirty too.
    let blocks: Vec<_> = (0..2_000).map(|_| Block::new(8 * KIB, 8)).collect();
    for block in blocks {
        block.dirty_and_free();
    }
    magalloc::flush_thread();
    drop((0..300).map(|_| Block::zeroed(70 * KIB, 8)).collect::<Vec<_>>());
}

#[test]
fn zeroed_blocks_where_a_block_shrank_are_zero() {
    let mut block = Block::new(30 * MIB, 8);
    for size in [20 * MIB, 9 * MIB, MIB, 100 * KIB] {
        let given_back = block.layout().size() - size;
        block.dirty();
        block.resize(size);
        drop(Block::zeroed(given_back, 8));
    }
}

#[test]
fn random_zeroed_blocks_are_zero() {
    let mut random = Random::new();
    let mut blocks: Vec<Block> = Vec::new();
    for _ in 0..3_000 {
        let size = 1 + random.size_below(4 * MIB);
        blocks.push(Block::zeroed(size, 1 << random.below(17)));
        if blocks.len() > 20 {
            let block = blocks.swap_remove(random.below(20));
            block.verify();
            block.dirty_and_free();
        }
    }
}
