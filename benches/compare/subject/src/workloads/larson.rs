//! A server's churn, after Larson and Krishnan, "Memory allocation for long-running server applications" (1998):
//! threads replace blocks at random, and end; the blocks that they leave belong to newer threads, which free them.

use super::raw::{Block, finish_all, share};
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Scope;

/// Random replacement by threads that end.
pub const LARSON: Workload = Workload {
    name: "larson",
    stands_for: "threads replace blocks of 8 to 1,000 B at random, and leave them to new threads: a server",
    operations: "replacements",
    threads_per_core: 1,
    shown: Shown::RowAndThreads,
    run,
};

/// Blocks that are live, of all threads together.
const LIVE: usize = 20_000;

const REPLACEMENTS: usize = 16_000_000;

/// Replacements of one thread before it ends.
const LIFETIME: usize = 40_000;

fn run(parameters: &Parameters) -> Outcome {
    let replacements = parameters.scaled(REPLACEMENTS);
    let threads = parameters.threads;
    let checksum = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for index in 0..threads {
            let line = Line {
                random: Random::new(parameters.seed.wrapping_add(index as u64)),
                slots: Vec::new(),
                remaining: share(replacements, threads, index),
                sum: 0,
            };
            let live = share(LIVE, threads, index).max(1);
            let checksum = &checksum;
            scope.spawn(move || line.fill(live).work(scope, checksum));
        }
    });
    Outcome::new(replacements as u64, checksum.into_inner())
}

/// What a thread hands to the next.
struct Line {
    random: Random,
    slots: Vec<Option<Block>>,
    /// Replacements of this thread and of those after it.
    remaining: usize,
    sum: u64,
}

impl Line {
    fn fill(mut self, count: usize) -> Self {
        self.slots.reserve_exact(count);
        for _ in 0..count {
            let block = self.block();
            self.slots.push(Some(block));
        }
        self
    }

    #[inline]
    fn block(&mut self) -> Block {
        Block::new(self.random.between(8, 1000), self.random.number())
    }

    /// The life of a thread. The last one adds the sum of all to `checksum`.
    fn work<'scope>(mut self, scope: &'scope Scope<'scope, '_>, checksum: &'scope AtomicU64) {
        let replacements = self.remaining.min(LIFETIME);
        for _ in 0..replacements {
            let slot = self.random.below(self.slots.len());
            if let Some(old) = self.slots[slot].take() {
                self.sum = self.sum.wrapping_add(old.finish());
            }
            self.slots[slot] = Some(self.block());
        }
        self.remaining -= replacements;
        if self.remaining > 0 {
            scope.spawn(move || self.work(scope, checksum));
        } else {
            let sum = self.sum.wrapping_add(finish_all(self.slots.into_iter().flatten()));
            // ordering: Relaxed, as the end of the scope orders all additions before the reading.
            checksum.fetch_add(sum, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::raw::tests::{assert_repeatable, assert_same_work};
    use super::*;

    #[test]
    fn larson_is_repeatable_over_several_lives() {
        assert_repeatable(&LARSON, 5.5 * LIFETIME as f64 / REPLACEMENTS as f64);
    }

    #[test]
    fn larson_shares_its_work() {
        assert_same_work(&LARSON, 1e-4);
    }
}
