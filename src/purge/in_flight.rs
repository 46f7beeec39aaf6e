//! Whether a purging walk, a purge down to the bound, or who takes other threads' stashes, has anything in flight: blocks and
//! granules that are free, but that nobody can have just now.
//!
//! ```text
//! # Role        keeps the walk and forks apart (what is in flight at a fork would be lost in the child), and tells a
//!               request that found no memory that some may come back
//! # Ordering    FORK: `take_up` counts, then looks for forks; `begin_fork` counts, then looks for walks. All are
//!               sequentially consistent, so one of the two sees the other.
//! # Fork        a signal handler may fork amid a walk, which then ends in the child: there it does not count any more, nor
//!               does it take another walk's place. So the count tells of which process it is, and so does a walk.
//! # Progress    lock-free. Nobody is kept waiting for long: a walk that meets a fork leaves the rest for its next epoch;
//!               whoever waits for a walk waits for the chunk that it is in, 10 ms at most.
//! ```

use crate::sync::{AtomicU32, AtomicU64, Ordering, const_unless_loom};

/// The walks that are in a chunk, and the forks under way.
#[derive(Debug)]
pub struct InFlight {
    /// Walks that are in a chunk or in a class's stash, in the low half; in the high one the process.
    walks: AtomicU64,
    /// Forks under way.
    forks: AtomicU32,
}

/// A walk that was taken up, and must be put down.
#[derive(Debug)]
#[must_use]
pub struct Walk {
    /// How many forks lie between the first process and the one in which it began.
    process: u32,
}

/// The process in a word of `walks`.
fn process_of(word: u64) -> u32 {
    (word >> u32::BITS) as u32
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
            Self { walks: AtomicU64::new(0), forks: AtomicU32::new(0) }
        }
    }

    /// Before a walk claims anything. `None`: a fork is under way, nothing may be claimed.
    pub fn take_up(&self) -> Option<Walk> {
        // ordering: SeqCst [FORK] the count, then the look at forks; pairs with `begin_fork`, which does both in the
        // other order: one of the two sees the other.
        let walk = Walk { process: process_of(self.walks.fetch_add(1, Ordering::SeqCst)) };
        if self.forks.load(Ordering::SeqCst) == 0 {
            return Some(walk);
        }
        self.put_down(walk);
        None
    }

    /// After a walk has given back all that it had claimed.
    pub fn put_down(&self, walk: Walk) {
        let is_counted = |&word: &u64| process_of(word) == walk.process && word as u32 != 0;
        // ordering: Release [FORK] what was given back; Relaxed, a guess that the exchange corrects.
        let _ = self.walks.fetch_update(Ordering::Release, Ordering::Relaxed, |word| {
            Some(word).filter(is_counted).map(|word| word - 1)
        });
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
        // ordering: SeqCst [FORK] pairs with `take_up`.
        self.walks.load(Ordering::SeqCst) as u32 == 0
    }

    /// After a fork, in the parent.
    pub fn end_fork(&self) {
        // Not below zero: the handlers may have been made known while another thread was in its fork.
        // ordering: Release, so that the fork is over for whoever sees it.
        let _ = self.forks.fetch_update(Ordering::Release, Ordering::Relaxed, |forks| forks.checked_sub(1));
    }

    /// After a fork, in the child, where nobody walks and nobody forks.
    pub fn reset(&self) {
        // ordering: Relaxed, all of it; the caller is alone.
        let process = process_of(self.walks.load(Ordering::Relaxed)).wrapping_add(1);
        self.walks.store(u64::from(process) << u32::BITS, Ordering::Relaxed);
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
        in_flight.put_down(Walk { process: 0 });
        in_flight.end_fork();
        assert!(in_flight.is_empty());
        let walk = in_flight.take_up().expect("no fork");
        assert!(!in_flight.is_empty());
        in_flight.put_down(walk);
        assert!(in_flight.is_empty());
    }
}
