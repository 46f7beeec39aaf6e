//! Pieces of an arena that end or change their size, as containers want it.
//!
//! ```text
//! # Role        what `allocator_api` needs beyond pieces that stay
//! # Memory      only the newest piece leaves nothing behind; what others leave is not used again before a reset
//! ```

use super::bump::Arena;
use super::scope::Scope;
use super::shared::SharedArena;
use crate::source::AllocError;
use core::alloc::Layout;
use core::ptr::NonNull;

impl Arena {
    /// Another layout for a piece in use; it moves if it must. The smaller size's contents stay.
    ///
    /// # Safety
    /// `piece` is of layout `old`, and its owner gives it up for the result.
    pub(crate) unsafe fn resize(&self, piece: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<u8>, AllocError> {
        let top = self.top.get();
        let is_newest = piece == top;
        if !is_newest && fits(piece, old, new) {
            return Ok(piece);
        }
        // SAFETY: the owner gives the piece up.
        unsafe { self.give(piece, old) };
        let moved = self.bump(new).inspect_err(|_| {
            if is_newest {
                self.top.set(top);
            }
        })?;
        // SAFETY: both have as many bytes. They overlap where the piece was the newest.
        unsafe { moved.as_ptr().copy_from(piece.as_ptr(), old.size().min(new.size())) };
        Ok(moved)
    }

    /// Takes a piece back if it is the newest one.
    ///
    /// # Safety
    /// `piece` is of that layout, and nobody uses it any more.
    #[inline]
    pub(crate) unsafe fn give(&self, piece: NonNull<u8>, layout: Layout) {
        let top = self.top.get();
        if piece == top {
            // By the arena's own pointer: the owner's may be good for the piece alone, as from a reference.
            // SAFETY: the piece ends in the chunk, or at its end.
            self.top.set(unsafe { top.byte_add(layout.size()) });
        }
    }
}

impl Scope<'_, '_> {
    /// The arena, for what does not outlive the borrow.
    pub(crate) fn arena(&self) -> &Arena {
        self.arena
    }
}

impl SharedArena {
    /// Another layout for a piece in use; it moves where the new one does not fit.
    ///
    /// # Safety
    /// As for `Arena::resize`.
    pub(crate) unsafe fn resize(&self, piece: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<u8>, AllocError> {
        if fits(piece, old, new) {
            return Ok(piece);
        }
        let moved = self.alloc_layout(new)?;
        // SAFETY: two pieces, each of at least as many bytes.
        unsafe { moved.as_ptr().copy_from_nonoverlapping(piece.as_ptr(), old.size().min(new.size())) };
        Ok(moved)
    }
}

/// Does the new layout hold where the piece is?
fn fits(piece: NonNull<u8>, old: Layout, new: Layout) -> bool {
    new.size() <= old.size() && piece.addr().get().is_multiple_of(new.align())
}
