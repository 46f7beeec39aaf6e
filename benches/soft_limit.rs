//! Near the soft limit: does a program pay for it? Each row of "above" beside the same row of "below", in one run.
//!
//! | group | question |
//! |---|---|
//! | `soft_limit/below` | What does it cost while the heap is far from the limit, |
//! | `soft_limit/at` | while it goes beyond it and back with each round, |
//! | `soft_limit/above` | and while what lives is more? |

#[path = "common/blocks.rs"]
#[allow(unused_imports, unused_macros)]
mod blocks;
mod common;

use blocks::{Block, allocate, free, layout};
use criterion::{BenchmarkId, Criterion};
use magalloc::{Magalloc, SoftLimit};

const MIB: usize = 1 << 20;
const LIMIT: usize = 64 * MIB;

static LIMITED: Magalloc = Magalloc::new().soft_limit(SoftLimit::Bytes(LIMIT)).environment(false);

fn main() {
    let mut criterion = common::criterion();
    let mut lives: Vec<Block> = Vec::new();
    for (name, mib) in [("below", 32), ("at", 63), ("above", 80)] {
        while lives.len() < mib {
            let block = allocate(&LIMITED, layout(MIB));
            block.touch(0);
            lives.push(block);
        }
        rounds(&mut criterion, name);
    }
    lives.into_iter().for_each(|block| free(&LIMITED, block));
    criterion.final_summary();
}

fn rounds(criterion: &mut Criterion, name: &str) {
    let mut group = criterion.benchmark_group("soft_limit");
    for (count, bytes) in [(1, 64 << 10), (1, 5 * MIB), (10_000, 64), (4_000, 1 << 10), (500, 16 << 10)] {
        let mut blocks = Vec::with_capacity(count);
        group.bench_function(BenchmarkId::new(name, format!("{count} x {bytes}")), |bencher| {
            bencher.iter(|| {
                for _ in 0..count {
                    let block = allocate(&LIMITED, layout(bytes));
                    block.touch(0);
                    blocks.push(block);
                }
                blocks.drain(..).for_each(|block| free(&LIMITED, block));
            });
        });
    }
}
