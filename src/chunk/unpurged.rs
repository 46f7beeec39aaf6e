//! Chunks in which something was freed that no purge has dealt with yet.
//!
//! ```text
//! # Role        where a purge must look: all other chunks have nothing to give back
//! # Invariants  I1: a free block or granule whose page is not purged lies in a chunk whose bit is set, or the thread
//!                   that freed it is on its way to `note` it, or a purge is in that chunk.
//! # Ordering    NOTE: a block's release, then the look in `note`; `take`, then a purge's look at the blocks. A sequentially
//!               consistent fence lies between the two on each side, so one of the two threads sees the other's work. What
//!               comes before it is a read-modify-write on both sides, so it costs nothing on an x86.
//! # Progress    lock-free
//! # Checked by  loom_tests/purge_signal.rs, loom_tests/slab_pages.rs
//! ```

use crate::sync::planted::bug;
use crate::sync::{AtomicU64, Ordering, fence_after_exchange};

/// A set of the chunks of a group. Zeroed memory is an empty one.
#[derive(Debug)]
#[repr(transparent)]
pub struct Unpurged(AtomicU64);

impl Unpurged {
    /// No chunk.
    #[cfg(loom)]
    #[allow(clippy::new_without_default, reason = "it is for models, which call it by name")]
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// After something was freed in `chunk`, by a read-modify-write. `true`: it is the first since the chunk was dealt with.
    #[inline]
    #[must_use]
    pub fn note(&self, chunk: usize) -> bool {
        self.note_these(1 << chunk)
    }

    /// The same for each of `chunks`. `true`: it is the first for one of them.
    #[inline]
    #[must_use]
    pub fn note_these(&self, chunks: u64) -> bool {
        if !bug("note without the fence") {
            // ordering: SeqCst [NOTE] what was freed comes before the look below; pairs with the fence in `take`.
            fence_after_exchange();
        }
        // ordering: Relaxed; the fence orders it.
        if chunks & !self.0.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // ordering: AcqRel [ALARM] before the purge signal is raised; pairs with `take`.
        chunks & !self.0.fetch_or(chunks, Ordering::AcqRel) != 0
    }

    /// Before a purge looks at `chunk`: `false` where there is nothing to do.
    #[must_use]
    pub fn take(&self, chunk: usize) -> bool {
        // ordering: AcqRel [ALARM], as in `note`.
        let was_noted = self.0.fetch_and(!(1 << chunk), Ordering::AcqRel) >> chunk & 1 != 0;
        if !bug("take without the fence") {
            // ordering: SeqCst [NOTE] before the look at the blocks; pairs with the fence in `note`.
            fence_after_exchange();
        }
        was_noted
    }

    /// The chunks, at some moment.
    pub fn chunks(&self) -> u64 {
        // ordering: Acquire [ALARM] whoever saw the purge signal sees what was noted before.
        self.0.load(Ordering::Acquire)
    }
}
