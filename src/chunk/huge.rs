//! Chunks in huge pages that were asked for, or for which they still are.
//!
//! ```text
//! # Role        which huge pages are to be split, and which advice is to be withdrawn, before pages are given back
//! # Progress    lock-free
//! # Not here    when that is (see `depot::huge_pages`)
//! ```

use crate::sync::{AtomicU64, Ordering};

/// A set of the chunks of a group. Zeroed memory is an empty one.
#[derive(Debug)]
#[repr(transparent)]
pub struct Huge(AtomicU64);

impl Huge {
    /// Adds `chunks`. `true`: some of them were not in it.
    pub fn add(&self, chunks: u64) -> bool {
        // ordering: Relaxed; the kernel orders advice and pages itself, and whoever purges has claimed what it purges.
        self.0.fetch_or(chunks, Ordering::Relaxed) & chunks != chunks
    }

    /// Takes `chunks` out. `true`: some of them were in it.
    pub fn remove(&self, chunks: u64) -> bool {
        // ordering: Relaxed, as above. The load spares a write.
        self.0.load(Ordering::Relaxed) & chunks != 0 && self.0.fetch_and(!chunks, Ordering::Relaxed) & chunks != 0
    }
}
