//! A pool: objects of one type, each with a place of its own that is used again.
//!
//! ```text
//! # Role        objects under handles, which notice reuse, or in boxes, which are owners; both side by side
//! # Memory      slabs of 8 slots and ever twice as many, which stay until the pool goes; objects do not move
//! # Invariants  I1: a slot that was ever used is free (in the list, once, or retired), under a handle, or in a box; only in
//!               the last two cases there is an object in it. An object leaves its slot before its destructor runs.
//!               I2: a generation is used for one object under a handle. A slot whose generations are used up is retired.
//!               I3: objects in boxes are reached by their boxes only; they become reachable to others when the pool is the
//!               caller's alone, and so no box is there.
//! # Not here    values that are never freed one by one (see `arena`)
//! # Checked by  pool/tests.rs, tests/pools.rs
//! ```

mod boxed;
mod handle;
mod iter;
mod slots;
#[cfg(test)]
mod tests;

use crate::source::AllocError;
use core::fmt;
use iter::Walk;
use slots::Slots;

pub use boxed::PoolBox;
pub use handle::Handle;
pub use iter::{Iter, IterMut};

/// Objects of one type, each under a [`Handle`] or in a [`PoolBox`].
///
/// To insert and to remove take the same few steps, however many objects there are. A handle is 8 bytes; one whose object
/// was removed finds nothing, whatever is in the place by now.
///
/// ```
/// use magalloc::Pool;
///
/// struct Connection {
///     peer: String,
/// }
///
/// let mut connections = Pool::new();
/// let first = connections.insert(Connection { peer: "a".into() })?;
/// let second = connections.insert(Connection { peer: "b".into() })?;
/// assert_eq!(connections.get(second).unwrap().peer, "b");
///
/// assert_eq!(connections.remove(first).unwrap().peer, "a");
/// let third = connections.insert(Connection { peer: "c".into() })?;
/// assert!(connections.get(first).is_none(), "third is in its place, and not it");
/// assert_eq!(connections.len(), 2);
/// # let _ = third;
/// # Ok::<(), magalloc::AllocError>(())
/// ```
///
/// What is in the pool borrows it, so it cannot be used after what needs the pool for itself:
///
/// ```compile_fail,E0502
/// # let mut pool = magalloc::Pool::new();
/// # let handle = pool.insert(1).unwrap();
/// let object = pool.get(handle).unwrap();
/// pool.clear();
/// assert_eq!(*object, 1);
/// ```
/// ```
/// # let mut pool = magalloc::Pool::new();
/// # let handle = pool.insert(1).unwrap();
/// let object = pool.get(handle).unwrap();
/// assert_eq!(*object, 1);
/// pool.clear();
/// ```
///
/// Its memory is blocks of the process's heap, as for [`Arena`](crate::Arena).
pub struct Pool<T> {
    slots: Slots<T>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for Pool<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

impl<T> Pool<T> {
    /// An empty pool, which takes memory when it is first used.
    pub const fn new() -> Self {
        Self { slots: Slots::new() }
    }

    /// Makes room, so that the next `count` objects are inserted without more memory.
    ///
    /// ```
    /// let pool = magalloc::Pool::new();
    /// pool.reserve(100)?;
    /// let before = pool.held_bytes();
    /// for number in 0..100 {
    ///     pool.insert(number)?;
    /// }
    /// assert_eq!(pool.held_bytes(), before);
    /// # Ok::<(), magalloc::AllocError>(())
    /// ```
    pub fn reserve(&self, count: usize) -> Result<(), AllocError> {
        self.slots.reserve(count)
    }

    /// Puts an object into the pool; its handle. Without memory for it, it is dropped: see [`reserve`](Self::reserve).
    #[inline]
    pub fn insert(&self, object: T) -> Result<Handle<T>, AllocError> {
        self.slots.insert(object)
    }

    /// Puts an object into the pool; its owner, which takes it out again when it is dropped.
    ///
    /// ```
    /// let pool = magalloc::Pool::new();
    /// let mut word = pool.insert_box(String::from("one"))?;
    /// word.push_str(" word");
    /// assert_eq!((word.as_str(), pool.len()), ("one word", 1));
    /// drop(word);
    /// assert!(pool.is_empty());
    /// # Ok::<(), magalloc::AllocError>(())
    /// ```
    ///
    /// A box cannot be used after the pool:
    ///
    /// ```compile_fail,E0505
    /// # let pool = magalloc::Pool::new();
    /// let object = pool.insert_box(1).unwrap();
    /// drop(pool);
    /// assert_eq!(*object, 1);
    /// ```
    /// ```
    /// # let pool = magalloc::Pool::new();
    /// let object = pool.insert_box(1).unwrap();
    /// assert_eq!(*object, 1);
    /// drop(object);
    /// drop(pool);
    /// ```
    #[inline]
    pub fn insert_box(&self, object: T) -> Result<PoolBox<'_, T>, AllocError> {
        Ok(PoolBox::new(self, self.slots.insert_boxed(object)?))
    }

    /// The object of a handle; `None` if it was removed.
    #[inline]
    pub fn get(&self, handle: Handle<T>) -> Option<&T> {
        let slot = self.slots.find(handle)?;
        // SAFETY: I1, an object; it stays until the pool is somebody's alone.
        Some(unsafe { &*slot.object() })
    }

    /// The object of a handle, to change it; `None` if it was removed.
    #[inline]
    pub fn get_mut(&mut self, handle: Handle<T>) -> Option<&mut T> {
        let slot = self.slots.find(handle)?;
        // SAFETY: I1, an object, and the pool is the caller's alone.
        Some(unsafe { &mut *slot.object() })
    }

    /// Takes the object of a handle out of the pool; `None` if that was done before.
    #[inline]
    pub fn remove(&mut self, handle: Handle<T>) -> Option<T> {
        let slot = self.slots.find(handle)?;
        // SAFETY: I1, an object. The slot is free from here on.
        let object = unsafe { slot.object().read() };
        self.slots.leave(slot);
        self.slots.free(slot);
        Some(object)
    }

    /// How many objects there are, under handles and in boxes.
    #[inline]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Is there no object?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops all objects. The pool keeps its memory; no handle finds anything any more.
    pub fn clear(&mut self) {
        let mut walk = Walk::new(&self.slots);
        while let Some(slot) = walk.next() {
            if slot.handle().is_some() || slot.is_boxed() {
                self.slots.leave(slot);
                // SAFETY: I1, an object, and I3: no box is there. It has left its slot, so nobody finds it again, also if
                // its destructor unwinds: then the slot is never used again.
                unsafe { slot.object().drop_in_place() };
                self.slots.free(slot);
            }
        }
    }

    /// All objects under handles, in no particular order, with their handles.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter::new(&self.slots)
    }

    /// All objects under handles, to change them.
    pub fn iter_mut(&mut self) -> IterMut<'_, T> {
        IterMut::new(&mut self.slots)
    }

    /// Bytes that the pool has from the heap, used or not.
    pub fn held_bytes(&self) -> usize {
        self.slots.held_bytes()
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        if core::mem::needs_drop::<T>() {
            self.clear();
        }
    }
}

impl<'p, T> IntoIterator for &'p Pool<T> {
    type Item = (Handle<T>, &'p T);
    type IntoIter = Iter<'p, T>;

    fn into_iter(self) -> Iter<'p, T> {
        self.iter()
    }
}

impl<'p, T> IntoIterator for &'p mut Pool<T> {
    type Item = (Handle<T>, &'p mut T);
    type IntoIter = IterMut<'p, T>;

    fn into_iter(self) -> IterMut<'p, T> {
        self.iter_mut()
    }
}
