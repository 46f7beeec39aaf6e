//! Spans: runs of granules of any length, over all regions; commitment, and the bound on dirty memory.
//!
//! ```text
//! # Role        claims, grows, shrinks, frees and moves spans
//! # Accounting  `dirty` = bytes of free granules that are dirty; at most `Options::dirty_bytes_max` stay so
//! # Order       lowest region, lowest address: the heap stays dense and its mappings few
//! # Progress    lock-free
//! # Not here    what lies in a span (see `depot::slabs`, `heap::large`)
//! ```

use crate::config::{
    CHUNK_BYTES, CHUNK_GRANULES, GRANULE_BYTES, GRANULE_INDEX_BITS, GROUP_CHUNKS, REGION_BYTES_PREFERRED,
    REGION_SCARCE_SHARE, REGIONS_MAX,
};
use crate::depot::magazines::MagazinePool;
use crate::os::Os;
use crate::chunk_group::span_map::low_bits;
use crate::granule_map::{ChunkGroup, Region, Regions};
use crate::options::Settings;
use crate::sync::{AtomicUsize, CachePadded, Ordering};
use crate::sys::Pages;
use crate::units::GranuleIndex;

/// Everything that threads share.
pub struct Depot<P> {
    /// The operating system.
    pub os: Os<P>,
    /// All regions.
    pub regions: Regions,
    /// Spare magazines.
    pub magazines: MagazinePool,
    /// What the user set.
    pub settings: Settings,
    /// Bytes of free granules that are dirty.
    dirty: CachePadded<AtomicUsize>,
    /// Bytes of address space to try first for the next region.
    region_bytes: AtomicUsize,
}

/// Beyond the bound, dirty memory is purged down to the bound less this share of it, so that not every free purges.
const DIRTY_SLACK_SHARE: usize = 8;

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
struct Part<'h> {
    group: &'h ChunkGroup,
    /// The chunk's number in its region.
    chunk: usize,
    mask: u64,
}

impl Part<'_> {
    fn in_group(&self) -> usize {
        self.chunk % GROUP_CHUNKS
    }
}

impl<'h> Span<'h> {
    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.granules * GRANULE_BYTES
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
    fn chunks(&self) -> core::ops::Range<usize> {
        self.first.chunk()..self.first.offset(self.granules - 1).chunk() + 1
    }

    fn parts(&self) -> impl Iterator<Item = Part<'h>> + use<'h> {
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

impl<P: Pages> Depot<P> {
    /// An empty depot.
    pub const fn new(pages: P) -> Self {
        Self {
            os: Os::new(pages),
            regions: Regions::new(),
            magazines: MagazinePool::new(),
            settings: Settings::new(),
            dirty: CachePadded::new(AtomicUsize::new(0)),
            region_bytes: AtomicUsize::new(REGION_BYTES_PREFERRED),
        }
    }

    /// Claims `granules` (at least 1) whose address is a multiple of `align` granules (a power of two). `None`: no
    /// memory, or no address space; nothing has changed then.
    pub fn claim_span(&self, granules: usize, align: usize) -> Option<Span<'_>> {
        for number in 0..REGIONS_MAX {
            let region = match self.regions.get(number) {
                Some(region) => region,
                None => self.add_region(number, granules, align)?,
            };
            if let Some(span) = self.claim_in(region, granules, align) {
                return self.commit_claimed(span);
            }
        }
        None
    }

    fn claim_in<'h>(&self, region: &'h Region, granules: usize, align: usize) -> Option<Span<'h>> {
        if granules <= CHUNK_GRANULES && align <= CHUNK_GRANULES {
            return (0..region.groups()).take_while(|group| region.commit_groups(&self.os, group + 1)).find_map(|group| {
                let run = region.group(group).spans.claim(granules, align, region.chunks_in(group))?;
                let chunk = group * GROUP_CHUNKS + run.chunk;
                let first = GranuleIndex::new(chunk * CHUNK_GRANULES + run.mask.trailing_zeros() as usize);
                Some(Span { region, first, granules })
            });
        }
        self.claim_chunks(region, granules, align)
    }

    /// A span that fills chunks, or that must start at one: in address order, rolled back where a chunk is taken.
    fn claim_chunks<'h>(&self, region: &'h Region, granules: usize, align: usize) -> Option<Span<'h>> {
        let align_bytes = align.max(CHUNK_GRANULES) * GRANULE_BYTES;
        let base = region.address(GranuleIndex::new(0)).addr().get();
        let aligned = |chunk: usize| ((base + chunk * CHUNK_BYTES).next_multiple_of(align_bytes) - base) / CHUNK_BYTES;
        let mut from = 0;
        loop {
            let free = self.next_free_chunk(region, from)?;
            let chunk = aligned(free);
            let end = chunk + granules.div_ceil(CHUNK_GRANULES);
            if end > region.chunks() || !region.commit_groups(&self.os, end.div_ceil(GROUP_CHUNKS)) {
                return None;
            }
            let span = Span { region, first: GranuleIndex::new(chunk * CHUNK_GRANULES), granules };
            match Self::first_obstacle(&span) {
                Some(taken) => from = taken + 1,
                None if Self::claim_exact(&span) => return Some(span),
                None => {} // somebody was faster; look again
            }
        }
    }

    /// The lowest wholly free chunk from `from` on, at some moment.
    fn next_free_chunk(&self, region: &Region, from: usize) -> Option<usize> {
        (from / GROUP_CHUNKS..region.groups()).take_while(|group| region.commit_groups(&self.os, group + 1)).find_map(
            |group| {
                let first = group * GROUP_CHUNKS;
                let spans = &region.group(group).spans;
                Some(first + spans.next_free_chunk(from.saturating_sub(first), region.chunks_in(group))?)
            },
        )
    }

    /// The chunk of the span with granules in use, if any; the last one, to skip as far as possible.
    fn first_obstacle(span: &Span<'_>) -> Option<usize> {
        span.parts().filter(|part| part.group.spans.busy(part.in_group()) & part.mask != 0).map(|part| part.chunk).last()
    }

    /// Claims exactly that span, or nothing of it.
    fn claim_exact(span: &Span<'_>) -> bool {
        let mut claimed = 0;
        for part in span.parts() {
            if !part.group.spans.claim_exact(part.in_group(), part.mask) {
                for back in span.head(claimed).parts() {
                    back.group.spans.free(back.in_group(), back.mask, false);
                }
                return false;
            }
            claimed += part.mask.count_ones() as usize;
        }
        true
    }

    /// Commits a span that was just claimed and takes it out of the dirty account, or gives it up.
    fn commit_claimed<'h>(&self, span: Span<'h>) -> Option<Span<'h>> {
        if !span.region.commit(&self.os, span.chunks()) {
            for back in span.parts() {
                back.group.spans.free(back.in_group(), back.mask, false);
            }
            return None;
        }
        let dirty = Self::dirty_granules(&span);
        if dirty != 0 {
            // ordering: Relaxed, an account; it may be late, never wrong by more than what is in flight.
            self.dirty.fetch_sub(dirty * GRANULE_BYTES, Ordering::Relaxed);
        }
        Some(span)
    }

    fn dirty_granules(span: &Span<'_>) -> usize {
        span.parts().map(|part| part.group.spans.dirty(part.in_group(), part.mask).count_ones() as usize).sum()
    }

    /// Calls `dirty` with the parts of a just claimed span that may not be zero.
    pub fn for_each_dirty(span: &Span<'_>, mut dirty: impl FnMut(GranuleIndex, usize)) {
        for part in span.parts() {
            for_each_run(part.group.spans.dirty(part.in_group(), part.mask), |from, count| {
                dirty(GranuleIndex::new(part.chunk * CHUNK_GRANULES + from), count);
            });
        }
    }

    /// Lengthens a span by claiming the `more` granules behind it.
    pub fn extend_span(&self, span: &Span<'_>, more: usize) -> bool {
        let end = span.first.get() + span.granules;
        let groups = (end + more).div_ceil(CHUNK_GRANULES * GROUP_CHUNKS);
        if end + more > span.region.chunks() * CHUNK_GRANULES || !span.region.commit_groups(&self.os, groups) {
            return false;
        }
        let behind = Span { region: span.region, first: GranuleIndex::new(end), granules: more };
        Self::first_obstacle(&behind).is_none() && Self::claim_exact(&behind) && self.commit_claimed(behind).is_some()
    }

    /// Frees a span that the caller has claimed and whose granule uses it has cleared.
    pub fn free_span(&self, span: &Span<'_>) {
        // ordering: Relaxed, an account. Added first, so that it never falls below zero.
        let dirty = self.dirty.fetch_add(span.bytes(), Ordering::Relaxed) + span.bytes();
        for part in span.parts() {
            part.group.spans.free(part.in_group(), part.mask, true);
        }
        let most = self.settings.dirty_bytes_max();
        if dirty > most {
            self.purge_down_to(most - most / DIRTY_SLACK_SHARE);
        }
    }

    /// Gives pages of free granules back until at most `most` bytes of them are dirty: highest addresses first,
    /// because claims take the lowest, so these are the coldest and the least likely to be wanted.
    pub fn purge_down_to(&self, most: usize) {
        for number in (0..REGIONS_MAX).rev() {
            let Some(region) = self.regions.get(number) else { continue };
            for chunk in region.committed_chunks().rev() {
                // A kernel that refuses (locked memory) is not asked again at once.
                if self.dirty_bytes() <= most || !self.purge_chunk(region, chunk) {
                    return;
                }
            }
        }
    }

    /// Gives the pages of a chunk's free granules back: claims them, so that nobody uses them meanwhile. `false`: some
    /// could not be.
    fn purge_chunk(&self, region: &Region, chunk: usize) -> bool {
        let mut purged = true;
        let spans = &region.group(chunk / GROUP_CHUNKS).spans;
        let in_group = chunk % GROUP_CHUNKS;
        let claimed = spans.claim_dirty(in_group);
        for_each_run(claimed, |from, count| {
            let mask = low_bits(count) << from;
            let start = region.address(GranuleIndex::new(chunk * CHUNK_GRANULES + from));
            // Between the look at `dirty` and the claim another thread may have cleaned some of them.
            let dirty = spans.dirty(in_group, mask).count_ones() as usize * GRANULE_BYTES;
            // SAFETY: the granules are claimed, so the caller has them to itself; their chunk is committed.
            if unsafe { self.os.purge(start, count * GRANULE_BYTES) } {
                spans.cleaned(in_group, mask);
                // ordering: Relaxed, an account.
                self.dirty.fetch_sub(dirty, Ordering::Relaxed);
            } else {
                purged = false;
            }
            spans.free(in_group, mask, false);
        });
        purged
    }

    /// Notes that a span, which the caller has claimed, is zero.
    pub fn span_cleaned(span: &Span<'_>) {
        for part in span.parts() {
            part.group.spans.cleaned(part.in_group(), part.mask);
        }
    }

    /// Frees a span that is known to be zero.
    pub fn free_clean_span(&self, span: &Span<'_>) {
        Self::span_cleaned(span);
        for part in span.parts() {
            part.group.spans.free(part.in_group(), part.mask, false);
        }
    }

    /// Bytes of free granules that are dirty.
    pub fn dirty_bytes(&self) -> usize {
        // ordering: Relaxed, a statistic.
        self.dirty.load(Ordering::Relaxed)
    }

    /// Makes the first region if there is none: before any metadata range is, because it shows whether address space
    /// is scarce.
    #[must_use]
    pub fn prepare(&self) -> bool {
        self.regions.get(0).is_some() || self.add_region(0, 1, 1).is_some()
    }

    /// Makes region number `number`, or finds that another thread did.
    #[cold]
    fn add_region(&self, number: usize, granules: usize, align: usize) -> Option<&Region> {
        // Room for the span wherever its alignment puts it.
        let least = granules.checked_add(align)?.div_ceil(CHUNK_GRANULES);
        let chunks_max = (1 << GRANULE_INDEX_BITS) / CHUNK_GRANULES;
        if least > chunks_max {
            return None;
        }
        let Some(region) = self.reserve_region(number, least).or_else(|| self.reserve_region(number, least)) else {
            // Perhaps another thread has what there was to have; it may have let go of it between our two attempts.
            return self.regions.get(number);
        };
        if !self.regions.publish(number, region) {
            // SAFETY: our own reservation, which nobody has seen.
            unsafe { Region::release(region, &self.os) };
        }
        self.regions.get(number)
    }

    /// Reserves the largest region that fits in half of what is tried, of at least `least` chunks.
    fn reserve_region(&self, number: usize, least: usize) -> Option<core::ptr::NonNull<Region>> {
        // ordering: Relaxed, a guess about the machine.
        let first = (self.region_bytes.load(Ordering::Relaxed) / CHUNK_BYTES).max(least);
        let mut chunks = first;
        loop {
            if let Some(region) = Region::reserve(&self.os, chunks, number) {
                if chunks == first && first * CHUNK_BYTES == REGION_BYTES_PREFERRED {
                    return Some(region);
                }
                let share = (chunks / REGION_SCARCE_SHARE).max(least);
                // ordering: Relaxed, as above.
                self.region_bytes.store(chunks * CHUNK_BYTES, Ordering::Relaxed);
                if share >= chunks {
                    return Some(region);
                }
                // SAFETY: our own reservation, which nobody has seen.
                unsafe { Region::release(region, &self.os) };
                chunks = share;
                return Region::reserve(&self.os, chunks, number);
            }
            if chunks == least {
                return None;
            }
            chunks = (chunks / 2).max(least);
        }
    }

    /// Gives everything back to the OS.
    ///
    /// # Safety
    /// Nobody uses the depot or any block, now or later, but for `release` itself.
    pub unsafe fn release(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.magazines.release(&self.os) };
        for region in self.regions.take_all() {
            // SAFETY: the caller's promise; taken out of the list, so it is released once.
            unsafe { Region::release(region, &self.os) };
        }
    }
}

/// Calls `run` with the start and length of each run of set bits.
fn for_each_run(mut mask: u64, mut run: impl FnMut(usize, usize)) {
    while mask != 0 {
        let from = mask.trailing_zeros() as usize;
        let count = (!(mask >> from)).trailing_zeros().min(64 - from as u32) as usize;
        run(from, count);
        mask &= !(low_bits(count) << from);
    }
}
