//! The slots of a pool: where objects lie, and which are free.
//!
//! ```text
//! # Role        slots by index, in slabs that double; a list of free ones. Knows of objects only that a slot has room for one
//! # Layout      an index is the number of a slab, and a slot's place in it. A slot's name and link lie before its object. Slots
//!               behind a row's `end` were never used: nothing of them is written
//! # Invariants  see `pool`; I4: a row's slots up to its `end` were begun, and stay while the pool does.
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
const SLOTS_FIRST: usize = 8;
/// Bits of a slot's place in its slab, in an index: up to 128 Mi slots.
const PLACE_BITS: u32 = 27;
/// Slabs of a pool at most: one less than an index can tell, so that the end of each is a number.
const SLABS_MAX: usize = (1 << (u32::BITS - PLACE_BITS)) - 1;

/// Slots of the slab of that number.
const fn slots_of(slab: usize) -> usize {
    let doublings = PLACE_BITS - SLOTS_FIRST.ilog2();
    SLOTS_FIRST << if slab < doublings as usize { slab } else { doublings as usize }
}

/// The index of a slab's first slot.
const fn first_index(slab: usize) -> usize {
    slab << PLACE_BITS
}

const _: () = assert!(slots_of(SLABS_MAX) == 1 << PLACE_BITS && first_index(SLABS_MAX) <= u32::MAX as usize);

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

/// A slab.
struct Row<T> {
    /// Where the slot of index 0 would be, were all slots in a row with those of this slab.
    start: Cell<*mut Slot<T>>,
    /// The index behind the last slot that was ever used; 0 where there is no slab.
    end: Cell<u32>,
}

pub(super) struct Slots<T> {
    rows: [Row<T>; SLABS_MAX + 1],
    slab_count: Cell<usize>,
    /// The slab that new slots are begun in.
    filling: Cell<usize>,
    /// The first one of the list of free slots; null if there is none.
    free: Cell<*const Slot<T>>,
    room: Cell<usize>,
    len: Cell<usize>,
}

// SAFETY: slabs and what is in them are the pool's alone.
unsafe impl<T: Send> Send for Slots<T> {}

impl<T> Slots<T> {
    pub(super) const fn new() -> Self {
        Self {
            rows: [const { Row { start: Cell::new(core::ptr::null_mut()), end: Cell::new(0) } }; SLABS_MAX + 1],
            slab_count: Cell::new(0),
            filling: Cell::new(0),
            free: Cell::new(core::ptr::null()),
            room: Cell::new(0),
            len: Cell::new(0),
        }
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len.get()
    }

    /// The slots of a slab that were ever used; `None` if there is no such slab.
    pub(super) fn used_of(&self, slab: usize) -> Option<&[Slot<T>]> {
        let row = self.rows[..self.slab_count.get()].get(slab)?;
        let first = row.start.get().wrapping_add(first_index(slab));
        // SAFETY: I4.
        Some(unsafe { core::slice::from_raw_parts(first, row.end.get() as usize - first_index(slab)) })
    }

    /// The slot of a handle's object, if that is still there.
    #[inline(always)]
    pub(super) fn find(&self, handle: Handle<T>) -> Option<&Slot<T>> {
        let row = &self.rows[(handle.index() >> PLACE_BITS) as usize];
        if handle.index() >= row.end.get() {
            return None;
        }
        // SAFETY: I4.
        let slot = unsafe { &*row.start.get().wrapping_add(handle.index() as usize) };
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
        while self.filling.get() == self.slab_count.get() || self.is_full(self.filling.get()) {
            if self.filling.get() + 1 < self.slab_count.get() {
                self.filling.set(self.filling.get() + 1);
            } else {
                self.grow()?;
                self.filling.set(self.slab_count.get() - 1);
            }
        }
        let row = &self.rows[self.filling.get()];
        let index = row.end.get();
        let place = row.start.get().wrapping_add(index as usize);
        let object = UnsafeCell::new(MaybeUninit::uninit());
        let (name, link) = (Cell::new(GENERATION_FIRST | u64::from(index)), Cell::new(core::ptr::null()));
        // SAFETY: a slot of the slab that nobody has used.
        unsafe { place.write(Slot { name, link, object }) };
        row.end.set(index + 1);
        // SAFETY: it is one now.
        Ok(unsafe { &*place })
    }

    /// Was every slot of a slab used?
    fn is_full(&self, slab: usize) -> bool {
        self.rows[slab].end.get() as usize == first_index(slab) + slots_of(slab)
    }

    /// Another slab.
    #[cold]
    #[inline(never)]
    fn grow(&self) -> Result<(), AllocError> {
        let slab = self.slab_count.get();
        if slab == SLABS_MAX {
            return Err(AllocError);
        }
        let first = source::take(Self::layout(slab)?)?.cast::<Slot<T>>();
        self.rows[slab].start.set(first.as_ptr().wrapping_sub(first_index(slab)));
        self.rows[slab].end.set(first_index(slab) as u32);
        self.slab_count.set(slab + 1);
        self.room.set(self.room.get() + slots_of(slab));
        Ok(())
    }

    fn layout(slab: usize) -> Result<Layout, AllocError> {
        Layout::array::<Slot<T>>(slots_of(slab)).map_err(|_| AllocError)
    }

    /// As many slots more than there are objects.
    pub(super) fn reserve(&self, count: usize) -> Result<(), AllocError> {
        // Retired slots, which `len` does not count, are too few to matter: another slab comes in time.
        while self.room.get() - self.len() < count {
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
    pub(super) fn age(&self, index: usize) {
        let slot = &self.used_of(0).unwrap()[index];
        slot.name.set(slot.name.get() | !(2 * GENERATION - 1));
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        for slab in 0..self.slab_count.get() {
            let first = self.rows[slab].start.get().wrapping_add(first_index(slab));
            if let (Some(first), Ok(layout)) = (NonNull::new(first), Self::layout(slab)) {
                // SAFETY: the slab was taken with that layout, and there are no objects in it any more.
                unsafe { source::give(first.cast(), layout) };
            }
        }
    }
}
