//! Chunks for which the kernel is advised to use huge pages.
//!
//! ```text
//! # Role        what advice there is to withdraw
//! # Progress    wait-free
//! # Not here    when to advise, and when to withdraw it (see `depot::huge_pages`)
//! ```

use crate::sync::{AtomicU64, Ordering};

/// A set of the chunks of a group. Zeroed memory is an empty one.
#[derive(Debug)]
#[repr(transparent)]
pub struct Advised(AtomicU64);

impl Advised {
    /// Adds `chunks`.
    pub fn add(&self, chunks: u64) {
        // ordering: Relaxed; the kernel has the advice itself, and late advice is a hint that is lost.
        self.0.fetch_or(chunks, Ordering::Relaxed);
    }

    /// Takes `chunks` out. `true`: some of them were in it.
    pub fn remove(&self, chunks: u64) -> bool {
        // ordering: Relaxed, as above. The load spares a write.
        self.0.load(Ordering::Relaxed) & chunks != 0 && self.0.fetch_and(!chunks, Ordering::Relaxed) & chunks != 0
    }
}
