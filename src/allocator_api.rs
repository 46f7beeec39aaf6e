//! `Allocator` of the crate `allocator-api2`, for the heap and for arenas.
//!
//! ```text
//! # Role        what each allocator does, once; a macro puts it under the trait of each version that a feature asks for
//! # Checked by  tests/allocator_api.rs
//! ```

use crate::arena::{Arena, Scope, SharedArena};
use crate::global::Magalloc;
use crate::source::AllocError;
use core::alloc::{GlobalAlloc, Layout};
use core::num::NonZero;
use core::ptr::NonNull;

/// Blocks of any layout, none of whose calls unwinds.
///
/// A container borrows its arena as what else is in it:
///
/// ```compile_fail,E0502
/// # let mut arena = magalloc::Arena::new();
/// let mut numbers = allocator_api2_04::vec::Vec::new_in(&arena);
/// arena.reset();
/// numbers.push(1);
/// ```
/// ```
/// # let mut arena = magalloc::Arena::new();
/// let mut numbers = allocator_api2_04::vec::Vec::new_in(&arena);
/// numbers.push(1);
/// drop(numbers);
/// arena.reset();
/// ```
trait Blocks {
    /// A block.
    fn take(&self, layout: Layout) -> Result<NonNull<u8>, AllocError>;

    /// A block of zeros.
    fn take_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let block = self.take(layout)?;
        // SAFETY: as many bytes, which nobody else has.
        unsafe { block.write_bytes(0, layout.size()) };
        Ok(block)
    }

    /// Ends a block.
    ///
    /// # Safety
    /// The block is one of that layout, and nobody uses it any more.
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout);

    /// Another layout for a block; the smaller size's contents stay.
    ///
    /// # Safety
    /// The block is one of the layout `old`, and its owner gives it up for the result.
    unsafe fn resize(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<u8>, AllocError>;
}

impl Blocks for Magalloc {
    #[inline]
    fn take(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if layout.size() == 0 {
            return NonZero::new(layout.align()).map(NonNull::without_provenance).ok_or(AllocError);
        }
        // SAFETY: the size is not 0.
        NonNull::new(unsafe { self.alloc(layout) }).ok_or(AllocError)
    }

    fn take_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if layout.size() == 0 {
            return self.take(layout);
        }
        // SAFETY: the size is not 0.
        NonNull::new(unsafe { self.alloc_zeroed(layout) }).ok_or(AllocError)
    }

    #[inline]
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 {
            // SAFETY: the caller's promise.
            unsafe { self.dealloc(block.as_ptr(), layout) };
        }
    }

    unsafe fn resize(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<u8>, AllocError> {
        if old.align() == new.align() && old.size() != 0 && new.size() != 0 {
            // SAFETY: the caller's promise; the new size is not 0, and a layout has it with that alignment.
            return NonNull::new(unsafe { self.realloc(block.as_ptr(), old, new.size()) }).ok_or(AllocError);
        }
        let moved = self.take(new)?;
        // SAFETY: two blocks, each of at least as many bytes.
        unsafe { moved.as_ptr().copy_from_nonoverlapping(block.as_ptr(), old.size().min(new.size())) };
        // SAFETY: the owner gives the old block up.
        unsafe { self.give(block, old) };
        Ok(moved)
    }
}

impl Blocks for &Arena {
    #[inline]
    fn take(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.alloc_layout(layout)
    }

    #[inline]
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { Arena::give(self, block, layout) };
    }

    unsafe fn resize(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: the caller's promise.
        unsafe { Arena::resize(self, block, old, new) }
    }
}

impl Blocks for &Scope<'_, '_> {
    #[inline]
    fn take(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.alloc_layout(layout)
    }

    #[inline]
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.arena().give(block, layout) };
    }

    unsafe fn resize(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: the caller's promise.
        unsafe { self.arena().resize(block, old, new) }
    }
}

impl Blocks for &SharedArena {
    #[inline]
    fn take(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.alloc_layout(layout)
    }

    #[inline]
    unsafe fn give(&self, _block: NonNull<u8>, _layout: Layout) {}

    unsafe fn resize(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: the caller's promise.
        unsafe { SharedArena::resize(self, block, old, new) }
    }
}

/// Puts `Blocks` of the types under the trait of `$api`, a version of `allocator-api2`.
macro_rules! allocators {
    ($api:ident: $($type:ty),*) => {
        const _: () = {
            use $api::alloc::{AllocError, Allocator};

            fn slice(
                block: Result<NonNull<u8>, crate::source::AllocError>,
                layout: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                let block = block.map_err(|_| AllocError)?;
                Ok(NonNull::slice_from_raw_parts(block, layout.size()))
            }

            $(
                // SAFETY: blocks are unique, have their layout, and stay until they are given back; those of an arena until
                // it is reset, when no borrow of it is left. Copies of a borrow are the same allocator.
                unsafe impl Allocator for $type {
                    #[inline]
                    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                        slice(self.take(layout), layout)
                    }

                    #[inline]
                    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                        slice(self.take_zeroed(layout), layout)
                    }

                    #[inline]
                    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
                        // SAFETY: the caller's promise.
                        unsafe { Blocks::give(self, block, layout) };
                    }

                    #[inline]
                    unsafe fn grow(
                        &self,
                        block: NonNull<u8>,
                        old: Layout,
                        new: Layout,
                    ) -> Result<NonNull<[u8]>, AllocError> {
                        // SAFETY: the caller's promise.
                        slice(unsafe { Blocks::resize(self, block, old, new) }, new)
                    }

                    #[inline]
                    unsafe fn shrink(
                        &self,
                        block: NonNull<u8>,
                        old: Layout,
                        new: Layout,
                    ) -> Result<NonNull<[u8]>, AllocError> {
                        // SAFETY: the caller's promise.
                        slice(unsafe { Blocks::resize(self, block, old, new) }, new)
                    }
                }
            )*
        };
    };
}

#[cfg(feature = "allocator-api2-02")]
allocators! { allocator_api2_02: Magalloc, &Arena, &Scope<'_, '_>, &SharedArena }
#[cfg(feature = "allocator-api2-04")]
allocators! { allocator_api2_04: Magalloc, &Arena, &Scope<'_, '_>, &SharedArena }
