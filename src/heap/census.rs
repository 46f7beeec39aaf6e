//! The census: a walk over the metadata that stops nobody, and the self-check.
//!
//! ```text
//! # Accounting  per slab: in use + in magazines + free bits == `SizeClass::blocks`
//! # Role        finds by looking what `heap::stats` knows by counting
//! # Precision   exact while nothing moves; else each figure is right for some moment of the walk, and blocks that a purge has
//!               in flight count as live
//! ```

use super::Heap;
use super::stats::{ClassStats, Extent, Stats};
use crate::config::{CHUNK_BYTES, CHUNK_GRANULES, GRANULE_BYTES, GROUP_CHUNKS};
use crate::pagemap::{Region, SlabRef};
use crate::size_class::{all, shape};
use crate::slab::SpanKind;
use crate::sys::Pages;
use crate::units::GranuleIndex;

/// What a granule begins.
enum Begin<'h> {
    Slab(SlabRef<'h>),
    Large {
        granules: usize,
    },
    /// Free granules up to the next span, or to the end of the chunk.
    Free,
}

impl<P: Pages> Heap<P> {
    /// The figures of `stats`, by a walk over the metadata: its time grows with the heap (some milliseconds for each GiB of
    /// small blocks), and it holds up nobody.
    pub fn census(&self) -> Stats {
        if self.is_closed() { self.stats() } else { self.composed(&self.found()) }
    }

    /// What there is, by looking at all of it.
    pub(super) fn found(&self) -> Extent {
        let mut found = Extent::default();
        all().for_each(|class| found.add(class, &self.cached_of(class)));
        for region in self.depot.regions.iter() {
            let chunks = region.committed_chunks().count();
            found.heap_bytes += (chunks * CHUNK_BYTES) as u64;
            for_each_begin(region, |begin| match begin {
                Begin::Slab(slab) => {
                    found.add(slab.class, &class_of_one(&slab));
                    found.purged_in_slabs += purged_bytes(&slab) as u64;
                }
                Begin::Large { granules } => {
                    found.large_blocks += 1;
                    found.large += (granules * GRANULE_BYTES) as u64;
                }
                Begin::Free => {}
            });
        }
        for mapping in self.depot.mappings.iter() {
            found.mapping_blocks += 1;
            found.mapping_bytes += mapping.bytes as u64;
        }
        // Last: chunks are only ever added, so what is committed covers those that were counted.
        found.committed =
            self.committed(|region| region.committed_chunks().count(), found.mapping_bytes as usize) as u64;
        found
    }

    /// Verifies the invariants that hold while no thread is inside the allocator.
    ///
    /// # Panics
    /// If one is broken. For tests: the allocator itself never calls it.
    pub fn check(&self) {
        for region in self.depot.regions.iter() {
            for chunk in region.committed_chunks() {
                self.check_chunk(region, chunk);
            }
            for_each_begin(region, |begin| {
                if let Begin::Slab(slab) = begin {
                    check_slab(&slab);
                }
            });
        }
        let stats = self.census();
        let parts = stats.live + stats.cached + stats.free + stats.unusable + stats.metadata;
        assert_eq!(stats.committed, parts, "{stats:?}");
        #[cfg(test)]
        self.check_counts();
    }

    /// Verifies that what was counted is what there is. Only where nothing moves, and not in the child of a fork.
    #[cfg(test)]
    pub fn check_counts(&self) {
        assert_eq!((self.counted(), self.stats()), (self.found(), self.census()));
        let mut classes: Vec<ClassStats> = all().map(|class| self.cached_of(class)).collect();
        for region in self.depot.regions.iter() {
            for_each_begin(region, |begin| {
                if let Begin::Slab(slab) = begin {
                    classes[slab.class.get()].slabs += 1;
                    classes[slab.class.get()].blocks += class_of_one(&slab).blocks;
                }
            });
        }
        assert_eq!(self.class_stats()[..], classes);
    }

    fn check_chunk(&self, region: &Region, chunk: usize) {
        let group = region.group(chunk / GROUP_CHUNKS);
        let busy = group.spans.busy(chunk % GROUP_CHUNKS);
        let members = group.partial.members(chunk % GROUP_CHUNKS);
        for bit in 0..CHUNK_GRANULES {
            let granule = GranuleIndex::new(chunk * CHUNK_GRANULES + bit);
            let span_kind = region.span_kind(granule);
            if busy >> bit & 1 == 0 {
                assert_eq!(span_kind, SpanKind::Other, "free granule {granule:?} has a use");
            }
            if members >> bit & 1 != 0 {
                assert!(matches!(span_kind, SpanKind::Slab(_)), "member {granule:?} is no slab");
                assert!(region.descriptor(granule).is_queued(), "member {granule:?} is not queued");
            }
        }
    }
}

fn check_slab(slab: &SlabRef<'_>) {
    let shape = slab.shape();
    for word in 0..shape.words() {
        let stray = slab.word(word).look() & !shape.word_mask(word);
        assert_eq!(stray, 0, "slab {:?} has free bits beyond its blocks", slab.granule);
    }
    assert!(slab.descriptor().is_queued() || !slab.has_free(), "slab {:?} has free blocks and no holder", slab.granule);
}

/// What a class has of which that is the only slab.
fn class_of_one(slab: &SlabRef<'_>) -> ClassStats {
    let blocks = usize::from(slab.shape().blocks).saturating_sub(free_blocks(slab)) as u64;
    ClassStats { slabs: 1, blocks, ..ClassStats::default() }
}

/// Bytes of a slab's pages that are marked as purged.
fn purged_bytes(slab: &SlabRef<'_>) -> usize {
    // Retired since it was found, and another slab by now, of a class whose slabs do not fit here.
    let fits = slab.granule.in_chunk() + usize::from(slab.shape().granules) <= CHUNK_GRANULES;
    if fits { slab.purged_bytes() } else { 0 }
}

/// Free blocks of a slab, but for those in caches.
fn free_blocks(slab: &SlabRef<'_>) -> usize {
    (0..slab.shape().words()).map(|word| slab.word(word).look().count_ones() as usize).sum()
}

/// Calls `found` for every slab, every large block and every run of free granules of a region.
fn for_each_begin<'h>(region: &'h Region, mut found: impl FnMut(Begin<'h>)) {
    // A span may begin in one chunk and end in another.
    let mut next = 0;
    for chunk in region.committed_chunks() {
        let end = (chunk + 1) * CHUNK_GRANULES;
        next = next.max(chunk * CHUNK_GRANULES);
        while next < end {
            let granule = GranuleIndex::new(next);
            next += match region.span_kind(granule) {
                SpanKind::Other => {
                    let is_free = |&granule: &usize| region.span_kind(GranuleIndex::new(granule)) == SpanKind::Other;
                    found(Begin::Free);
                    (next..end).take_while(is_free).count().max(1)
                }
                SpanKind::Large => {
                    let granules = region.descriptor(granule).granules().max(1);
                    found(Begin::Large { granules });
                    granules
                }
                SpanKind::Slab(class) => {
                    found(Begin::Slab(SlabRef::new(region, granule, class)));
                    shape(class).granules.into()
                }
            };
        }
    }
}
