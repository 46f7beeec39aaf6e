//! The numbers of owners whose threads have ended: a new thread adopts the lowest.
//!
//! ```text
//! # Invariants  I1: a set bit is a number that nobody uses; whoever clears it has the number and its owner.
//! # Ordering    HAND-OVER: `orphan` (Release) -> `adopt` (Acquire): all that the last thread did to owner and cache.
//! # Progress    `orphan` is wait-free, `adopt` lock-free
//! # Checked by  loom_tests/orphan_adopt.rs
//! ```

use crate::config::RECORDS_MAX;
use crate::sync::planted::bug;
use crate::sync::{AtomicU64, Ordering};

/// One bit for each number.
#[derive(Debug)]
pub struct Orphans([AtomicU64; RECORDS_MAX / 64]);

impl Default for Orphans {
    fn default() -> Self {
        Self::new()
    }
}

impl Orphans {
    /// None.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; RECORDS_MAX / 64])
    }

    /// None.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Takes the lowest number of those below `made`.
    pub fn adopt(&self, made: usize) -> Option<usize> {
        for (index, word) in self.0.iter().enumerate().take(made.div_ceil(64)) {
            loop {
                // ordering: Relaxed, a guess that the read-modify-write below corrects.
                let free = word.load(Ordering::Relaxed);
                if free == 0 {
                    break;
                }
                let bit = free & free.wrapping_neg();
                if bug("adopt by store") {
                    word.store(free & !bit, Ordering::Release);
                    return Some(index * 64 + bit.trailing_zeros() as usize);
                }
                // ordering: Acquire [HAND-OVER] pairs with Release in `orphan`.
                if word.fetch_and(!bit, Ordering::Acquire) & bit != 0 {
                    return Some(index * 64 + bit.trailing_zeros() as usize);
                }
            }
        }
        None
    }

    /// Gives a number up; the caller does not use it or its owner any more.
    pub fn orphan(&self, number: usize) {
        let order = if bug("relaxed orphan") { Ordering::Relaxed } else { Ordering::Release };
        // ordering: Release [HAND-OVER] pairs with Acquire in `adopt`.
        self.0[number / 64].fetch_or(1 << (number % 64), order);
    }

    /// How many there are, at some moment.
    pub fn count(&self) -> usize {
        // ordering: Relaxed, a statistic.
        self.0.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// Forgets everything, at the end of the process.
    pub fn reset(&self) {
        for word in &self.0 {
            // ordering: Relaxed; the caller is alone.
            word.store(0, Ordering::Relaxed);
        }
    }
}
