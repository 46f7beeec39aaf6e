//! A region: one reservation of address space, metadata first.
//!
//! ```text
//! # Layout      of a region of n chunks, each part committed when it is needed:
//! ```
//!
//! ```text
//! | header  | chunk groups (n / 64)  granule uses (64 n) | chunk metadata (n) | ... | heap: n chunks, aligned |
//! | at once | when a search reaches them                  | with its chunk           | with its chunk          |
//! ```
//!
//! ```text
//! # Invariants  I1: the header is committed before the region is published; a chunk group before it is looked at:
//!                   whoever names a group has seen `commit_groups` succeed for it, or holds a span in it.
//!               I2: a chunk whose bit in `ChunkGroup::committed` is set has its metadata and memory committed.
//! # Ordering    COMMIT-CHUNK: setting the bit (Release) -> seeing it (Acquire)
//! # Progress    lock-free: two threads may both commit a chunk; both is harmless
//! ```

use crate::chunk_group::partial_set::PartialSet;
use crate::chunk_group::span_map::SpanMap;
use crate::chunk_group::unpurged::Unpurged;
use crate::config::{CHUNK_BYTES, CHUNK_GRANULES, GRANULE_BYTES, GRANULE_SHIFT, GROUP_CHUNKS};
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
    /// Chunks whose metadata and memory are committed (I2).
    committed: AtomicU64,
}

/// One reservation. Lives at its own start.
#[repr(C)]
pub struct Region {
    /// First byte of the reservation.
    start: NonNull<u8>,
    /// Its bytes.
    bytes: usize,
    /// First byte of the heap, aligned to a chunk.
    heap: NonNull<u8>,
    /// Chunks of the heap.
    chunks: usize,
    /// Number of the region in its heap's list.
    number: usize,
    /// log2 of an OS page in bytes.
    page_shift: u32,
    /// How much of the header and the chunk groups is committed (I1).
    dense: Commit,
    /// How much of the granule uses is committed (I1).
    uses: Commit,
    /// Bytes of heap of the groups up to the last with a committed chunk: as far as a search must go.
    bytes_used: AtomicUsize,
}

/// Bytes kept for the header: the largest OS page, so that what follows is page-aligned.
const HEADER_BYTES: usize = GRANULE_BYTES;

const _: () = assert!(size_of::<Region>() <= HEADER_BYTES);
const _: () = assert!(align_of::<ChunkGroup>() <= HEADER_BYTES);

/// Groups that are committed at a time: 4 GiB of heap, for 100 KiB.
const GROUPS_STEP: usize = 16;

/// End of the first `groups` chunk groups, at an OS page of any size.
const fn dense_end(groups: usize) -> usize {
    (HEADER_BYTES + groups * size_of::<ChunkGroup>()).next_multiple_of(GRANULE_BYTES)
}

const fn groups(chunks: usize) -> usize {
    chunks.div_ceil(GROUP_CHUNKS)
}

/// Offset of the granule uses: behind the groups, aligned to the largest OS page.
const fn uses_offset(chunks: usize) -> usize {
    dense_end(groups(chunks))
}

/// Bytes of the uses of the granules in the first `groups` chunk groups, up to an OS page of any size.
const fn uses_bytes(groups: usize) -> usize {
    (groups * GROUP_CHUNKS * CHUNK_GRANULES * size_of::<UseCell>()).next_multiple_of(GRANULE_BYTES)
}

/// Offset of the chunk metadata: behind the uses, aligned to the largest OS page.
const fn chunk_meta_offset(chunks: usize) -> usize {
    uses_offset(chunks) + uses_bytes(groups(chunks))
}

/// Bytes of all metadata of a region.
const fn meta_bytes(chunks: usize) -> usize {
    (chunk_meta_offset(chunks) + chunks * size_of::<ChunkMeta>()).next_multiple_of(GRANULE_BYTES)
}

/// Bytes to reserve for `chunks`, so that the heap can be aligned.
const fn reservation_bytes(chunks: usize) -> usize {
    meta_bytes(chunks) + (chunks + 1) * CHUNK_BYTES
}

impl Region {
    /// Reserves a region of `chunks`, which lives until `release`.
    pub fn reserve<P: Pages>(os: &Os<P>, chunks: usize, number: usize) -> Option<NonNull<Region>> {
        let bytes = reservation_bytes(chunks);
        let start = os.reserve(bytes)?;
        // SAFETY: the reservation is ours and longer than its metadata.
        if !unsafe { os.commit(start, HEADER_BYTES) } {
            // SAFETY: the whole of our reservation, which nobody knows.
            unsafe { os.release(start, bytes) };
            return None;
        }
        let unaligned = start.addr().get() + meta_bytes(chunks);
        let heap_offset = unaligned.next_multiple_of(CHUNK_BYTES) - start.addr().get();
        // SAFETY: `reservation_bytes` left room for the alignment.
        let heap = unsafe { start.add(heap_offset) };
        let header = start.cast::<Region>();
        // SAFETY: the header is committed, aligned to a page, and nobody else's.
        unsafe {
            header.write(Region {
                start,
                bytes,
                heap,
                chunks,
                number,
                page_shift: os.page_bytes().trailing_zeros(),
                dense: Commit::new(),
                uses: Commit::new(),
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
        let &Region { start, bytes, .. } = unsafe { region.as_ref() };
        // SAFETY: the whole reservation, by the caller's promise unused.
        unsafe { os.release(start, bytes) };
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
        // From the start, so that a commit announced by another thread needs no trust: it is idempotent.
        self.dense.ensure(dense_end(groups), |_, end| {
            // SAFETY: in our reservation, and used for nothing else.
            unsafe { os.commit(self.start, end) }
        }) && self.uses.ensure(uses_bytes(groups), |_, bytes| {
            // SAFETY: likewise.
            unsafe { os.commit(self.uses_start(), bytes) }
        })
    }

    /// Where the granule uses begin.
    pub fn uses_start(&self) -> NonNull<u8> {
        // SAFETY: they lie behind the groups.
        unsafe { self.start.add(uses_offset(self.chunks)) }
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
        // SAFETY: the groups lie behind the header.
        let groups = unsafe { self.start.add(HEADER_BYTES) }.cast::<ChunkGroup>();
        // SAFETY: as above; `group` is one of them.
        let group = unsafe { groups.add(group) };
        // SAFETY: I1: committed; zeroed memory is a valid group, and all of it is atomics.
        unsafe { group.as_ref() }
    }

    #[inline]
    fn chunk_meta_start(&self, chunk: usize) -> NonNull<ChunkMeta> {
        debug_assert!(chunk < self.chunks);
        // SAFETY: the chunk metadata lies behind the groups.
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

    /// Commits those chunks that are not, backed by huge pages as `huge_pages` says; with one call for all metadata and
    /// one for all memory from the first of them to the last: a refusal leaves nothing half done. `false`: refused.
    #[must_use]
    pub fn commit<P: Pages>(&self, os: &Os<P>, chunks: Range<usize>, huge_pages: HugePages) -> bool {
        let Some(first) = chunks.clone().find(|&chunk| !self.is_committed(chunk)) else { return true };
        let end = chunks.rev().find(|&chunk| !self.is_committed(chunk)).map_or(first, |last| last) + 1;
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
        let advice = match huge_pages {
            HugePages::System => None,
            HugePages::Never => Some(HugeAdvice::Never),
            HugePages::Always => Some(HugeAdvice::Always),
        };
        if let Some(advice) = advice {
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
        self.dense.bytes().max(HEADER_BYTES)
            + self.uses.bytes()
            + self.committed_chunks().count() * (CHUNK_BYTES + size_of::<ChunkMeta>())
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
