//! Spans: runs of granules of any length, over all regions; commitment, and the hard limit.
//!
//! ```text
//! # Role        claims, grows, shrinks, frees and moves spans
//! # Order       lowest region, lowest address: the heap stays dense and its mappings few. Of many threads, each starts at
//!               a chunk of its own, of those in use: else all claim in the same few
//! # Progress    lock-free
//! # Not here    new regions (see `depot::new_region`), what lies in a span (see `depot::slabs`, `heap::large`), purging (see
//!               `depot::dirty`)
//! ```

use crate::chunk::span_map::Start;
use crate::config::{CHUNK_BYTES, CHUNK_GRANULES, GRANULE_BYTES, GROUP_CHUNKS, REGIONS_MAX};
use crate::purge::signal::PurgeSignal;
use crate::depot::budget::Budget;
use crate::depot::counts::{Counts, SpanCounts};
use crate::depot::dirty::for_each_run;
use crate::depot::groups::{Groups, Wanted};
use crate::purge::in_flight::InFlight;
use crate::depot::magazines::MagazinePool;
use crate::depot::mappings::Mappings;
use crate::purge::pause::{Pause, Zeroing};
use crate::depot::span::Span;
use crate::purge::warm::Warm;
use crate::os::Os;
use crate::pagemap::{Region, Regions};
use crate::metadata::Missing;
use crate::settings::Settings;
use crate::sync::{AtomicU32, AtomicUsize, CachePadded, Ordering, thread_hint};
use crate::sys::{NotMapped, Pages};
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
    /// Bytes held.
    pub budget: Budget,
    /// Bytes that all threads together may cache beyond what each may in any case, as far as they have taken them. A thread
    /// that vanishes in a fork amid taking or giving leaves one step counted for ever.
    pub credit: Budget,
    /// The most bytes that were ever held.
    pub(super) held_peak: AtomicUsize,
    /// Which chunk groups to look at.
    pub groups: Groups,
    /// Blocks that are kernel mappings of their own.
    pub mappings: Mappings,
    /// Is there anything to purge?
    pub purge_signal: PurgeSignal,
    /// What a purge has in flight.
    pub in_flight: InFlight,
    /// When not to ask for a huge page.
    pub(super) huge_pages_pause: Pause,
    /// When not to move the pages of a large block.
    pub moves_pause: Pause,
    /// When not to make memory zero by giving its pages back.
    pub zeroing: Zeroing,
    /// Bytes beyond the bound on dirty memory that a purge could not give back when it last tried.
    pub(super) stuck: AtomicUsize,
    /// What claims and frees of spans count.
    pub spans: CachePadded<SpanCounts>,
    /// What is counted for statistics alone.
    pub counts: Counts,
    /// How much free memory the program evidently takes again.
    pub(super) warm: Warm,
    /// Epochs so far; see `next_epoch`.
    epochs: AtomicU32,
    /// Chunks where searches start: the lowest ones.
    starts: AtomicU32,
}

/// Threads up to which all searches start at the lowest chunk, so that the heap is as dense as can be. Where there are more,
/// each starts at a chunk of its own.
const DENSE_THREADS: usize = 16;

/// Why a span could not be had.
enum Refused {
    /// No memory or no address space.
    ByKernel,
    /// The hard limit.
    ByLimit,
    /// Others' memory is in its way; the region has ended before it.
    ByStranger,
    /// Another thread is mapping the memory for it, and did not get on.
    Busy,
}

impl From<Missing> for Refused {
    fn from(why: Missing) -> Self {
        match why {
            Missing::Busy => Refused::Busy,
            Missing::Not(NotMapped::Taken) => Refused::ByStranger,
            Missing::Not(NotMapped::Refused) => Refused::ByKernel,
        }
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
            budget: Budget::new(),
            credit: Budget::new(),
            held_peak: AtomicUsize::new(0),
            groups: Groups::new(),
            mappings: Mappings::new(),
            purge_signal: PurgeSignal::new(),
            in_flight: InFlight::new(),
            huge_pages_pause: Pause::new(),
            moves_pause: Pause::new(),
            zeroing: Zeroing::new(),
            stuck: AtomicUsize::new(0),
            spans: CachePadded::new(SpanCounts::new()),
            counts: Counts::new(),
            warm: Warm::new(),
            epochs: AtomicU32::new(0),
            starts: AtomicU32::new(1),
        }
    }

    /// Claims `granules` (at least 1) whose address is a multiple of `align` granules (a power of two). `None`: no
    /// memory, no address space, or the hard limit; nothing has changed then.
    pub fn claim_span(&self, granules: usize, align: usize) -> Option<Span<'_>> {
        loop {
            match self.try_claim_span(granules, align) {
                Ok(span) => return Some(span),
                Err(Refused::ByKernel | Refused::ByStranger | Refused::Busy) => return None,
                Err(Refused::ByLimit) if self.make_room(granules.saturating_mul(GRANULE_BYTES)) => {}
                Err(Refused::ByLimit) => return None,
            }
        }
    }

    /// At the hard limit: gives back what is free and dirty, which counts too, so that `bytes` fit. `false`: to try again
    /// would be in vain.
    fn make_room(&self, bytes: usize) -> bool {
        let purged = self.purge_at_limit(self.dirty_bytes().saturating_sub(bytes));
        // Another thread may have given back meanwhile what this one was going to.
        purged || self.budget.held().saturating_add(bytes) <= self.settings.hard_limit()
    }

    /// Counts `bytes` more as held. `false`: the hard limit does not allow them.
    pub(super) fn take_within_limit(&self, bytes: usize) -> bool {
        loop {
            if self.budget.take(bytes, self.settings.hard_limit()) {
                return true;
            }
            if !self.make_room(bytes) {
                return false;
            }
        }
    }

    /// After more was taken: keeps the peak and, where the soft limit presses, the bound.
    pub(super) fn note_held_more(&self) {
        self.note_peak();
        if self.is_pressed() {
            self.keep_bound();
        }
    }

    fn try_claim_span(&self, granules: usize, align: usize) -> Result<Span<'_>, Refused> {
        let mut passed = None;
        let outcome = self.claim_in_any(granules, align, &mut passed);
        passed.iter().for_each(|span| self.give_claimed_back(span));
        outcome
    }

    /// The first region that has room. A span whose memory another thread is mapping, and does not get on with, is passed
    /// by and stays claimed meanwhile: the search would find it again.
    fn claim_in_any<'h>(
        &'h self,
        granules: usize,
        align: usize,
        passed: &mut Option<Span<'h>>,
    ) -> Result<Span<'h>, Refused> {
        for number in 0..REGIONS_MAX {
            let region = match self.regions.get(number) {
                Some(region) => region,
                None => self.add_region(number, granules, align).ok_or(Refused::ByKernel)?,
            };
            while let Some(span) = self.claim_in(region, granules, align) {
                match self.enter_claimed(&span) {
                    Ok(()) => return Ok(span),
                    Err(Refused::Busy) if passed.is_none() => *passed = Some(span),
                    Err(why) => {
                        self.give_claimed_back(&span);
                        match why {
                            Refused::ByStranger => {}
                            Refused::Busy => break,
                            Refused::ByKernel | Refused::ByLimit => return Err(why),
                        }
                    }
                }
            }
        }
        Err(Refused::ByKernel)
    }

    fn claim_in<'h>(&self, region: &'h Region, granules: usize, align: usize) -> Option<Span<'h>> {
        if granules <= CHUNK_GRANULES && align <= CHUNK_GRANULES {
            let start = self.start(region);
            let claim = |group: usize| {
                let start = match start {
                    Some(start) if group == start / GROUP_CHUNKS => Start::spread(start % GROUP_CHUNKS),
                    Some(_) => Start::spread(0),
                    None => Start::LOWEST,
                };
                let (spans, chunks) = (&region.group(group).spans, region.chunks_in(group));
                let may_have = |group| region.group(group).spans.may_have(granules, region.chunks_in(group));
                let Some(run) = spans.claim(granules, align, chunks, start) else {
                    self.groups.clear(Wanted::run(granules), region, group, may_have);
                    return None;
                };
                if may_have(group) {
                    // Another thread may have found nothing while this one looked twice at a chunk.
                    self.groups.note(Wanted::run(granules), region, group);
                }
                let chunk = group * GROUP_CHUNKS + run.chunk;
                let first = GranuleIndex::new(chunk * CHUNK_GRANULES + run.mask.trailing_zeros() as usize);
                Some(Span { region, first, granules })
            };
            // All that are in use from there on, then all.
            let from = start.unwrap_or(0) / GROUP_CHUNKS;
            let ahead = if from == 0 { None } else { self.used_groups_with_runs(region, granules, from).find_map(claim) };
            return ahead.or_else(|| self.groups_with_runs(region, granules, 0).find_map(claim));
        }
        self.claim_chunks(region, granules, align)
    }

    /// A span that fills chunks, or that must start at one: in address order, rolled back where a chunk is taken.
    fn claim_chunks<'h>(&self, region: &'h Region, granules: usize, align: usize) -> Option<Span<'h>> {
        let align_bytes = align.max(CHUNK_GRANULES) * GRANULE_BYTES;
        let base = region.address(GranuleIndex::new(0)).addr().get();
        // Not where the next multiple is beyond all addresses, as with 32 bits.
        let aligned = |chunk: usize| {
            Some(((base + chunk * CHUNK_BYTES).checked_next_multiple_of(align_bytes)? - base) / CHUNK_BYTES)
        };
        let mut from = 0;
        loop {
            let free = self.next_free_chunk(region, from)?;
            let chunk = aligned(free)?;
            let end = chunk + granules.div_ceil(CHUNK_GRANULES);
            if end > region.chunks() || !region.commit_groups(&self.os, end.div_ceil(GROUP_CHUNKS)) {
                return None;
            }
            let span = Span { region, first: GranuleIndex::new(chunk * CHUNK_GRANULES), granules };
            match Self::first_obstacle(&span) {
                Some(taken) => from = taken + 1,
                None if self.claim_exact(&span) => return Some(span),
                None => {} // somebody was faster; look again
            }
        }
    }

    /// Spreads the starts of searches where so many threads have caches.
    pub fn spread_over(&self, threads: usize) {
        // ordering: Relaxed, a hint.
        if threads > DENSE_THREADS && threads as u32 > self.starts.load(Ordering::Relaxed) {
            self.starts.store(threads as u32, Ordering::Relaxed);
        }
    }

    /// The chunk where the calling thread starts a search: one that is in use, so that no memory is touched for it.
    /// `None`: there are few threads, and it starts at the lowest.
    fn start(&self, region: &Region) -> Option<usize> {
        // ordering: Relaxed, a hint.
        let starts = self.starts.load(Ordering::Relaxed);
        if starts == 1 {
            return None;
        }
        let mut start = ((u64::from(thread_hint()) * u64::from(starts)) >> u32::BITS) as usize;
        let in_use = |chunk| {
            let group = chunk / GROUP_CHUNKS;
            group < region.groups_used() && region.group(group).spans.busy(chunk % GROUP_CHUNKS) != 0
        };
        while start != 0 && !in_use(start) {
            start /= 2;
        }
        Some(start)
    }

    /// The lowest wholly free chunk from `from` on, at some moment.
    fn next_free_chunk(&self, region: &Region, from: usize) -> Option<usize> {
        self.groups_with_runs(region, CHUNK_GRANULES, from / GROUP_CHUNKS).find_map(|group| {
            let first = group * GROUP_CHUNKS;
            let (spans, chunks) = (&region.group(group).spans, region.chunks_in(group));
            let found = spans.next_free_chunk(from.saturating_sub(first), chunks);
            if found.is_none() {
                let may_have = |group| region.group(group).spans.may_have(CHUNK_GRANULES, region.chunks_in(group));
                self.groups.clear(Wanted::run(CHUNK_GRANULES), region, group, may_have);
            }
            Some(first + found?)
        })
    }

    /// The groups from number `from` on that may have a free run of so many granules, lowest first, and can be looked at:
    /// those in use of which nobody has found otherwise, then those that were never used.
    fn groups_with_runs(&self, region: &Region, granules: usize, from: usize) -> impl Iterator<Item = usize> {
        let new = (from.max(region.groups_used())..region.groups())
            .take_while(|&group| region.commit_groups(&self.os, group + 1));
        self.used_groups_with_runs(region, granules, from).chain(new)
    }

    /// The first part of them.
    fn used_groups_with_runs(&self, region: &Region, granules: usize, from: usize) -> impl Iterator<Item = usize> {
        let (used, mut next) = (region.groups_used(), from);
        core::iter::from_fn(move || {
            let group = self.groups.next(Wanted::run(granules), region, next).filter(|&group| group < used)?;
            next = group + 1;
            region.commit_groups(&self.os, group + 1).then_some(group)
        })
    }

    /// The chunk of the span with granules in use, if any; the last one, to skip as far as possible.
    fn first_obstacle(span: &Span<'_>) -> Option<usize> {
        span.parts().filter(|part| part.group.spans.busy(part.in_group()) & part.mask != 0).map(|part| part.chunk).last()
    }

    /// Claims exactly that span, or nothing of it.
    pub(super) fn claim_exact(&self, span: &Span<'_>) -> bool {
        let mut claimed = 0;
        for part in span.parts() {
            if !part.group.spans.claim_exact(part.in_group(), part.mask) {
                self.give_claimed_back(&span.head(claimed));
                return false;
            }
            claimed += part.mask.count_ones() as usize;
        }
        true
    }

    /// Commits a span that was just claimed and enters it in the accounts.
    fn enter_claimed(&self, span: &Span<'_>) -> Result<(), Refused> {
        let dirty = Self::dirty_granules(span) * GRANULE_BYTES;
        let clean = span.bytes() - dirty;
        self.groups.prepare(&self.os, span.region, span.chunks().end.div_ceil(GROUP_CHUNKS));
        span.region.commit(&self.os, span.chunks(), self.settings.huge_pages())?;
        if !self.budget.take(clean, self.settings.hard_limit()) {
            return Err(Refused::ByLimit);
        }
        self.regions.note_used(span.region);
        self.uncount_dirty(dirty);
        self.spans.spans.made.add(1);
        self.warm.note_taken(self.in_use(), self.dirty_bytes(), clean, || self.os.now_ms());
        if clean != 0 {
            self.want_huge_pages(span);
            self.note_held_more();
        }
        Ok(())
    }

    /// Gives a span up that was claimed, and not entered in the accounts.
    fn give_claimed_back(&self, span: &Span<'_>) {
        let was_dirty = Self::dirty_granules(span) != 0;
        for back in span.parts() {
            self.free_in(span.region, back.chunk, back.mask, false);
        }
        if was_dirty {
            // A purge may have passed meanwhile.
            self.note(self.note_unpurged(span));
        }
    }

    pub(super) fn dirty_granules(span: &Span<'_>) -> usize {
        span.parts().map(|part| part.group.spans.dirty(part.in_group(), part.mask).count_ones() as usize).sum()
    }

    /// Is granule `inside` of a just claimed span known to be zero?
    pub fn is_clean(span: &Span<'_>, inside: usize) -> bool {
        let granule = span.first.offset(inside);
        let spans = &span.region.group(granule.chunk() / GROUP_CHUNKS).spans;
        spans.dirty(granule.chunk() % GROUP_CHUNKS, 1 << granule.in_chunk()) == 0
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
        if Self::first_obstacle(&behind).is_some() || !self.claim_exact(&behind) {
            return false;
        }
        let entered = self.enter_claimed(&behind).is_ok();
        if !entered {
            self.give_claimed_back(&behind);
        }
        entered
    }

    /// Frees claimed granules of a chunk; `dirty`: they may have been written since they were claimed.
    pub(super) fn free_in(&self, region: &Region, chunk: usize, mask: u64, dirty: bool) {
        let group = chunk / GROUP_CHUNKS;
        let levels = region.group(group).spans.free(chunk % GROUP_CHUNKS, mask, dirty);
        self.groups.note_runs(levels, region, group);
    }

    /// Frees a span that the caller has claimed and whose granule uses it has cleared.
    pub fn free_span(&self, span: &Span<'_>) {
        // First, so that the account never falls below zero.
        self.count_dirty(span.bytes());
        self.spans.spans.ended.add(1);
        for part in span.parts() {
            self.free_in(span.region, part.chunk, part.mask, true);
        }
        self.note(self.note_unpurged(span));
        self.keep_bound();
    }

    /// Notes that a span, which the caller has claimed, is in memory.
    pub(super) fn span_dirtied(span: &Span<'_>) {
        for part in span.parts() {
            part.group.spans.dirtied(part.in_group(), part.mask);
        }
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
        self.budget.give(span.bytes());
        self.spans.spans.ended.add(1);
        for part in span.parts() {
            self.free_in(span.region, part.chunk, part.mask, false);
        }
    }

    /// Epochs so far: half a purge delay each, while there is something to purge.
    #[inline]
    pub fn epoch(&self) -> u32 {
        // ordering: Relaxed, a hint to do what is done from time to time.
        self.epochs.load(Ordering::Relaxed)
    }

    /// Begins an epoch.
    pub fn next_epoch(&self) {
        // ordering: Relaxed, as above.
        self.epochs.fetch_add(1, Ordering::Relaxed);
        self.warm.note_epoch(self.in_use(), self.dirty_bytes());
    }

    /// In the child of a fork: whoever was mapping memory is not here.
    pub fn forget_claims(&self) {
        self.magazines.forget_claims();
        self.regions.iter().for_each(Region::forget_claims);
    }

    /// Gives everything back to the OS; the chunks with a span in use, and what is known of them, only if `also_live`.
    ///
    /// # Safety
    /// Nobody uses the depot, or any block that goes, now or later, but for `release` itself.
    pub unsafe fn release(&self, also_live: bool) {
        // SAFETY: the caller's promise.
        unsafe { self.magazines.release(&self.os) };
        // SAFETY: the caller's promise.
        unsafe { self.release_mappings(also_live) };
        // SAFETY: the caller's promise.
        unsafe { self.groups.release(&self.os) };
        for region in self.regions.take_all() {
            // SAFETY: the caller's promise; taken out of the list, so it is released once.
            unsafe { Region::release(region, &self.os, also_live) };
        }
        self.os.drop_ballast();
    }
}
