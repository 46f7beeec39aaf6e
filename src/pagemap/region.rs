//! A region: a place for a heap and its metadata, of which nothing is mapped before it is used.
//!
//! ```text
//! # Layout      of a region of n chunks, each part mapped when it is needed:
//! ```
//!
//! ```text
//! | chunk groups (n / 64), backwards | header | granule uses (64 n) | ... chunk metadata (n), backwards | heap: n chunks |
//! | the first 16 groups and their granules' uses at once, others when |                 with its chunk  | aligned        |
//! | a search reaches them: both ends of one range                     |                                 |                |
//! ```
//!
//! ```text
//! # Pages       the first group, the header and the uses of the first granules share a page of 4 KiB: a small process
//!               has no other of these. The metadata of the first chunks ends where they begin, so that one call maps both
//! # Strangers   the kernel may map others' memory in what is not used yet; it begins at the far end. What a step meets
//!               there ends the region: `limit`
//! # Invariants  I1: the header is mapped before the region is published; a chunk group before it is looked at:
//!                   whoever names a group has seen `commit_groups` succeed for it, or holds a span in it.
//!               I2: a chunk in `ChunkGroup::committed` has its metadata and memory mapped.
//! # Ordering    MAP-ONCE: see `meta`
//! # Progress    as in `meta`
//! # Not here    mapping chunks (see `commit`)
//! ```

use crate::chunk::huge::Huge;
use crate::chunk::partial_set::PartialSet;
use crate::chunk::span_map::SpanMap;
use crate::chunk::unpurged::Unpurged;
use crate::config::{
    CHUNK_BYTES, CHUNK_GRANULES, COMMIT_CHUNKS, GRANULE_BYTES, GRANULE_SHIFT, GROUP_CHUNKS, HUGE_PAGE_OF_SHIFT,
};
use crate::metadata::{Frontier, MappedSet, Missing};
use crate::os::{Os, PLACE_ALIGN};
use crate::size_class::CLASS_COUNT;
use crate::slab::{ChunkMeta, KindByte, KindCell, Slab, SpanKind};
use crate::sync::{AtomicU8, AtomicUsize, Ordering};
use crate::sys::{NotMapped, Pages, platform};
use crate::units::{ClassIndex, GranuleIndex};
use core::ops::Range;
use core::ptr::NonNull;

/// The dense part of the metadata of 64 chunks.
#[repr(C)]
pub struct ChunkGroup {
    /// Which granules are in use.
    pub spans: SpanMap,
    /// Partial slabs that no local heap holds.
    pub partial: PartialSet<CLASS_COUNT>,
    /// Chunks that a purge must look at.
    pub unpurged: Unpurged,
    /// Chunks in huge pages that were asked for, or for which they still are.
    pub huge: Huge,
    /// Chunks whose metadata and memory are mapped (I2), whole steps of them.
    pub(super) committed: MappedSet,
}

/// A region. Lives inside it, between the groups and the uses.
#[repr(C)]
pub struct Region {
    /// First byte of its place.
    start: NonNull<u8>,
    /// First byte of the heap, aligned to `PLACE_ALIGN`.
    heap: NonNull<u8>,
    /// Chunks that there is room for.
    pub(super) chunks: usize,
    /// Number of the region in its heap's list.
    number: usize,
    /// log2 of an OS page in bytes.
    page_shift: u32,
    /// First byte of the granule uses.
    uses: NonNull<u8>,
    /// Groups that are mapped, with their granules' uses (I1).
    pub(super) dense: Frontier,
    /// Chunks that may be claimed: those before the first step that others' memory lies in.
    pub(super) limit: AtomicUsize,
    /// Bytes of heap of the groups up to the last with a committed chunk: as far as a search must go.
    pub(super) bytes_used: AtomicUsize,
    /// Committed chunks: how many.
    pub(super) committed_count: AtomicUsize,
    /// Threads that are committing chunks.
    pub(super) committing: AtomicUsize,
    /// 1 once a granule is somebody else's (`lose`).
    any_lost: AtomicU8,
}

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
const fn kinds_offset(chunks: usize) -> usize {
    dense_bytes(groups(chunks)).saturating_sub(USES_IN_PAGE).next_multiple_of(GRANULE_BYTES) + USES_IN_PAGE
}

/// Offsets of the first `ready` groups, the header, and the uses of these groups' granules, to whole OS pages of any
/// size.
const fn dense_range(chunks: usize, ready: usize) -> (usize, usize) {
    let uses = kinds_offset(chunks);
    let end = uses + ready * GROUP_CHUNKS * CHUNK_GRANULES * size_of::<KindCell>();
    ((uses - dense_bytes(ready)) & !(GRANULE_BYTES - 1), end.next_multiple_of(GRANULE_BYTES))
}

/// Bytes from the metadata of one chunk to that of the next: that of a step is whole granules, and so whole OS pages.
pub(super) const META_STRIDE: usize = {
    let bytes = size_of::<ChunkMeta>();
    if (bytes * COMMIT_CHUNKS).is_multiple_of(GRANULE_BYTES) { bytes } else { bytes.next_multiple_of(GRANULE_BYTES) }
};

/// Offset of the heap: behind all metadata.
const fn heap_offset(chunks: usize) -> usize {
    (dense_range(chunks, groups(chunks)).1 + chunks * META_STRIDE).next_multiple_of(PLACE_ALIGN)
}

impl Region {
    /// Bytes of a place for a region of `chunks`.
    pub const fn place_bytes(chunks: usize) -> usize {
        heap_offset(chunks) + chunks * CHUNK_BYTES
    }

    /// Begins a region of `chunks` in a place for it; it lives until `release`.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn begin<P: Pages>(
        os: &Os<P>,
        start: NonNull<u8>,
        chunks: usize,
        number: usize,
    ) -> Result<NonNull<Region>, NotMapped> {
        let ready = GROUPS_STEP.min(groups(chunks));
        let (dense, dense_end) = dense_range(chunks, ready);
        // SAFETY: within the place.
        os.commit(unsafe { start.add(dense) }, dense_end - dense)?;
        // SAFETY: within the place.
        let heap = unsafe { start.add(heap_offset(chunks)) };
        // SAFETY: within the metadata.
        let uses = unsafe { start.add(kinds_offset(chunks)) };
        // SAFETY: the header lies before the uses.
        let header = unsafe { uses.sub(HEADER_BYTES) }.cast::<Region>();
        // SAFETY: the header is mapped, aligned (see above), and nobody else's.
        unsafe {
            header.write(Region {
                start,
                heap,
                chunks,
                number,
                page_shift: os.page_bytes().trailing_zeros(),
                uses,
                dense: Frontier::from(ready),
                limit: AtomicUsize::new(chunks),
                bytes_used: AtomicUsize::new(0),
                committed_count: AtomicUsize::new(0),
                committing: AtomicUsize::new(0),
                any_lost: AtomicU8::new(0),
            });
        };
        Ok(header)
    }

    /// Its place, and the bytes of that.
    pub fn place(&self) -> (NonNull<u8>, usize) {
        (self.start, Self::place_bytes(self.chunks))
    }

    /// Unmaps what is mapped of the region, itself and its place included; if chunks with spans in use are to stay, only what is not
    /// theirs. What is lost stays in any case: it is not ours.
    ///
    /// # Safety
    /// Nobody uses the region, or any block that goes, now or later.
    pub unsafe fn release<P: Pages>(region: NonNull<Region>, os: &Os<P>, also_live: bool) {
        // SAFETY: readable until the last of it is uncommitted.
        let region = unsafe { region.as_ref() };
        let (start, bytes) = region.place();
        let goes = |chunk: &usize| also_live || region.is_unused(*chunk);
        let mut chunks = region.committed_chunks().filter(goes).peekable();
        let mut gone = 0;
        while let Some(first) = chunks.next() {
            let mut end = first + 1;
            while chunks.next_if_eq(&end).is_some() {
                end += 1;
            }
            gone += end - first;
            let (meta, meta_bytes) = (region.chunk_meta_start(end - 1).cast(), (end - first) * META_STRIDE);
            if first == 0 && !region.has_lost() {
                // SAFETY: I2, and the caller's promise. The heap of the chunks begins where their metadata ends.
                unsafe { os.uncommit(meta, meta_bytes + end * CHUNK_BYTES) };
                continue;
            }
            for run in region.runs_not_lost(first * CHUNK_GRANULES..end * CHUNK_GRANULES) {
                // SAFETY: I2, and the caller's promise.
                unsafe { os.uncommit(region.address(GranuleIndex::new(run.start)), run.len() * GRANULE_BYTES) };
            }
            // SAFETY: likewise.
            unsafe { os.uncommit(meta, meta_bytes) };
        }
        if gone == region.committed_chunks().count() {
            let (from, end) = dense_range(region.chunks, region.dense.end());
            // SAFETY: within the place.
            let dense = unsafe { region.start.add(from) };
            // SAFETY: all that was mapped there; by the caller's promise unused.
            unsafe { os.uncommit(dense, end - from) };
            // SAFETY: `begin` was given it; that was the last of it.
            unsafe { os.unplace(start, bytes) };
        }
    }

    /// Notes that the memory of a granule, which the caller has claimed and will not free, is somebody else's by now.
    pub fn lose(&self, granule: GranuleIndex) {
        self.descriptor(granule).set_lost();
        // ordering: Relaxed; read when no other thread is left.
        self.any_lost.store(1, Ordering::Relaxed);
    }

    fn has_lost(&self) -> bool {
        // ordering: Relaxed, as in `lose`.
        self.any_lost.load(Ordering::Relaxed) != 0
    }

    /// Runs of those of the granules `among`, of committed chunks, that are not lost.
    fn runs_not_lost(&self, among: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let has_lost = self.has_lost();
        let is_lost = move |granule: usize| has_lost && self.descriptor(GranuleIndex::new(granule)).is_lost();
        let (mut next, end) = (among.start, among.end);
        core::iter::from_fn(move || {
            let first = (next..end).find(|&granule| !is_lost(granule))?;
            next = if has_lost { (first..end).find(|&granule| is_lost(granule)).unwrap_or(end) } else { end };
            Some(first..next)
        })
    }

    /// Has the chunk no span in use, at some moment?
    pub fn is_unused(&self, chunk: usize) -> bool {
        self.group(chunk / GROUP_CHUNKS).spans.busy(chunk % GROUP_CHUNKS) == 0
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

    /// Chunks of the heap that may be claimed, at some moment.
    pub fn chunks(&self) -> usize {
        // ordering: Relaxed, a bound for searches; nothing is published with it.
        self.limit.load(Ordering::Relaxed)
    }

    /// Chunks that the region has room for, also where others' memory has ended it before: some of those behind may be
    /// committed, and in use.
    pub fn chunks_ever(&self) -> usize {
        self.chunks
    }

    /// Chunk groups that the chunks that may be claimed are in.
    pub fn groups(&self) -> usize {
        groups(self.chunks())
    }

    /// Others' memory lies in, or behind, the step of chunk `chunk`: from there on the region is not used.
    pub(super) fn end_at(&self, chunk: usize) {
        // ordering: Relaxed, as in `chunks`.
        self.limit.fetch_min(chunk, Ordering::Relaxed);
    }

    /// Sees to it that the groups before number `groups` can be looked at. `false`: they cannot.
    #[must_use]
    pub fn commit_groups<P: Pages>(&self, os: &Os<P>, groups: usize) -> bool {
        if groups <= self.dense.end() {
            return true;
        }
        let groups = groups.next_multiple_of(GROUPS_STEP).min(self::groups(self.chunks));
        let ensure = || self.dense.ensure(groups, |from, to| self.map_groups(os, from, to));
        let outcome = match ensure() {
            Err(Missing::Busy) => {
                platform::wait_briefly(|| !self.dense.is_busy());
                ensure()
            }
            done => done,
        };
        if outcome == Err(Missing::Not(NotMapped::Taken)) {
            self.end_at(self.dense.end() * GROUP_CHUNKS);
        }
        outcome.is_ok()
    }

    /// Maps the groups from number `from` to `to`, and the uses of their granules: both or none.
    fn map_groups<P: Pages>(&self, os: &Os<P>, from: usize, to: usize) -> Result<(), NotMapped> {
        let ((old, old_end), (new, new_end)) = (dense_range(self.chunks, from), dense_range(self.chunks, to));
        // SAFETY: both are within the place.
        let (groups, uses) = unsafe { (self.start.add(new), self.start.add(old_end)) };
        os.commit(groups, old - new)?;
        os.commit(uses, new_end - old_end).inspect_err(|_| {
            // SAFETY: mapped just now, and not announced.
            unsafe { os.uncommit(groups, old - new) };
        })
    }

    /// Where the granule uses begin.
    #[inline(always)]
    pub fn kinds_start(&self) -> NonNull<u8> {
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

    /// Chunks of group `group` that may be claimed: all but the last have `GROUP_CHUNKS`.
    pub fn chunks_in(&self, group: usize) -> usize {
        self.chunks().saturating_sub(group * GROUP_CHUNKS).min(GROUP_CHUNKS)
    }

    /// The dense metadata of group `group`.
    #[inline]
    pub fn group(&self, group: usize) -> &ChunkGroup {
        debug_assert!(group < self.dense.end());
        #[cfg(test)]
        crate::summary::steps::step();
        // SAFETY: the header lies before the uses.
        let header = unsafe { self.uses.sub(HEADER_BYTES) }.cast::<ChunkGroup>();
        // SAFETY: the groups lie before the header, the first one last; `group` is one of them.
        let group = unsafe { header.sub(group + 1) };
        // SAFETY: I1: committed; zeroed memory is a valid group, and all of it is atomics.
        unsafe { group.as_ref() }
    }

    #[inline]
    pub(super) fn chunk_meta_start(&self, chunk: usize) -> NonNull<ChunkMeta> {
        debug_assert!(chunk < self.chunks);
        // SAFETY: the chunk metadata lies before the heap, the first chunk's last.
        unsafe { self.heap.byte_sub((chunk + 1) * META_STRIDE) }.cast()
    }

    pub(super) fn chunk_start(&self, chunk: usize) -> NonNull<u8> {
        self.address(GranuleIndex::new(chunk * CHUNK_GRANULES))
    }

    /// The metadata of a chunk's slabs. The caller knows the chunk to be committed: it holds a span of it, or saw
    /// the bit.
    #[inline]
    pub fn chunk_meta(&self, chunk: usize) -> &ChunkMeta {
        // SAFETY: I2; zeroed memory is valid metadata, and all of it is atomics.
        unsafe { self.chunk_meta_start(chunk).as_ref() }
    }

    /// The whole OS pages of the metadata of chunks: those that it shares with others' are left out.
    pub fn chunk_meta_pages(&self, chunks: Range<usize>) -> (NonNull<u8>, usize) {
        let (one, other) = (self.chunk_meta_start(chunks.start), self.chunk_meta_start(chunks.end - 1));
        let (start, last) = if one < other { (one.cast::<u8>(), other) } else { (other.cast::<u8>(), one) };
        let page = 1 << self.page_shift;
        let from = start.align_offset(page).min(size_of::<ChunkMeta>());
        let end = (last.addr().get() + size_of::<ChunkMeta>()) & !(page - 1);
        // SAFETY: `from` is within the metadata.
        let first = unsafe { start.add(from) };
        (first, end.saturating_sub(first.addr().get()))
    }

    /// Is the chunk committed?
    pub fn is_committed(&self, chunk: usize) -> bool {
        self.committed_in(chunk).mapped() >> (chunk % GROUP_CHUNKS) & 1 != 0
    }

    /// How many chunks are committed, at some moment; no walk.
    pub fn committed_count(&self) -> usize {
        // ordering: Relaxed, a statistic.
        self.committed_count.load(Ordering::Relaxed)
    }

    /// Bytes committed, where so many chunks are: the dense metadata, and each chunk with its own.
    pub fn committed(&self, chunks: usize) -> usize {
        let (from, end) = dense_range(self.chunks, self.dense.end());
        end - from + chunks * (CHUNK_BYTES + META_STRIDE)
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
    fn kind_cell(&self, granule: GranuleIndex) -> &KindCell {
        debug_assert!(granule.get() < self.bytes_used() >> GRANULE_SHIFT);
        // SAFETY: one for each granule.
        let cell = unsafe { self.kinds_start().cast::<KindCell>().add(granule.get()) };
        // SAFETY: I1: committed with the granule's group; all of it is atomics.
        unsafe { cell.as_ref() }
    }

    /// What the granule is used for.
    #[inline]
    pub fn span_kind(&self, granule: GranuleIndex) -> SpanKind {
        self.kind_cell(granule).get()
    }

    /// Is the granule part of a slab of `class`?
    #[inline]
    pub fn is_slab_of(&self, granule: GranuleIndex, class: ClassIndex) -> bool {
        self.kind_cell(granule).byte().get() == KindByte::of(class).get()
    }

    /// Says what the granule is used for; only for the holder of its span.
    #[inline]
    pub fn set_span_kind(&self, granule: GranuleIndex, span_kind: SpanKind) {
        self.kind_cell(granule).set(span_kind);
    }

    /// Takes the large block that begins at `granule`; see `KindCell::take_large`.
    #[must_use]
    pub fn take_large(&self, granule: GranuleIndex) -> bool {
        self.kind_cell(granule).take_large()
    }

    /// The descriptor of the span that starts at `granule`.
    #[inline]
    pub fn descriptor(&self, granule: GranuleIndex) -> &Slab {
        &self.chunk_meta(granule.chunk()).slabs[granule.in_chunk()]
    }
}
