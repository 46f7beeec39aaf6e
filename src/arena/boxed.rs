//! A value in an arena whose destructor runs when its owner is dropped.
//!
//! ```text
//! # Role        what `Box` is to the heap; the memory is the arena's and stays
//! ```

use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

/// The owner of a value in an arena. Dropping it runs the value's destructor.
///
/// ```
/// use magalloc::Arena;
///
/// let arena = Arena::new();
/// let log = std::cell::RefCell::new(Vec::new());
/// struct Noisy<'a>(&'a std::cell::RefCell<Vec<u8>>, u8);
/// impl Drop for Noisy<'_> {
///     fn drop(&mut self) {
///         self.0.borrow_mut().push(self.1);
///     }
/// }
/// let first = arena.alloc_box(Noisy(&log, 1))?;
/// drop(arena.alloc_box(Noisy(&log, 2))?);
/// drop(first);
/// assert_eq!(*log.borrow(), [2, 1]);
/// # Ok::<(), magalloc::AllocError>(())
/// ```
pub struct ArenaBox<'a, T>(&'a mut ManuallyDrop<T>);

impl<'a, T> ArenaBox<'a, T> {
    #[inline]
    pub(super) fn new(value: &'a mut ManuallyDrop<T>) -> Self {
        Self(value)
    }

    /// Takes the value out.
    pub fn into_inner(this: Self) -> T {
        let mut this = ManuallyDrop::new(this);
        // SAFETY: the owner is gone, so nobody uses the value again.
        unsafe { ManuallyDrop::take(this.0) }
    }
}

impl<T> Drop for ArenaBox<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the owner goes, so nobody uses the value again.
        unsafe { ManuallyDrop::drop(self.0) };
    }
}

impl<T> Deref for ArenaBox<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0
    }
}

impl<T> DerefMut for ArenaBox<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for ArenaBox<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(formatter)
    }
}
