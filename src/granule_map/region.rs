//! A region: one reservation of address space, metadata first.
//!
//! ```text
//! # Layout      of a region of n chunks, each part committed when it is needed:
//! ```
//!
//! ```text
//! | chunk groups (n / 64), backwards | header | granule uses (64 n) | chunk metadata (n) | ... | heap: n chunks     |
//! | the first 16 groups and their granules' uses at once, others when | with its chunk           | with its chunk,    |
//! | a search reaches them: both ends of one range                     |                          | aligned            |
//! ```
//!
//! ```text
//! # Pages       the first group, the header and the uses of the first granules share a page of 4 KiB: a small process
//!               has no other of these
//! # Invariants  I1: the header is committed before the region is published; a chunk group before it is looked at:
//!                   whoever names a group has seen `commit_groups` succeed for it, or holds a span in it.
//!               I2: a chunk whose bit in `ChunkGroup::committed` is set has its metadata and memory committed.
//! # Ordering    COMMIT-CHUNK: setting the bit (Release) -> seeing it (Acquire)
//! # Progress    lock-free: two threads may both commit a chunk; both is harmless
//! ```

use crate::chunk_group::huge::Huge;
use crate::chunk_group::partial_set::PartialSet;
use crate::chunk_group::span_map::SpanMap;
use crate::chunk_group::unpurged::Unpurged;
use crate::config::{
    ANNEX_BYTES, CHUNK_BYTES, CHUNK_GRANULES, COMMIT_CHUNKS, GRANULE_BYTES, GRANULE_SHIFT, GROUP_CHUNKS,
    HUGE_PAGE_BYTES, HUGE_PAGE_OF_SHIFT, REGION_BYTES_PREFERRED,
};
use crate::meta::Commit;
use crate::options::HugePages;
use crate::os::Os;
use crate::size_class::CLASS_COUNT;
use crate::slab::{ChunkMeta, GranuleUse, Slab, UseCell};
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::sys::{HugeAdvice, Pages};
use crate::units::GranuleIndex;
use core::ops::Range;
use core::ptr::NonNull;

/// The dense part of the metadata of 64 chunks.
#[repr(C)]
pub struct ChunkGroup {
    /// Which granules are in use.
    pub spans: SpanMap,
    /// Partial slabs that no owner holds.
    pub partial: PartialSet<CLASS_COUNT>,
    /// Chunks that a purge must look at.
    pub unpurged: Unpurged,
    /// Chunks in huge pages that were asked for, or for which they still are.
    pub huge: Huge,
    /// Chunks whose metadata and memory are committed (I2).
    committed: AtomicU64,
}

/// One reservation. Lives inside it, between the groups and the uses.
#[repr(C)]
pub struct Region {
    /// First byte of the region.
    start: NonNull<u8>,
    /// Its bytes.
    bytes: usize,
    /// Bytes in front of it that belong to the same reservation: the annex.
    annex: usize,
    /// First byte of the heap, aligned to `HEAP_ALIGN`.
    heap: NonNull<u8>,
    /// Chunks of the heap.
    chunks: usize,
    /// Number of the region in its heap's list.
    number: usize,
    /// log2 of an OS page in bytes.
    page_shift: u32,
    /// First byte of the granule uses.
    uses: NonNull<u8>,
    /// How much of groups, header and uses is committed (I1).
    dense: Commit,
    /// Bytes of heap of the groups up to the last with a committed chunk: as far as a search must go.
    bytes_used: AtomicUsize,
}

/// Alignment of the heap: chunks, and huge pages, are where they can be told by their numbers.
const HEAP_ALIGN: usize = if CHUNK_BYTES > HUGE_PAGE_BYTES { CHUNK_BYTES } else { HUGE_PAGE_BYTES };

/// Bytes kept for the header.
const HEADER_BYTES: usize = 256;

/// Where the uses begin, behind a page of any size: the first group and the header just fit before, and the uses of a
/// small process's granules behind, in the smallest page there is.
const USES_IN_PAGE: usize = 4096 - 256;

const _: () = assert!(size_of::<Region>() <= HEADER_BYTES);
const _: () = assert!(dense_bytes(1) <= USES_IN_PAGE);
const _: () = assert!(align_of::<Region>() <= 16 && USES_IN_PAGE.is_multiple_of(16) && HEADER_BYTES.is_multiple_of(16));
const _: () =
    assert!(align_of::<ChunkGroup>() <= 16 && size_of::<ChunkGroup>().is_multiple_of(align_of::<ChunkGroup>()));

/// Groups that are committed at a time: 1 GiB of heap, or 4, for 128 KiB.
const GROUPS_STEP: usize = 16;

/// Bytes of the header and the first `groups` chunk groups.
const fn dense_bytes(groups: usize) -> usize {
    HEADER_BYTES + groups * size_of::<ChunkGroup>()
}

const fn groups(chunks: usize) -> usize {
    chunks.div_ceil(GROUP_CHUNKS)
}

/// Offset of the granule uses: behind the groups and the header.
const fn uses_offset(chunks: usize) -> usize {
    dense_bytes(groups(chunks)).saturating_sub(USES_IN_PAGE).next_multiple_of(GRANULE_BYTES) + USES_IN_PAGE
}

/// Offsets of the first `ready` groups, the header, and the uses of these groups' granules, to whole OS pages of any
/// size.
const fn dense_range(chunks: usize, ready: usize) -> (usize, usize) {
    let uses = uses_offset(chunks);
    let end = uses + ready * GROUP_CHUNKS * CHUNK_GRANULES * size_of::<UseCell>();
    ((uses - dense_bytes(ready)) & !(GRANULE_BYTES - 1), end.next_multiple_of(GRANULE_BYTES))
}

/// Offset of the chunk metadata: behind the uses, aligned to the largest OS page.
const fn chunk_meta_offset(chunks: usize) -> usize {
    dense_range(chunks, groups(chunks)).1
}

/// Bytes of all metadata of a region.
const fn meta_bytes(chunks: usize) -> usize {
    (chunk_meta_offset(chunks) + chunks * size_of::<ChunkMeta>()).next_multiple_of(GRANULE_BYTES)
}

/// Bytes to reserve for `chunks`, so that the heap can be aligned.
const fn reservation_bytes(chunks: usize) -> usize {
    meta_bytes(chunks) + chunks * CHUNK_BYTES + HEAP_ALIGN
}

/// Space in front of a region; only where address space is plentiful, and a region has the preferred size.
const fn annex_bytes(chunks: usize, number: usize) -> usize {
    if number == 0 && chunks * CHUNK_BYTES == REGION_BYTES_PREFERRED { ANNEX_BYTES } else { 0 }
}

/// What the kernel is advised about chunks when they are committed.
pub fn advice_at_commit(huge_pages: HugePages) -> Option<HugeAdvice> {
    match huge_pages {
        // A small heap, too, or a system that makes huge pages unasked gives it memory that nobody counts.
        HugePages::Auto | HugePages::Never => Some(HugeAdvice::Never),
        // As spans are claimed, see `depot::huge_pages`.
        HugePages::System | HugePages::Always => None,
    }
}

impl Region {
    /// Reserves a region of `chunks`, which lives until `release`.
    pub fn reserve<P: Pages>(os: &Os<P>, chunks: usize, number: usize) -> Option<NonNull<Region>> {
        let (bytes, annex) = (reservation_bytes(chunks), annex_bytes(chunks, number));
        let reserved = os.reserve(annex + bytes)?;
        // SAFETY: the reservation has so many bytes, and others.
        let start = unsafe { reserved.add(annex) };
        let (dense, dense_end) = dense_range(chunks, GROUPS_STEP.min(groups(chunks)));
        // SAFETY: the reservation is ours and longer than its metadata.
        let first_page = unsafe { start.add(dense) };
        // SAFETY: likewise.
        if !unsafe { os.commit(first_page, dense_end - dense) } {
            // SAFETY: the whole of our reservation, which nobody knows.
            unsafe { os.release(reserved, annex + bytes) };
            return None;
        }
        let unaligned = start.addr().get() + meta_bytes(chunks);
        let heap_offset = unaligned.next_multiple_of(HEAP_ALIGN) - start.addr().get();
        // SAFETY: `reservation_bytes` left room for the alignment.
        let heap = unsafe { start.add(heap_offset) };
        // SAFETY: within the metadata.
        let uses = unsafe { start.add(uses_offset(chunks)) };
        // SAFETY: the header lies before the uses.
        let header = unsafe { uses.sub(HEADER_BYTES) }.cast::<Region>();
        // SAFETY: the header is committed, aligned (see above), and nobody else's.
        unsafe {
            header.write(Region {
                start,
                bytes,
                annex,
                heap,
                chunks,
                number,
                page_shift: os.page_bytes().trailing_zeros(),
                uses,
                dense: Commit::from(dense_end - dense),
                bytes_used: AtomicUsize::new(0),
            });
        };
        Some(header)
    }

    /// Gives the region back, itself included.
    ///
    /// # Safety
    /// Nobody uses the region or any block of it, now or later.
    pub unsafe fn release<P: Pages>(region: NonNull<Region>, os: &Os<P>) {
        // SAFETY: the header is readable until the next line.
        let &Region { bytes, annex, .. } = unsafe { region.as_ref() };
        // SAFETY: likewise.
        let (reserved, _) = unsafe { region.as_ref() }.annex();
        // SAFETY: the whole reservation, by the caller's promise unused.
        unsafe { os.release(reserved, annex + bytes) };
    }

    /// The space in front of the region, which nobody uses so far, and its bytes.
    pub fn annex(&self) -> (NonNull<u8>, usize) {
        // SAFETY: the reservation begins with it.
        (unsafe { self.start.sub(self.annex) }, self.annex)
    }

    /// Number of the region in its heap's list.
    #[inline]
    pub fn number(&self) -> usize {
        self.number
    }

    /// log2 of an OS page in bytes.
    #[inline]
    pub fn page_shift(&self) -> u32 {
        self.page_shift
    }

    /// Are there huge pages of `HUGE_PAGE_BYTES`? Those of larger OS pages are larger.
    pub fn has_huge_pages(&self) -> bool {
        self.page_shift == HUGE_PAGE_OF_SHIFT
    }

    /// All OS pages of a granule, as bits.
    pub fn granule_pages(&self) -> u16 {
        ((1u32 << (1u32 << (GRANULE_SHIFT - self.page_shift))) - 1) as u16
    }

    /// Chunks of the heap.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Chunk groups.
    pub fn groups(&self) -> usize {
        groups(self.chunks)
    }

    /// Sees to it that the groups before number `groups` can be looked at. `false`: refused.
    #[must_use]
    pub fn commit_groups<P: Pages>(&self, os: &Os<P>, groups: usize) -> bool {
        let groups = groups.next_multiple_of(GROUPS_STEP).min(self.groups());
        let (from, end) = dense_range(self.chunks, groups);
        // All of it, so that a commit announced by another thread needs no trust: it is idempotent.
        self.dense.ensure(end - from, |_, bytes| {
            // SAFETY: in our reservation.
            let start = unsafe { self.start.add(from) };
            // SAFETY: in our reservation, and used for nothing else.
            unsafe { os.commit(start, bytes) }
        })
    }

    /// Where the granule uses begin.
    #[inline(always)]
    pub fn uses_start(&self) -> NonNull<u8> {
        self.uses
    }

    /// Where the heap begins.
    pub fn heap_start(&self) -> NonNull<u8> {
        self.heap
    }

    /// Bytes of heap of the groups up to the last with a committed chunk, at some moment.
    #[inline(always)]
    pub fn bytes_used(&self) -> usize {
        // ordering: Relaxed, a bound for searches; one that comes too early finds less. Whoever has a block knows
        // of its chunk already.
        self.bytes_used.load(Ordering::Relaxed)
    }

    /// Chunk groups up to the last with a committed chunk, at some moment.
    #[inline]
    pub fn groups_used(&self) -> usize {
        groups(self.bytes_used() / CHUNK_BYTES)
    }

    /// The committed chunks, at some moment.
    pub fn committed_chunks(&self) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.bytes_used() / CHUNK_BYTES).filter(|&chunk| self.is_committed(chunk))
    }

    /// Chunks of group `group`: all but the last have `GROUP_CHUNKS`.
    pub fn chunks_in(&self, group: usize) -> usize {
        (self.chunks - group * GROUP_CHUNKS).min(GROUP_CHUNKS)
    }

    /// The dense metadata of group `group`.
    #[inline]
    pub fn group(&self, group: usize) -> &ChunkGroup {
        debug_assert!(group < self.groups());
        // SAFETY: the header lies before the uses.
        let header = unsafe { self.uses.sub(HEADER_BYTES) }.cast::<ChunkGroup>();
        // SAFETY: the groups lie before the header, the first one last; `group` is one of them.
        let group = unsafe { header.sub(group + 1) };
        // SAFETY: I1: committed; zeroed memory is a valid group, and all of it is atomics.
        unsafe { group.as_ref() }
    }

    #[inline]
    fn chunk_meta_start(&self, chunk: usize) -> NonNull<ChunkMeta> {
        debug_assert!(chunk < self.chunks);
        // SAFETY: the chunk metadata lies behind the uses.
        let metas = unsafe { self.start.add(chunk_meta_offset(self.chunks)) }.cast::<ChunkMeta>();
        // SAFETY: one for each chunk.
        unsafe { metas.add(chunk) }
    }

    /// The metadata of a chunk's slabs. The caller knows the chunk to be committed: it holds a span of it, or saw
    /// the bit.
    #[inline]
    pub fn chunk_meta(&self, chunk: usize) -> &ChunkMeta {
        // SAFETY: I2; zeroed memory is valid metadata, and all of it is atomics.
        unsafe { self.chunk_meta_start(chunk).as_ref() }
    }

    /// The whole OS pages of a chunk's metadata: those that it shares with its neighbours are left out.
    pub fn chunk_meta_pages(&self, chunk: usize) -> (NonNull<u8>, usize) {
        let start = self.chunk_meta_start(chunk).cast::<u8>();
        let page = 1 << self.page_shift;
        let from = start.align_offset(page).min(size_of::<ChunkMeta>());
        let end = (start.addr().get() + size_of::<ChunkMeta>()) & !(page - 1);
        // SAFETY: `from` is within the metadata.
        let first = unsafe { start.add(from) };
        (first, end.saturating_sub(first.addr().get()))
    }

    /// Is the chunk committed?
    pub fn is_committed(&self, chunk: usize) -> bool {
        // ordering: Acquire [COMMIT-CHUNK] pairs with Release in `commit`.
        self.group(chunk / GROUP_CHUNKS).committed.load(Ordering::Acquire) >> (chunk % GROUP_CHUNKS) & 1 != 0
    }

    /// Commits those chunks that are not, and their neighbours up to whole steps, backed by huge pages as `huge_pages`
    /// says; with one call for all metadata and one for all memory from the first of them to the last: a refusal leaves
    /// nothing half done. `false`: refused.
    #[must_use]
    pub fn commit<P: Pages>(&self, os: &Os<P>, chunks: Range<usize>, huge_pages: HugePages) -> bool {
        let Some(first) = chunks.clone().find(|&chunk| !self.is_committed(chunk)) else { return true };
        let last = chunks.rev().find(|&chunk| !self.is_committed(chunk)).map_or(first, |last| last);
        let first = first - first % COMMIT_CHUNKS;
        let end = (last + 1).next_multiple_of(COMMIT_CHUNKS).min(self.chunks);
        // A chunk's metadata is not a multiple of 64 KiB pages; the pages it shares with its neighbours may be
        // committed twice, which is harmless.
        let meta = self.chunk_meta_start(first).cast::<u8>();
        let meta_end = meta.addr().get() + (end - first) * size_of::<ChunkMeta>();
        // The reservation starts at an OS page, which may be smaller than a granule: stay inside it.
        let from = (meta.addr().get() & !(GRANULE_BYTES - 1)).max(self.start.addr().get());
        // SAFETY: not null: an address inside the reservation.
        let meta = unsafe { NonNull::new_unchecked(meta.as_ptr().with_addr(from)) };
        // SAFETY: the range lies in our reservation: a chunk of slack lies behind the metadata.
        if !unsafe { os.commit(meta, meta_end.next_multiple_of(GRANULE_BYTES) - from) } {
            return false;
        }
        let start = self.address(GranuleIndex::new(first * CHUNK_GRANULES));
        // SAFETY: the chunks lie in our reservation.
        if !unsafe { os.commit(start, (end - first) * CHUNK_BYTES) } {
            return false;
        }
        if let Some(advice) = advice_at_commit(huge_pages) {
            // SAFETY: the chunks lie in our reservation and are committed.
            unsafe { os.advise(start, (end - first) * CHUNK_BYTES, advice) };
        }
        let used = end.next_multiple_of(GROUP_CHUNKS).min(self.chunks);
        // ordering: Relaxed, see `bytes_used`.
        self.bytes_used.fetch_max(used * CHUNK_BYTES, Ordering::Relaxed);
        for chunk in first..end {
            // ordering: Release [COMMIT-CHUNK] pairs with Acquire in `is_committed`.
            self.group(chunk / GROUP_CHUNKS).committed.fetch_or(1 << (chunk % GROUP_CHUNKS), Ordering::Release);
        }
        true
    }

    /// Bytes committed: the dense metadata, and each committed chunk with its own.
    pub fn committed(&self) -> usize {
        self.dense.bytes() + self.committed_chunks().count() * (CHUNK_BYTES + size_of::<ChunkMeta>())
    }

    /// The first byte of a granule.
    #[inline]
    pub fn address(&self, granule: GranuleIndex) -> NonNull<u8> {
        // SAFETY: the heap has that granule.
        unsafe { self.heap.add(granule.get() << GRANULE_SHIFT) }
    }

    /// The granule that `address` is in, if it is in the used part of this region's heap.
    #[inline(always)]
    pub fn granule_of(&self, address: usize) -> Option<GranuleIndex> {
        let offset = address.wrapping_sub(self.heap.addr().get());
        // Only as far as blocks can be: beyond, not even the groups are committed.
        if offset < self.bytes_used() { Some(GranuleIndex::new(offset >> GRANULE_SHIFT)) } else { None }
    }

    #[inline(always)]
    fn use_cell(&self, granule: GranuleIndex) -> &UseCell {
        debug_assert!(granule.get() < self.bytes_used() >> GRANULE_SHIFT);
        // SAFETY: one for each granule.
        let cell = unsafe { self.uses_start().cast::<UseCell>().add(granule.get()) };
        // SAFETY: I1: committed with the granule's group; all of it is atomics.
        unsafe { cell.as_ref() }
    }

    /// What the granule is used for.
    #[inline]
    pub fn granule_use(&self, granule: GranuleIndex) -> GranuleUse {
        self.use_cell(granule).get()
    }

    /// Says what the granule is used for; only for the holder of its span.
    #[inline]
    pub fn set_granule_use(&self, granule: GranuleIndex, granule_use: GranuleUse) {
        self.use_cell(granule).set(granule_use);
    }

    /// The descriptor of the span that starts at `granule`.
    #[inline]
    pub fn descriptor(&self, granule: GranuleIndex) -> &Slab {
        &self.chunk_meta(granule.chunk()).slabs[granule.in_chunk()]
    }
}
