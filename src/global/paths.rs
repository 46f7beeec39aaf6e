//! malloc and free as all interfaces have them in common: by class on the fast path, by span beyond.
//!
//! ```text
//! # Role        what `GlobalAlloc` (which is told the layout of a block) and `by_address` (which finds it) are made of
//! ```

use super::{Magalloc, init, second_path, thread, worker};
use crate::config::ALIGN_MAX;
use crate::size_class::class_of;
use crate::slab::KindByte;
use crate::units::ClassIndex;

impl Magalloc {
    #[inline(always)]
    pub(super) fn alloc_class(&self, class: ClassIndex, align: usize) -> *mut u8 {
        let block = thread::pop(class);
        if block.is_null() { thread::allocate_slow(&self.options, class, align) } else { block }
    }

    #[inline(always)]
    pub(super) fn dealloc_class(&self, block: *mut u8, class: ClassIndex) {
        if !thread::push(KindByte::of(class), block) {
            thread::free_slow(&self.options, class, block);
        }
    }

    /// malloc of sizes and alignments beyond the table. Outlined: the fast path needs no stack frame then.
    #[inline(never)]
    pub(super) fn alloc_uncommon(&self, size: usize, align: usize) -> *mut u8 {
        match class_of(size, align) {
            Some(class) => self.alloc_class(class, align),
            None => self.alloc_large(size, align, false),
        }
    }

    #[inline(never)]
    pub(super) fn alloc_large(&self, size: usize, align: usize, zeroed: bool) -> *mut u8 {
        init::configure(&self.options);
        if size > isize::MAX as usize || align > ALIGN_MAX {
            return core::ptr::null_mut();
        }
        let mut block = second_path().allocate_large(size, align, zeroed);
        if block.is_null() {
            // What this thread has in its cache and slabs may be what is missing.
            thread::flush();
            block = second_path().allocate_large(size, align, zeroed);
        }
        worker::attend();
        block
    }

    #[inline(never)]
    pub(super) fn dealloc_large(&self, block: *mut u8) {
        second_path().free_large(block);
        worker::attend();
    }

    /// Another size for a large block that stays large; null where it would have to be copied.
    pub(super) fn resize_large(&self, block: *mut u8, new_size: usize, align: usize) -> *mut u8 {
        let resized = second_path().resize_large(block, new_size, align);
        worker::attend();
        resized
    }
}
