//! Whether a purging walk, or who takes other threads' stashes, has anything in flight: blocks and granules that are free, but
//! that nobody can have just now.
//!
//! ```text
//! # Role        keeps the walk and forks apart (what is in flight at a fork would be lost in the child), and tells a
//!               request that found no memory that some may come back
//! # Ordering    FORK: `take_up` counts, then looks for forks; `begin_fork` counts, then looks for walks. All are
//!               sequentially consistent, so one of the two sees the other.
//! # Progress    wait-free. Nobody is kept waiting for long: a walk that meets a fork leaves the rest for its next turn;
//!               whoever waits for a walk waits for the chunk that it is in, 10 ms at most.
//! ```

use crate::sync::{AtomicU32, Ordering, const_unless_loom};

/// The walks that are in a chunk, and the forks under way.
#[derive(Debug)]
pub struct InFlight {
    /// Walks that are in a chunk or in a class's stash.
    walks: AtomicU32,
    /// Forks under way.
    forks: AtomicU32,
}

impl Default for InFlight {
    fn default() -> Self {
        Self::new()
    }
}

impl InFlight {
    const_unless_loom! {
        /// Empty.
        pub fn new() -> Self {
            Self { walks: AtomicU32::new(0), forks: AtomicU32::new(0) }
        }
    }

    /// Before a walk claims anything. `false`: a fork is under way, nothing may be claimed.
    pub fn take_up(&self) -> bool {
        // ordering: SeqCst [FORK] the count, then the look at forks; pairs with `begin_fork`, which does both in the
        // other order: one of the two sees the other.
        self.walks.fetch_add(1, Ordering::SeqCst);
        if self.forks.load(Ordering::SeqCst) == 0 {
            return true;
        }
        self.put_down();
        false
    }

    /// After a walk has given back all that it had claimed.
    pub fn put_down(&self) {
        // Not below zero: a signal handler may have forked amid the walk, and this is the child, which began to count
        // anew.
        // ordering: Release [FORK] what was given back; Relaxed, a guess that the exchange corrects.
        let _ = self.walks.fetch_update(Ordering::Release, Ordering::Relaxed, |walks| walks.checked_sub(1));
    }

    /// Before a fork: no walk takes anything up until `end_fork`.
    pub fn begin_fork(&self) {
        // ordering: SeqCst [FORK] pairs with `take_up`.
        self.forks.fetch_add(1, Ordering::SeqCst);
    }

    /// Has every walk put down what it had?
    pub fn is_empty(&self) -> bool {
        // ordering: SeqCst [FORK] pairs with `take_up`.
        self.walks.load(Ordering::SeqCst) == 0
    }

    /// After a fork, in the parent.
    pub fn end_fork(&self) {
        // Not below zero: the handlers may have been made known while another thread was in its fork.
        // ordering: Release, so that the fork is over for whoever sees it.
        let _ = self.forks.fetch_update(Ordering::Release, Ordering::Relaxed, |forks| forks.checked_sub(1));
    }

    /// After a fork, in the child, where nobody walks and nobody forks.
    pub fn reset(&self) {
        // ordering: Relaxed; the caller is alone.
        self.walks.store(0, Ordering::Relaxed);
        self.forks.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_a_fork_interrupted_ends_in_the_child() {
        let hand = InFlight::new();
        assert!(hand.take_up());
        hand.begin_fork();
        hand.reset();
        hand.put_down();
        assert!(hand.is_empty());
        assert!(hand.take_up() && !hand.is_empty());
        hand.put_down();
        assert!(hand.is_empty());
    }
}
