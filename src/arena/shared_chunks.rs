//! The chunks of a shared arena: many threads take pieces of the newest one, and any of them adds the next.
//!
//! ```text
//! # Role        the protocol of `SharedArena`; where chunks come from and go is the caller's
//! # Invariants  I1: bytes `HEADER_BYTES..top` of a chunk are free; who lowers the top has what it was lowered by.
//!               I2: chunks are a list, newest first; one is added by an exchange that replaces the newest, which it links to.
//!               None is taken out while threads share the arena.
//! # Ordering    CHUNK: `add` (Release) -> `newest` (Acquire): the header of a chunk. A piece is handed over by nothing: who
//!               lowers the top is the first to have it
//! # Progress    `Chunk::take` and adding are lock-free
//! # Checked by  loom_tests/shared_arena.rs
//! ```

use super::sizes::step;
use crate::sync::planted::bug;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering, const_unless_loom};
use core::alloc::Layout;
use core::ptr::NonNull;

/// The header of a chunk.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Chunk {
    top: AtomicUsize,
    bytes: usize,
    previous: *mut Chunk,
}

/// Bytes of the header.
pub const HEADER_BYTES: usize = size_of::<Chunk>();

impl Chunk {
    /// The header of a chunk of `bytes`, all of them free, behind `previous`.
    pub fn new(bytes: usize, previous: *mut Chunk) -> Self {
        Self { top: AtomicUsize::new(bytes), bytes, previous }
    }

    /// Bytes of the chunk, header included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next older one.
    pub fn previous(&self) -> *mut Chunk {
        self.previous
    }

    /// Links a chunk that is not shared yet to another one.
    pub fn set_previous(&mut self, previous: *mut Chunk) {
        self.previous = previous;
    }

    /// All of it is free again.
    pub fn clear(&mut self) {
        // ordering: Relaxed; the caller is alone.
        self.top.store(self.bytes, Ordering::Relaxed);
    }

    /// Takes a piece of that layout; where it begins, in bytes from the chunk's begin.
    #[inline(always)]
    pub fn take(&self, layout: Layout) -> Option<usize> {
        let begin = core::ptr::from_ref(self).addr();
        // ordering: Relaxed; corrected by the exchange.
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            let piece = top - step(begin + top, top - HEADER_BYTES, layout)?;
            if bug("take by store") {
                // ordering: planted.
                self.top.store(piece, Ordering::Relaxed);
                return Some(piece);
            }
            // ordering: Relaxed; nobody had the piece before (I1), so there is nothing to be seen in it.
            match self.top.compare_exchange(top, piece, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(piece),
                Err(now) => top = now,
            }
        }
    }
}

/// The list of chunks.
#[derive(Debug)]
pub struct Chunks(AtomicPtr<Chunk>);

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunks {
    const_unless_loom! {
        /// No chunks.
        pub fn new() -> Self {
            Self(AtomicPtr::new(core::ptr::null_mut()))
        }
    }

    /// The newest one.
    #[inline(always)]
    pub fn newest(&self) -> Option<NonNull<Chunk>> {
        // ordering: Acquire [CHUNK] pairs with Release in `add`.
        NonNull::new(self.0.load(Ordering::Acquire))
    }

    /// Puts a chunk on the list, if the newest one is still the one that it links to.
    #[must_use]
    pub fn add(&self, chunk: NonNull<Chunk>, previous: *mut Chunk) -> bool {
        if bug("add by store") {
            // ordering: planted.
            self.0.store(chunk.as_ptr(), Ordering::Release);
            return true;
        }
        let order = if bug("relaxed chunk") { Ordering::Relaxed } else { Ordering::Release };
        // ordering: Release [CHUNK] pairs with Acquire in `newest`.
        self.0.compare_exchange(previous, chunk.as_ptr(), order, Ordering::Relaxed).is_ok()
    }

    /// Replaces the whole list, for who is alone.
    pub fn set(&mut self, newest: *mut Chunk) {
        // ordering: Relaxed; the caller is alone.
        self.0.store(newest, Ordering::Relaxed);
    }
}
