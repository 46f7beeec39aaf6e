//! A count of walks under way, of which a fork's child has none.
//!
//! ```text
//! # Role        what waits for walks asks whether there are any: `in_flight` (walks that purge or steal), and
//!               `local::switch` (walks over the threads)
//! # Fork        a signal handler may fork amid a walk, which then ends in the child: there it does not count any more, nor
//!               does it take another walk's place. So the count tells of which process it is, and so does a walk.
//! # Progress    `take_up` is wait-free, `put_down` lock-free
//! ```

use crate::sync::{AtomicU64, Ordering, const_unless_loom};

/// The count: in the low half; in the high one the process.
#[derive(Debug)]
pub struct Walks(AtomicU64);

/// A walk that was taken up, and must be put down.
#[derive(Debug)]
#[must_use]
pub struct Walk {
    /// The process in which it began, as `Walks::process` says it.
    process: u32,
}

/// The process in a word.
fn process_of(word: u64) -> u32 {
    (word >> u32::BITS) as u32
}

impl Default for Walks {
    fn default() -> Self {
        Self::new()
    }
}

impl Walks {
    const_unless_loom! {
        /// None.
        pub fn new() -> Self {
            Self(AtomicU64::new(0))
        }
    }

    /// Counts a walk.
    pub fn take_up(&self) -> Walk {
        // ordering: SeqCst; who looks for walks after it has said that there shall be none, and a walk that looks for that
        // after it was counted, cannot miss each other (`in_flight`: FORK, `local::switch`: END).
        Walk { process: process_of(self.0.fetch_add(1, Ordering::SeqCst)) }
    }

    /// A walk is over.
    pub fn put_down(&self, walk: Walk) {
        let is_counted = |&word: &u64| process_of(word) == walk.process && word as u32 != 0;
        // ordering: Release, what the walk did; pairs with `is_empty`. Relaxed, a guess that the exchange corrects.
        let _ = self.0.fetch_update(Ordering::Release, Ordering::Relaxed, |word| {
            Some(word).filter(is_counted).map(|word| word - 1)
        });
    }

    /// Is none under way?
    pub fn is_empty(&self) -> bool {
        // ordering: SeqCst, see `take_up`; Acquire in it pairs with `put_down`.
        self.0.load(Ordering::SeqCst) as u32 == 0
    }

    /// How many forks, of which the child was told, lie between the first process and this one.
    pub fn process(&self) -> u32 {
        // ordering: Relaxed; only a child's only thread changes it.
        process_of(self.0.load(Ordering::Relaxed))
    }

    /// After a fork, in the child, where nobody walks.
    pub fn reset(&self) {
        let process = self.process().wrapping_add(1);
        // ordering: Relaxed; the caller is alone.
        self.0.store(u64::from(process) << u32::BITS, Ordering::Relaxed);
    }
}
