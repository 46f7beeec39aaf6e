//! The arena of many threads.
//!
//! ```text
//! # Role        `SharedArena`: chunks by `shared_chunks`; large blocks are a list that threads only add to
//! # Invariants  I1: what is on the lists stays there until the arena is its caller's alone.
//! # Progress    a piece of the newest chunk is one exchange, tried again only where another thread's succeeded
//! # Not here    marks and scopes: threads would take back what others have
//! ```

use super::ArenaBox;
use super::block::Block;
use super::methods::allocating_methods;
use super::shared_chunks::{Chunk, Chunks, HEADER_BYTES};
use super::sizes::{CHUNK_ALIGN, is_large, next_chunk_bytes};
use crate::source::{self, AllocError};
use crate::sync::{AtomicPtr, Ordering};
use core::alloc::Layout;
use core::fmt;
use core::num::NonZero;
use core::ptr::NonNull;

/// An [`Arena`](crate::Arena) that many threads take memory from at the same time, without a lock.
///
/// ```
/// let mut arena = magalloc::SharedArena::new();
/// std::thread::scope(|threads| {
///     let workers: Vec<_> = (0..4).map(|id| threads.spawn({
///         let arena = &arena;
///         move || arena.alloc_slice_fill_with(100, |index| id * 100 + index)
///     })).collect();
///     for (id, worker) in workers.into_iter().enumerate() {
///         assert_eq!(worker.join().unwrap().unwrap()[99], id * 100 + 99);
///     }
/// });
/// arena.reset();
/// ```
///
/// A piece is one compare-and-exchange; where each thread can have an arena of its own, that is faster. What is in it cannot
/// be used after [`reset`](Self::reset):
///
/// ```compile_fail,E0502
/// # let mut arena = magalloc::SharedArena::new();
/// let value = arena.alloc(1).unwrap();
/// arena.reset();
/// *value += 1;
/// ```
/// ```
/// # let mut arena = magalloc::SharedArena::new();
/// let value = arena.alloc(1).unwrap();
/// *value += 1;
/// arena.reset();
/// ```
pub struct SharedArena {
    chunks: Chunks,
    large: AtomicPtr<Block>,
}

// SAFETY: blocks are the arena's alone. What is in them is borrowed from it, or never looked at again.
unsafe impl Send for SharedArena {}
// SAFETY: pieces are handed out once (see `shared_chunks`), and lists only grow while the arena is shared (I1).
unsafe impl Sync for SharedArena {}

const _: () = assert!(align_of::<Chunk>() == CHUNK_ALIGN);

impl Default for SharedArena {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SharedArena {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SharedArena").field("held_bytes", &self.held_bytes()).finish_non_exhaustive()
    }
}

fn chunk_layout(bytes: usize) -> Result<Layout, AllocError> {
    Layout::from_size_align(bytes, CHUNK_ALIGN).map_err(|_| AllocError)
}

/// A chunk behind `previous`.
fn new_chunk(bytes: usize, previous: *mut Chunk) -> Result<NonNull<Chunk>, AllocError> {
    let chunk = source::take(chunk_layout(bytes)?)?.cast::<Chunk>();
    // SAFETY: the block is new, has room for a header, and is aligned for it.
    unsafe { chunk.write(Chunk::new(bytes, previous)) };
    Ok(chunk)
}

/// Gives a chunk back; the next older one.
///
/// # Safety
/// Nobody uses it any more.
unsafe fn give_chunk(chunk: NonNull<Chunk>) -> *mut Chunk {
    // SAFETY: a chunk.
    let (bytes, previous) = unsafe { (chunk.as_ref().bytes(), chunk.as_ref().previous()) };
    // SAFETY: its layout had been made before, and the caller's promise.
    unsafe { source::give(chunk.cast(), Layout::from_size_align_unchecked(bytes, CHUNK_ALIGN)) };
    previous
}

impl SharedArena {
    /// An empty arena, which takes memory when it is first used.
    pub const fn new() -> Self {
        Self { chunks: Chunks::new(), large: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// An arena whose first chunk has room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Result<Self, AllocError> {
        let mut arena = Self::new();
        let bytes = bytes.checked_next_multiple_of(CHUNK_ALIGN).and_then(|bytes| bytes.checked_add(HEADER_BYTES));
        arena.chunks.set(new_chunk(bytes.ok_or(AllocError)?, core::ptr::null_mut())?.as_ptr());
        Ok(arena)
    }

    allocating_methods!('_, "arena");

    /// Takes back all that was given out. The newest chunk stays for what comes; the others go back to the heap. It is the
    /// largest, unless [`with_capacity`](Self::with_capacity) made a larger one that was not enough.
    pub fn reset(&mut self) {
        self.free_large();
        if let Some(mut newest) = self.chunks.newest() {
            // SAFETY: the newest chunk, and the caller is alone.
            let header = unsafe { newest.as_mut() };
            header.clear();
            let others = header.previous();
            header.set_previous(core::ptr::null_mut());
            Self::free_chunks(others);
        }
    }

    /// Bytes that the arena has from the heap, used or not.
    pub fn held_bytes(&self) -> usize {
        let mut next = self.chunks.newest();
        // ordering: Acquire pairs with Release in `bump_large`: the headers.
        let large = NonNull::new(self.large.load(Ordering::Acquire));
        // SAFETY: I1.
        let mut bytes = unsafe { Block::bytes_of(large) };
        while let Some(chunk) = next {
            // SAFETY: I1.
            let chunk = unsafe { chunk.as_ref() };
            bytes += chunk.bytes();
            next = NonNull::new(chunk.previous());
        }
        bytes
    }

    /// A piece of that layout.
    #[inline(always)]
    fn bump(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        match self.chunks.newest().and_then(|chunk| Self::take(chunk, layout)) {
            Some(piece) => Ok(piece),
            None => self.bump_elsewhere(layout),
        }
    }

    /// A piece of a chunk.
    #[inline(always)]
    fn take(chunk: NonNull<Chunk>, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: a chunk, which stays while the arena is shared (I1).
        let offset = unsafe { chunk.as_ref() }.take(layout)?;
        // SAFETY: inside of the chunk.
        Some(unsafe { chunk.cast::<u8>().byte_add(offset) })
    }

    #[cold]
    #[inline(never)]
    fn bump_elsewhere(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if layout.size() == 0 {
            return Ok(NonNull::without_provenance(NonZero::new(layout.align()).ok_or(AllocError)?));
        }
        if is_large(layout) {
            return self.bump_large(layout);
        }
        let needed = HEADER_BYTES + layout.size() + layout.align();
        loop {
            let last = self.chunks.newest();
            // Another thread may have added one.
            if let Some(piece) = last.and_then(|chunk| Self::take(chunk, layout)) {
                return Ok(piece);
            }
            // SAFETY: a chunk, which stays (I1).
            let last_bytes = last.map_or(0, |chunk| unsafe { chunk.as_ref() }.bytes());
            let previous = last.map_or(core::ptr::null_mut(), NonNull::as_ptr);
            let chunk = new_chunk(next_chunk_bytes(last_bytes, needed), previous)?;
            // Taken before others can, so that whoever adds a chunk is served.
            let piece = Self::take(chunk, layout);
            if self.chunks.add(chunk, previous) {
                return piece.ok_or(AllocError);
            }
            // SAFETY: nobody else knows the chunk.
            unsafe { give_chunk(chunk) };
        }
    }

    fn bump_large(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let (mut block, piece) = Block::large(layout)?;
        // ordering: Relaxed; corrected by the exchange.
        let mut newest = self.large.load(Ordering::Relaxed);
        loop {
            // SAFETY: nobody else knows the block yet.
            unsafe { block.as_mut() }.previous = NonNull::new(newest);
            // ordering: Release pairs with Acquire in `held_bytes`: the header.
            match self.large.compare_exchange(newest, block.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return Ok(piece),
                Err(now) => newest = now,
            }
        }
    }

    fn free_large(&mut self) {
        // ordering: Relaxed; the caller is alone.
        let mut next = NonNull::new(self.large.swap(core::ptr::null_mut(), Ordering::Relaxed));
        while let Some(block) = next {
            // SAFETY: off the list, and nobody uses it.
            next = unsafe { Block::give(block) };
        }
    }

    fn free_chunks(newest: *mut Chunk) {
        let mut next = NonNull::new(newest);
        while let Some(chunk) = next {
            // SAFETY: off the list, and nobody uses it.
            next = NonNull::new(unsafe { give_chunk(chunk) });
        }
    }
}

impl Drop for SharedArena {
    fn drop(&mut self) {
        self.free_large();
        let newest = self.chunks.newest().map_or(core::ptr::null_mut(), NonNull::as_ptr);
        Self::free_chunks(newest);
    }
}
