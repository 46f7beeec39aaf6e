//! Typed units: no bare number crosses a layer.
//!
//! ```text
//! # Role        `ClassIndex`, `GranuleIndex`, `SlabId`
//! # Not here    what a class is (see `size_class`), where a slab is (see `pagemap`)
//! ```

use crate::config::GRANULE_INDEX_BITS;

/// Number of a size class, `0..CLASS_COUNT`.
///
/// # Invariants
/// I1: always below `size_class::CLASS_COUNT`: tables are read at it unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassIndex(u8);

impl ClassIndex {
    /// The class of that number.
    ///
    /// # Safety
    /// I1.
    #[inline(always)]
    pub(crate) const unsafe fn new(index: u8) -> Self {
        Self(index)
    }

    /// The number, to index with.
    #[inline(always)]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// Number of a granule inside its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GranuleIndex(u32);

impl GranuleIndex {
    /// The granule of that number.
    #[inline(always)]
    pub const fn new(index: usize) -> Self {
        Self(index as u32)
    }

    /// The number.
    #[inline(always)]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// The chunk it is in.
    #[inline(always)]
    pub const fn chunk(self) -> usize {
        self.get() / crate::config::CHUNK_GRANULES
    }

    /// Its number inside its chunk.
    #[inline(always)]
    pub const fn in_chunk(self) -> usize {
        self.get() % crate::config::CHUNK_GRANULES
    }

    /// The granule `count` before.
    #[inline(always)]
    pub const fn back(self, count: usize) -> Self {
        Self(self.0 - count as u32)
    }

    /// The granule `count` further on.
    #[inline(always)]
    pub const fn offset(self, count: usize) -> Self {
        Self(self.0 + count as u32)
    }
}

/// Name of a slab that fits in 32 bits: its region and its first granule. 0 is no slab, so that zeroed memory
/// is an empty list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlabId(core::num::NonZeroU32);

impl SlabId {
    /// The slab that starts at `granule` of region number `region`.
    #[inline(always)]
    pub fn new(region: usize, granule: GranuleIndex) -> Self {
        let raw = ((region as u32) << GRANULE_INDEX_BITS | granule.0) + 1;
        Self(core::num::NonZeroU32::new(raw).unwrap_or(core::num::NonZeroU32::MIN))
    }

    /// From its stored form; 0 is none.
    #[inline(always)]
    pub fn from_raw(raw: u32) -> Option<Self> {
        core::num::NonZeroU32::new(raw).map(Self)
    }

    /// Its stored form, never 0 and never `u32::MAX`.
    #[inline(always)]
    pub fn raw(self) -> u32 {
        self.0.get()
    }

    /// The stored form of "this slab or none".
    #[inline(always)]
    pub fn raw_option(id: Option<Self>) -> u32 {
        id.map_or(0, Self::raw)
    }

    /// Number of its region.
    #[inline(always)]
    pub fn region(self) -> usize {
        ((self.0.get() - 1) >> GRANULE_INDEX_BITS) as usize
    }

    /// Its first granule.
    #[inline(always)]
    pub fn granule(self) -> GranuleIndex {
        GranuleIndex((self.0.get() - 1) & ((1 << GRANULE_INDEX_BITS) - 1))
    }
}
