//! Walks over the objects of a pool that are under handles.

use super::Handle;
use super::slots::{Slot, Slots};
use core::fmt;
use core::marker::PhantomData;

/// The slots that were ever used, slab by slab. Of one that grows meanwhile, some of what is new.
pub(super) struct Walk<'p, T> {
    slots: &'p Slots<T>,
    slab: usize,
    rest: core::slice::Iter<'p, Slot<T>>,
}

impl<'p, T> Walk<'p, T> {
    pub(super) fn new(slots: &'p Slots<T>) -> Self {
        Self { slots, slab: 0, rest: [].iter() }
    }

    #[inline]
    pub(super) fn next(&mut self) -> Option<&'p Slot<T>> {
        loop {
            if let Some(slot) = self.rest.next() {
                return Some(slot);
            }
            self.rest = self.slots.used_of(self.slab)?.iter();
            self.slab += 1;
        }
    }

    /// The next one with an object under a handle.
    #[inline]
    fn next_handled(&mut self) -> Option<(Handle<T>, &'p Slot<T>)> {
        loop {
            let slot = self.next()?;
            if let Some(handle) = slot.handle() {
                return Some((handle, slot));
            }
        }
    }
}

/// See [`Pool::iter`](crate::Pool::iter).
pub struct Iter<'p, T>(Walk<'p, T>);

impl<'p, T> Iter<'p, T> {
    pub(super) fn new(slots: &'p Slots<T>) -> Self {
        Self(Walk::new(slots))
    }
}

impl<'p, T> Iterator for Iter<'p, T> {
    type Item = (Handle<T>, &'p T);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (handle, slot) = self.0.next_handled()?;
        // SAFETY: an object under a handle (I1 of `pool`), which stays while the pool is borrowed.
        Some((handle, unsafe { &*slot.object() }))
    }
}

/// See [`Pool::iter_mut`](crate::Pool::iter_mut).
pub struct IterMut<'p, T> {
    walk: Walk<'p, T>,
    alone: PhantomData<&'p mut T>,
}

impl<'p, T> IterMut<'p, T> {
    pub(super) fn new(slots: &'p mut Slots<T>) -> Self {
        Self { walk: Walk::new(slots), alone: PhantomData }
    }
}

impl<'p, T> Iterator for IterMut<'p, T> {
    type Item = (Handle<T>, &'p mut T);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (handle, slot) = self.walk.next_handled()?;
        // SAFETY: an object under a handle (I1 of `pool`). The pool is borrowed for this walk alone, which comes by once.
        Some((handle, unsafe { &mut *slot.object() }))
    }
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Iter").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for IterMut<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("IterMut").finish_non_exhaustive()
    }
}
