//! Numbers of local heaps that wait for somebody: of those whose threads have ended, a new thread adopts the lowest; of
//! those whose threads stayed behind in the parent of a fork, whoever needs memory takes one after the other; of those
//! whose threads have ended and left their caches as they were, either does.
//!
//! ```text
//! # Invariants  I1: a member is a number that nobody uses; whoever takes it out has the number, its local heap and its
//! cache.
//! # Ordering    HAND-OVER: `put` (Release) -> `take` (Acquire): all that the last thread did to owner and cache.
//! # Progress    `put` is wait-free, `take` lock-free
//! # Checked by  loom_tests/abandon_adopt.rs, loom_tests/fork_adopt.rs
//! ```

use crate::config::RECORDS_MAX;
use crate::sync::planted::bug;
use crate::sync::{AtomicU64, Ordering};

/// One bit for each number, of all that there are or of the first 64 * `WORDS`.
#[derive(Debug)]
pub struct IndexSet<const WORDS: usize = { RECORDS_MAX / 64 }>([AtomicU64; WORDS]);

impl<const WORDS: usize> Default for IndexSet<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const WORDS: usize> IndexSet<WORDS> {
    /// None.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// None.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Is there a place for that number?
    pub fn fits(number: usize) -> bool {
        number < 64 * WORDS
    }

    /// The words of the first `made` numbers.
    fn words(&self, made: usize) -> impl Iterator<Item = &AtomicU64> {
        self.0.iter().take(made.div_ceil(64))
    }

    /// Takes out the lowest number of those below `made`.
    pub fn take(&self, made: usize) -> Option<usize> {
        for (index, word) in self.words(made).enumerate() {
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
                // ordering: Acquire [HAND-OVER] pairs with Release in `put`.
                if word.fetch_and(!bit, Ordering::Acquire) & bit != 0 {
                    return Some(index * 64 + bit.trailing_zeros() as usize);
                }
            }
        }
        None
    }

    /// Puts a number in that fits; the caller does not use it or its local heap any more.
    pub fn put(&self, number: usize) {
        let order = if bug("relaxed abandon") { Ordering::Relaxed } else { Ordering::Release };
        // ordering: Release [HAND-OVER] pairs with Acquire in `take`.
        self.0[number / 64].fetch_or(1 << (number % 64), order);
    }

    /// Takes that number out, which fits.
    pub fn remove(&self, number: usize) {
        // ordering: Acquire [HAND-OVER] pairs with Release in `put`.
        self.0[number / 64].fetch_and(!(1 << (number % 64)), Ordering::Acquire);
    }

    /// Is that number in the set, at some moment?
    pub fn has(&self, number: usize) -> bool {
        // ordering: Relaxed; for a caller that is alone.
        Self::fits(number) && self.0[number / 64].load(Ordering::Relaxed) >> (number % 64) & 1 != 0
    }

    /// How many there are, at some moment; no number from `made` on was ever put in.
    pub fn count(&self, made: usize) -> usize {
        // ordering: Relaxed, a statistic.
        self.words(made).map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// Forgets everything, at the end of the process; no number from `made` on was ever put in. Their words are not
    /// written, which would take memory.
    pub fn reset(&self, made: usize) {
        for word in self.words(made) {
            // ordering: Relaxed; the caller is alone. A word that nobody has written stays so: its page is the program
            // file's.
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
    }
}
