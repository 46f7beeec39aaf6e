//! The name of an object in a pool.

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
    #[inline(always)]
    pub(super) fn new(index: u32, generation: NonZeroU32) -> Self {
        Self { index, generation, object: PhantomData }
    }

    #[inline(always)]
    pub(super) fn index(self) -> u32 {
        self.index
    }

    #[inline(always)]
    pub(super) fn generation(self) -> NonZeroU32 {
        self.generation
    }

    /// The handle as a number, for [`from_bits`](Self::from_bits).
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation.get()) << 32 | u64::from(self.index)
    }

    /// The handle of a number; `None` if no handle has it. Any number is safe: one that is no object's finds nothing.
    pub fn from_bits(bits: u64) -> Option<Self> {
        Some(Self::new(bits as u32, NonZeroU32::new((bits >> 32) as u32)?))
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
