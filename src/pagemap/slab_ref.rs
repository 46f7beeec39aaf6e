//! A slab together with the region it lies in.

use super::Region;
use crate::purge::slab_pages::Geometry;
use crate::size_class::{SizeClass, shape};
use crate::slab::Slab;
use crate::slab::bitmap::FreeWord;
use crate::units::{ClassIndex, GranuleIndex, SlabId};
use core::ptr::NonNull;

/// A slab, with all that is needed to reach its parts.
#[derive(Clone, Copy)]
pub struct SlabRef<'h> {
    region: &'h Region,
    /// The slab's first granule.
    pub granule: GranuleIndex,
    /// The slab's class.
    pub class: ClassIndex,
}

impl<'h> SlabRef<'h> {
    /// The slab of `class` that starts at `granule`.
    #[inline]
    pub fn new(region: &'h Region, granule: GranuleIndex, class: ClassIndex) -> Self {
        Self { region, granule, class }
    }

    /// Its region.
    pub fn region(&self) -> &'h Region {
        self.region
    }

    /// Its name.
    #[inline]
    pub fn id(&self) -> SlabId {
        SlabId::new(self.region.number(), self.granule)
    }

    /// Its descriptor.
    #[inline]
    pub fn descriptor(&self) -> &'h Slab {
        self.region.descriptor(self.granule)
    }

    /// What is known of its class.
    #[inline]
    pub fn shape(&self) -> &'static SizeClass {
        shape(self.class)
    }

    /// Its first block.
    #[inline]
    pub fn base(&self) -> NonNull<u8> {
        self.region.address(self.granule)
    }

    /// Word `word` of its bitmap.
    #[inline]
    pub fn word(&self, word: usize) -> &'h FreeWord {
        // SAFETY: within a chunk; callers name words of the class, whose blocks fit.
        unsafe { self.region.chunk_meta(self.granule.chunk()).word(self.granule.in_chunk(), word) }
    }

    /// Where its blocks and pages lie.
    pub fn geometry(&self) -> Geometry<'static> {
        Geometry::new(self.shape(), self.region.page_shift())
    }

    /// After `blocks` of word `word` were claimed: their pages are going to be written. Returns the bytes of those that
    /// were marked as purged.
    #[inline]
    #[must_use]
    pub fn note_used(&self, word: usize, blocks: u64) -> usize {
        if self.shape().granules > 1 || !self.descriptor().marks.is_clear() { self.mark_used(word, blocks) } else { 0 }
    }

    #[inline(never)]
    fn mark_used(&self, word: usize, blocks: u64) -> usize {
        let (first, last) = (blocks.trailing_zeros(), 63 - blocks.leading_zeros());
        let mut purged = 0;
        self.geometry().pages_of(word, first, last, |granule, pages| {
            purged += self.region.descriptor(self.granule.offset(granule)).marks.used(pages);
        });
        purged << self.region.page_shift()
    }

    /// Bytes of its pages that are marked as purged, at some moment.
    pub fn purged_bytes(&self) -> usize {
        let of =
            |granule| self.region.descriptor(self.granule.offset(granule)).marks.purged_pages().count_ones() as usize;
        (0..usize::from(self.shape().granules)).map(of).sum::<usize>() << self.region.page_shift()
    }

    /// Is any block free, at some moment?
    pub fn has_free(&self) -> bool {
        (0..self.shape().words()).any(|word| self.word(word).look() != 0)
    }

    /// Is every block free, at some moment?
    pub fn is_free(&self) -> bool {
        let shape = self.shape();
        (0..shape.words()).all(|word| self.word(word).look() == shape.word_mask(word))
    }

    /// Claims every block, or none.
    #[must_use]
    pub fn claim_whole(&self) -> bool {
        let shape = self.shape();
        for word in 0..shape.words() {
            let taken = self.word(word).claim_all();
            if taken != shape.word_mask(word) {
                // The holder gives back what it took; the slab stays queued, so no one needs to be told.
                for (back, mask) in (0..word).map(|back| (back, shape.word_mask(back))).chain([(word, taken)]) {
                    if mask != 0 {
                        let _ = self.word(back).release(mask);
                    }
                }
                // A purge that had the missing blocks looks whether the slab is free, as the caller is going to.
                self.descriptor().after_full_word();
                return false;
            }
        }
        true
    }
}
