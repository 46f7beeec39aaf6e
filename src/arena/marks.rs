//! Marks of an arena: positions to go back to, in the order of a stack.
//!
//! ```text
//! # Role        tells a mark that is good from one of another arena, and from one that a reset or an older mark has ended
//! # Layout      a mark is two numbers; what they stand for is a record in the arena's own memory, in a list, newest first. To
//!               go back takes the records behind the mark out of the list
//! # Invariants  I1: a record is in its arena's list as long as the arena has not gone back to before it.
//! ```

use super::bump::{Arena, Position};
use super::block::Block;
use crate::source::AllocError;
use crate::sync::{AtomicU64, Ordering};
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

/// A position of an [`Arena`] to go back to, by [`roll_back`](Arena::roll_back).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    arena: u64,
    number: u64,
}

/// The mark is another arena's, or the arena has gone back to before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleMark;

impl fmt::Display for StaleMark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the mark is another arena's, or was rolled back")
    }
}

impl core::error::Error for StaleMark {}

/// What a mark stands for. The top was the record itself.
pub(super) struct Record {
    number: u64,
    chunk: Option<NonNull<Block>>,
    large: Option<NonNull<Block>>,
    previous: Option<NonNull<Record>>,
}

/// The next arena's id. In 64 bits they do not run out.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Arena {
    /// Marks how far the arena is filled, for [`roll_back`](Self::roll_back). Takes 32 bytes of it.
    ///
    /// ```
    /// let mut arena = magalloc::Arena::new();
    /// let mark = arena.mark()?;
    /// for step in 0..1000 {
    ///     arena.alloc([step; 100])?;
    ///     arena.roll_back(mark)?;
    /// }
    /// assert!(arena.held_bytes() < 10_000);
    ///
    /// let newer = arena.mark()?;
    /// arena.roll_back(mark)?;
    /// assert_eq!(arena.roll_back(newer), Err(magalloc::StaleMark));
    /// assert_eq!(magalloc::Arena::new().roll_back(mark), Err(magalloc::StaleMark));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mark(&self) -> Result<Mark, AllocError> {
        if self.id.get() == 0 {
            // ordering: Relaxed; only that the numbers differ matters.
            self.id.set(NEXT_ID.fetch_add(1, Ordering::Relaxed));
        }
        let place = self.bump(Layout::new::<Record>())?.cast::<Record>();
        let number = self.marks.get() + 1;
        let (chunk, large) = (self.position().chunk, self.position().large);
        // SAFETY: the place is for a record, and nobody else has it.
        unsafe { place.write(Record { number, chunk, large, previous: self.newest_record.get() }) };
        self.newest_record.set(Some(place));
        self.marks.set(number);
        Ok(Mark { arena: self.id.get(), number })
    }

    /// Takes back all that was given out since `mark` was made. The mark stays good; those behind it end.
    ///
    /// What lies behind the mark cannot be used afterwards, and neither can what lies before it, since both borrow the arena.
    /// Where that is in the way, see [`scope`](Self::scope).
    ///
    /// ```compile_fail,E0502
    /// # let mut arena = magalloc::Arena::new();
    /// let mark = arena.mark().unwrap();
    /// let value = arena.alloc(1).unwrap();
    /// arena.roll_back(mark).unwrap();
    /// *value += 1;
    /// ```
    /// ```
    /// # let mut arena = magalloc::Arena::new();
    /// let mark = arena.mark().unwrap();
    /// let value = arena.alloc(1).unwrap();
    /// *value += 1;
    /// arena.roll_back(mark).unwrap();
    /// ```
    pub fn roll_back(&mut self, mark: Mark) -> Result<(), StaleMark> {
        if mark.arena != self.id.get() {
            return Err(StaleMark);
        }
        let mut next = self.newest_record.get();
        while let Some(place) = next {
            // SAFETY: I1, so it is there.
            let record = unsafe { place.as_ref() };
            if record.number == mark.number {
                let (chunk, large) = (record.chunk, record.large);
                let position = Position { top: place.cast(), chunk, large, newest_record: Some(place) };
                // SAFETY: the position of then, since when the arena was not before it (I1). What was given out borrows the
                // arena, which the caller has for itself.
                unsafe { self.go_back(position) };
                return Ok(());
            }
            next = record.previous.filter(|_| record.number > mark.number);
        }
        Err(StaleMark)
    }
}
