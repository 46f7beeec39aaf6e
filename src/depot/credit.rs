//! Credit: what all threads together may cache beyond what each may in any case.
//!
//! ```text
//! # Accounting  `taken` = sum of the credit of all caches, at most the limit that its takers named. A thread that vanishes
//!               in a fork amid taking or giving leaves one step of it counted for ever
//! # Progress    `take` is lock-free, `give` wait-free; touched by slow paths only, and by few of them, as credit is had
//!               in steps
//! # Not here    who takes how much (see `thread_cache::sizing`)
//! ```

use crate::sync::{AtomicUsize, CachePadded, Ordering, const_unless_loom};

/// The account.
#[derive(Debug)]
pub struct Credit(CachePadded<AtomicUsize>);

impl Default for Credit {
    fn default() -> Self {
        Self::new()
    }
}

impl Credit {
    const_unless_loom! {
        /// Nothing taken.
        pub fn new() -> Self {
            Self(CachePadded::new(AtomicUsize::new(0)))
        }
    }

    /// Takes `bytes`, if at most `limit` are taken then.
    #[must_use]
    pub fn take(&self, bytes: usize, limit: usize) -> bool {
        // ordering: Relaxed, an account: nothing is published by it.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken.checked_add(bytes).filter(|&more| more <= limit)
        })
        .is_ok()
    }

    /// Gives `bytes` back that were taken.
    pub fn give(&self, bytes: usize) {
        if bytes != 0 {
            // ordering: Relaxed, as in `take`.
            self.0.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}
