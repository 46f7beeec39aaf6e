//! From an address to the slab or large block it belongs to, and the memory of all metadata that makes it possible.
//!
//! ```text
//! # Role        `region`: one place, in which metadata comes first and the heap behind; `commit`: how its chunks are mapped;
//!               `slab_ref`: a slab with all that is needed to reach its parts; `Regions`: the list of regions
//! # Invariants  I3: regions are only ever added, until the process ends.
//! # Ordering    PUBLISH-REGION: `Regions::publish` (Release) -> `Regions::iter`, `find` (Acquire)
//! # Progress    lock-free: two threads may both make a region; both is harmless
//! # Not here    claiming spans (see `depot`)
//! ```

mod commit;
mod region;
mod slab_ref;

pub use commit::advice_at_commit;
pub use region::{ChunkGroup, Region};
pub use slab_ref::SlabRef;

use crate::config::{GRANULE_SHIFT, REGIONS_MAX};
use crate::slab::{KindByte, KindCell, SpanKind};
use crate::sync::{AtomicPtr, AtomicUsize, CachePadded, Ordering};
use crate::units::{GranuleIndex, SlabId};
use core::ptr::NonNull;

/// The regions of a heap.
pub struct Regions {
    first: CachePadded<First>,
    all: [AtomicPtr<Region>; REGIONS_MAX],
}

/// What `free` must know of the first region, which is the only one where address space is plentiful. Zeroed memory is
/// a region of no bytes.
///
/// # Invariants
/// I4: the uses of the granules in the first `bytes` of the heap are readable.
struct First {
    /// Where its heap begins.
    heap: AtomicUsize,
    /// Bytes of it that may have blocks: what the region uses, or less.
    bytes: AtomicUsize,
    /// The uses of its granules.
    uses: AtomicPtr<KindCell>,
}

impl Default for Regions {
    fn default() -> Self {
        Self::new()
    }
}

impl Regions {
    /// None yet.
    pub const fn new() -> Self {
        Self {
            first: CachePadded::new(First {
                heap: AtomicUsize::new(0),
                bytes: AtomicUsize::new(0),
                uses: AtomicPtr::new(core::ptr::null_mut()),
            }),
            all: [const { AtomicPtr::new(core::ptr::null_mut()) }; REGIONS_MAX],
        }
    }

    /// Region number `number`.
    #[inline(always)]
    pub fn get(&self, number: usize) -> Option<&Region> {
        // ordering: Acquire [PUBLISH-REGION] pairs with Release in `publish`.
        // SAFETY: region I1, and I3: a published region stays readable.
        unsafe { self.all[number].load(Ordering::Acquire).as_ref() }
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
        self.all[number].compare_exchange(null, region.as_ptr(), Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Takes all regions out, at the end of the process.
    pub fn take_all(&self) -> impl Iterator<Item = NonNull<Region>> {
        // ordering: Relaxed; the caller is alone.
        self.first.bytes.store(0, Ordering::Relaxed);
        // ordering: Relaxed, likewise.
        self.all.iter().filter_map(|slot| NonNull::new(slot.swap(core::ptr::null_mut(), Ordering::Relaxed)))
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

    /// What the granule of an address is used for, if it is in the first region. Enough for a block of the caller's.
    #[inline(always)]
    pub fn use_in_first(&self, address: usize) -> Option<KindByte> {
        // ordering: Relaxed; before `note_used` it is 0, and no address is so low.
        let offset = address.wrapping_sub(self.first.heap.load(Ordering::Relaxed));
        // ordering: Acquire [FIRST-REGION] pairs with Release in `note_used`. Whoever has a block got it from a thread
        // that had seen, or done, what `note_used` did for it; one who has an address only may see less.
        if offset >= self.first.bytes.load(Ordering::Acquire) {
            return None;
        }
        // ordering: Relaxed, as above.
        let uses = self.first.uses.load(Ordering::Relaxed);
        // SAFETY: I4.
        let cell = unsafe { uses.add(offset >> GRANULE_SHIFT) };
        // SAFETY: I4; all of it is atomics.
        Some(unsafe { &*cell }.byte())
    }

    /// Takes notice that `region` uses more bytes than before: before any block of them is handed out.
    pub fn note_used(&self, region: &Region) {
        let (first, bytes) = (&self.first, region.bytes_used());
        // ordering: Relaxed; the same thread writes it, or another one with the same values. Without a look, each new span
        // would take the line from all threads that free.
        if region.number() != 0 || first.bytes.load(Ordering::Relaxed) >= bytes {
            return;
        }
        // ordering: Relaxed; always the same two values.
        first.heap.store(region.heap_start().addr().get(), Ordering::Relaxed);
        first.uses.store(region.kinds_start().cast().as_ptr(), Ordering::Relaxed);
        // ordering: Release [FIRST-REGION] with the two; pairs with Acquire in `use_in_first`.
        first.bytes.fetch_max(bytes, Ordering::Release);
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
        match region.span_kind(id.granule()) {
            SpanKind::Slab(class) => Some(SlabRef::new(region, id.granule(), class)),
            SpanKind::Other | SpanKind::Large => None,
        }
    }
}
