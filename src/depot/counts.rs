//! Counts of what slabs and spans were taken for, kept by slow paths, so that statistics need no walk over the heap.
//!
//! ```text
//! # Role        one word for each count; which of them a slow path writes is where a line is written anyway, or the
//!               owning thread's alone
//! # Accounting  of a class, over all caches and `Counts::beside`: taken - given = blocks that are not free in their slabs,
//!               but for those that a purge has in flight.
//!               of spans: number of slabs + large blocks; held - dirty = their bytes + `lost`
//! # Precision   each count is exact while nothing moves. In the child of a fork, what a vanished thread had in hand may be
//!               missed, or counted twice: one operation of each
//! # Not here    what is read of them (see `heap::stats`)
//! # Checked by  heap::tests::counting; `Heap::check` of each unit test compares them with a walk
//! ```

use crate::count::Count;
use crate::size_class::CLASS_COUNT;
use crate::sync::AtomicUsize;
use crate::units::ClassIndex;

/// Blocks of a class that went from slabs to a cache, or past all caches, and back; since the heap began.
#[derive(Debug)]
#[repr(C)]
pub struct Traffic {
    /// Out of slabs.
    pub taken: Count,
    /// Home to slabs.
    pub given: Count,
}

impl Traffic {
    const fn new() -> Self {
        Self { taken: Count::new(), given: Count::new() }
    }
}

/// Counts of the depot that are written seldom: where a slab is made or ends, a page is touched for the first time, or a
/// thread has no cache.
#[derive(Debug)]
pub struct Counts {
    /// Slabs, by class.
    slabs: [Lives; CLASS_COUNT],
    /// What went past all caches: blocks of threads that have none, and those that were stolen.
    beside: [Traffic; CLASS_COUNT],
    /// Bytes of slabs' pages that are marked as purged.
    pub purged_in_slabs: Count,
    /// Bytes of granules that stay claimed, because they are somebody else's by now.
    pub lost: Count,
    /// Magazines that were taken from other threads' stashes.
    pub steals: Count,
}

impl Counts {
    /// Nothing.
    pub const fn new() -> Self {
        Self {
            slabs: [const { Lives::new() }; CLASS_COUNT],
            beside: [const { Traffic::new() }; CLASS_COUNT],
            purged_in_slabs: Count::new(),
            lost: Count::new(),
            steals: Count::new(),
        }
    }

    /// Slabs of a class.
    pub fn slabs(&self, class: ClassIndex) -> &Lives {
        &self.slabs[class.get()]
    }

    /// What went past all caches of a class.
    pub fn beside(&self, class: ClassIndex) -> &Traffic {
        &self.beside[class.get()]
    }
}

/// What claims and frees of spans write anyway: a line of its own. That a span was claimed or freed is counted right beside
/// `dirty`, so that it costs no other transfer of the line; for slabs as for large blocks, as it is the same code.
#[derive(Debug)]
pub struct SpanCounts {
    /// Bytes of free granules that are dirty.
    pub(super) dirty: AtomicUsize,
    /// Spans.
    pub spans: Lives,
}

impl SpanCounts {
    /// Nothing.
    pub(super) const fn new() -> Self {
        Self { dirty: AtomicUsize::new(0), spans: Lives::new() }
    }
}

/// How many there were, and are.
#[derive(Debug)]
pub struct Lives {
    /// Made so far.
    pub made: Count,
    /// Ended so far.
    pub ended: Count,
}

impl Lives {
    /// None.
    pub const fn new() -> Self {
        Self { made: Count::new(), ended: Count::new() }
    }

    /// How many there are, at some moment.
    pub fn now(&self) -> u64 {
        self.made.get().saturating_sub(self.ended.get())
    }
}
