//! A span: a run of granules, and its parts, one in each chunk.
//!
//! ```text
//! # Role        says which granules; owns nothing: whoever claimed them does
//! # Not here    claiming and freeing (see `depot::spans`)
//! ```

use crate::chunk::span_map::low_bits;
use crate::config::{CHUNK_GRANULES, GRANULE_BYTES, GROUP_CHUNKS};
use crate::pagemap::{ChunkGroup, Region};
use crate::units::GranuleIndex;

/// A claimed run of granules.
#[derive(Clone, Copy)]
pub struct Span<'h> {
    /// Its region.
    pub region: &'h Region,
    /// Its first granule.
    pub first: GranuleIndex,
    /// Its length.
    pub granules: usize,
}

/// The part of a span that lies in one chunk.
pub(super) struct Part<'h> {
    pub(super) group: &'h ChunkGroup,
    /// The chunk's number in its region.
    pub(super) chunk: usize,
    pub(super) mask: u64,
}

impl Part<'_> {
    pub(super) fn in_group(&self) -> usize {
        self.chunk % GROUP_CHUNKS
    }

    /// What is left of it without the granules of `other`, which is in the same region.
    pub(super) fn without(mut self, other: Self) -> Self {
        if self.chunk == other.chunk {
            self.mask &= !other.mask;
        }
        self
    }
}

impl<'h> Span<'h> {
    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.granules * GRANULE_BYTES
    }

    /// The first granule behind it.
    pub(super) fn end(&self) -> GranuleIndex {
        self.first.offset(self.granules)
    }

    /// It and another one of its region, and what lies between.
    pub(super) fn joined(&self, other: &Self) -> Self {
        let (first, end) = (self.first.min(other.first), self.end().max(other.end()));
        Span { region: self.region, first, granules: end.get() - first.get() }
    }

    /// The part from granule `from` on.
    pub fn tail(&self, from: usize) -> Self {
        Span { region: self.region, first: self.first.offset(from), granules: self.granules - from }
    }

    /// The first `granules`.
    pub fn head(&self, granules: usize) -> Self {
        Span { region: self.region, first: self.first, granules }
    }

    /// The chunks that it touches.
    pub(super) fn chunks(&self) -> core::ops::Range<usize> {
        self.first.chunk()..self.first.offset(self.granules - 1).chunk() + 1
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'h>> + use<'h> {
        let (region, end) = (self.region, self.first.get() + self.granules);
        let mut next = self.first.get();
        core::iter::from_fn(move || {
            if next >= end {
                return None;
            }
            let (chunk, from) = (next / CHUNK_GRANULES, next % CHUNK_GRANULES);
            let count = (end - next).min(CHUNK_GRANULES - from);
            next += count;
            Some(Part { group: region.group(chunk / GROUP_CHUNKS), chunk, mask: low_bits(count) << from })
        })
    }
}
