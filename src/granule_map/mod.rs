//! From an address to the slab or large block it belongs to, and the memory of all metadata that makes it possible.
//!
//! ```text
//! # Role        `region`: one reservation, in which metadata comes first and the heap behind; `slab_ref`: a slab with
//!               all that is needed to reach its parts; `Regions`: the list of regions
//! # Invariants  I3: regions are only ever added, until the process ends.
//! # Ordering    PUBLISH-REGION: `Regions::publish` (Release) -> `Regions::iter`, `find` (Acquire)
//! # Progress    lock-free: two threads may both make a region; both is harmless
//! # Not here    claiming spans (see `depot`)
//! ```

mod region;
mod slab_ref;

pub use region::{ChunkGroup, Region};
pub use slab_ref::SlabRef;

use crate::config::REGIONS_MAX;
use crate::slab::GranuleUse;
use crate::sync::{AtomicPtr, Ordering};
use crate::units::{GranuleIndex, SlabId};
use core::ptr::NonNull;

/// The regions of a heap.
pub struct Regions([AtomicPtr<Region>; REGIONS_MAX]);

impl Default for Regions {
    fn default() -> Self {
        Self::new()
    }
}

impl Regions {
    /// None yet.
    pub const fn new() -> Self {
        Self([const { AtomicPtr::new(core::ptr::null_mut()) }; REGIONS_MAX])
    }

    /// Region number `number`.
    #[inline(always)]
    pub fn get(&self, number: usize) -> Option<&Region> {
        // ordering: Acquire [PUBLISH-REGION] pairs with Release in `publish`.
        // SAFETY: region I1, and I3: a published region stays readable.
        unsafe { self.0[number].load(Ordering::Acquire).as_ref() }
    }

    /// All regions, in the order of their making.
    pub fn iter(&self) -> impl Iterator<Item = &Region> {
        (0..REGIONS_MAX).map_while(|number| self.get(number))
    }

    /// Publishes a region as number `number`; `false` where another thread did.
    #[must_use]
    pub fn publish(&self, number: usize, region: NonNull<Region>) -> bool {
        let null = core::ptr::null_mut();
        // ordering: Release [PUBLISH-REGION] the header and groups; pairs with Acquire in `get`.
        self.0[number].compare_exchange(null, region.as_ptr(), Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Takes all regions out, at the end of the process.
    pub fn take_all(&self) -> impl Iterator<Item = NonNull<Region>> {
        // ordering: Relaxed; the caller is alone.
        self.0.iter().filter_map(|slot| NonNull::new(slot.swap(core::ptr::null_mut(), Ordering::Relaxed)))
    }

    /// The region and granule of an address; `None` for memory that is not ours.
    #[inline(always)]
    pub fn find(&self, address: usize) -> Option<(&Region, GranuleIndex)> {
        let first = self.get(0)?;
        match first.granule_of(address) {
            Some(granule) => Some((first, granule)),
            None => self.find_beyond_first(address),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_beyond_first(&self, address: usize) -> Option<(&Region, GranuleIndex)> {
        self.iter().skip(1).find_map(|region| region.granule_of(address).map(|granule| (region, granule)))
    }

    /// The slab of that name.
    #[inline]
    pub fn slab(&self, id: SlabId) -> Option<SlabRef<'_>> {
        let region = self.get(id.region())?;
        match region.granule_use(id.granule()) {
            GranuleUse::Slab(class) => Some(SlabRef::new(region, id.granule(), class)),
            GranuleUse::Other | GranuleUse::Large => None,
        }
    }
}
