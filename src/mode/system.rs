//! The way back: with `MAGALLOC_DISABLE=1` the system's allocator serves everything.
//!
//! ```text
//! # Blocks      tell by their address whose they are: what this heap gave before comes back to it
//! # Not here    finding the system's functions (see `sys`)
//! ```

use crate::size_class::shape;
use crate::sys::platform::SystemMalloc;
use crate::units::ClassIndex;

/// The system's allocator, in use.
#[derive(Clone, Copy)]
pub struct System(SystemMalloc);

impl System {
    /// Is there one? It may ask this heap for memory while it is looked for.
    pub fn find() -> bool {
        SystemMalloc::find().is_some()
    }

    /// The one that was found.
    ///
    /// # Safety
    /// `find` has found it.
    pub unsafe fn found() -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { SystemMalloc::found() })
    }

    /// A block as long as those of the class: a `realloc` inside the class does not ask again.
    pub fn allocate_class(self, class: ClassIndex, align: usize) -> *mut u8 {
        self.0.allocate(shape(class).bytes as usize, align)
    }

    /// A block, or null.
    pub fn allocate(self, size: usize, align: usize) -> *mut u8 {
        self.0.allocate(size, align)
    }

    /// A block of zeros, or null.
    pub fn allocate_zeroed(self, size: usize, align: usize) -> *mut u8 {
        self.0.allocate_zeroed(size, align)
    }

    /// Another size for a block that is not of this heap; null leaves it as it is.
    pub fn reallocate(self, block: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise to have a live block, and it is not of this heap.
        unsafe { self.0.reallocate(block, size) }
    }

    /// Frees a block that is not of this heap.
    pub fn free(self, block: *mut u8) {
        // SAFETY: as above.
        unsafe { self.0.free(block) };
    }

    /// Bytes of a block that is not of this heap.
    pub fn usable_size(self, block: *mut u8) -> usize {
        // SAFETY: as above.
        unsafe { self.0.usable_size(block) }
    }
}
