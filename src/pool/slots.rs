//! The slots of a pool: where objects lie, and which are free.
//!
//! ```text
//! # Role        slots by index, in slabs that double; a list of free ones. Knows of objects only that a slot has room for one
//! # Layout      slab `k` has `SLOTS_FIRST << k` slots, so an index leads to its slab by a logarithm. A slot's name and link lie
//!               before its object. Slots from `fresh` on were never used: nothing of them is written
//! # Invariants  see `pool`; I4: `fresh` is at most `room`, the number of slots.
//!               I5: the generation in a slot's name is odd while its object is under a handle, and only then. That of a handle
//!               is always odd, so one comparison tells whether its object is there.
//! ```

use super::Handle;
use crate::source::{self, AllocError};
use core::alloc::Layout;
use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// Slots of the first slab.
const SLOTS_FIRST: u32 = 8;
/// Slabs of a pool: as many as have indices of 32 bits.
const SLABS_MAX: usize = (u32::BITS - SLOTS_FIRST.ilog2() - 1) as usize;

const _: () = assert!(slots_before(SLABS_MAX) + (SLOTS_FIRST as usize) < u32::MAX as usize);

/// Slots of the slabs before the one of that number.
const fn slots_before(slab: usize) -> usize {
    ((SLOTS_FIRST as usize) << slab) - SLOTS_FIRST as usize
}

/// The step from one generation to the next, in a name.
pub(super) const GENERATION: u64 = 1 << 32;

/// The generation of a slot that was never used, in a name: 0 is that of a retired one.
const GENERATION_FIRST: u64 = 2 * GENERATION;

/// A place for an object.
pub(super) struct Slot<T> {
    /// Index and generation, as in a handle's bits.
    name: Cell<u64>,
    /// The next slot of the list of free ones; of a slot whose object is in a box, the slot itself; else null.
    link: Cell<*const Slot<T>>,
    object: UnsafeCell<MaybeUninit<T>>,
}

impl<T> Slot<T> {
    /// The handle of its object, if that is under one (I5).
    #[inline(always)]
    pub(super) fn handle(&self) -> Option<Handle<T>> {
        Handle::from_bits(self.name.get())
    }

    #[inline(always)]
    pub(super) fn is_boxed(&self) -> bool {
        core::ptr::eq(self.link.get(), self)
    }

    /// Where its object is, or is to be.
    #[inline(always)]
    pub(super) fn object(&self) -> *mut T {
        self.object.get().cast()
    }
}

pub(super) struct Slots<T> {
    /// Where the slot of index 0 would be, were all slots in a row with those of that slab.
    rows: [Cell<*mut Slot<T>>; SLABS_MAX],
    slab_count: Cell<usize>,
    /// The first one of the list of free slots; null if there is none.
    free: Cell<*const Slot<T>>,
    fresh: Cell<u32>,
    room: Cell<u32>,
    len: Cell<u32>,
}

// SAFETY: slabs and what is in them are the pool's alone.
unsafe impl<T: Send> Send for Slots<T> {}

impl<T> Slots<T> {
    pub(super) const fn new() -> Self {
        Self {
            rows: [const { Cell::new(core::ptr::null_mut()) }; SLABS_MAX],
            slab_count: Cell::new(0),
            free: Cell::new(core::ptr::null()),
            fresh: Cell::new(0),
            room: Cell::new(0),
            len: Cell::new(0),
        }
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len.get() as usize
    }

    /// The slots of a slab that were ever used; `None` if there are none.
    pub(super) fn used_of(&self, slab: usize) -> Option<&[Slot<T>]> {
        let before = slots_before(slab);
        let used = (self.fresh.get() as usize).checked_sub(before)?.min((SLOTS_FIRST as usize) << slab);
        let first = self.rows.get(slab)?.get().wrapping_add(before);
        // SAFETY: as many were begun (I4), and slots stay while the pool does.
        (used != 0).then(|| unsafe { core::slice::from_raw_parts(first, used) })
    }

    /// Where the slot of an index below `room` is.
    #[inline(always)]
    fn place(&self, index: u32) -> *mut Slot<T> {
        let slab = (index + SLOTS_FIRST).ilog2() - SLOTS_FIRST.ilog2();
        // SAFETY: the index is below `room`, so there is a slab of that number.
        unsafe { self.rows.get_unchecked(slab as usize) }.get().wrapping_add(index as usize)
    }

    /// The slot of a handle's object, if that is still there.
    #[inline(always)]
    pub(super) fn find(&self, handle: Handle<T>) -> Option<&Slot<T>> {
        if handle.index() >= self.fresh.get() {
            return None;
        }
        // SAFETY: I4, and it was begun when `fresh` passed it.
        let slot = unsafe { &*self.place(handle.index()) };
        (slot.name.get() == handle.to_bits()).then_some(slot)
    }

    /// Puts an object into a free slot, under a handle.
    #[inline(always)]
    pub(super) fn insert(&self, object: T) -> Result<Handle<T>, AllocError> {
        let slot = self.take()?;
        let name = slot.name.get() + GENERATION;
        slot.name.set(name);
        slot.link.set(core::ptr::null());
        // SAFETY: the slot was free, so it has no object, and nobody else has it.
        unsafe { slot.object().write(object) };
        // SAFETY: the generation was even and not the last one, so it is odd now.
        Ok(unsafe { Handle::of_odd(name) })
    }

    /// Puts an object into a free slot, for a box.
    #[inline(always)]
    pub(super) fn insert_boxed(&self, object: T) -> Result<&Slot<T>, AllocError> {
        let slot = self.take()?;
        slot.link.set(slot);
        // SAFETY: the slot was free, so it has no object, and nobody else has it.
        unsafe { slot.object().write(object) };
        Ok(slot)
    }

    /// Takes a free slot off the list.
    #[inline(always)]
    fn take(&self) -> Result<&Slot<T>, AllocError> {
        // SAFETY: slots of the list stay while the pool does.
        let slot = match unsafe { self.free.get().as_ref() } {
            Some(slot) => slot,
            None => self.begin()?,
        };
        self.free.set(slot.link.get());
        self.len.set(self.len.get() + 1);
        Ok(slot)
    }

    /// Begins a slot that was never used. The list is empty; the slot is its last.
    #[inline(never)]
    fn begin(&self) -> Result<&Slot<T>, AllocError> {
        let index = self.fresh.get();
        if index == self.room.get() {
            self.grow()?;
        }
        let place = self.place(index);
        let object = UnsafeCell::new(MaybeUninit::uninit());
        let (name, link) = (Cell::new(GENERATION_FIRST | u64::from(index)), Cell::new(core::ptr::null()));
        // SAFETY: a slot below `room` that nobody has used.
        unsafe { place.write(Slot { name, link, object }) };
        self.fresh.set(index + 1);
        // SAFETY: it is one now.
        Ok(unsafe { &*place })
    }

    /// Another slab.
    #[cold]
    #[inline(never)]
    fn grow(&self) -> Result<(), AllocError> {
        let slab = self.slab_count.get();
        let row = self.rows.get(slab).ok_or(AllocError)?;
        let first = source::take(Self::layout(slab)?)?.cast::<Slot<T>>();
        row.set(first.as_ptr().wrapping_sub(slots_before(slab)));
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

    /// The object of a slot is no longer in it, whoever has it now, and no handle finds it; the slot is in no list.
    #[inline(always)]
    pub(super) fn leave(&self, slot: &Slot<T>) {
        let name = slot.name.get();
        // Odd becomes even (I5), the last generation 0; that of a boxed object's slot stays.
        slot.name.set(name.wrapping_add(name & GENERATION));
        slot.link.set(core::ptr::null());
        self.len.set(self.len.get() - 1);
    }

    /// Puts a slot without an object on the list, or retires it, after its last generation.
    #[inline(always)]
    pub(super) fn free(&self, slot: &Slot<T>) {
        if slot.name.get() >= GENERATION {
            slot.link.set(self.free.replace(slot));
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        (0..self.slab_count.get()).filter_map(|slab| Self::layout(slab).ok()).map(|layout| layout.size()).sum()
    }

    /// Makes the next generation of a free slot the last one, for tests of its end.
    #[cfg(test)]
    pub(super) fn age(&self, index: u32) {
        // SAFETY: a slot that was used.
        let slot = unsafe { &*self.place(index) };
        slot.name.set(slot.name.get() | !(2 * GENERATION - 1));
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        for slab in 0..self.slab_count.get() {
            let first = self.rows[slab].get().wrapping_add(slots_before(slab));
            if let (Some(first), Ok(layout)) = (NonNull::new(first), Self::layout(slab)) {
                // SAFETY: the slab was taken with that layout, and there are no objects in it any more.
                unsafe { source::give(first.cast(), layout) };
            }
        }
    }
}
