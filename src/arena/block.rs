//! A block of the heap with a header, in a list of its arena's: a chunk, or what a large request has.
//!
//! ```text
//! # Role        takes blocks from the heap and gives them back; knows nothing of what lies in them
//! # Layout      header, padding up to the alignment, contents
//! ```

use super::sizes::{CHUNK_ALIGN, room_for};
use crate::source::{self, AllocError};
use core::alloc::Layout;
use core::ptr::NonNull;

/// The header of a block.
#[repr(C, align(16))]
pub(super) struct Block {
    /// The next older one of the list.
    pub(super) previous: Option<NonNull<Block>>,
    /// Bytes of the block, header included.
    pub(super) bytes: usize,
    align: usize,
}

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = size_of::<Block>();

const _: () = assert!(align_of::<Block>() == CHUNK_ALIGN && HEADER_BYTES.is_multiple_of(CHUNK_ALIGN));

impl Block {
    fn with_layout(layout: Layout) -> Result<NonNull<Self>, AllocError> {
        let block = source::take(layout)?.cast::<Self>();
        // SAFETY: the block is new, has room for a header, and is aligned for it.
        unsafe { block.write(Self { previous: None, bytes: layout.size(), align: layout.align() }) };
        Ok(block)
    }

    /// A chunk of that many bytes.
    pub(super) fn chunk(bytes: usize) -> Result<NonNull<Self>, AllocError> {
        Self::with_layout(Layout::from_size_align(bytes, CHUNK_ALIGN).map_err(|_| AllocError)?)
    }

    /// A block for a single request, and where the request's part begins.
    pub(super) fn large(layout: Layout) -> Result<(NonNull<Self>, NonNull<u8>), AllocError> {
        let align = layout.align().max(CHUNK_ALIGN);
        let offset = HEADER_BYTES.next_multiple_of(align);
        let bytes = offset.checked_add(layout.size()).ok_or(AllocError)?;
        let block = Self::with_layout(Layout::from_size_align(bytes, align).map_err(|_| AllocError)?)?;
        // SAFETY: `offset` is inside of the block.
        Ok((block, unsafe { block.cast::<u8>().byte_add(offset) }))
    }

    /// Does a piece of that layout surely have room in an unused chunk of `bytes`?
    pub(super) fn has_room(bytes: usize, layout: Layout) -> bool {
        room_for(layout) <= bytes - HEADER_BYTES
    }

    /// Where the contents of a chunk begin and end.
    ///
    /// # Safety
    /// `block` is a chunk.
    pub(super) unsafe fn contents(block: NonNull<Self>) -> (NonNull<u8>, NonNull<u8>) {
        let start = block.cast::<u8>();
        // SAFETY: the caller's promise; both are inside of the chunk, or at its end.
        unsafe { (start.byte_add(HEADER_BYTES), start.byte_add(block.as_ref().bytes)) }
    }

    /// Gives a block back; the next older one of its list.
    ///
    /// # Safety
    /// `block` is one, and nobody uses it any more.
    pub(super) unsafe fn give(block: NonNull<Self>) -> Option<NonNull<Self>> {
        // SAFETY: the caller's promise.
        let Self { previous, bytes, align } = unsafe { block.read() };
        // SAFETY: the layout is the one that it was taken with.
        unsafe { source::give(block.cast(), Layout::from_size_align_unchecked(bytes, align)) };
        previous
    }

    /// Bytes of the blocks of a list.
    ///
    /// # Safety
    /// `newest` is a list of blocks.
    pub(super) unsafe fn bytes_of(newest: Option<NonNull<Self>>) -> usize {
        let mut bytes = 0;
        let mut next = newest;
        while let Some(block) = next {
            // SAFETY: the caller's promise.
            let block = unsafe { block.as_ref() };
            bytes += block.bytes;
            next = block.previous;
        }
        bytes
    }
}
