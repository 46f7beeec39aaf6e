//! The arena of one thread at a time.
//!
//! ```text
//! # Role        gives pieces of chunks out, from the end of the newest chunk down; goes back to any earlier position
//! # Invariants  I1: `start..top` is the free part of the newest chunk; nobody else has a pointer into it. Without a chunk it is
//!               empty, and both are no address of anything.
//!               I2: chunks and large blocks are lists, newest first; a `Position` names places in them until the arena goes
//!               back to an older one.
//! # Not here    marks (see `marks`), scopes (see `scope`)
//! ```

use super::ArenaBox;
use super::block::{Block, HEADER_BYTES};
use super::marks::Record;
use super::methods::allocating_methods;
use super::sizes::{CHUNK_ALIGN, is_large, next_chunk_bytes, step};
use crate::source::AllocError;
use core::alloc::Layout;
use core::cell::Cell;
use core::fmt;
use core::num::NonZero;
use core::ptr::NonNull;

/// Memory for one thread that is given out by moving a pointer, and taken back all at once.
///
/// An arena is for what belongs together and ends together: a request's scratch, a parse tree, a frame. A piece costs a few
/// instructions and has no header. Nothing is freed one by one, and no destructor runs, but those of [`ArenaBox`].
///
/// ```
/// use magalloc::{AllocError, Arena};
///
/// fn shout(arena: &Arena, words: &[&str]) -> Result<usize, AllocError> {
///     let words = arena.alloc_slice_fill_with(words.len(), |index| words[index].len())?;
///     let name = arena.alloc_str("arena")?;
///     name.make_ascii_uppercase();
///     assert_eq!(name, "ARENA");
///     Ok(words.iter().sum())
/// }
///
/// let mut arena = Arena::new();
/// for _request in 0..10 {
///     assert_eq!(shout(&arena, &["a", "bcd"]), Ok(4));
///     arena.reset();
/// }
/// ```
///
/// Each call that may need memory returns a `Result`; there are no others beside them that panic.
///
/// Its memory is blocks of the process's heap: 1 KiB at first, then ever twice as much, up to 1 MiB; a large request has one
/// of its own. They count in [`stats`](crate::stats) and at limits, also where another allocator is the global one.
///
/// # Lifetimes
/// What is in an arena borrows it, so it cannot be used after [`reset`](Self::reset):
///
/// ```compile_fail,E0502
/// # let mut arena = magalloc::Arena::new();
/// let value = arena.alloc(1).unwrap();
/// arena.reset();
/// *value += 1;
/// ```
/// ```
/// # let mut arena = magalloc::Arena::new();
/// let value = arena.alloc(1).unwrap();
/// *value += 1;
/// arena.reset();
/// ```
/// nor after the arena is gone:
///
/// ```compile_fail,E0505
/// # let arena = magalloc::Arena::new();
/// let text = arena.alloc_str("text").unwrap();
/// drop(arena);
/// assert_eq!(text, "text");
/// ```
/// ```
/// # let arena = magalloc::Arena::new();
/// let text = arena.alloc_str("text").unwrap();
/// assert_eq!(text, "text");
/// drop(arena);
/// ```
pub struct Arena {
    start: Cell<NonNull<u8>>,
    pub(super) top: Cell<NonNull<u8>>,
    chunk: Cell<Option<NonNull<Block>>>,
    large: Cell<Option<NonNull<Block>>>,
    /// The largest chunk that is not used at present.
    spare: Cell<Option<NonNull<Block>>>,
    pub(super) newest_record: Cell<Option<NonNull<Record>>>,
    /// Of this arena's marks; 0 before the first one.
    pub(super) id: Cell<u64>,
    /// How many marks there were.
    pub(super) marks: Cell<u64>,
}

/// How far an arena is filled.
#[derive(Clone, Copy)]
pub(super) struct Position {
    pub(super) top: NonNull<u8>,
    pub(super) chunk: Option<NonNull<Block>>,
    pub(super) large: Option<NonNull<Block>>,
    pub(super) newest_record: Option<NonNull<Record>>,
}

/// Where the empty part of no chunk is: aligned as those of chunks are.
const NOWHERE: NonNull<u8> = match NonZero::new(CHUNK_ALIGN) {
    Some(address) => NonNull::without_provenance(address),
    None => NonNull::dangling(),
};

impl Position {
    const EMPTY: Self = Self { top: NOWHERE, chunk: None, large: None, newest_record: None };
}

// SAFETY: the blocks are the arena's alone. What is in them is borrowed from it, or never looked at again.
unsafe impl Send for Arena {}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Arena").field("held_bytes", &self.held_bytes()).finish_non_exhaustive()
    }
}

impl Arena {
    /// An empty arena, which takes memory when it is first used.
    pub const fn new() -> Self {
        Self {
            start: Cell::new(NOWHERE),
            top: Cell::new(NOWHERE),
            chunk: Cell::new(None),
            large: Cell::new(None),
            spare: Cell::new(None),
            newest_record: Cell::new(None),
            id: Cell::new(0),
            marks: Cell::new(0),
        }
    }

    /// An arena whose first chunk has room for `bytes`, and keeps it.
    ///
    /// ```
    /// let arena = magalloc::Arena::with_capacity(100_000)?;
    /// let before = arena.held_bytes();
    /// arena.alloc([0_u8; 100_000])?;
    /// assert_eq!(arena.held_bytes(), before);
    /// # Ok::<(), magalloc::AllocError>(())
    /// ```
    pub fn with_capacity(bytes: usize) -> Result<Self, AllocError> {
        let arena = Self::new();
        let bytes = bytes.checked_next_multiple_of(CHUNK_ALIGN).and_then(|bytes| bytes.checked_add(HEADER_BYTES));
        arena.begin(Block::chunk(bytes.ok_or(AllocError)?)?);
        Ok(arena)
    }

    allocating_methods!('_, "arena");

    /// Takes back all that was given out. The largest chunk stays for what comes; the others go back to the heap, and so do
    /// large blocks. All marks end.
    pub fn reset(&mut self) {
        // SAFETY: what was given out borrows the arena, which the caller has for itself.
        unsafe { self.go_back(Position::EMPTY) };
    }

    /// Bytes that the arena has from the heap, used or not.
    pub fn held_bytes(&self) -> usize {
        let lists = [self.chunk.get(), self.large.get(), self.spare.get()];
        // SAFETY: I2.
        lists.into_iter().map(|list| unsafe { Block::bytes_of(list) }).sum()
    }

    /// A piece of that layout.
    #[inline(always)]
    pub(super) fn bump(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        match self.bump_inside(layout) {
            Some(piece) => Ok(piece),
            None => self.bump_elsewhere(layout),
        }
    }

    /// A piece of the newest chunk.
    #[inline(always)]
    fn bump_inside(&self, layout: Layout) -> Option<NonNull<u8>> {
        let top = self.top.get();
        let step = step(top.addr().get(), top.addr().get() - self.start.get().addr().get(), layout)?;
        // SAFETY: by I1 the chunk has as many bytes below the top.
        let piece = unsafe { top.byte_sub(step) };
        self.top.set(piece);
        Some(piece)
    }

    #[cold]
    #[inline(never)]
    fn bump_elsewhere(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if layout.size() == 0 {
            // Without a chunk that reaches as high an alignment: no memory is needed.
            return Ok(NonNull::without_provenance(NonZero::new(layout.align()).ok_or(AllocError)?));
        }
        // SAFETY: I2.
        let bytes_of = |block: Option<NonNull<Block>>| block.map_or(0, |block| unsafe { block.as_ref() }.bytes);
        let spare = self.spare.get().filter(|_| Block::has_room(bytes_of(self.spare.get()), layout));
        if spare.is_none() && is_large(layout) {
            let (block, piece) = Block::large(layout)?;
            self.put_on(&self.large, block);
            return Ok(piece);
        }
        let chunk = match spare {
            Some(spare) => {
                self.spare.set(None);
                spare
            }
            None => {
                let needed = HEADER_BYTES + layout.size() + layout.align();
                Block::chunk(next_chunk_bytes(bytes_of(self.chunk.get()), needed))?
            }
        };
        self.begin(chunk);
        self.bump_inside(layout).ok_or(AllocError)
    }

    /// Goes on with a chunk of which nothing is used.
    fn begin(&self, chunk: NonNull<Block>) {
        self.put_on(&self.chunk, chunk);
        // SAFETY: a chunk.
        let (start, end) = unsafe { Block::contents(chunk) };
        self.start.set(start);
        self.top.set(end);
    }

    fn put_on(&self, list: &Cell<Option<NonNull<Block>>>, mut block: NonNull<Block>) {
        // SAFETY: the block is the arena's, and nobody else looks at headers.
        unsafe { block.as_mut() }.previous = list.replace(Some(block));
    }

    /// How far it is filled.
    #[inline]
    pub(super) fn position(&self) -> Position {
        let newest_record = self.newest_record.get();
        Position { top: self.top.get(), chunk: self.chunk.get(), large: self.large.get(), newest_record }
    }

    /// Takes back what was given out since it was filled that far.
    ///
    /// # Safety
    /// This arena's `position` returned it, and it has not gone back to an older one since (I2); nobody uses what it takes
    /// back.
    pub(super) unsafe fn go_back(&self, position: Position) {
        while self.large.get() != position.large
            && let Some(block) = self.large.get()
        {
            // SAFETY: a block of the list, which nobody uses.
            self.large.set(unsafe { Block::give(block) });
        }
        while self.chunk.get() != position.chunk
            && let Some(chunk) = self.chunk.get()
        {
            // SAFETY: a chunk of the list, which nobody uses.
            self.chunk.set(unsafe { chunk.as_ref() }.previous);
            self.keep(chunk);
        }
        // SAFETY: a chunk.
        let start = position.chunk.map_or(NOWHERE, |chunk| unsafe { Block::contents(chunk) }.0);
        self.start.set(start);
        self.top.set(position.top);
        self.newest_record.set(position.newest_record);
    }

    /// Keeps a chunk that left the list, or the spare one; gives the smaller back.
    fn keep(&self, mut chunk: NonNull<Block>) {
        // SAFETY: the chunk is the arena's, and in no list.
        unsafe { chunk.as_mut() }.previous = None;
        let other = match self.spare.get() {
            None => return self.spare.set(Some(chunk)),
            // SAFETY: both are chunks of this arena's.
            Some(spare) if unsafe { spare.as_ref().bytes >= chunk.as_ref().bytes } => chunk,
            Some(spare) => {
                self.spare.set(Some(chunk));
                spare
            }
        };
        // SAFETY: a chunk in which nothing is used.
        unsafe { Block::give(other) };
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.reset();
        if let Some(spare) = self.spare.take() {
            // SAFETY: a chunk in which nothing is used.
            unsafe { Block::give(spare) };
        }
    }
}
