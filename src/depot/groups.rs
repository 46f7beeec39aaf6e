//! Which chunk groups to look at: those that may have partial slabs of a class, free runs of a length, or chunks to purge.
//!
//! ```text
//! # Role        so that what a search costs does not grow with the heap, or with what the heap once was
//! # Shape       a summary for each region, with a column for each thing to look for and a place for each 16 groups (1 GiB).
//!               The groups of a place are looked at in turn. The first place is always looked at: a heap of 1 GiB has no
//!               summary
//! # Invariants  as in `summary`; where there is no summary (there was no memory for it), every group is looked at
//! # Fork        what a vanished thread was about to note is found when something else is put into the group
//! # Progress    lock-free
//! # Not here    what is in a group (see `chunk`)
//! ```

use crate::chunk::span_map::{LEVELS, level_of};
use crate::config::{CHUNK_GRANULES, GRANULE_BYTES, GRANULE_INDEX_BITS, GROUP_CHUNKS, REGIONS_MAX, SUMMARY_WIDTH};
use crate::pagemap::Region;
use crate::os::Os;
use crate::size_class::CLASS_COUNT;
use crate::summary::{Column, Summary};
use crate::sync::{AtomicPtr, Ordering};
use crate::sys::Pages;
use crate::units::ClassIndex;
use core::ptr::NonNull;

/// Groups that a region can have.
const GROUPS_MAX: usize = (1 << GRANULE_INDEX_BITS) / CHUNK_GRANULES / GROUP_CHUNKS;
/// Groups that share a place.
const PLACE_GROUPS: usize = 16;
const LEAVES: usize = GROUPS_MAX.div_ceil(PLACE_GROUPS * SUMMARY_WIDTH);
const MIDDLES: usize = LEAVES.div_ceil(SUMMARY_WIDTH);
/// One for each class, one for each length of run, and one for chunks to purge.
const COLUMNS: usize = CLASS_COUNT + LEVELS + 1;

type Table = Summary<LEAVES, MIDDLES, COLUMNS>;

/// Bytes of a region's summary.
const TABLE_BYTES: usize = size_of::<Table>().next_multiple_of(GRANULE_BYTES);

/// Something to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted(usize);

impl Wanted {
    /// Chunks with something to purge.
    pub const UNPURGED: Self = Self(CLASS_COUNT + LEVELS);

    /// Partial slabs of a class.
    pub fn partial(class: ClassIndex) -> Self {
        Self(class.get())
    }

    /// Runs of so many free granules (1 to 64).
    pub fn run(granules: usize) -> Self {
        Self::run_of_level(level_of(granules))
    }

    fn run_of_level(level: usize) -> Self {
        Self(CLASS_COUNT + level)
    }
}

/// The summaries of all regions.
#[derive(Debug)]
pub struct Groups([AtomicPtr<Table>; REGIONS_MAX]);

impl Groups {
    /// None yet.
    pub const fn new() -> Self {
        Self([const { AtomicPtr::new(core::ptr::null_mut()) }; REGIONS_MAX])
    }

    #[inline]
    fn table(&self, region: usize) -> Option<&Table> {
        // ordering: Acquire [GROUPS] pairs with Release in `prepare`.
        // SAFETY: published by `prepare`, zeroed or atomics, until the heap is released.
        unsafe { self.0[region].load(Ordering::Acquire).as_ref() }
    }

    fn column(&self, wanted: Wanted, region: &Region) -> Option<Column<'_, LEAVES, MIDDLES, COLUMNS>> {
        Some(self.table(region.number())?.column(wanted.0))
    }

    /// Notes that a group has what may be wanted, after it was put there.
    #[inline]
    pub fn note(&self, wanted: Wanted, region: &Region, group: usize) {
        if group >= PLACE_GROUPS
            && let Some(column) = self.column(wanted, region)
        {
            column.note(group / PLACE_GROUPS);
        }
    }

    /// Notes that a group has runs of these levels, as bits.
    #[inline]
    pub fn note_runs(&self, mut levels: u16, region: &Region, group: usize) {
        while group >= PLACE_GROUPS && levels != 0 {
            self.note(Wanted::run_of_level(levels.trailing_zeros() as usize), region, group);
            levels &= levels - 1;
        }
    }

    /// After nothing was found in a group, the last one of its place: notes that, unless `look` says of one of the place
    /// that something is there.
    pub fn clear(&self, wanted: Wanted, region: &Region, group: usize, look: impl Fn(usize) -> bool) {
        if group > PLACE_GROUPS
            && group % PLACE_GROUPS == PLACE_GROUPS - 1
            && let Some(column) = self.column(wanted, region)
        {
            let first = group - (PLACE_GROUPS - 1);
            column.clear(group / PLACE_GROUPS, || (first..=group).any(look));
        }
    }

    /// The lowest group from `from` on that may have what is wanted, of those in use.
    pub fn next(&self, wanted: Wanted, region: &Region, from: usize) -> Option<usize> {
        let used = region.groups_used();
        // Within a place that was found, or that is always looked at.
        let is_inside = from < PLACE_GROUPS || !from.is_multiple_of(PLACE_GROUPS);
        let next = match self.column(wanted, region) {
            Some(column) if !is_inside && from < used => column.next(from / PLACE_GROUPS)? * PLACE_GROUPS,
            _ => from,
        };
        (next < used).then_some(next)
    }

    /// Before groups up to number `end` of a region are used: they may have any run.
    pub fn prepare<P: Pages>(&self, os: &Os<P>, region: &Region, end: usize) {
        let used = region.groups_used();
        if end <= used || end <= PLACE_GROUPS {
            return;
        }
        let end = end.div_ceil(PLACE_GROUPS);
        if let Some(table) = self.table(region.number()) {
            note_all(table, used / PLACE_GROUPS..end, CLASS_COUNT..CLASS_COUNT + LEVELS);
            return;
        }
        if let Some(start) = os.map(TABLE_BYTES) {
            let null = core::ptr::null_mut();
            let place = &self.0[region.number()];
            // ordering: Release [GROUPS] no more than the address; pairs with Acquire in `table`.
            if place.compare_exchange(null, start.as_ptr().cast(), Ordering::Release, Ordering::Relaxed).is_err() {
                // SAFETY: mapped just now, and nobody has seen it.
                unsafe { os.release(start, TABLE_BYTES) };
            }
        }
        // This thread's, or another one's, perhaps for fewer groups. The groups may have been used without it.
        if let Some(table) = self.table(region.number()) {
            note_all(table, 1..end, 0..COLUMNS);
        }
    }

    /// Bytes of all summaries.
    pub fn bytes(&self) -> usize {
        (0..REGIONS_MAX).filter(|&region| self.table(region).is_some()).count() * TABLE_BYTES
    }

    /// Gives everything back to the OS.
    ///
    /// # Safety
    /// Nobody uses the heap, now or later.
    pub unsafe fn release<P: Pages>(&self, os: &Os<P>) {
        for place in &self.0 {
            // ordering: Relaxed; the caller is alone.
            if let Some(table) = NonNull::new(place.swap(core::ptr::null_mut(), Ordering::Relaxed)) {
                // SAFETY: the caller's promise.
                unsafe { os.release(table.cast(), TABLE_BYTES) };
            }
        }
    }
}

fn note_all(table: &Table, places: core::ops::Range<usize>, columns: core::ops::Range<usize>) {
    for place in places {
        columns.clone().for_each(|column| table.column(column).note(place));
    }
}
