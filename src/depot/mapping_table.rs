//! Where the blocks are that are kernel mappings of their own: a table indexed by address.
//!
//! ```text
//! # Role        from a block's address to its length, in one load
//! # Shape       one word for each `MAPPED_BYTES_MIN` of address space, its slot: no mapping is shorter, so no two begin in
//!               the same slot, and an entry is one word: where in the slot the mapping begins, and its length; no length after its end
//! # Invariants  I1: an entry is a live mapping. It is put in after the mapping was made, by the thread that made it, and
//!                   taken out before the mapping ends, moves or shrinks: another thread's mapping may begin in the slot
//!                   the moment after.
//!               I2: whoever takes an entry out has the mapping; of two threads that free the same block, one does.
//! # Ordering    none is needed for the entry: who asks for a block got it, by the program's own means, from the thread that
//!               put the entry in. MAPPING: `take` (Release) -> `put` (Acquire) in the same slot, as the kernel orders the
//!               end of the one mapping and the making of the other.
//! # Progress    wait-free
//! # Checked by  loom_tests/mapping_table.rs
//! ```

use crate::config::{MAPPED_BYTES_MIN, MAPPED_SLOT_SHIFT};
use crate::sync::planted::bug;
use crate::sync::{AtomicU64, Ordering};
use core::ptr::NonNull;

/// log2 of the unit of an entry's numbers, in bytes: the smallest OS page.
const UNIT_SHIFT: u32 = 12;
/// Bits of an entry that say where in its slot the mapping begins.
const OFFSET_BITS: u32 = MAPPED_SLOT_SHIFT - UNIT_SHIFT;

/// Set in the entry of a mapping that was taken out: where it began is all that is left of it.
const GONE: u64 = 1 << 63;

/// The slot of an address.
pub fn slot_of(address: usize) -> usize {
    address >> MAPPED_SLOT_SHIFT
}

/// A mapping: where it begins and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its first byte.
    pub start: usize,
    /// Its length.
    pub bytes: usize,
}

impl Mapping {
    /// Its first byte.
    pub fn pointer(self) -> Option<NonNull<u8>> {
        NonNull::new(core::ptr::with_exposed_provenance_mut(self.start))
    }

    fn entry(self) -> u64 {
        let offset = (self.start & (MAPPED_BYTES_MIN - 1)) >> UNIT_SHIFT;
        ((self.bytes >> UNIT_SHIFT) as u64) << OFFSET_BITS | offset as u64
    }

    /// What is left of it when it was taken out.
    fn gone(self) -> u64 {
        Self { bytes: 0, ..self }.entry() | GONE
    }

    fn of(slot: usize, entry: u64) -> Option<Self> {
        let offset = (entry as usize & ((1 << OFFSET_BITS) - 1)) << UNIT_SHIFT;
        let bytes = ((entry >> OFFSET_BITS) as usize) << UNIT_SHIFT;
        (entry != 0 && entry & GONE == 0).then_some(Self { start: (slot << MAPPED_SLOT_SHIFT) + offset, bytes })
    }
}

/// The table. Zeroed memory is an empty one.
#[derive(Clone, Copy, Debug)]
pub struct MappingTable<'t>(pub &'t [AtomicU64]);

impl MappingTable<'_> {
    /// Puts a new mapping in, of at least `MAPPED_BYTES_MIN`. `false`: its address is beyond the table, or (against I1) its
    /// slot is in use.
    #[must_use]
    pub fn put(&self, mapping: Mapping) -> bool {
        let Some(word) = self.0.get(slot_of(mapping.start)) else { return false };
        if bug("put by store") {
            word.store(mapping.entry(), Ordering::Release);
            return true;
        }
        // ordering: Relaxed, corrected by the exchange.
        let before = word.load(Ordering::Relaxed);
        // ordering: Acquire [MAPPING] pairs with Release in `take`.
        (before == 0 || before & GONE != 0)
            && word.compare_exchange(before, mapping.entry(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The mapping that begins at `start`.
    pub fn find(&self, start: usize) -> Option<Mapping> {
        // ordering: Relaxed, see the head.
        self.at(slot_of(start)).filter(|mapping| mapping.start == start)
    }

    /// The mapping that begins in that slot, at some moment.
    pub fn at(&self, slot: usize) -> Option<Mapping> {
        // ordering: Relaxed, as in `find`.
        Mapping::of(slot, self.0.get(slot)?.load(Ordering::Relaxed))
    }

    /// Takes the mapping that begins at `start` out; the caller has it then (I2).
    #[must_use]
    pub fn take(&self, start: usize) -> Option<Mapping> {
        let mapping = self.find(start)?;
        let (word, gone) = (&self.0[slot_of(start)], mapping.gone());
        if bug("take by store") {
            word.store(gone, Ordering::Release);
            return Some(mapping);
        }
        // ordering: Release [MAPPING] pairs with Acquire in `put`.
        let taken = word.compare_exchange(mapping.entry(), gone, Ordering::Release, Ordering::Relaxed);
        taken.is_ok().then_some(mapping)
    }

    /// Did the last mapping of its slot begin at `start`, and was it taken out? For reports.
    pub fn was_taken(&self, start: usize) -> bool {
        let gone = Mapping { start, bytes: 0 }.gone();
        // ordering: Relaxed, as in `find`.
        self.0.get(slot_of(start)).is_some_and(|word| word.load(Ordering::Relaxed) == gone)
    }
}

#[cfg(all(test, not(loom), target_pointer_width = "64"))]
mod tests {
    use super::*;
    use crate::config::{GRANULE_BYTES, MAPPED_SLOTS};

    #[test]
    fn every_mapping_of_the_address_space_fits_into_an_entry() {
        let last = MAPPED_SLOTS - 1;
        let longest = (MAPPED_SLOTS << MAPPED_SLOT_SHIFT) - (1 << UNIT_SHIFT);
        for (slot, offset, bytes) in [(0, 1 << UNIT_SHIFT, longest), (last, 0, MAPPED_BYTES_MIN), (last, 0x0fff_f000, longest)] {
            let mapping = Mapping { start: (slot << MAPPED_SLOT_SHIFT) + offset, bytes };
            assert_eq!(Mapping::of(slot, mapping.entry()), Some(mapping));
        }
    }

    #[test]
    fn a_mapping_is_found_by_its_first_byte_until_it_is_taken_once() {
        let words: Vec<_> = (0..8).map(|_| AtomicU64::new(0)).collect();
        let table = MappingTable(&words);
        let mapping = Mapping { start: 5 * MAPPED_BYTES_MIN + 0x3000, bytes: MAPPED_BYTES_MIN + GRANULE_BYTES };
        assert!(table.put(mapping));
        assert!(!table.put(Mapping { start: mapping.start + 0x1000, ..mapping }), "the slot is in use");
        assert!(!table.put(Mapping { start: 9 * MAPPED_BYTES_MIN, ..mapping }), "beyond the table");
        assert_eq!(table.find(mapping.start), Some(mapping));
        assert_eq!(table.find(mapping.start + 0x1000), None);
        assert_eq!((table.take(mapping.start), table.take(mapping.start)), (Some(mapping), None));
        assert_eq!(table.find(mapping.start), None);
        assert!(table.was_taken(mapping.start) && !table.was_taken(mapping.start + 0x1000));
        assert!(table.put(Mapping { start: mapping.start + 0x1000, ..mapping }), "the slot can be used again");
    }
}
