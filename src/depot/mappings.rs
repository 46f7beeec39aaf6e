//! Blocks so large that each is a kernel mapping of its own, outside of all regions.
//!
//! ```text
//! # Role        makes, resizes, finds and ends such mappings, and counts them in the accounts
//! # Why         what such a block costs depends on the pages that are touched, not on its length: searches, purges, forks
//!               and statistics look at one word for it, and the kernel takes it back in one call
//! # Accounting  a mapping is held as long as it lives, all of it, and so counts at the limits
//! # Progress    lock-free
//! # Not here    which blocks (see `heap::mapped`)
//! ```

use super::mapping_table::{Mapping, MappingTable, slot_of};
use super::spans::Depot;
use crate::count::Count;
use crate::depot::counts::Lives;
use crate::config::{MAPPED_BYTES_MIN, MAPPED_SLOTS, SUMMARY_WIDTH};
use crate::os::Os;
use crate::summary::Summary;
use crate::sync::{AtomicPtr, AtomicU64, Ordering};
use crate::sys::Pages;
use core::ptr::NonNull;

/// Slots that share a place of the summary: a machine's address space is as many as a summary may have.
const SLOTS_PER_PLACE: usize = 4;
const LEAVES: usize = MAPPED_SLOTS.div_ceil(SLOTS_PER_PLACE * SUMMARY_WIDTH);
const MIDDLES: usize = LEAVES.div_ceil(SUMMARY_WIDTH);

/// Bytes of the table: address space, of which what is used takes memory.
const TABLE_BYTES: usize = (MAPPED_SLOTS * size_of::<AtomicU64>()).next_multiple_of(crate::config::GRANULE_BYTES);

/// The table, which is made when the first mapping is, and where in it there may be entries.
#[derive(Debug)]
pub struct Mappings {
    /// `MAPPED_SLOTS` words; null until there are any.
    table: AtomicPtr<AtomicU64>,
    places: Summary<LEAVES, MIDDLES>,
    /// How many there are.
    pub counts: Lives,
    /// Their bytes.
    bytes: Count,
}

impl Mappings {
    /// None.
    pub const fn new() -> Self {
        Self { table: AtomicPtr::new(core::ptr::null_mut()), places: Summary::new(), counts: Lives::new(), bytes: Count::new() }
    }

    fn table(&self) -> Option<MappingTable<'_>> {
        // ordering: Acquire [MAPPINGS] pairs with Release in `make_table`.
        let words = NonNull::new(self.table.load(Ordering::Acquire))?;
        // SAFETY: so many words, zeroed or atomics, until the heap is released.
        Some(MappingTable(unsafe { core::slice::from_raw_parts(words.as_ptr(), MAPPED_SLOTS) }))
    }

    fn make_table<P: Pages>(&self, os: &Os<P>) -> Option<MappingTable<'_>> {
        if let Some(table) = self.table() {
            return Some(table);
        }
        let words = os.map(TABLE_BYTES)?;
        let null = core::ptr::null_mut();
        // ordering: Release [MAPPINGS] no more than the address; pairs with Acquire in `table`.
        if self.table.compare_exchange(null, words.as_ptr().cast(), Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: mapped just now, and nobody has seen it.
            unsafe { os.release(words, TABLE_BYTES) };
        }
        self.table()
    }

    /// The mapping that begins at `start`.
    pub fn find(&self, start: usize) -> Option<Mapping> {
        self.table()?.find(start)
    }

    /// All mappings, each at some moment.
    pub fn iter(&self) -> impl Iterator<Item = Mapping> {
        let table = self.table();
        let mut from = 0;
        let places = core::iter::from_fn(move || {
            let place = self.places.only().next(from)?;
            from = place + 1;
            Some(place)
        });
        places.flat_map(slots).filter_map(move |slot| table?.at(slot))
    }

    /// Is `address` in a mapping? For reports: it looks at all of them.
    pub fn contains(&self, address: usize) -> bool {
        self.table().is_some() && self.iter().any(|mapping| address.wrapping_sub(mapping.start) < mapping.bytes)
    }

    /// Did a mapping begin at `start` that was the last in its part of the address space, and has ended? For reports.
    pub fn was_taken(&self, start: usize) -> bool {
        self.table().is_some_and(|table| table.was_taken(start))
    }

    /// Bytes of the table.
    pub fn table_bytes(&self) -> usize {
        self.table().map_or(0, |_| TABLE_BYTES)
    }

    /// In the child of a fork: counts them anew. Returns their bytes.
    pub fn recount(&self) -> usize {
        let (blocks, bytes) = self.iter().fold((0, 0), |(blocks, bytes), mapping| (blocks + 1, bytes + mapping.bytes));
        self.counts.ended.reset(self.counts.made.get().wrapping_sub(blocks));
        self.bytes.reset(bytes as u64);
        bytes
    }

    /// Their bytes, at some moment; no walk.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    fn put(&self, table: MappingTable<'_>, mapping: Mapping) -> bool {
        let fits = table.put(mapping);
        if fits {
            self.places.only().note(slot_of(mapping.start) / SLOTS_PER_PLACE);
        }
        fits
    }

    /// Puts a mapping back that the caller has taken out, and that lives on, perhaps elsewhere or of another length.
    pub fn put_back(&self, mapping: Mapping) {
        // No two mappings begin in a slot, and the kernel's addresses are in the table: it was so when it was made.
        let _ = self.table().is_some_and(|table| self.put(table, mapping));
    }

    /// Takes the mapping that begins at `start` out: the caller has it then, and no other thread.
    #[must_use]
    pub fn take(&self, start: usize) -> Option<Mapping> {
        let table = self.table()?;
        let mapping = table.take(start)?;
        let place = slot_of(start) / SLOTS_PER_PLACE;
        let has_others = || slots(place).any(|slot| table.at(slot).is_some());
        // A fork amid the clearing would hide from the child what is there, so only where nothing is.
        if !has_others() {
            self.places.only().clear(place, has_others);
        }
        Some(mapping)
    }
}

/// The slots of a place.
fn slots(place: usize) -> core::ops::Range<usize> {
    place * SLOTS_PER_PLACE..((place + 1) * SLOTS_PER_PLACE).min(MAPPED_SLOTS)
}

impl<P: Pages> Depot<P> {
    /// A new mapping of `bytes` (whole granules, at least `MAPPED_BYTES_MIN`) at a multiple of `align` bytes (a power of
    /// two); it reads as zero. `None`: the hard limit or the kernel does not allow it.
    pub fn claim_mapping(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        debug_assert!(bytes >= MAPPED_BYTES_MIN);
        let table = self.mappings.make_table(&self.os)?;
        if !self.take_within_limit(bytes) {
            return None;
        }
        let mapped = self.map_aligned(bytes, align).filter(|&start| {
            let fits = self.mappings.put(table, Mapping { start: start.as_ptr().expose_provenance(), bytes });
            if !fits {
                // SAFETY: mapped just now, and nobody has seen it.
                unsafe { self.os.release(start, bytes) };
            }
            fits
        });
        match mapped {
            Some(start) => {
                self.mappings.counts.made.add(1);
                self.mappings.bytes.add(bytes);
                self.note_held_more();
                self.advise_mapping(start, bytes, false);
            }
            None => self.budget.give(bytes),
        }
        mapped
    }

    /// Maps more than is wanted and gives the ends back, where the kernel's pages are not aligned enough.
    fn map_aligned(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        if align <= self.os.page_bytes() {
            return self.os.map(bytes);
        }
        let start = self.os.map(bytes.checked_add(align)?)?;
        let before = start.addr().get().next_multiple_of(align) - start.addr().get();
        // SAFETY: `before` is less than `align`.
        let aligned = unsafe { start.add(before) };
        if before != 0 {
            // SAFETY: mapped just now, and nobody has seen it.
            unsafe { self.os.release(start, before) };
        }
        // SAFETY: likewise.
        unsafe { self.os.release(aligned.add(bytes), align - before) };
        Some(aligned)
    }

    /// Ends the mapping that begins at `start`. `false`: there is none.
    #[must_use]
    pub fn free_mapping(&self, start: usize) -> bool {
        let Some(mapping) = self.mappings.take(start) else { return false };
        // SAFETY: mapping_table I2: it is this thread's, and by the program's promise unused.
        unsafe { self.end_mapping(mapping) };
        true
    }

    /// Ends a mapping.
    ///
    /// # Safety
    /// The caller has taken it out, and nobody uses it.
    pub unsafe fn end_mapping(&self, mapping: Mapping) {
        if let Some(start) = mapping.pointer() {
            // SAFETY: the caller's promise.
            unsafe { self.os.release(start, mapping.bytes) };
        }
        self.mappings.counts.ended.add(1);
        self.mappings.bytes.sub(mapping.bytes);
        self.budget.give(mapping.bytes);
    }

    /// Ends the mapping that begins at `start`, which the caller has, but for the `lost` bytes from `at` on: these are
    /// somebody else's by now.
    pub fn free_mapping_around(&self, start: usize, at: usize, lost: usize) {
        let Some(mapping) = self.mappings.take(start) else { return };
        self.mappings.counts.ended.add(1);
        self.mappings.bytes.sub(mapping.bytes);
        self.budget.give(mapping.bytes);
        for (from, bytes) in [(0, at), (at + lost, mapping.bytes - at - lost)] {
            if let Some(start) = mapping.pointer().filter(|_| bytes != 0) {
                // SAFETY: within the mapping.
                let part = unsafe { start.add(from) };
                // SAFETY: mapping_table I2: it is this thread's, which does not use it.
                unsafe { self.os.release(part, bytes) };
            }
        }
    }

    /// Changes the length of the mapping that begins at `start`, which the caller has: in place, or by moving it as a
    /// whole. `None`: not possible, it is as it was.
    pub fn resize_mapping(&self, start: usize, bytes: usize) -> Option<NonNull<u8>> {
        debug_assert!(bytes >= MAPPED_BYTES_MIN);
        if !self.os.capabilities().resizes_mappings {
            return None;
        }
        let mapping = self.mappings.find(start)?;
        let place = mapping.pointer()?;
        if bytes > mapping.bytes && !self.take_within_limit(bytes - mapping.bytes) {
            return None;
        }
        // mapping_table I1: not there meanwhile.
        let Some(mapping) = self.mappings.take(start) else {
            self.budget.give(bytes.saturating_sub(mapping.bytes));
            return None;
        };
        // SAFETY: mapping_table I2: it is this thread's.
        let resized = unsafe { self.os.remap(place, mapping.bytes, bytes) };
        let (now, now_bytes) = match resized {
            Some(moved) => (moved, bytes),
            None => (place, mapping.bytes),
        };
        self.mappings.put_back(Mapping { start: now.as_ptr().expose_provenance(), bytes: now_bytes });
        self.mappings.bytes.add(now_bytes.wrapping_sub(mapping.bytes));
        if now_bytes < mapping.bytes {
            self.budget.give(mapping.bytes - now_bytes);
        } else if now_bytes < bytes {
            self.budget.give(bytes - mapping.bytes);
        } else if now_bytes > mapping.bytes {
            self.note_held_more();
            self.advise_mapping(now, now_bytes, true);
        }
        resized
    }

    /// Gives the table back to the OS, and all mappings if `also_live`: each is a block.
    ///
    /// # Safety
    /// Nobody uses the table, or a block that goes, now or later.
    pub(super) unsafe fn release_mappings(&self, also_live: bool) {
        for mapping in self.mappings.iter().filter(|_| also_live) {
            let _ = self.free_mapping(mapping.start);
        }
        self.mappings.places.only().reset();
        // ordering: Relaxed; the caller is alone.
        if let Some(table) = NonNull::new(self.mappings.table.swap(core::ptr::null_mut(), Ordering::Relaxed)) {
            // SAFETY: the caller's promise.
            unsafe { self.os.release(table.cast(), TABLE_BYTES) };
        }
    }
}
