//! `GlobalAlloc` for Rust programs.

use super::{HEAP, thread, worker};
use crate::config::ALIGN_MAX;
use crate::options::{AtExit, HugePages, Options, SoftLimit};
use crate::size_class::{class_of, common_class_of};
use crate::units::ClassIndex;
use core::alloc::{GlobalAlloc, Layout};

/// The allocator, to be a program's global one.
///
/// ```
/// #[global_allocator]
/// static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();
/// # fn main() {}
/// ```
///
/// All values of this type share the process's one heap; the options of the one that serves the process's first call
/// hold. Alignments up to 1 GiB are served; a request beyond, or one that finds no memory, gets null.
///
/// # Errors of the program
/// Most double frees, and frees of what is no block of that layout, are noticed when the block returns from the
/// thread's cache to its slab, and end the process with one line on standard error. Until then a block that was freed
/// twice may be handed out twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Magalloc {
    options: Options,
}

impl Magalloc {
    /// With the default options.
    pub const fn new() -> Self {
        Self { options: Options::new() }
    }

    /// What happens to the memory at a normal end of the process. Default: everything is unmapped.
    #[must_use]
    pub const fn at_exit(mut self, at_exit: AtExit) -> Self {
        self.options.at_exit = at_exit;
        self
    }

    /// Whether the end of the process writes one line to standard error: how many bytes were unmapped, and of how
    /// many. Default: no.
    #[must_use]
    pub const fn report_exit(mut self, report: bool) -> Self {
        self.options.report_exit = report;
        self
    }

    /// Bytes of free blocks that a thread's cache may hold, over all size classes, beside the first few blocks of
    /// each. Default: 1 MiB.
    #[must_use]
    pub const fn cache_bytes_max(mut self, bytes: usize) -> Self {
        self.options.cache_bytes_max = bytes;
        self
    }

    /// Bytes of free spans whose pages are kept for reuse until the purge delay is over; what is more is given back at
    /// once. Default: 1 GiB (256 MiB where pointers have 32 bits).
    #[must_use]
    pub const fn dirty_bytes_max(mut self, bytes: usize) -> Self {
        self.options.dirty_bytes_max = bytes;
        self
    }

    /// Milliseconds after which the pages of free memory are given back to the kernel: at least half of that after
    /// they became free, at most all of it (longer only in heaps of many GiB). Less than 20 is as 20. Never, with
    /// `u32::MAX` and without `background_thread`. Default: 1000.
    #[must_use]
    pub const fn purge_delay_ms(mut self, milliseconds: u32) -> Self {
        self.options.purge_delay_ms = milliseconds;
        self
    }

    /// Whether a thread of the allocator's own gives memory back, also while the program is idle. It is started when
    /// there is something to give back in a heap of more than 4 MiB, and ends when nothing is left: an idle program does
    /// not have it. Without it, threads that allocate and free give memory back on the way. Default: yes.
    #[must_use]
    pub const fn background_thread(mut self, background_thread: bool) -> Self {
        self.options.background_thread = background_thread;
        self
    }

    /// Whether the heap is backed by transparent huge pages. Default: as the system's policy says.
    #[must_use]
    pub const fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.options.huge_pages = huge_pages;
        self
    }

    /// From how much memory on free memory is given back at once and caches are kept small. Counted are the spans in
    /// use and the free ones not yet given back; the allocator's own data add some 2 %, and the process has other memory.
    /// A control group's limit is read once, at the process's first call. Default: no limit.
    #[must_use]
    pub const fn soft_limit(mut self, limit: SoftLimit) -> Self {
        self.options.soft_limit = limit;
        self
    }

    /// Bytes of memory beyond which requests get null, counted as for `soft_limit`. As memory is freed, requests are
    /// served again. Default: no limit.
    #[must_use]
    pub const fn hard_limit(mut self, bytes: usize) -> Self {
        self.options.hard_limit = bytes;
        self
    }
}

// SAFETY: blocks are unique and stay where they are until freed (bitmap invariants); a class serves its size and
// alignment (size_class), a span likewise. Nothing here unwinds.
unsafe impl GlobalAlloc for Magalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match common_class_of(layout.size(), layout.align()) {
            Some(class) => self.alloc_class(class),
            None => self.alloc_uncommon(layout),
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
            Some(class) => self.alloc_class(class),
            // Knows which pages are zero already.
            None => return self.alloc_large(layout, true),
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
            let resized = HEAP.resize_large(block, new_size, layout.align());
            worker::attend();
            if !resized.is_null() {
                return resized;
            }
        }
        // SAFETY: the caller's promise, the same.
        unsafe { self.realloc_by_copy(block, layout, new_size) }
    }
}

impl Magalloc {
    #[inline(always)]
    fn alloc_class(&self, class: ClassIndex) -> *mut u8 {
        let block = thread::tops(|tops| tops.pop(class));
        if block.is_null() { thread::allocate_slow(&self.options, class) } else { block }
    }

    #[inline(always)]
    fn dealloc_class(&self, block: *mut u8, class: ClassIndex) {
        if !thread::tops(|tops| tops.push(class, block)) {
            thread::free_slow(&self.options, class, block);
        }
    }

    /// `alloc` of sizes and alignments beyond the table. Outlined: the fast path needs no stack frame then.
    #[inline(never)]
    fn alloc_uncommon(&self, layout: Layout) -> *mut u8 {
        match class_of(layout.size(), layout.align()) {
            Some(class) => self.alloc_class(class),
            None => self.alloc_large(layout, false),
        }
    }

    /// `dealloc` of sizes and alignments beyond the table. Outlined, likewise.
    #[inline(never)]
    fn dealloc_uncommon(&self, block: *mut u8, layout: Layout) {
        match class_of(layout.size(), layout.align()) {
            Some(class) => self.dealloc_class(block, class),
            None => {
                HEAP.free_large(block);
                worker::attend();
            }
        }
    }

    #[inline(never)]
    fn alloc_large(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        thread::configure(&self.options);
        let mut block = HEAP.allocate_large(layout.size(), layout.align(), zeroed);
        if block.is_null() && layout.align() <= ALIGN_MAX {
            // What this thread has in its cache and slabs may be what is missing.
            thread::flush();
            block = HEAP.allocate_large(layout.size(), layout.align(), zeroed);
        }
        worker::attend();
        block
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
