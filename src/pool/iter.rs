//! Walks over the objects of a pool that are under handles.

use super::Handle;
use super::slots::{Slot, Slots, State};
use core::fmt;
use core::marker::PhantomData;

/// The indices of slots, from the lower end up to where slots begin that were never used.
struct Walk<'p, T> {
    slots: &'p Slots<T>,
    next: u32,
}

impl<'p, T> Walk<'p, T> {
    #[inline]
    fn next(&mut self) -> Option<(Handle<T>, &'p Slot<T>)> {
        while self.next < self.slots.fresh() {
            let index = self.next;
            self.next += 1;
            let slot = self.slots.at(index);
            if slot.state() == State::Handled {
                return Some((Handle::new(index, slot.generation()), slot));
            }
        }
        None
    }
}

/// See [`Pool::iter`](crate::Pool::iter).
pub struct Iter<'p, T>(Walk<'p, T>);

impl<'p, T> Iter<'p, T> {
    pub(super) fn new(slots: &'p Slots<T>) -> Self {
        Self(Walk { slots, next: 0 })
    }
}

impl<'p, T> Iterator for Iter<'p, T> {
    type Item = (Handle<T>, &'p T);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (handle, slot) = self.0.next()?;
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
        Self { walk: Walk { slots, next: 0 }, alone: PhantomData }
    }
}

impl<'p, T> Iterator for IterMut<'p, T> {
    type Item = (Handle<T>, &'p mut T);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (handle, slot) = self.walk.next()?;
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
