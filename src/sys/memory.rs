//! Rust's own memory in the place of the kernel's, for tests under Miri, which knows few system calls.
//!
//! ```text
//! # Role        behind the fake kernel: all is committed at once, nothing moves, and what is purged is written to be zero
//! # Bound       reservations are short, so that heaps have several regions
//! # Not here    memory going back: what is released stays (Miri is told not to look for leaks)
//! ```

use super::{HugeAdvice, HugePage, PageRun, Pages, Relocated, Renewed};
use crate::config::GRANULE_BYTES;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed};

/// Bytes of the largest reservation: Miri keeps a record for each byte that was touched.
const RESERVATION_BYTES_MAX: usize = 64 << 20;

/// Bytes of a page, as on most machines.
const PAGE_BYTES: usize = 4096;

/// The memory.
pub(crate) struct Memory;

// SAFETY: blocks of the global allocator are nobody else's, aligned as was asked, and zero.
unsafe impl Pages for Memory {
    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(bytes, GRANULE_BYTES).ok()?;
        if bytes == 0 || bytes > RESERVATION_BYTES_MAX {
            return None;
        }
        // SAFETY: the size is not 0.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }

    fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.reserve(bytes)
    }

    unsafe fn commit(&self, _start: NonNull<u8>, _bytes: usize) -> bool {
        true
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller has the range to itself.
        unsafe { start.write_bytes(0, bytes) };
        true
    }

    unsafe fn purge_runs(&self, runs: &[PageRun]) -> bool {
        // SAFETY: the same promise, for each run.
        runs.iter().all(|run| unsafe { self.purge(run.start, run.bytes) })
    }

    unsafe fn populate(&self, _start: NonNull<u8>, _bytes: usize) -> bool {
        true
    }

    unsafe fn begin_huge_page(&self, _start: NonNull<u8>) -> HugePage {
        HugePage::None
    }

    unsafe fn split_huge_page(&self, _start: NonNull<u8>) {}

    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocated {
        // SAFETY: two ranges that the caller has to itself.
        unsafe { to.copy_from_nonoverlapping(from, bytes) };
        Relocated::Copied
    }

    unsafe fn renew(&self, start: NonNull<u8>, bytes: usize) -> Renewed {
        // SAFETY: the caller has the range to itself.
        unsafe { start.write_bytes(0, bytes) };
        Renewed::Yes
    }

    unsafe fn advise(&self, _start: NonNull<u8>, _bytes: usize, _advice: HugeAdvice) {}

    fn page_bytes(&self) -> usize {
        PAGE_BYTES
    }

    fn now_ms(&self) -> u64 {
        0
    }

    fn has_huge_pages_unasked(&self) -> bool {
        false
    }

    fn memory_limit(&self) -> Option<usize> {
        None
    }

    unsafe fn remap(&self, _start: NonNull<u8>, _bytes: usize, _new_bytes: usize) -> Option<NonNull<u8>> {
        None
    }

    unsafe fn release(&self, _start: NonNull<u8>, _bytes: usize) {}
}
