//! Whether a purging walk, a purge down to the bound, or who takes other threads' stashes, has anything in flight: blocks and
//! granules that are free, but that nobody can have just now.
//!
//! ```text
//! # Role        keeps the walk and forks apart (what is in flight at a fork would be lost in the child), and tells a
//!               request that found no memory that some may come back
//! # Ordering    FORK: `take_up` counts, then looks for forks; `begin_fork` counts, then looks for walks. All are
//!               sequentially consistent, so one of the two sees the other.
//! # Progress    lock-free. Nobody is kept waiting for long: a walk that meets a fork leaves the rest for its next epoch;
//!               whoever waits for a walk waits for the chunk that it is in, 10 ms at most.
//! ```

use crate::purge::walks::{Walk, Walks};
use crate::sync::{AtomicU32, Ordering, const_unless_loom};

/// The walks that are in a chunk, and the forks under way.
#[derive(Debug)]
pub struct InFlight {
    /// Walks that are in a chunk or in a class's stash.
    walks: Walks,
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
            Self { walks: Walks::new(), forks: AtomicU32::new(0) }
        }
    }

    /// Before a walk claims anything. `None`: a fork is under way, nothing may be claimed.
    pub fn take_up(&self) -> Option<Walk> {
        // ordering: SeqCst [FORK] the count, then the look at forks; pairs with `begin_fork`, which does both in the
        // other order: one of the two sees the other.
        let walk = self.walks.take_up();
        if self.forks.load(Ordering::SeqCst) == 0 {
            return Some(walk);
        }
        self.put_down(walk);
        None
    }

    /// After a walk has given back all that it had claimed.
    pub fn put_down(&self, walk: Walk) {
        self.walks.put_down(walk);
    }

    /// Before a fork: no walk takes anything up until `end_fork`.
    pub fn begin_fork(&self) {
        // ordering: SeqCst [FORK] pairs with `take_up`.
        self.forks.fetch_add(1, Ordering::SeqCst);
    }

    /// Is a fork under way, at some moment? It waits for who has something in flight.
    pub fn is_awaited(&self) -> bool {
        // ordering: Relaxed, a hint to be quick.
        self.forks.load(Ordering::Relaxed) != 0
    }

    /// Has every walk put down what it had?
    pub fn is_empty(&self) -> bool {
        self.walks.is_empty()
    }

    /// After a fork, in the parent.
    pub fn end_fork(&self) {
        // Not below zero: the handlers may have been made known while another thread was in its fork.
        // ordering: Release, so that the fork is over for whoever sees it.
        let _ = self.forks.fetch_update(Ordering::Release, Ordering::Relaxed, |forks| forks.checked_sub(1));
    }

    /// After a fork, in the child, where nobody walks and nobody forks.
    pub fn reset(&self) {
        self.walks.reset();
        // ordering: Relaxed; the caller is alone.
        self.forks.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_a_fork_interrupted_does_not_count_in_the_child() {
        let in_flight = InFlight::new();
        let interrupted = in_flight.take_up().expect("no fork");
        in_flight.begin_fork();
        assert!(in_flight.take_up().is_none() && !in_flight.is_empty());
        in_flight.reset();
        assert!(in_flight.is_empty());
        // The child's own walk, which goes on when the interrupted one has ended.
        let own = in_flight.take_up().expect("no fork in the child");
        in_flight.put_down(interrupted);
        assert!(!in_flight.is_empty());
        in_flight.put_down(own);
        assert!(in_flight.is_empty());
    }

    #[test]
    fn the_end_of_a_walk_or_fork_that_was_not_counted_changes_nothing() {
        let in_flight = InFlight::new();
        let walk = in_flight.take_up().expect("no fork");
        in_flight.reset();
        in_flight.put_down(walk);
        in_flight.end_fork();
        assert!(in_flight.is_empty());
        let walk = in_flight.take_up().expect("no fork");
        assert!(!in_flight.is_empty());
        in_flight.put_down(walk);
        assert!(in_flight.is_empty());
    }
}
