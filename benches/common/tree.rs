//! The scenario of both `rayon_tree` benches: a tree that all threads build and take down together.

use criterion::{Criterion, Throughput};
use std::hint::black_box;

/// Levels of the tree; it has a node less than 2 to that power.
const LEVELS: u32 = 16;
/// Levels that one task builds or takes down alone.
const TASK_LEVELS: u32 = 7;

/// A node, with what it needs to be worth 40 bytes.
struct Node {
    children: [Option<Box<Node>>; 2],
    level: u32,
    values: [u64; 2],
}

fn build(level: u32) -> Option<Box<Node>> {
    if level == 0 {
        return None;
    }
    let half = || build(level - 1);
    let (left, right) = if level > TASK_LEVELS { rayon::join(half, half) } else { (half(), half()) };
    Some(Box::new(Node { children: [left, right], level, values: [u64::from(level), 1] }))
}

/// Adds the tree up while taking it down: whoever is idle steals a part, so blocks are freed by any thread.
fn take_down(tree: Option<Box<Node>>) -> u64 {
    let Some(node) = tree else { return 0 };
    let parallel = node.level > TASK_LEVELS;
    let [left, right] = node.children;
    let (left, right) = if parallel {
        rayon::join(|| take_down(left), || take_down(right))
    } else {
        (take_down(left), take_down(right))
    };
    left + right + node.values[1]
}

/// Benches the tree with the bench's global allocator, which is called `allocator`.
pub fn bench(criterion: &mut Criterion, allocator: &str) {
    let nodes = (1 << LEVELS) - 1;
    let mut group = criterion.benchmark_group("rayon_tree");
    group.throughput(Throughput::Elements(nodes));
    group.bench_function(allocator, |bencher| {
        bencher.iter(|| assert_eq!(take_down(black_box(build(LEVELS))), nodes));
    });
}
