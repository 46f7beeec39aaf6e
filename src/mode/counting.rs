//! Counting: every allocation and every free, exactly.
//!
//! ```text
//! # Cost        two locked additions a pair, and the slow path's own way; nothing while it is off
//! # Ordering    counts that nobody draws conclusions from but people: Relaxed. At rest they are exact.
//! # Spread      over a few rows by the number of the local heap, so that threads do not meet at a cache line
//! ```

use crate::local::LocalHeap;
use crate::size_class::{CLASS_COUNT, all, shape};
use crate::sync::{AtomicU64, CachePadded, Ordering};
use crate::units::ClassIndex;

/// Rows of counters.
const ROWS: usize = 16;

/// What was counted of a size class, or of large blocks, since counting was turned on for the first time:
/// [`call_counts`](crate::call_counts). Times without counting in between are not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallCounts {
    /// Bytes of a block; 0: large ones, of any size.
    pub block_bytes: u32,
    /// Blocks that were allocated.
    pub allocated: u64,
    /// Blocks that were freed, also such as were allocated before.
    pub freed: u64,
}

/// Per class, and last for large blocks: allocations and frees.
pub struct Row([[AtomicU64; 2]; CLASS_COUNT + 1]);

const LARGE: usize = CLASS_COUNT;
const ALLOCATED: usize = 0;
const FREED: usize = 1;

impl Row {
    fn add(&self, index: usize, what: usize) {
        // ordering: Relaxed, a count.
        self.0[index][what].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts `block`, if it is one.
    pub fn count_small(&self, class: ClassIndex, block: *mut u8) -> *mut u8 {
        if !block.is_null() {
            self.add(class.get(), ALLOCATED);
        }
        block
    }

    /// Counts a free.
    pub fn count_small_free(&self, class: ClassIndex) {
        self.add(class.get(), FREED);
    }
}

/// All counters.
pub struct Counters([CachePadded<Row>; ROWS]);

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

impl Counters {
    /// Nothing counted.
    pub const fn new() -> Self {
        Self([const { CachePadded::new(Row([const { [const { AtomicU64::new(0) }; 2] }; CLASS_COUNT + 1])) }; ROWS])
    }

    /// Where a thread counts.
    pub fn of<P>(&self, local: Option<&LocalHeap<'_, P>>) -> &Row {
        &self.0[local.map_or(0, |local| local.me.get()) % ROWS]
    }

    /// Counts `block`, if it is one.
    pub fn count_large(&self, block: *mut u8) -> *mut u8 {
        if !block.is_null() {
            self.0[0].add(LARGE, ALLOCATED);
        }
        block
    }

    /// Counts a free.
    pub fn count_large_free(&self) {
        self.0[0].add(LARGE, FREED);
    }

    /// The counts so far, smallest class first, large blocks last.
    pub fn read(&self) -> [CallCounts; CLASS_COUNT + 1] {
        let mut counts = [CallCounts::default(); CLASS_COUNT + 1];
        for class in all() {
            counts[class.get()].block_bytes = shape(class).bytes;
        }
        for row in &self.0 {
            for (sum, of_row) in counts.iter_mut().zip(&row.0) {
                // ordering: Relaxed, counts.
                sum.allocated += of_row[ALLOCATED].load(Ordering::Relaxed);
                sum.freed += of_row[FREED].load(Ordering::Relaxed);
            }
        }
        counts
    }
}
