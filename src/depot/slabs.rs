//! Slabs of the depot: made from spans, kept while partial, given back when empty.
//!
//! ```text
//! # Role        where a local heap gets slabs, and where slabs go that no local heap wants
//! # Progress    lock-free
//! ```

use crate::config::{GRANULE_BYTES, GROUP_CHUNKS};
use crate::chunk::partial_set::Place;
use crate::depot::groups::Wanted;
use crate::depot::span::Span;
use crate::depot::spans::Depot;
use crate::pagemap::{Region, SlabRef};
use crate::config::CHUNK_GRANULES;
use crate::size_class::{all, shape};
use crate::slab::SpanKind;
use crate::sync::{Ordering, fence};
use crate::sys::Pages;
use crate::units::{ClassIndex, GranuleIndex};

/// The granule at `place` of group `group`.
fn granule_at(group: usize, place: Place) -> GranuleIndex {
    GranuleIndex::new((group * GROUP_CHUNKS + place.chunk) * CHUNK_GRANULES + place.granule)
}

fn place_of(slab: &SlabRef<'_>) -> Place {
    Place { chunk: slab.granule.chunk() % GROUP_CHUNKS, granule: slab.granule.in_chunk() }
}

fn class_at(region: &Region, granule: GranuleIndex) -> Option<ClassIndex> {
    match region.span_kind(granule) {
        SpanKind::Slab(class) => Some(class),
        SpanKind::Other | SpanKind::Large => None,
    }
}

impl<P: Pages> Depot<P> {
    /// The lowest partial slab of `class`; the caller is its holder then.
    pub fn take_partial(&self, class: ClassIndex) -> Option<SlabRef<'_>> {
        self.regions.iter().find_map(|region| {
            let mut from = 0;
            while let Some(group) = self.groups.next(Wanted::partial(class), region, from) {
                let class_of = |place| class_at(region, granule_at(group, place));
                // Not merely put back: its last block may have come home while it was here.
                let give_back = |place, class| self.give_slab(SlabRef::new(region, granule_at(group, place), class));
                let partial = &region.group(group).partial;
                if let Some(place) = partial.take(class, class_of, give_back) {
                    return Some(SlabRef::new(region, granule_at(group, place), class));
                }
                self.groups.clear(Wanted::partial(class), region, group, |group| {
                    region.group(group).partial.may_have(class)
                });
                from = group + 1;
            }
            None
        })
    }

    /// A new slab of `class`, all blocks free; the caller is its holder.
    pub fn new_slab(&self, class: ClassIndex) -> Option<SlabRef<'_>> {
        let shape = shape(class);
        let span = self.claim_span(shape.granules as usize, 1)?;
        let slab = SlabRef::new(span.region, span.first, class);
        slab.descriptor().begin(span.granules);
        let (mut any_dirty, mut clean) = (false, 0);
        for inside in 0..span.granules {
            let granule = span.first.offset(inside);
            let is_clean = Self::is_clean(&span, inside);
            any_dirty |= !is_clean;
            clean += usize::from(is_clean) * GRANULE_BYTES;
            // Before its use, so that a walk that comes by takes no granule inside for the start of a slab.
            span.region.descriptor(granule).begin_inside(inside, if is_clean { span.region.granule_pages() } else { 0 });
            span.region.set_span_kind(granule, SpanKind::Slab(class));
        }
        for word in 0..shape.words() {
            slab.word(word).fill(shape.word_mask(word));
        }
        self.counts.slabs(class).made.add(1);
        if clean != 0 {
            self.counts.purged_in_slabs.add(clean);
        }
        if any_dirty {
            // A purge may have looked for slabs before, and for free granules after this became one.
            // ordering: SeqCst [NOTE] the bitmap is filled by stores, and a note looks after a read-modify-write.
            fence(Ordering::SeqCst);
            self.note_freed_in(slab.region(), slab.granule.chunk());
        }
        Some(slab)
    }

    /// Spans made so far that became large blocks, at some moment.
    pub fn large_made(&self) -> u64 {
        let slabs: u64 = all().map(|class| self.counts.slabs(class).made.get()).sum();
        self.spans.spans.made.get().saturating_sub(slabs)
    }

    /// Takes a slab from its holder: an empty one goes back to its chunk, another is kept as partial.
    pub fn give_slab(&self, slab: SlabRef<'_>) {
        if slab.is_free() && slab.claim_whole() {
            self.retire(slab);
            return;
        }
        let group = slab.granule.chunk() / GROUP_CHUNKS;
        slab.region().group(group).partial.put(place_of(&slab), slab.class);
        self.groups.note(Wanted::partial(slab.class), slab.region(), group);
        // Its last block may have come home between the look and the putting, when nobody could take it out.
        if slab.is_free() {
            self.retire_if_partial(slab);
        }
    }

    /// After the last block of a slab came home: gives it back to its chunk if the depot has it. `false`: a local heap
    /// has it.
    pub fn retire_if_partial(&self, slab: SlabRef<'_>) -> bool {
        let partial = &slab.region().group(slab.granule.chunk() / GROUP_CHUNKS).partial;
        if !partial.take_this(place_of(&slab)) {
            return false;
        }
        // The slab may have become another one since the caller looked; now that it is ours, its class can be trusted.
        if let Some(class) = class_at(slab.region(), slab.granule) {
            self.give_slab(SlabRef::new(slab.region(), slab.granule, class));
        }
        true
    }

    /// Gives back a slab whose every block the caller has claimed.
    fn retire(&self, slab: SlabRef<'_>) {
        let span = Span { region: slab.region(), first: slab.granule, granules: slab.shape().granules as usize };
        self.counts.slabs(slab.class).ended.add(1);
        let purged = slab.purged_bytes();
        if purged != 0 {
            self.counts.purged_in_slabs.sub(purged);
        }
        for inside in 0..span.granules {
            span.region.set_span_kind(span.first.offset(inside), SpanKind::Other);
        }
        self.free_span(&span);
    }
}
