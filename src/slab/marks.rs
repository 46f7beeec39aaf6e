//! What a purge remembers of a granule's OS pages, in a word of its descriptor.
//!
//! ```text
//! # States      of a page:    Used --age--> Aged --purged--> Purged      and back to Used when one of its blocks is
//!               claimed (`used`)
//! # Invariants  I1: a page is Purged only if nothing was written to it since: whoever purges a page has all its blocks
//!                   and marks it before it releases them; whoever claims a block clears the mark afterwards.
//!               I2: Aged is a mark of time and may come late, on a page that is in use.
//! # Ordering    MARK: `purged`, then the release of the page's blocks; their claim, then `used`. The blocks' own edge
//!               (RELEASE-BLOCK) orders them.
//! # Progress    lock-free
//! # Checked by  loom_tests/slab_pages.rs
//! ```

use crate::config::GRANULE_BYTES;
use crate::sync::planted::bug;
use crate::sync::{AtomicU32, Ordering};

/// OS pages of a granule at most: 4 KiB each.
pub const PAGES_MAX: usize = GRANULE_BYTES / 4096;
const _: () = assert!(PAGES_MAX <= u16::BITS as usize);

/// Zeroed memory is a granule whose pages are all used. Aged pages in the low half, purged ones in the high half.
#[derive(Debug)]
#[repr(transparent)]
pub struct PageMarks(AtomicU32);

impl Default for PageMarks {
    fn default() -> Self {
        Self::new()
    }
}

const fn aged(pages: u16) -> u32 {
    pages as u32
}

const fn purged(pages: u16) -> u32 {
    (pages as u32) << u16::BITS
}

impl PageMarks {
    /// All used.
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// For a new slab: `clean` pages were never written, the others may have been. Only for the slab's maker.
    pub fn begin(&self, clean: u16) {
        // ordering: Relaxed; nobody else has the slab, and a late mark of age does no harm (I2).
        self.0.store(purged(clean), Ordering::Relaxed);
    }

    /// Is no page marked? Then `used` has nothing to do.
    #[inline]
    #[must_use]
    pub fn is_clear(&self) -> bool {
        // ordering: Relaxed [MARK] a mark that matters was set before the caller's blocks were released.
        self.0.load(Ordering::Relaxed) == 0
    }

    /// After blocks in `pages` were claimed: these pages are going to be written. Returns how many of them were marked as
    /// purged.
    #[must_use]
    pub fn used(&self, pages: u16) -> usize {
        let marks = aged(pages) | purged(pages);
        // ordering: Relaxed [MARK] as in `is_clear`.
        if self.0.load(Ordering::Relaxed) & marks != 0 && !bug("mark kept when used") {
            return (self.0.fetch_and(!marks, Ordering::Relaxed) & purged(pages)).count_ones() as usize;
        }
        0
    }

    /// Which of the `free` pages are neither purged nor in use: those that were aged already, and the others, which
    /// are aged now.
    #[must_use]
    pub fn age(&self, free: u16) -> (u16, u16) {
        // ordering: Relaxed, a guess: whoever purges claims the blocks first, and pages are purged twice at worst.
        let marks = self.0.load(Ordering::Relaxed);
        let unpurged = free & !((marks >> u16::BITS) as u16);
        let old = unpurged & marks as u16;
        let young = unpurged & !old;
        if young != 0 {
            self.0.fetch_or(aged(young), Ordering::Relaxed);
        }
        (old, young)
    }

    /// The caller has all blocks of `pages` and has given the pages back. Returns how many were not marked before.
    pub fn purged(&self, pages: u16) -> usize {
        // ordering: Relaxed [MARK] before the caller releases the blocks.
        let before = self.0.fetch_or(purged(pages), Ordering::Relaxed);
        (purged(pages) & !before).count_ones() as usize
    }

    /// Pages that are purged, at some moment: a guess, unless nothing moves.
    pub fn purged_pages(&self) -> u16 {
        // ordering: Relaxed, a guess, as in `age`.
        (self.0.load(Ordering::Relaxed) >> u16::BITS) as u16
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn pages_age_are_purged_and_become_used_again() {
        let marks = PageMarks::new();
        assert_eq!(marks.age(0b0110), (0, 0b0110));
        assert_eq!(marks.used(0b0010), 0);
        assert_eq!(marks.age(0b0110), (0b0100, 0b0010));
        assert_eq!((marks.purged(0b0100), marks.purged(0b0100)), (1, 0));
        assert_eq!(marks.age(0b0110), (0b0010, 0));
        assert_eq!(marks.used(0b1110), 1, "one of the three was marked");
        assert_eq!(marks.age(0b0100), (0, 0b0100));
        assert_eq!(marks.purged_pages(), 0);
    }

    #[test]
    fn clean_pages_begin_purged() {
        let marks = PageMarks::new();
        marks.begin(u16::MAX);
        assert!(!marks.is_clear());
        assert_eq!(marks.age(u16::MAX), (0, 0));
        assert_eq!(marks.used(1), 1);
        assert_eq!(marks.age(u16::MAX), (0, 1));
    }
}
