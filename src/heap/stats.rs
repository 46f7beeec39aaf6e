//! Statistics: what slow paths have counted, put together without a walk over the heap.
//!
//! ```text
//! # Accounting  `live` = blocks not free in their slabs - `cached` + large blocks;
//!               `committed` = `live` + `cached` + `free` + `unusable` + `metadata`
//! # Cost        reads each cache there is (so many as threads were at once, of all classes), and a few words beside: the
//!               same whatever the heap holds
//! # Precision   each figure says at its field how exact it is; `heap::census` looks at all that is counted here
//! ```

use super::Heap;
use crate::config::{CHUNK_BYTES, GRANULE_BYTES};
use crate::local::ThreadCache;
use crate::pagemap::Region;
use crate::size_class::{CLASS_COUNT, all, shape};
use crate::sys::Pages;
use crate::units::ClassIndex;

/// What the allocator has done and holds: [`stats`](crate::stats). All sizes in bytes.
///
/// At rest, `committed` = `live` + `cached` + `free` + `unusable` + `metadata`. What is committed
/// stays so, but for blocks from 1 GiB on; memory that
/// is given back to the kernel leaves `dirty`. Resident are roughly `live`, `cached`, `dirty`, and parts of `metadata`
/// and of the free blocks in slabs.
///
/// Where a field says nothing else, it is exact while nothing moves. While threads work, each figure is right for some
/// moment of the call, and what a slow path has in hand may be missed, or counted twice: of each thread a magazine of blocks, or a large one. In the
/// child of a fork, what other threads had in hand when it was made stays so. Blocks in caches are not live: `cached` has
/// them.
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
    /// An upper bound: at most so much of the heap (not of `metadata`) is resident. Large blocks, pages of slabs that have
    /// had a block since they were last given back, and `dirty`. What the program has not written of a large block is not
    /// resident, but counts: only the kernel could tell, by a call that filters of system calls do not expect.
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
    /// Free blocks in slabs, and one more where there are free spans, however many.
    pub free_blocks: u64,
    /// Threads that have a cache.
    pub threads: u64,
    /// Blocks ever allocated: an estimate, as malloc's fast path counts nothing (exact: [`call_counts`](crate::call_counts), while
    /// that is on). Counted are blocks that came out of slabs, and large ones. Too low by those that a thread freed and got
    /// again from its cache, too high by those that a cache took in and nobody got yet.
    pub allocations: u64,
    /// Calls of malloc and free for small blocks that a thread's loaded magazine could not serve; of threads that have a
    /// cache.
    pub slow_calls: u64,
    /// Times that blocks went from slabs to a thread cache.
    pub refills: u64,
    /// Times that blocks went from a thread cache to slabs.
    pub flushes: u64,
    /// Magazines full of blocks that were taken from other threads' caches: from idle ones, and where memory was short.
    pub steals: u64,
    /// Calls of the operating system for memory.
    pub os_calls: u64,
    /// Those of them that gave pages back (`madvise`).
    pub purges: u64,
    /// Bytes of address space of which these gave the pages back: an upper bound of what was in memory.
    pub purged: u64,
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
    /// Blocks that ever came out of slabs: of those allocated an estimate, as in [`Stats::allocations`].
    pub allocations: u64,
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

    /// Bytes of the blocks that the program has.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.live() * u64::from(self.block_bytes)
    }
}

/// What there is of slabs and spans: as counted, or as found by a walk. Sums only, and not by class: a thread with the
/// smallest stack may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Slabs, and their bytes.
    slabs: u64,
    pub(super) slab_bytes: u64,
    /// Bytes of slabs' ends.
    unusable: u64,
    /// Blocks that slabs have room for, and their bytes; those that are not free in them.
    rooms: u64,
    room_bytes: u64,
    blocks: u64,
    block_bytes: u64,
    /// Bytes of blocks in caches.
    cached_bytes: u64,
    /// Blocks that ever came out of slabs.
    allocations: u64,
    /// Bytes of slabs' pages that were given back, or never written.
    pub(super) purged_in_slabs: u64,
    /// Large blocks that are spans, and their bytes.
    pub(super) large_blocks: u64,
    pub(super) large: u64,
    /// Large blocks that are mappings, and their bytes.
    pub(super) mapping_blocks: u64,
    pub(super) mapping_bytes: u64,
    /// Bytes of committed chunks.
    pub(super) heap_bytes: u64,
    /// Bytes of all that is mapped for blocks and metadata.
    pub(super) committed: u64,
}

impl Extent {
    /// Adds what a class has, or a part of that.
    pub(super) fn add(&mut self, class: ClassIndex, of: &ClassStats) {
        let (shape, bytes) = (shape(class), u64::from(shape(class).bytes));
        let (rooms, span) = (of.slabs * u64::from(shape.blocks), u64::from(shape.granules) * GRANULE_BYTES as u64);
        self.slabs += of.slabs;
        self.slab_bytes += of.slabs * span;
        self.unusable += of.slabs * span - rooms * bytes;
        self.rooms += rooms;
        self.room_bytes += rooms * bytes;
        self.blocks += of.blocks;
        self.block_bytes += of.blocks * bytes;
        self.cached_bytes += of.cached * bytes;
        self.allocations += of.allocations;
    }
}

/// A sum of counts that were read one after the other, and may be less than zero for a moment.
fn at_least_zero(sum: u64) -> u64 {
    if sum.cast_signed() < 0 { 0 } else { sum }
}

impl<P: Pages> Heap<P> {
    /// What each size class holds, smallest first. Its time grows with the caches there are, not with the heap.
    pub fn class_stats(&self) -> [ClassStats; CLASS_COUNT] {
        let mut stats = [ClassStats::default(); CLASS_COUNT];
        all().for_each(|class| stats[class.get()] = self.class_stats_of(class));
        stats
    }

    /// Figures of this moment. The time grows with the caches there are, not with the heap, and it holds up nobody.
    pub fn stats(&self) -> Stats {
        self.composed(&self.counted())
    }

    /// What a size class holds.
    pub fn class_stats_of(&self, class: ClassIndex) -> ClassStats {
        if self.is_closed() {
            return ClassStats { block_bytes: shape(class).bytes, ..ClassStats::default() };
        }
        let counts = &self.depot.counts;
        // Before what was taken: so that what moves meanwhile makes no sum less than zero.
        let of_caches = self.registry.caches().map(|cache| cache.traffic(class).given.get());
        let given = of_caches.fold(counts.beside(class).given.get(), u64::wrapping_add);
        let mut stats = self.cached_of(class);
        stats.slabs = counts.slabs(class).now();
        let rooms = stats.slabs * u64::from(shape(class).blocks);
        stats.blocks = at_least_zero(stats.allocations.wrapping_sub(given)).min(rooms);
        stats
    }

    /// What a class has in caches, and what was ever taken of it.
    pub(super) fn cached_of(&self, class: ClassIndex) -> ClassStats {
        let mut stats = ClassStats { block_bytes: shape(class).bytes, ..ClassStats::default() };
        stats.allocations = self.depot.counts.beside(class).taken.get();
        for cache in self.registry.caches() {
            stats.cached += cache.blocks(class) as u64;
            stats.allocations = stats.allocations.wrapping_add(cache.traffic(class).taken.get());
        }
        stats
    }

    /// What there is, as slow paths have counted it.
    pub(super) fn counted(&self) -> Extent {
        let mut counted = Extent::default();
        if self.is_closed() {
            return counted;
        }
        let (depot, counts) = (&self.depot, &self.depot.counts);
        all().for_each(|class| counted.add(class, &self.class_stats_of(class)));
        counted.purged_in_slabs = at_least_zero(counts.purged_in_slabs.get());
        (counted.mapping_blocks, counted.mapping_bytes) =
            (depot.mappings.counts.now(), at_least_zero(depot.mappings.bytes()));
        let others = counted.slab_bytes + counted.mapping_bytes + counts.lost.get();
        counted.large_blocks = depot.spans.spans.now().saturating_sub(counted.slabs);
        counted.large = (depot.in_use() as u64).saturating_sub(others);
        let chunks: usize = depot.regions.iter().map(Region::committed_count).sum();
        counted.heap_bytes = (chunks * CHUNK_BYTES) as u64;
        // Last: chunks are only ever added, so what is committed covers those that were counted.
        counted.committed = self.committed(Region::committed_count, counted.mapping_bytes as usize) as u64;
        counted
    }

    /// The figures of a heap of which that much is there.
    pub(super) fn composed(&self, extent: &Extent) -> Stats {
        let depot = &self.depot;
        let mut stats = Stats {
            mapped: depot.os.mapped() as u64,
            dirty: depot.dirty_bytes() as u64,
            held: depot.budget.held() as u64,
            held_peak: depot.held_peak() as u64,
            os_calls: depot.os.calls(),
            purges: depot.os.purges(),
            purged: depot.os.purged(),
            threads: self.registry.in_use() as u64,
            ..Stats::default()
        };
        if self.is_closed() {
            return stats;
        }
        stats.steals = depot.counts.steals.get();
        for counts in self.registry.caches().map(ThreadCache::counts) {
            stats.refills += counts.refills;
            stats.flushes += counts.flushes;
            stats.slow_calls += counts.slow_calls;
        }
        stats.slabs = extent.slabs;
        stats.cached = extent.cached_bytes;
        stats.unusable = extent.unusable;
        stats.allocations = extent.allocations + depot.large_made() + depot.mappings.counts.made.get();
        stats.large_blocks = extent.large_blocks + extent.mapping_blocks;
        stats.large = extent.large + extent.mapping_bytes;
        // Blocks in caches are not free in their slabs.
        stats.live = extent.block_bytes.saturating_sub(extent.cached_bytes) + stats.large;
        let free_spans = extent.heap_bytes.saturating_sub(extent.slab_bytes + extent.large);
        stats.free = extent.room_bytes.saturating_sub(extent.block_bytes) + free_spans;
        stats.free_blocks = extent.rooms.saturating_sub(extent.blocks) + u64::from(free_spans != 0);
        let purged = if depot.settings.keeps_huge_pages_whole() { 0 } else { extent.purged_in_slabs };
        stats.resident = stats.dirty + extent.slab_bytes.saturating_sub(purged) + stats.large;
        stats.committed = extent.committed;
        stats.metadata = stats.committed.saturating_sub(extent.heap_bytes + extent.mapping_bytes);
        stats
    }

    /// Bytes of all that is mapped for blocks and metadata, and that `release` would unmap; `chunks_of` says how many chunks of
    /// a region are committed.
    pub(super) fn committed(&self, chunks_of: impl Fn(&Region) -> usize, mapping_bytes: usize) -> usize {
        let depot = &self.depot;
        let regions: usize = depot.regions.iter().map(|region| region.committed(chunks_of(region))).sum();
        let tables = depot.mappings.table_bytes() + depot.groups.bytes();
        regions + mapping_bytes + tables + depot.magazines.committed() + self.registry.committed()
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
