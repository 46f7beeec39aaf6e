//! `GlobalAlloc` for Rust programs.

use super::{HEAP, Magalloc};
use crate::size_class::{class_of, common_class_of};
use core::alloc::{GlobalAlloc, Layout};

// SAFETY: blocks are unique and stay where they are until freed (bitmap invariants); a class serves its size and
// alignment (size_class), a span likewise. Nothing here unwinds.
unsafe impl GlobalAlloc for Magalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match common_class_of(layout.size(), layout.align()) {
            Some(class) => self.alloc_class(class, layout.align()),
            None => self.alloc_uncommon(layout.size(), layout.align()),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match common_class_of(layout.size(), layout.align()) {
            Some(class) => self.dealloc_class(block, class),
            None => self.dealloc_uncommon(block, layout),
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = match class_of(layout.size(), layout.align()) {
            Some(class) => self.alloc_class(class, layout.align()),
            // Knows which pages are zero already.
            None => return self.alloc_large(layout.size(), layout.align(), true),
        };
        if !block.is_null() {
            // SAFETY: a block of at least that size, which nobody else has.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let old = class_of(layout.size(), layout.align());
        let new = class_of(new_size, layout.align());
        if old.is_some() && old == new {
            return block;
        }
        if old.is_none() && new.is_none() {
            let resized = self.resize_large(block, new_size, layout.align());
            if !resized.is_null() {
                return resized;
            }
        }
        // SAFETY: the caller's promise, the same.
        unsafe { self.realloc_by_copy(block, layout, new_size) }
    }
}

impl Magalloc {
    /// `dealloc` of sizes and alignments beyond the table. Outlined: the fast path needs no stack frame then.
    #[inline(never)]
    fn dealloc_uncommon(&self, block: *mut u8, layout: Layout) {
        match class_of(layout.size(), layout.align()) {
            Some(class) => self.dealloc_class(block, class),
            None => self.dealloc_large(block),
        }
    }

    /// `realloc` by a new block and a copy.
    ///
    /// # Safety
    /// As for `realloc`.
    #[inline(never)]
    unsafe fn realloc_by_copy(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if HEAP.is_closed() {
            // The block may be unmapped: nothing can be copied from it. It stays what it is.
            return core::ptr::null_mut();
        }
        // SAFETY: the caller's promise: with the alignment not above isize::MAX.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: as for `realloc`.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            // SAFETY: two blocks, each of at least that many bytes.
            unsafe { core::ptr::copy_nonoverlapping(block, new, layout.size().min(new_size)) };
            // SAFETY: the caller gives the old block up.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}
