//! The allocator that would serve this process without this one: the process's own heap.
//!
//! ```text
//! # Layout      a block of the system's is aligned to 16 bytes, or 8. Ours begins behind a header in it, of at least that
//!               length, at what multiple it shall; the word before it has the address of the system's. So it is found
//!               by the block alone, however it is aligned.
//! ```

use core::ptr::NonNull;
use windows_sys::Win32::System::Memory::{
    GetProcessHeap, HEAP_ZERO_MEMORY, HeapAlloc, HeapFree, HeapReAlloc, HeapSize,
};

/// Alignment of what the system gives, in bytes, and the least length of the header.
const ALIGN: usize = 2 * size_of::<usize>();

/// The process's own heap.
#[derive(Clone, Copy, Debug)]
pub struct SystemMalloc(());

/// The system's block of ours.
///
/// # Safety
/// A live block of `SystemMalloc`'s.
unsafe fn whole(block: NonNull<u8>) -> *mut u8 {
    // SAFETY: the word before a block is in its header.
    let word = unsafe { block.cast::<*mut u8>().sub(1) };
    // SAFETY: likewise; `place` wrote it.
    unsafe { word.read() }
}

/// Our block of a block of the system's that is longer by `align`, a power of two and at least `ALIGN`.
///
/// # Safety
/// The caller has it.
unsafe fn place(whole: NonNull<u8>, align: usize) -> *mut u8 {
    // SAFETY: the system's alignment is at least a word's, so this is at most `align` in.
    let behind_word = unsafe { whole.add(ALIGN) };
    // SAFETY: likewise: `ALIGN` and what is missing to the next multiple are at most `align` together.
    let block = unsafe { behind_word.add(behind_word.align_offset(align)) };
    // SAFETY: within the header.
    let word = unsafe { block.cast::<*mut u8>().sub(1) };
    // SAFETY: likewise.
    unsafe { word.write(whole.as_ptr()) };
    block.as_ptr()
}

fn allocate(size: usize, align: usize, flags: u32) -> *mut u8 {
    let align = align.max(ALIGN);
    let Some(bytes) = size.checked_add(align) else { return core::ptr::null_mut() };
    // SAFETY: the process's heap is there.
    let whole = unsafe { HeapAlloc(GetProcessHeap(), flags, bytes) };
    // SAFETY: a new block, longer by `align`.
    NonNull::new(whole.cast()).map_or(core::ptr::null_mut(), |whole| unsafe { place(whole, align) })
}

impl SystemMalloc {
    /// It is always there.
    pub fn find() -> Option<Self> {
        Some(Self(()))
    }

    /// After `find` has found it, on whatever thread.
    ///
    /// # Safety
    /// It has.
    pub const unsafe fn found() -> Self {
        Self(())
    }

    /// A block, or null.
    pub fn allocate(self, size: usize, align: usize) -> *mut u8 {
        allocate(size, align, 0)
    }

    /// A block of zeros, or null.
    pub fn allocate_zeroed(self, size: usize, align: usize) -> *mut u8 {
        allocate(size, align, HEAP_ZERO_MEMORY)
    }

    /// Another size for a block, at the alignment of `allocate(_, 1)`; null leaves it as it is.
    ///
    /// # Safety
    /// A live block of the system's allocator, or null.
    pub unsafe fn reallocate(self, block: *mut u8, size: usize) -> *mut u8 {
        let Some(old) = NonNull::new(block) else { return self.allocate(size, 1) };
        // SAFETY: the caller's promise.
        let whole = unsafe { whole(old) };
        if block.addr() - whole.addr() == ALIGN {
            let Some(bytes) = size.checked_add(ALIGN) else { return core::ptr::null_mut() };
            // SAFETY: the system's block.
            let whole = unsafe { HeapReAlloc(GetProcessHeap(), 0, whole.cast(), bytes) };
            // SAFETY: longer by `ALIGN`.
            return NonNull::new(whole.cast()).map_or(core::ptr::null_mut(), |whole| unsafe { place(whole, ALIGN) });
        }
        // The next one's header has another length.
        let new = self.allocate(size, 1);
        if !new.is_null() {
            // SAFETY: the caller's promise.
            let bytes = unsafe { self.usable_size(block) }.min(size);
            // SAFETY: two blocks, each of at least that many bytes.
            unsafe { core::ptr::copy_nonoverlapping(block, new, bytes) };
            // SAFETY: the caller's promise.
            unsafe { self.free(block) };
        }
        new
    }

    /// Frees a block.
    ///
    /// # Safety
    /// A live block of the system's allocator, or null.
    pub unsafe fn free(self, block: *mut u8) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller's promise.
            let whole = unsafe { whole(block) };
            // SAFETY: the system's block.
            unsafe { HeapFree(GetProcessHeap(), 0, whole.cast()) };
        }
    }

    /// Bytes that a block has.
    ///
    /// # Safety
    /// A live block of the system's allocator, or null.
    pub unsafe fn usable_size(self, block: *mut u8) -> usize {
        let Some(start) = NonNull::new(block) else { return 0 };
        // SAFETY: the caller's promise.
        let whole = unsafe { whole(start) };
        // SAFETY: the system's block.
        let bytes = unsafe { HeapSize(GetProcessHeap(), 0, whole.cast_const().cast()) };
        bytes.saturating_sub(block.addr() - whole.addr())
    }
}
