//! New regions: the first one, and those that follow where a region has ended or is full.
//!
//! ```text
//! # Role        finds a place for a region, as large as there is room for, begins it and publishes it
//! # Progress    lock-free: two threads may both make a region; one of them is given up again
//! # Not here    places (see `os`), what a region is (see `pagemap::region`)
//! ```

use super::spans::Depot;
use crate::config::{CHUNK_BYTES, CHUNK_GRANULES, GRANULE_INDEX_BITS, PLACES_MAX, REGION_BYTES_PREFERRED};
use crate::pagemap::Region;
use crate::sys::{NotMapped, Pages};
use core::ptr::NonNull;

impl<P: Pages> Depot<P> {
    /// Makes the first region if there is none: before any metadata range is, as the first place has the most room.
    #[must_use]
    pub fn prepare(&self) -> bool {
        self.regions.get(0).is_some() || self.add_region(0, 1, 1).is_some()
    }

    /// Makes region number `number`, or finds that another thread did.
    #[cold]
    pub(super) fn add_region(&self, number: usize, granules: usize, align: usize) -> Option<&Region> {
        // Room for the span wherever its alignment puts it.
        let least = granules.checked_add(align)?.div_ceil(CHUNK_GRANULES);
        let chunks_max = (1 << GRANULE_INDEX_BITS) / CHUNK_GRANULES;
        if least > chunks_max {
            return None;
        }
        let Some(region) = self.begin_region(number, least).or_else(|| self.begin_region(number, least)) else {
            // Perhaps another thread has what there was to have; it may have let go of it between our two attempts.
            return self.regions.get(number);
        };
        if !self.regions.publish(number, region) {
            // SAFETY: our own region, which nobody has seen.
            unsafe { Region::release(region, &self.os, true) };
        }
        self.regions.get(number)
    }

    /// Begins a region of as many chunks as there is room for, and at least `least`.
    fn begin_region(&self, number: usize, least: usize) -> Option<NonNull<Region>> {
        let mut chunks = (REGION_BYTES_PREFERRED / CHUNK_BYTES).max(least);
        for _ in 0..PLACES_MAX {
            let bytes = Region::place_bytes(chunks);
            let Some(start) = self.os.place(bytes) else {
                if chunks == least {
                    return None;
                }
                chunks = (chunks / 2).max(least);
                continue;
            };
            match Region::begin(&self.os, start, chunks, number) {
                Ok(region) => return Some(region),
                // The next place lies below.
                Err(NotMapped::Taken) => {}
                Err(NotMapped::Refused) => {
                    // SAFETY: placed just now.
                    unsafe { self.os.unplace(start, bytes) };
                    return None;
                }
            }
        }
        None
    }
}
