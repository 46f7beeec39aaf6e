//! From an address to the slab or large block it belongs to, and the memory of all metadata that makes it possible.
//!
//! ```text
//! # Role        a region: one reservation, in which metadata comes first and the heap behind; the list of regions
//! # Layout      of a region of n chunks, each part committed when it is needed:
//! ```
//!
//! ```text
//! | header  | chunk groups (n / 64)       | chunk metadata (n) | ... | heap: n chunks of 4 MiB, aligned |
//! | at once | when a search reaches them  | with its chunk           | with its chunk                   |
//! ```
//!
//! ```text
//! # Invariants  I1: the header is committed before the region is published; a chunk group before it is looked at:
//!                   whoever names a group has seen `commit_groups` succeed for it, or holds a span in it.
//!               I2: a chunk whose bit in `ChunkGroup::committed` is set has its metadata and memory committed.
//!               I3: regions are only ever added, until the process ends.
//! # Ordering    PUBLISH-REGION: `Regions::publish` (Release) -> `Regions::iter`, `find` (Acquire)
//!               COMMIT-CHUNK: setting the bit (Release) -> seeing it (Acquire)
//! # Progress    lock-free: two threads may both make a region or commit a chunk; both is harmless
//! # Not here    claiming spans (see `depot`)
//! ```

use crate::chunk_group::partial_set::PartialSet;
use crate::chunk_group::span_map::SpanMap;
use crate::config::{CHUNK_BYTES, CHUNK_GRANULES, GRANULE_BYTES, GRANULE_SHIFT, GROUP_CHUNKS, REGIONS_MAX};
use crate::meta::Commit;
use crate::os::Os;
use crate::size_class::{CLASS_COUNT, SizeClass, shape};
use crate::slab::bitmap::FreeWord;
use crate::slab::{ChunkMeta, GranuleUse, Slab};
use crate::sync::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use crate::sys::Pages;
use crate::units::{ClassIndex, GranuleIndex, SlabId};
use core::ops::Range;
use core::ptr::NonNull;

/// The dense part of the metadata of 64 chunks.
#[repr(C)]
pub struct ChunkGroup {
    /// Which granules are in use.
    pub spans: SpanMap,
    /// Partial slabs that no owner holds.
    pub partial: PartialSet<CLASS_COUNT>,
    /// Chunks whose metadata and memory are committed (I2).
    committed: AtomicU64,
    /// What each granule is used for: the byte that `free` reads.
    uses: [[AtomicU8; CHUNK_GRANULES]; GROUP_CHUNKS],
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
    /// How much of the header and the chunk groups is committed (I1).
    dense: Commit,
    /// Chunks of the groups up to the last with a committed chunk: as far as a search must go.
    chunks_used: AtomicUsize,
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

/// Offset of the chunk metadata: behind the groups, aligned to the largest OS page.
const fn chunk_meta_offset(chunks: usize) -> usize {
    dense_end(groups(chunks))
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
                dense: Commit::new(),
                chunks_used: AtomicUsize::new(0),
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
        let end = dense_end(groups.next_multiple_of(GROUPS_STEP)).min(chunk_meta_offset(self.chunks));
        self.dense.ensure(end, |_, end| {
            // SAFETY: from the start, so that a commit announced by another thread needs no trust: it is idempotent.
            unsafe { os.commit(self.start, end) }
        })
    }

    /// Chunks of the groups up to the last with a committed chunk, at some moment.
    #[inline(always)]
    fn chunks_used(&self) -> usize {
        // ordering: Relaxed, a bound for searches; one that comes too early finds less. Whoever has a block knows
        // of its chunk already.
        self.chunks_used.load(Ordering::Relaxed)
    }

    /// Chunk groups up to the last with a committed chunk, at some moment.
    #[inline]
    pub fn groups_used(&self) -> usize {
        groups(self.chunks_used())
    }

    /// The committed chunks, at some moment.
    pub fn committed_chunks(&self) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.chunks_used()).filter(|&chunk| self.is_committed(chunk))
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

    /// Is the chunk committed?
    pub fn is_committed(&self, chunk: usize) -> bool {
        // ordering: Acquire [COMMIT-CHUNK] pairs with Release in `commit`.
        self.group(chunk / GROUP_CHUNKS).committed.load(Ordering::Acquire) >> (chunk % GROUP_CHUNKS) & 1 != 0
    }

    /// Commits those chunks that are not, with one call for all metadata and one for all memory from the first of them
    /// to the last: a refusal leaves nothing half done. `false`: refused.
    #[must_use]
    pub fn commit<P: Pages>(&self, os: &Os<P>, chunks: Range<usize>) -> bool {
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
        let used = end.next_multiple_of(GROUP_CHUNKS).min(self.chunks);
        // ordering: Relaxed, see `chunks_used`.
        self.chunks_used.fetch_max(used, Ordering::Relaxed);
        for chunk in first..end {
            // ordering: Release [COMMIT-CHUNK] pairs with Acquire in `is_committed`.
            self.group(chunk / GROUP_CHUNKS).committed.fetch_or(1 << (chunk % GROUP_CHUNKS), Ordering::Release);
        }
        true
    }

    /// Bytes committed: the dense metadata, and each committed chunk with its own.
    pub fn committed(&self) -> usize {
        self.dense.bytes().max(HEADER_BYTES) + self.committed_chunks().count() * (CHUNK_BYTES + size_of::<ChunkMeta>())
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
        if offset < self.chunks_used() * CHUNK_BYTES { Some(GranuleIndex::new(offset >> GRANULE_SHIFT)) } else { None }
    }

    #[inline(always)]
    fn use_byte(&self, granule: GranuleIndex) -> &AtomicU8 {
        let group = self.group(granule.chunk() / GROUP_CHUNKS);
        &group.uses[granule.chunk() % GROUP_CHUNKS][granule.in_chunk()]
    }

    /// What the granule is used for.
    #[inline(always)]
    pub fn granule_use(&self, granule: GranuleIndex) -> GranuleUse {
        // ordering: Relaxed; the caller owns a block there, or will check again when it does.
        GranuleUse::from_byte(self.use_byte(granule).load(Ordering::Relaxed))
    }

    /// Says what the granule is used for; only for the holder of its span.
    #[inline]
    pub fn set_granule_use(&self, granule: GranuleIndex, granule_use: GranuleUse) {
        // ordering: Relaxed; published with the span's first block, or with the span's freeing.
        self.use_byte(granule).store(granule_use.byte(), Ordering::Relaxed);
    }

    /// The descriptor of the span that starts at `granule`.
    #[inline]
    pub fn descriptor(&self, granule: GranuleIndex) -> &Slab {
        &self.chunk_meta(granule.chunk()).slabs[granule.in_chunk()]
    }
}

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
        SlabId::new(self.region.number, self.granule)
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
        use crate::slab::ROW_WORDS;
        let meta = self.region.chunk_meta(self.granule.chunk());
        &meta.rows[word / ROW_WORDS][self.granule.in_chunk()][word % ROW_WORDS]
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
                return false;
            }
        }
        true
    }
}

/// The regions of a heap.
pub struct Regions([AtomicPtr<Region>; REGIONS_MAX]);

impl Default for Regions {
    fn default() -> Self {
        Self::new()
    }
}

impl Regions {
    /// None yet.
    pub const fn new() -> Self {
        Self([const { AtomicPtr::new(core::ptr::null_mut()) }; REGIONS_MAX])
    }

    /// Region number `number`.
    #[inline(always)]
    pub fn get(&self, number: usize) -> Option<&Region> {
        // ordering: Acquire [PUBLISH-REGION] pairs with Release in `publish`.
        // SAFETY: I1, I3: a published region stays readable.
        unsafe { self.0[number].load(Ordering::Acquire).as_ref() }
    }

    /// All regions, in the order of their making.
    pub fn iter(&self) -> impl Iterator<Item = &Region> {
        (0..REGIONS_MAX).map_while(|number| self.get(number))
    }

    /// Publishes a region as number `number`; `false` where another thread did.
    #[must_use]
    pub fn publish(&self, number: usize, region: NonNull<Region>) -> bool {
        let null = core::ptr::null_mut();
        // ordering: Release [PUBLISH-REGION] the header and groups; pairs with Acquire in `get`.
        self.0[number].compare_exchange(null, region.as_ptr(), Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Takes all regions out, at the end of the process.
    pub fn take_all(&self) -> impl Iterator<Item = NonNull<Region>> {
        // ordering: Relaxed; the caller is alone.
        self.0.iter().filter_map(|slot| NonNull::new(slot.swap(core::ptr::null_mut(), Ordering::Relaxed)))
    }

    /// The region and granule of an address; `None` for memory that is not ours.
    #[inline(always)]
    pub fn find(&self, address: usize) -> Option<(&Region, GranuleIndex)> {
        let first = self.get(0)?;
        match first.granule_of(address) {
            Some(granule) => Some((first, granule)),
            None => self.find_beyond_first(address),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_beyond_first(&self, address: usize) -> Option<(&Region, GranuleIndex)> {
        self.iter().skip(1).find_map(|region| region.granule_of(address).map(|granule| (region, granule)))
    }

    /// The slab of that name.
    #[inline]
    pub fn slab(&self, id: SlabId) -> Option<SlabRef<'_>> {
        let region = self.get(id.region())?;
        match region.granule_use(id.granule()) {
            GranuleUse::Slab(class) => Some(SlabRef::new(region, id.granule(), class)),
            GranuleUse::Other | GranuleUse::Large => None,
        }
    }
}
