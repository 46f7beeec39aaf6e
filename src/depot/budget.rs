//! An account of bytes that has a limit: how much memory the heap holds, and how much all threads cache.
//!
//! ```text
//! # Accounting  of the heap: held = bytes of granules that are in use, or free and dirty. A granule is counted when it is claimed
//!               clean, and not any more when it is purged.
//! # Invariants  I1: `take` never leaves more than its limit, and fails only if at some moment of the call there was
//!                   no room: it never fails because another thread's attempt failed.
//! # Progress    lock-free
//! # Checked by  loom_tests/limit.rs
//! ```

use crate::sync::planted::bug;
use crate::sync::{AtomicUsize, CachePadded, Ordering, const_unless_loom};

/// The account.
#[derive(Debug)]
pub struct Budget(CachePadded<AtomicUsize>);

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl Budget {
    const_unless_loom! {
        /// Nothing held.
        pub fn new() -> Self {
            Self(CachePadded::new(AtomicUsize::new(0)))
        }
    }

    /// Counts `bytes` more, if at most `limit` are held then.
    #[must_use]
    pub fn take(&self, bytes: usize, limit: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        if limit == usize::MAX {
            self.take_anyway(bytes);
            return true;
        }
        if bug("add, then look") {
            // ordering: none that would help.
            if self.0.fetch_add(bytes, Ordering::AcqRel) + bytes <= limit {
                return true;
            }
            self.0.fetch_sub(bytes, Ordering::AcqRel);
            return false;
        }
        // ordering: Acquire [BUDGET] room that was given is followed by the granules that were freed; corrected by the
        // exchange.
        let mut held = self.0.load(Ordering::Acquire);
        loop {
            let Some(more) = held.checked_add(bytes).filter(|&more| more <= limit) else { return false };
            if bug("look, then add") {
                self.0.fetch_add(bytes, Ordering::AcqRel);
                return true;
            }
            // ordering: AcqRel [BUDGET] likewise.
            match self.0.compare_exchange(held, more, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => held = now,
            }
        }
    }

    /// Counts `bytes` more, whatever the limit.
    pub fn take_anyway(&self, bytes: usize) {
        // ordering: Relaxed, an account.
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts `bytes` less.
    pub fn give(&self, bytes: usize) {
        // ordering: Release [BUDGET] pairs with Acquire in `take`.
        self.0.fetch_sub(bytes, Ordering::Release);
    }

    /// Makes the account what it should be, in the child of a fork.
    pub fn reset(&self, held: usize) {
        // ordering: Relaxed; the caller is alone.
        self.0.store(held, Ordering::Relaxed);
    }

    /// Bytes held, at some moment.
    pub fn held(&self) -> usize {
        // ordering: Relaxed, a statistic.
        self.0.load(Ordering::Relaxed)
    }
}
