//! Counts for statistics.
//!
//! ```text
//! # Role        all of them are Relaxed: nothing is published with a count
//! # Progress    wait-free
//! ```

use crate::sync::{AtomicU64, Ordering};

/// A count for statistics: a sum that wraps, so that parts of it may be less than zero. Zeroed memory is 0.
#[derive(Debug)]
#[repr(transparent)]
pub struct Count(AtomicU64);

impl Count {
    /// 0.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts `more`: for any thread.
    pub fn add(&self, more: usize) {
        // ordering: Relaxed, a statistic.
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// Counts `less` less: for any thread.
    pub fn sub(&self, less: usize) {
        // ordering: Relaxed, a statistic.
        self.0.fetch_sub(less as u64, Ordering::Relaxed);
    }

    /// Counts `more`, where only the calling thread writes: no read-modify-write.
    pub fn add_own(&self, more: usize) {
        // ordering: Relaxed, a statistic.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more as u64), Ordering::Relaxed);
    }

    /// The count, at some moment.
    pub fn get(&self) -> u64 {
        // ordering: Relaxed, a statistic.
        self.0.load(Ordering::Relaxed)
    }

    /// Makes it what it should be, in the child of a fork.
    pub fn reset(&self, count: u64) {
        // ordering: Relaxed; the caller is alone.
        self.0.store(count, Ordering::Relaxed);
    }
}
