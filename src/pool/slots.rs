//! The slots of a pool: where objects lie, and which are free.
//!
//! ```text
//! # Role        slots by index, in slabs that double; a list of free ones. Knows of objects only that a slot has room for one
//! # Layout      slab `k` has `SLOTS_FIRST << k` slots, so an index leads to its slab by a shift. A slot's generation and link lie
//!               before its object. Slots from `fresh` on were never used: nothing of them is written
//! # Invariants  see `pool`; I4: `fresh` is at most `room`, the number of slots.
//! ```

use super::Handle;
use crate::source::{self, AllocError};
use core::alloc::Layout;
use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::num::NonZeroU32;
use core::ptr::NonNull;

/// Slots of the first slab.
const SLOTS_FIRST: u32 = 8;
/// Slabs of a pool: all indices but the links that are no index.
const SLABS_MAX: usize = (u32::BITS - SLOTS_FIRST.ilog2() - 1) as usize;

/// Link of a slot whose object is under a handle.
const HANDLED: u32 = u32::MAX;
/// Link of a slot whose object is in a box.
const BOXED: u32 = u32::MAX - 1;
/// Link of the last slot of the list, and of one that is in no list.
const NONE: u32 = u32::MAX - 2;

const _: () = assert!(slots_before(SLABS_MAX) < NONE as usize, "a link is an index or none");

/// Slots of the slabs before the one of that number.
const fn slots_before(slab: usize) -> usize {
    ((SLOTS_FIRST as usize) << slab) - SLOTS_FIRST as usize
}

/// What is in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Handled,
    Boxed,
}

/// A place for an object.
pub(super) struct Slot<T> {
    generation: Cell<NonZeroU32>,
    link: Cell<u32>,
    object: UnsafeCell<MaybeUninit<T>>,
}

impl<T> Slot<T> {
    #[inline(always)]
    pub(super) fn generation(&self) -> NonZeroU32 {
        self.generation.get()
    }

    #[inline(always)]
    pub(super) fn state(&self) -> State {
        match self.link.get() {
            HANDLED => State::Handled,
            BOXED => State::Boxed,
            _ => State::Free,
        }
    }

    /// Where its object is, or is to be.
    #[inline(always)]
    pub(super) fn object(&self) -> *mut T {
        self.object.get().cast()
    }

    /// Puts an object in.
    ///
    /// # Safety
    /// The slot is the caller's, and has no object.
    #[inline(always)]
    pub(super) unsafe fn put(&self, object: T) {
        // SAFETY: the place is the caller's.
        unsafe { self.object().write(object) };
    }
}

pub(super) struct Slots<T> {
    slabs: [Cell<*mut Slot<T>>; SLABS_MAX],
    slab_count: Cell<usize>,
    /// The first one of the list of free slots.
    free: Cell<u32>,
    fresh: Cell<u32>,
    room: Cell<u32>,
    len: Cell<u32>,
}

// SAFETY: slabs and what is in them are the pool's alone.
unsafe impl<T: Send> Send for Slots<T> {}

impl<T> Slots<T> {
    pub(super) const fn new() -> Self {
        Self {
            slabs: [const { Cell::new(core::ptr::null_mut()) }; SLABS_MAX],
            slab_count: Cell::new(0),
            free: Cell::new(NONE),
            fresh: Cell::new(0),
            room: Cell::new(0),
            len: Cell::new(0),
        }
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len.get() as usize
    }

    #[inline(always)]
    pub(super) fn fresh(&self) -> u32 {
        self.fresh.get()
    }

    /// The slot of an index below `fresh`.
    #[inline(always)]
    pub(super) fn at(&self, index: u32) -> &Slot<T> {
        debug_assert!(index < self.fresh.get());
        // SAFETY: I4, and it was begun when `fresh` passed it.
        unsafe { self.place(index).as_ref() }
    }

    /// Where the slot of an index below `room` is.
    #[inline(always)]
    fn place(&self, index: u32) -> NonNull<Slot<T>> {
        let number = index + SLOTS_FIRST;
        let slab = number.ilog2() - SLOTS_FIRST.ilog2();
        let in_slab = number - (SLOTS_FIRST << slab);
        // SAFETY: the index is below `room`, so there is a slab of that number, and it has as many slots.
        unsafe { NonNull::new_unchecked(self.slabs.get_unchecked(slab as usize).get().add(in_slab as usize)) }
    }

    /// The slot of a handle's object, if that is still there.
    #[inline(always)]
    pub(super) fn find(&self, handle: Handle<T>) -> Option<&Slot<T>> {
        if handle.index() >= self.fresh.get() {
            return None;
        }
        let slot = self.at(handle.index());
        (slot.generation() == handle.generation() && slot.link.get() == HANDLED).then_some(slot)
    }

    /// Takes a free slot for an object that is to be in that state.
    #[inline(always)]
    pub(super) fn take(&self, state: State) -> Result<(u32, NonNull<Slot<T>>), AllocError> {
        let (index, place) = match self.free.get() {
            NONE => self.take_fresh()?,
            index => (index, self.place(index)),
        };
        // SAFETY: a slot that was begun.
        let slot = unsafe { place.as_ref() };
        self.free.set(slot.link.get());
        slot.link.set(if state == State::Boxed { BOXED } else { HANDLED });
        self.len.set(self.len.get() + 1);
        Ok((index, place))
    }

    /// Begins a slot that was never used. The list is empty; the slot is its last.
    #[inline(never)]
    fn take_fresh(&self) -> Result<(u32, NonNull<Slot<T>>), AllocError> {
        let index = self.fresh.get();
        if index == self.room.get() {
            self.grow()?;
        }
        let place = self.place(index);
        let object = UnsafeCell::new(MaybeUninit::uninit());
        // SAFETY: a slot below `room` that nobody has used.
        unsafe { place.write(Slot { generation: Cell::new(NonZeroU32::MIN), link: Cell::new(NONE), object }) };
        self.fresh.set(index + 1);
        Ok((index, place))
    }

    /// Another slab.
    #[cold]
    #[inline(never)]
    fn grow(&self) -> Result<(), AllocError> {
        let slab = self.slab_count.get();
        let place = self.slabs.get(slab).ok_or(AllocError)?;
        place.set(source::take(Self::layout(slab)?)?.cast().as_ptr());
        self.slab_count.set(slab + 1);
        self.room.set(slots_before(slab + 1) as u32);
        Ok(())
    }

    fn layout(slab: usize) -> Result<Layout, AllocError> {
        Layout::array::<Slot<T>>((SLOTS_FIRST as usize) << slab).map_err(|_| AllocError)
    }

    /// As many slots more than there are objects.
    pub(super) fn reserve(&self, count: usize) -> Result<(), AllocError> {
        // Retired slots, which `len` does not count, are too few to matter: another slab comes in time.
        while (self.room.get() as usize - self.len()) < count {
            self.grow()?;
        }
        Ok(())
    }

    /// The object of a slot is no longer in it, whoever has it now; the slot is in no list.
    #[inline(always)]
    pub(super) fn leave(&self, slot: &Slot<T>) {
        slot.link.set(NONE);
        self.len.set(self.len.get() - 1);
    }

    /// Puts a slot without an object on the list, or retires it.
    #[inline(always)]
    pub(super) fn free(&self, index: u32, slot: &Slot<T>) {
        // A retired slot keeps its last generation, which a handle may have; but there is no object under a handle in it.
        if let Some(next) = slot.generation().checked_add(1) {
            slot.generation.set(next);
            slot.link.set(self.free.replace(index));
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        (0..self.slab_count.get()).filter_map(|slab| Self::layout(slab).ok()).map(|layout| layout.size()).sum()
    }

    /// Sets the generation of a slot, for tests of its end.
    #[cfg(test)]
    pub(super) fn set_generation(&self, index: u32, generation: NonZeroU32) {
        self.at(index).generation.set(generation);
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        for slab in 0..self.slab_count.get() {
            if let (Some(place), Ok(layout)) = (NonNull::new(self.slabs[slab].get()), Self::layout(slab)) {
                // SAFETY: the slab was taken with that layout, and there are no objects in it any more.
                unsafe { source::give(place.cast(), layout) };
            }
        }
    }
}
