//! One thread, the scenarios that any program consists of. Each group shows magalloc and the system's allocator.
//!
//! | group | question |
//! |---|---|
//! | `pair` | What does a malloc followed by its free cost, with the size known to the compiler and not? |
//! | `burst` | What do many blocks cost each, all allocated, then all freed: while the cache holds them, and beyond? |
//! | `random_mix` | What does it cost to replace a random one of many live blocks of random sizes? |
//! | `refill_flush` | What does a block's way from its slab to the thread and back cost? |
//! | `realloc_growth` | What does a buffer cost that doubles until it is full, small and beyond the size classes? |
//! | `large` | Does a program that allocates, uses and frees large buffers meet the kernel each time? |

#[path = "common/blocks.rs"]
mod blocks;
mod common;

use blocks::{Block, MAGALLOC, Random, allocate, both, free, grow, layout};
use criterion::{Bencher, BenchmarkId, Criterion, Throughput};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

fn main() {
    let mut criterion = common::criterion();
    pair(&mut criterion);
    burst(&mut criterion);
    random_mix(&mut criterion);
    refill_flush(&mut criterion);
    realloc_growth(&mut criterion);
    large(&mut criterion);
    criterion.final_summary();
}

fn pair(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pair");
    both!(group, "64 known", |bencher, allocator| {
        bencher.iter(|| free(allocator, allocate(allocator, const { layout(64) })));
    });
    for bytes in [8, 64, 1 << 10, 16 << 10] {
        both!(group, bytes, |bencher, allocator| {
            bencher.iter(|| free(allocator, allocate(allocator, layout(black_box(bytes)))));
        });
    }
}

fn burst(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("burst");
    for count in [100, 10_000] {
        group.throughput(Throughput::Elements(count as u64));
        both!(group, count, |bencher, allocator| burst_of(bencher, allocator, count));
    }
}

fn burst_of<A: GlobalAlloc>(bencher: &mut Bencher<'_>, allocator: &A, count: usize) {
    let mut blocks = Vec::with_capacity(count);
    bencher.iter(|| {
        for _ in 0..count {
            blocks.push(allocate(allocator, layout(64)));
        }
        for block in blocks.drain(..) {
            free(allocator, block);
        }
    });
}

fn random_mix(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("random_mix");
    for live in [1_000, 100_000] {
        both!(group, live, |bencher, allocator| mix_of(bencher, allocator, live));
    }
}

fn mix_of<A: GlobalAlloc>(bencher: &mut Bencher<'_>, allocator: &A, live: usize) {
    let mut random = Random::new();
    let mut blocks: Vec<Block> = (0..live).map(|_| allocate(allocator, layout(random.size()))).collect();
    random.shuffle(&mut blocks);
    bencher.iter(|| {
        let next = allocate(allocator, layout(random.size()));
        let index = random.below(live);
        free(allocator, std::mem::replace(&mut blocks[index], next));
    });
    for block in blocks {
        free(allocator, block);
    }
}

fn refill_flush(criterion: &mut Criterion) {
    const BLOCKS: usize = 1_000;
    let mut group = criterion.benchmark_group("refill_flush");
    group.throughput(Throughput::Elements(BLOCKS as u64));
    for random_order in [false, true] {
        let order = if random_order { "random order" } else { "in order" };
        group.bench_function(BenchmarkId::new("magalloc", order), |bencher| {
            return_all(bencher, &MAGALLOC, BLOCKS, random_order, magalloc::flush_thread);
        });
        // The same blocks: there is no call that empties this allocator's thread cache.
        group.bench_function(BenchmarkId::new("system", order), |bencher| {
            return_all(bencher, &System, BLOCKS, random_order, || ());
        });
    }
}

/// Takes `count` blocks, more than a cache holds, frees them, and empties the cache. One block stays allocated, so
/// the memory stays with the allocator.
fn return_all<A: GlobalAlloc>(
    bencher: &mut Bencher<'_>,
    allocator: &A,
    count: usize,
    random_order: bool,
    empty_cache: impl Fn(),
) {
    let stays = allocate(allocator, layout(64));
    let mut order: Vec<usize> = (0..count).collect();
    if random_order {
        Random::new().shuffle(&mut order);
    }
    let mut blocks: Vec<Option<Block>> = (0..count).map(|_| None).collect();
    bencher.iter(|| {
        for block in &mut blocks {
            *block = Some(allocate(allocator, layout(64)));
        }
        for &index in &order {
            if let Some(block) = blocks[index].take() {
                free(allocator, block);
            }
        }
        empty_cache();
    });
    free(allocator, stays);
}

fn realloc_growth(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("realloc_growth");
    for (name, most) in [("to 16 KiB", 16 << 10), ("to 16 MiB", 16 << 20)] {
        both!(group, name, |bencher, allocator| {
            bencher.iter(|| {
                let mut block = allocate(allocator, layout(16));
                while block.bytes() < most {
                    let bytes = block.bytes() * 2;
                    block = grow(allocator, block, bytes);
                }
                free(allocator, block);
            });
        });
    }
}

fn large(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("large");
    for (name, bytes) in [("64 KiB", 64 << 10), ("1 MiB", 1 << 20), ("5 MiB", 5 << 20)] {
        both!(group, name, |bencher, allocator| use_large(bencher, allocator, layout(bytes)));
    }
}

fn use_large<A: GlobalAlloc>(bencher: &mut Bencher<'_>, allocator: &A, layout: Layout) {
    bencher.iter(|| {
        let block = allocate(allocator, layout);
        block.touch(0);
        free(allocator, block);
    });
}
