//! The name of an object in a pool.

use super::slots::GENERATION;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;
use core::num::NonZeroU32;

/// The name of an object in a [`Pool`](crate::Pool): the place and its generation. A handle of another pool finds nothing,
/// or an object that has the same place and generation there.
///
/// ```
/// use magalloc::{Handle, Pool};
///
/// assert_eq!(size_of::<Option<Handle<String>>>(), 8);
/// let pool = Pool::new();
/// let handle = pool.insert(7)?;
/// // As the number that an operating system hands back with an event, for instance.
/// let number: u64 = handle.to_bits();
/// assert_eq!(Handle::from_bits(number).and_then(|handle| pool.get(handle)), Some(&7));
/// # Ok::<(), magalloc::AllocError>(())
/// ```
pub struct Handle<T> {
    index: u32,
    generation: NonZeroU32,
    object: PhantomData<fn() -> T>,
}

impl<T> Handle<T> {
    /// The handle of a slot's name.
    ///
    /// # Safety
    /// The generation in it is odd.
    #[inline(always)]
    pub(super) unsafe fn of_odd(name: u64) -> Self {
        // SAFETY: the caller's promise; what is odd is not 0.
        let generation = unsafe { NonZeroU32::new_unchecked((name >> 32) as u32) };
        Self { index: name as u32, generation, object: PhantomData }
    }

    #[inline(always)]
    pub(super) fn index(self) -> u32 {
        self.index
    }

    /// The handle as a number, for [`from_bits`](Self::from_bits).
    #[inline]
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation.get()) << 32 | u64::from(self.index)
    }

    /// The handle of a number; `None` if no handle has it. Any number is safe: one that is no object's finds nothing.
    #[inline]
    pub fn from_bits(bits: u64) -> Option<Self> {
        // SAFETY: the generation is odd.
        (bits & GENERATION != 0).then(|| unsafe { Self::of_odd(bits) })
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits()
    }
}

impl<T> Eq for Handle<T> {}

impl<T> Hash for Handle<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to_bits().hash(state);
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Handle").field(&self.index).field(&self.generation).finish()
    }
}
