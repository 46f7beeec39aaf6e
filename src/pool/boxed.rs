//! The owner of an object in a pool.

use super::Pool;
use super::slots::Slot;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

/// The owner of an object in a [`Pool`]: dropping it drops the object, and its place is free.
pub struct PoolBox<'p, T> {
    pool: &'p Pool<T>,
    slot: &'p Slot<T>,
    object: PhantomData<T>,
}

impl<'p, T> PoolBox<'p, T> {
    #[inline(always)]
    pub(super) fn new(pool: &'p Pool<T>, slot: &'p Slot<T>) -> Self {
        Self { pool, slot, object: PhantomData }
    }

    /// Takes the object out.
    pub fn into_inner(this: Self) -> T {
        let this = ManuallyDrop::new(this);
        // SAFETY: I1 of `pool`, an object, and its owner is gone.
        let object = unsafe { this.slot.object().read() };
        this.pool.slots.leave(this.slot);
        this.pool.slots.free(this.slot);
        object
    }
}

impl<T> Drop for PoolBox<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.pool.slots.leave(self.slot);
        // SAFETY: an object, whose owner goes. It has left its slot, so nobody drops it again, also if its destructor unwinds:
        // then the slot is never used again.
        unsafe { self.slot.object().drop_in_place() };
        self.pool.slots.free(self.slot);
    }
}

impl<T> Deref for PoolBox<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: an object, whose owner this is.
        unsafe { &*self.slot.object() }
    }
}

impl<T> DerefMut for PoolBox<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: an object, whose owner this is (I3 of `pool`).
        unsafe { &mut *self.slot.object() }
    }
}

impl<T: fmt::Debug> fmt::Debug for PoolBox<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(formatter)
    }
}
