//! Statistics and self-checks: walks over the metadata that stop nobody.
//!
//! ```text
//! # Accounting  per slab: in use + in magazines + free bits == `SizeClass::blocks`, so
//!               `live` = capacity of all slabs - `cached` - free blocks + large blocks;
//!               `committed` = `live` + `cached` + `free` + `unusable` + `metadata`
//! # Precision   exact while nothing moves; else each figure is right for some moment of the walk
//! ```

use super::Heap;
use crate::config::{CHUNK_BYTES, CHUNK_GRANULES, GRANULE_BYTES, GROUP_CHUNKS};
use crate::local::ThreadCache;
use crate::pagemap::{Region, SlabRef};
use crate::size_class::{CLASS_COUNT, all, shape};
use crate::slab::SpanKind;
use crate::sys::Pages;
use crate::units::GranuleIndex;

/// What the allocator has done and holds: [`stats`](crate::stats). All sizes in bytes.
///
/// At rest, `committed` = `live` + `cached` + `free` + `unusable` + `metadata`. What is committed
/// stays so, but for blocks from 1 GiB on; memory that
/// is given back to the kernel leaves `dirty`. Resident are roughly `live`, `cached`, `dirty`, and parts of `metadata`
/// and of the free blocks in slabs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Address space that is mapped: what is committed, 3 MiB without access that are left for a thread when a limit of
    /// address space is reached, and pages that were needed for a moment.
    pub mapped: u64,
    /// Memory that may be touched: what a strict-overcommit system charges.
    pub committed: u64,
    /// Blocks that the program has, each counted as its class or span is large.
    pub live: u64,
    /// Free blocks in thread caches, also in those that ended threads have left for the next ones.
    pub cached: u64,
    /// Free blocks in slabs, and free spans.
    pub free: u64,
    /// Part of `free`: free spans whose pages have not been given back.
    pub dirty: u64,
    /// Ends of slabs, too short for a block.
    pub unusable: u64,
    /// Part of `committed`: the allocator's own.
    pub metadata: u64,
    /// At most so much of the heap (not of `metadata`) is resident: large blocks, pages of slabs that have had a block
    /// since they were last given back, and `dirty`. What the program has not written of a large block is not resident,
    /// but counts: only the kernel could tell, by a call that filters of system calls do not expect.
    pub resident: u64,
    /// Spans in use, and free ones not given back yet: what the limits count.
    pub held: u64,
    /// The most that `held` ever was.
    pub held_peak: u64,
    /// Slabs with at least one block not free, or not given back yet.
    pub slabs: u64,
    /// Large blocks that the program has.
    pub large_blocks: u64,
    /// Part of `live`: large blocks.
    pub large: u64,
    /// Free blocks in slabs, and free spans: how many pieces `free` is in.
    pub free_blocks: u64,
    /// Threads that have a cache.
    pub threads: u64,
    /// Times that blocks went from slabs to a thread cache.
    pub refills: u64,
    /// Times that blocks went from a thread cache to slabs.
    pub flushes: u64,
    /// Calls of the operating system for memory.
    pub os_calls: u64,
    /// Those of them that gave pages back (`madvise`).
    pub purges: u64,
    /// Does the system's allocator serve the program (`MAGALLOC_DISABLE=1`)? Then the other figures say nothing of it.
    pub disabled: bool,
}

/// Resident bytes below which a share of them says nothing: what caches and half-used pages take does not grow with the
/// heap.
const FRAGMENTATION_FROM_BYTES: u64 = 4 << 20;

impl Stats {
    /// The share of the resident heap that is not live blocks, from 0 to 1: free memory that has not been given back,
    /// caches, and the rest of pages in which something lives. `None` while less than 4 MiB are resident, where such a
    /// share says nothing.
    ///
    /// Large blocks count as resident whole, also where they were never written.
    ///
    /// ```
    /// match magalloc::stats().fragmentation() {
    ///     Some(share) => println!("{:.0} % of the resident heap is not in use", share * 100.0),
    ///     None => println!("the heap is small"),
    /// }
    /// ```
    #[must_use]
    pub fn fragmentation(&self) -> Option<f64> {
        if self.resident < FRAGMENTATION_FROM_BYTES {
            return None;
        }
        Some(self.resident.saturating_sub(self.live) as f64 / self.resident as f64)
    }
}

/// What a size class holds: [`class_stats`](crate::class_stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Slabs.
    pub slabs: u64,
    /// Blocks that are not free in their slabs: the program has them, or a thread cache.
    pub blocks: u64,
    /// Those of `blocks` that a thread cache has: free, and at hand for the next request.
    pub cached: u64,
}

impl ClassStats {
    /// Blocks that the program has.
    ///
    /// ```
    /// for class in magalloc::class_stats().iter().filter(|class| class.slabs != 0) {
    ///     println!("{} B: {} live, {} cached", class.block_bytes, class.live(), class.cached);
    /// }
    /// ```
    #[must_use]
    pub fn live(&self) -> u64 {
        self.blocks.saturating_sub(self.cached)
    }
}

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
    /// What each size class holds, smallest first.
    pub fn class_stats(&self) -> [ClassStats; CLASS_COUNT] {
        let mut stats = [ClassStats::default(); CLASS_COUNT];
        for class in all() {
            stats[class.get()].block_bytes = shape(class).bytes;
        }
        if !self.is_closed() {
            for region in self.depot.regions.iter() {
                for_each_begin(region, |begin| {
                    if let Begin::Slab(slab) = begin {
                        let stats = &mut stats[slab.class.get()];
                        stats.slabs += 1;
                        stats.blocks += usize::from(slab.shape().blocks).saturating_sub(free_blocks(&slab)) as u64;
                    }
                });
            }
            for (cache, class) in self.registry.caches().flat_map(|cache| all().map(move |class| (cache, class))) {
                stats[class.get()].cached += cache.blocks(class) as u64;
            }
        }
        stats
    }

    /// Figures of this moment, by a walk over the metadata: its time grows with the heap (some milliseconds for each GiB of
    /// small blocks), and it holds up nobody.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            mapped: self.depot.os.mapped() as u64,
            dirty: self.depot.dirty_bytes() as u64,
            held: self.depot.budget.held() as u64,
            held_peak: self.depot.held_peak() as u64,
            os_calls: self.depot.os.calls(),
            purges: self.depot.os.purges(),
            threads: self.registry.in_use() as u64,
            ..Stats::default()
        };
        if self.is_closed() {
            return stats;
        }
        stats.resident = stats.dirty;
        self.count_caches(&mut stats);
        let mut granules_used = 0;
        let mut chunks = 0;
        for region in self.depot.regions.iter() {
            chunks += region.committed_chunks().count();
            for_each_begin(region, |begin| match begin {
                Begin::Slab(slab) => {
                    granules_used += slab.shape().granules as usize;
                    count_slab(&slab, &mut stats);
                    stats.resident += self.resident_at_most(&slab) as u64;
                }
                Begin::Large { granules } => {
                    granules_used += granules;
                    stats.large_blocks += 1;
                    stats.large += (granules * GRANULE_BYTES) as u64;
                    stats.resident += (granules * GRANULE_BYTES) as u64;
                }
                Begin::Free => stats.free_blocks += 1,
            });
        }
        let heap = chunks * CHUNK_BYTES;
        let mut mapping_bytes = 0;
        for mapping in self.depot.mappings.iter() {
            stats.large_blocks += 1;
            mapping_bytes += mapping.bytes as u64;
        }
        stats.large += mapping_bytes;
        stats.resident += mapping_bytes;
        // Last: chunks are only ever added, so what is committed covers those that were counted.
        stats.committed = self.committed() as u64;
        stats.metadata = stats.committed.saturating_sub(heap as u64 + mapping_bytes);
        stats.free += heap.saturating_sub(granules_used * GRANULE_BYTES) as u64;
        // LocalHeap blocks were counted as live, being not free in their slabs.
        stats.live = stats.live.saturating_sub(stats.cached) + stats.large;
        stats
    }

    /// Bytes of all that is mapped for blocks and metadata, and that `release` would unmap.
    pub(super) fn committed(&self) -> usize {
        let depot = &self.depot;
        let regions: usize = depot.regions.iter().map(Region::committed).sum();
        let tables = depot.mappings.table_bytes() + depot.groups.bytes();
        regions + depot.mapping_bytes() + tables + depot.magazines.committed() + self.registry.committed()
    }

    /// Bytes of the pages of a slab that have had a block since they were last given back.
    fn resident_at_most(&self, slab: &SlabRef<'_>) -> usize {
        let granules = usize::from(slab.shape().granules);
        if self.depot.settings.keeps_huge_pages_whole() {
            return granules * GRANULE_BYTES;
        }
        // Retired since it was found, and another slab by now, of a class whose slabs do not fit here.
        if slab.granule.in_chunk() + granules > CHUNK_GRANULES {
            return granules * GRANULE_BYTES;
        }
        let given_back = |inside| {
            let marks = &slab.region().descriptor(slab.granule.offset(inside)).marks;
            (marks.purged_pages().count_ones() as usize) << slab.region().page_shift()
        };
        granules * GRANULE_BYTES - (0..granules).map(given_back).sum::<usize>()
    }

    fn count_caches(&self, stats: &mut Stats) {
        for counts in self.registry.caches().map(ThreadCache::counts) {
            stats.cached += counts.cached_bytes as u64;
            stats.refills += counts.refills;
            stats.flushes += counts.flushes;
        }
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
        let stats = self.stats();
        let parts = stats.live + stats.cached + stats.free + stats.unusable + stats.metadata;
        assert_eq!(stats.committed, parts, "{stats:?}");
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

/// Free blocks of a slab, but for those in caches.
fn free_blocks(slab: &SlabRef<'_>) -> usize {
    (0..slab.shape().words()).map(|word| slab.word(word).look().count_ones() as usize).sum()
}

fn count_slab(slab: &SlabRef<'_>, stats: &mut Stats) {
    let shape = slab.shape();
    let (bytes, blocks, free) = (shape.bytes as usize, shape.blocks as usize, free_blocks(slab));
    stats.slabs += 1;
    stats.free += (free * bytes) as u64;
    stats.free_blocks += free as u64;
    stats.live += (blocks.saturating_sub(free) * bytes) as u64;
    stats.unusable += (shape.granules as usize * GRANULE_BYTES - blocks * bytes) as u64;
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::size_class::class_of;
    use crate::sys::platform::SystemPages;
    use std::thread::scope;

    /// More than all threads ever hold.
    const BYTES_MAX: u64 = 1 << 30;

    /// New chunks, full and empty magazines, and threads that come and go.
    fn work(heap: &Heap<SystemPages>) {
        for _ in 0..3 {
            let Some(cached) = heap.register() else { return };
            let chunks: Vec<*mut u8> = (0..10).map(|_| heap.allocate_large(4 << 20, 8, false)).collect();
            for class in all().chain(all()) {
                let blocks: Vec<*mut u8> = (0..40)
                    .map(|_| cached.pop(class))
                    .map(|block| if block.is_null() { heap.allocate_small(Some(&cached), class) } else { block })
                    .collect();
                for block in blocks.into_iter().filter(|block| !block.is_null()) {
                    if !cached.push(class, block) {
                        heap.free_small(Some(&cached), class, block);
                    }
                }
            }
            chunks.into_iter().filter(|chunk| !chunk.is_null()).for_each(|chunk| heap.free_large(chunk));
            heap.unregister(&cached);
        }
    }

    #[test]
    fn fragmentation_is_a_share_and_none_of_a_small_heap() {
        let of = |resident, live| Stats { resident, live, ..Stats::default() }.fragmentation();
        // Unused or disabled; nearly empty.
        assert_eq!((of(0, 0), of(2 << 20, 140 << 10)), (None, None));
        assert_eq!((of(8 << 20, 2 << 20), of(8 << 20, 0)), (Some(0.75), Some(1.0)));
        // Live blocks that were never written.
        assert_eq!(of(8 << 20, 1 << 30), Some(0.0));
    }

    #[test]
    fn classes_tell_live_and_cached_blocks_apart() {
        let heap = Box::new(Heap::new(SystemPages));
        let cached = heap.register().expect("memory");
        let class = class_of(64, 8).expect("a small size");
        let blocks: Vec<*mut u8> = (0..1000)
            .map(|_| cached.pop(class))
            .map(|block| if block.is_null() { heap.allocate_small(Some(&cached), class) } else { block })
            .collect();
        let stats = heap.class_stats()[class.get()];
        assert_eq!((stats.live(), stats.blocks), (1000, 1000 + stats.cached), "{stats:?}");
        for &block in &blocks[..500] {
            heap.free_small(Some(&cached), class, block);
        }
        let stats = heap.class_stats()[class.get()];
        assert!(stats.live() == 500 && stats.cached > 0, "{stats:?}");
        heap.flush(&cached);
        let stats = heap.class_stats()[class.get()];
        assert_eq!((stats.live(), stats.cached), (500, 0), "{stats:?}");
        blocks[500..].iter().for_each(|&block| heap.free_small(Some(&cached), class, block));
        heap.unregister(&cached);
        // SAFETY: the heap is this test's, no thread uses it, and its blocks are freed.
        let (mapped, unmapped) = unsafe { heap.release() };
        assert_eq!(mapped, unmapped);
    }

    #[test]
    fn figures_taken_while_others_work_are_of_this_world() {
        for _ in 0..30 {
            let heap = Box::new(Heap::new(SystemPages));
            scope(|scope| {
                let workers = [scope.spawn(|| work(&heap)), scope.spawn(|| work(&heap))];
                while !workers.iter().all(|worker| worker.is_finished()) {
                    let stats = heap.stats();
                    let parts = [stats.live, stats.cached, stats.free, stats.dirty, stats.unusable, stats.metadata];
                    assert!(parts.into_iter().all(|part| part <= BYTES_MAX), "{stats:?}");
                }
            });
            heap.check();
            // SAFETY: the heap is this test's, its threads have ended, and its blocks are freed.
            let (mapped, unmapped) = unsafe { heap.release() };
            assert_eq!(mapped, unmapped);
        }
    }
}
