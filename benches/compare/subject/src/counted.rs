//! The system's allocator, with what is asked of it counted.

use magalloc_compare_subject::Counted;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts, then asks the system.
pub struct CountedSystem;

// Relaxed throughout: counters that order nothing else.
static BLOCKS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);
static LIVE_PEAK: AtomicU64 = AtomicU64::new(0);

fn add(size: usize) {
    let live = LIVE.fetch_add(size as u64, Relaxed) + size as u64;
    // Most often not a new peak: a load is cheaper than a locked instruction.
    if live > LIVE_PEAK.load(Relaxed) {
        LIVE_PEAK.fetch_max(live, Relaxed);
    }
}

fn subtract(size: usize) {
    LIVE.fetch_sub(size as u64, Relaxed);
}

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for CountedSystem {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BLOCKS.fetch_add(1, Relaxed);
        add(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        BLOCKS.fetch_add(1, Relaxed);
        add(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // As if it never moved: what the program wants, not how it is had.
        if size > layout.size() {
            add(size - layout.size());
        } else {
            subtract(layout.size() - size);
        }
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// What was counted so far.
pub fn read() -> Counted {
    Counted { blocks: BLOCKS.load(Relaxed), live_peak: LIVE_PEAK.load(Relaxed), live_end: LIVE.load(Relaxed) }
}
