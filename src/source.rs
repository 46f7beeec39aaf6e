//! Memory for arenas and pools: blocks of the process's heap.
//!
//! ```text
//! # Role        the one way from the allocators above to the heap, so that its limits, purging and statistics hold for them
//! # Errors      `AllocError` where the heap would return null
//! # Not here    how long a block is kept (see `arena`, `pool`)
//! # Checked by  tests/arenas_limit.rs
//! ```

use crate::global::OWN;
use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ptr::NonNull;

/// There is no memory for it: the kernel has none, a limit is reached, or no address space is that large.
///
/// ```
/// let arena = magalloc::Arena::new();
/// let error = arena.alloc_slice_fill_with(usize::MAX, |_| 0_u64).unwrap_err();
/// assert_eq!(error.to_string(), "out of memory");
/// assert_eq!(arena.alloc(1).as_deref(), Ok(&1), "later requests are served");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocError;

impl fmt::Display for AllocError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("out of memory")
    }
}

impl core::error::Error for AllocError {}

/// A block of that layout, whose size is not 0.
pub(crate) fn take(layout: Layout) -> Result<NonNull<u8>, AllocError> {
    debug_assert!(layout.size() != 0);
    // SAFETY: the size is not 0.
    NonNull::new(unsafe { OWN.alloc(layout) }).ok_or(AllocError)
}

/// Gives a block back.
///
/// # Safety
/// `take` returned it for that layout, and nobody uses it any more.
pub(crate) unsafe fn give(block: NonNull<u8>, layout: Layout) {
    // SAFETY: the caller's promise.
    unsafe { OWN.dealloc(block.as_ptr(), layout) };
}
