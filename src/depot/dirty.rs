//! Giving back the pages of free granules, and the bound on how many are kept.
//!
//! ```text
//! # Accounting  `dirty` = bytes of free granules that are dirty
//! # Bound       a share of what is in use, or as much as `warm` says; at most `Options::dirty_bytes_max`, and what
//!               the soft limit leaves (see `depot::soft_limit`). So a program without a purging thread that frees nearly everything
//!               gives nearly everything back at once.
//! # Order       by age: what was free for a whole epoch already. Beyond the bound: highest addresses first, because
//!               claims take the lowest, so these are the coldest and the least likely to be wanted.
//! # Invariants  I1: granules are given back only while this thread has claimed them.
//! # Not here    pages inside slabs, and when to look (see `purge`)
//! ```

use crate::purge::pace::Due;
use crate::purge::signal::PurgeRequest;
use super::groups::Wanted;
use super::huge_pages::HUGE_PAGE_GRANULES;
use super::span::Span;
use super::spans::Depot;
use crate::chunk::span_map::low_bits;
use crate::config::{CHUNK_BYTES, CHUNK_GRANULES, GRANULE_BYTES, GROUP_CHUNKS, HUGE_PAGE_BYTES, REGIONS_MAX};
use crate::pagemap::Region;
use crate::sync::Ordering;
use crate::sys::{Pages, platform};
use crate::units::GranuleIndex;
use core::ops::Range;

/// Dirty memory is at most what is in use divided by this: what it adds to a program's peak.
const DIRTY_SHARE: usize = 8;
/// Bytes that may be dirty in any case: a huge page is brought in for a part of it, and a small program's are few.
const DIRTY_BYTES_SURE: usize = 4 << 20;
/// Beyond the bound, dirty memory is purged down to the bound less this share of it, so that not every free purges.
const DIRTY_SLACK_SHARE: usize = 8;
/// And less this many bytes at least: a step in which memory is given back.
const DIRTY_SLACK_MIN: usize = 1 << 20;

/// Refusals of the kernel, for a chunk each, after which a purge down to a bound gives up: a program has few ranges locked,
/// or all of its memory.
const REFUSALS_MAX: u32 = 16;

/// Chunks of a huge page, at least one.
pub(super) const HUGE_PAGE_CHUNKS: usize = HUGE_PAGE_BYTES.div_ceil(CHUNK_BYTES);

const _: () = assert!(GROUP_CHUNKS.is_multiple_of(HUGE_PAGE_CHUNKS));

/// What is given back only whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    /// Granules.
    Granules,
    /// Huge pages, where they are kept whole.
    HugePages,
}

impl<P: Pages> Depot<P> {
    /// Bytes of free granules that are dirty.
    pub fn dirty_bytes(&self) -> usize {
        // ordering: Relaxed, a statistic.
        self.spans.dirty.load(Ordering::Relaxed)
    }

    /// Notes that free granules of `bytes` are dirty from now on.
    pub(super) fn count_dirty(&self, bytes: usize) {
        // ordering: Relaxed, an account.
        self.spans.dirty.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that `bytes` of them were claimed or cleaned.
    pub(super) fn uncount_dirty(&self, bytes: usize) {
        if bytes != 0 {
            // ordering: Relaxed, an account; it may be late, never wrong by more than what is in flight.
            self.spans.dirty.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn note_peak(&self) {
        let held = self.budget.held();
        // ordering: Relaxed, all of it: a statistic.
        if held > self.held_peak.load(Ordering::Relaxed) {
            self.held_peak.fetch_max(held, Ordering::Relaxed);
        }
    }

    /// The most bytes that were ever held.
    pub fn held_peak(&self) -> usize {
        // ordering: Relaxed, as above.
        self.held_peak.load(Ordering::Relaxed)
    }

    /// Bytes of granules in use, at some moment.
    pub fn in_use(&self) -> usize {
        self.budget.held().saturating_sub(self.dirty_bytes())
    }

    /// Bytes that may be dirty now.
    pub(super) fn dirty_bound(&self) -> usize {
        let (in_use, settings) = (self.in_use(), &self.settings);
        let most = settings.dirty_bytes_max();
        // Who wants nothing back by age does not want it by share.
        let share = if settings.purge_delay_ms() == u32::MAX {
            most
        } else {
            (in_use / DIRTY_SHARE).max(DIRTY_BYTES_SURE).max(self.warm.bytes(in_use))
        };
        share.min(most).min(self.dirty_within_soft_limit(in_use))
    }

    /// Says whether a thread of the allocator's own comes to give back what has aged, also while the program sleeps.
    pub fn set_watched(&self, watched: bool) {
        self.warm.set_watched(watched);
        if !watched {
            self.keep_bound();
        }
    }

    /// In the child of a fork, where no such thread is.
    pub fn forget_watcher(&self) {
        self.warm.set_watched(false);
    }

    /// After memory was freed, or claimed above the soft limit: purges what is beyond the bound.
    pub fn keep_bound(&self) {
        let (dirty, most) = (self.dirty_bytes(), self.dirty_bound());
        // ordering: Relaxed, a hint that spares walks which find nothing.
        if dirty > most
            && dirty - most > self.stuck.load(Ordering::Relaxed)
            // Amid a fork, what is claimed would be lost in the child: the next one that frees does it.
            && let Some(walk) = self.in_flight.take_up()
        {
            let slack = (most / DIRTY_SLACK_SHARE).max(DIRTY_SLACK_MIN);
            if self.purge_down_to(most.saturating_sub(slack), Whole::HugePages) {
                self.warm.note_given(self.os.now_ms());
            }
            let is_through = !self.in_flight.is_awaited();
            self.in_flight.put_down(walk);
            if is_through {
                // ordering: Relaxed, as above.
                self.stuck.store(self.dirty_bytes().saturating_sub(most), Ordering::Relaxed);
            }
        }
        if self.is_pressed() {
            self.raise(PurgeRequest::Urgent);
        }
    }

    /// After something was freed, and its chunk noted: raises the purge signal if it is the first note, or if whoever took the
    /// signal has not raised it again (it may be stopped).
    #[inline]
    pub fn note(&self, is_first: bool) {
        if is_first || self.purge_signal.call().0.is_none() {
            self.raise(PurgeRequest::Raised);
        }
    }

    /// After something was freed in a chunk: a purge must look at it.
    #[inline]
    pub fn note_freed_in(&self, region: &Region, chunk: usize) {
        self.note(self.note_unpurged_in(region, chunk));
    }

    /// After something was freed in `chunks` of group `group`: the same for all of them.
    pub fn note_freed_in_group(&self, region: &Region, group: usize, chunks: u64) {
        self.note(self.note_unpurged_in_group(region, group, chunks));
    }

    /// Notes a chunk as unpurged. `true`: it was not.
    #[inline]
    pub fn note_unpurged_in(&self, region: &Region, chunk: usize) -> bool {
        self.note_unpurged_in_group(region, chunk / GROUP_CHUNKS, 1 << (chunk % GROUP_CHUNKS))
    }

    #[inline]
    fn note_unpurged_in_group(&self, region: &Region, group: usize, chunks: u64) -> bool {
        let is_new = region.group(group).unpurged.note_these(chunks);
        if is_new {
            self.groups.note(Wanted::UNPURGED, region, group);
        }
        is_new
    }

    /// In the child of a fork, where nobody else is: makes the accounts what the maps say, and notes every chunk with
    /// something to purge. A thread that vanished may have been between one and the other.
    pub fn recount(&self) {
        let (mut held, mut dirty) = (0, 0);
        for region in self.regions.iter() {
            for chunk in region.committed_chunks() {
                let group = region.group(chunk / GROUP_CHUNKS);
                let (in_group, free_dirty) = (chunk % GROUP_CHUNKS, group.spans.free_dirty(chunk % GROUP_CHUNKS));
                held += (group.spans.busy(in_group) | free_dirty).count_ones() as usize * GRANULE_BYTES;
                dirty += free_dirty.count_ones() as usize * GRANULE_BYTES;
                if free_dirty != 0 {
                    // Both, as the thread may have been between the two.
                    let _ = group.unpurged.note(in_group);
                    self.groups.note(Wanted::UNPURGED, region, chunk / GROUP_CHUNKS);
                }
            }
        }
        self.budget.reset(held + self.mappings.recount());
        // ordering: Relaxed; the caller is alone.
        self.spans.dirty.store(dirty, Ordering::Relaxed);
    }

    /// Raises the purge signal, and wakes who sleeps on it.
    pub fn raise(&self, call: PurgeRequest) {
        if self.purge_signal.raise(call) {
            platform::wake(self.purge_signal.word());
        }
    }

    /// At the hard limit, where there is no time for a fork to end: `purge_down_to`, by granules.
    pub(super) fn purge_at_limit(&self, most: usize) -> bool {
        let walk = self.in_flight.take_up();
        let purged = self.purge_down_to(most, Whole::Granules);
        if let Some(walk) = walk {
            self.in_flight.put_down(walk);
        }
        purged
    }

    /// Gives pages of free granules back until at most `most` bytes of them are dirty. `false`: none were given back.
    fn purge_down_to(&self, most: usize, whole: Whole) -> bool {
        let (mut purged_any, mut refusals) = (false, 0);
        for number in (0..REGIONS_MAX).rev() {
            let Some(region) = self.regions.get(number) else { continue };
            for chunk in region.committed_chunks().rev() {
                // Down to a bound there is time; at the hard limit there is not.
                if self.dirty_bytes() <= most || whole == Whole::HugePages && self.in_flight.is_awaited() {
                    return purged_any;
                }
                let purged = match whole {
                    Whole::HugePages if self.settings.keeps_huge_pages_whole() => {
                        self.purge_huge_pages(region, chunk, Due::All)
                    }
                    Whole::Granules | Whole::HugePages => {
                        let beside = self.dirty_bytes().saturating_sub(most) / CHUNK_BYTES;
                        self.purge_granules(region, chunk, u64::MAX, Beside::Below(beside))
                    }
                };
                match purged {
                    // Locked memory. A kernel that goes on refusing is not asked again at once.
                    Purged::Refused => {
                        refusals += 1;
                        if refusals == REFUSALS_MAX {
                            return purged_any;
                        }
                    }
                    Purged::Bytes(bytes) => purged_any |= bytes > 0,
                }
            }
        }
        purged_any
    }

    /// Gives the pages of a chunk's free granules back that are due. `true`: others are left that will be.
    pub fn purge_due(&self, region: &Region, chunk: usize, due: Due) -> bool {
        let spans = &region.group(chunk / GROUP_CHUNKS).spans;
        let in_group = chunk % GROUP_CHUNKS;
        if !self.settings.keeps_huge_pages_whole() {
            let aged = spans.age(in_group);
            let is_warm =
                || aged != 0 && !self.is_pressed() && self.warm.keeps_aged(aged.count_ones() as usize * GRANULE_BYTES);
            let wanted = match due {
                Due::All => u64::MAX,
                Due::Aged if is_warm() => 0,
                Due::Aged => aged,
            };
            match self.purge_granules(region, chunk, wanted, Beside::Above(due)) {
                Purged::Refused => return false,
                Purged::Bytes(bytes) if bytes > 0 && due == Due::Aged => self.warm.note_given(self.os.now_ms()),
                Purged::Bytes(_) => {}
            }
            return spans.free_dirty(in_group) != 0;
        }
        let mut outcome = Purged::Bytes(0);
        // Of the chunks of a huge page, the last one that an epoch comes by: what is aged in this epoch is not due in it.
        if due == Due::All || chunk % HUGE_PAGE_CHUNKS == HUGE_PAGE_CHUNKS - 1 {
            outcome = self.purge_huge_pages(region, chunk, due);
            for chunk in chunk - chunk % HUGE_PAGE_CHUNKS..=chunk {
                region.group(chunk / GROUP_CHUNKS).spans.age(chunk % GROUP_CHUNKS);
            }
        }
        outcome != Purged::Refused && Self::free_huge_pages(region, chunk).next().is_some()
    }

    /// The huge pages of which a chunk has a part that are free, and have something in memory.
    fn free_huge_pages(region: &Region, chunk: usize) -> impl Iterator<Item = Span<'_>> {
        let first = chunk * CHUNK_GRANULES / HUGE_PAGE_GRANULES * HUGE_PAGE_GRANULES;
        let end = ((chunk + 1) * CHUNK_GRANULES).next_multiple_of(HUGE_PAGE_GRANULES);
        let end = end.min(region.chunks_ever() * CHUNK_GRANULES);
        (first..end)
            .step_by(HUGE_PAGE_GRANULES)
            .map(move |first| Span { region, first: GranuleIndex::new(first), granules: HUGE_PAGE_GRANULES.min(end - first) })
            .filter(|page| page.parts().all(|part| part.group.spans.busy(part.in_group()) & part.mask == 0))
            .filter(|page| Self::dirty_granules(page) != 0)
    }

    /// Where huge pages are kept whole: gives back those of which a chunk has a part, if they are free, and due.
    fn purge_huge_pages(&self, region: &Region, chunk: usize, due: Due) -> Purged {
        let is_due = |page: &Span<'_>| {
            due == Due::All || page.parts().all(|part| part.group.spans.is_aged(part.in_group(), part.mask))
        };
        let mut outcome = Purged::Bytes(0);
        for page in Self::free_huge_pages(region, chunk).filter(is_due) {
            if !self.claim_exact(&page) {
                continue; // somebody uses it
            }
            match self.purge_claimed(&page) {
                Purged::Bytes(bytes) => outcome.add(bytes),
                Purged::Refused => outcome = Purged::Refused,
            }
        }
        outcome
    }

    /// Gives back the pages of a span that the caller has claimed (I1), in one call, and frees it.
    fn purge_claimed(&self, span: &Span<'_>) -> Purged {
        // Another thread may have cleaned some of it before the claim.
        let dirty = Self::dirty_granules(span) * GRANULE_BYTES;
        // At once, so that a request at the hard limit is not refused because of what is on its way out.
        self.budget.give(dirty);
        // SAFETY: I1; its chunks are committed: something in each was in use.
        let gone = unsafe { self.os.purge(span.region.address(span.first), span.bytes()) };
        if gone {
            Self::span_cleaned(span);
            self.uncount_dirty(dirty);
        } else {
            self.budget.take_anyway(dirty);
        }
        span.parts().for_each(|part| self.free_in(span.region, part.chunk, part.mask, false));
        if gone { Purged::Bytes(dirty) } else { Purged::Refused }
    }

    /// Claims chunks beside one that the caller has claimed whole, which go back with it in one call, and are dealt with
    /// then. All that are claimed are in one group, so that a thread that is stopped here withholds no more.
    fn claim_beside(&self, region: &Region, chunk: usize, beside: Beside) -> Range<usize> {
        let group = chunk / GROUP_CHUNKS;
        let spans = &region.group(group).spans;
        let claim = |chunk: usize, due| {
            let in_group = chunk % GROUP_CHUNKS;
            let is_due = spans.free_dirty(in_group) == u64::MAX && (due == Due::All || spans.is_aged(in_group, u64::MAX));
            // First, as always before a look at what is noted.
            let was_noted = is_due && region.group(group).unpurged.take(in_group);
            let claimed = is_due && spans.claim_exact(in_group, u64::MAX);
            if was_noted && !claimed {
                self.note(self.note_unpurged_in(region, chunk));
            }
            claimed
        };
        let (mut first, mut end) = (chunk, chunk + 1);
        match beside {
            Beside::Above(due) => {
                while end < (group + 1) * GROUP_CHUNKS && claim(end, due) {
                    end += 1;
                }
            }
            Beside::Below(most) => {
                while first > group * GROUP_CHUNKS && chunk - first < most && claim(first - 1, Due::All) {
                    first -= 1;
                }
            }
        }
        first..end
    }

    /// Gives back the pages of those of the granules `among` that are free and dirty: claims them, so that nobody uses
    /// them meanwhile. Where that is the whole chunk, those `beside` go with it.
    fn purge_granules(&self, region: &Region, chunk: usize, among: u64, beside: Beside) -> Purged {
        let mut outcome = Purged::Bytes(0);
        let spans = &region.group(chunk / GROUP_CHUNKS).spans;
        let in_group = chunk % GROUP_CHUNKS;
        let claimed = spans.claim_dirty(in_group, among);
        if claimed == u64::MAX {
            let chunks = self.claim_beside(region, chunk, beside);
            if chunks.len() > 1 {
                let first = GranuleIndex::new(chunks.start * CHUNK_GRANULES);
                let span = Span { region, first, granules: chunks.len() * CHUNK_GRANULES };
                self.end_huge_pages(&span);
                self.purge_claimed_meta(region, chunks);
                return self.purge_claimed(&span);
            }
        }
        if claimed != 0 {
            self.end_huge_page(region, chunk, Self::huge_page_end(region, chunk, claimed));
        }
        for_each_run(claimed, |from, count| {
            let first = GranuleIndex::new(chunk * CHUNK_GRANULES + from);
            match self.purge_claimed(&Span { region, first, granules: count }) {
                Purged::Bytes(bytes) => outcome.add(bytes),
                Purged::Refused => outcome = Purged::Refused,
            }
        });
        outcome
    }

    /// Gives back the metadata of a chunk whose granules are all free and clean.
    pub fn purge_chunk_meta(&self, region: &Region, chunk: usize) {
        let spans = &region.group(chunk / GROUP_CHUNKS).spans;
        let in_group = chunk % GROUP_CHUNKS;
        // One that was noted with a span whose memory was not to be had has no metadata: what is there is others'.
        if !region.is_committed(chunk) || spans.free_dirty(in_group) != 0 || !spans.claim_exact(in_group, u64::MAX) {
            return;
        }
        self.purge_claimed_meta(region, chunk..chunk + 1);
        self.free_in(region, chunk, u64::MAX, false);
    }

    /// Gives back the metadata of chunks that the caller has claimed whole.
    fn purge_claimed_meta(&self, region: &Region, chunks: Range<usize>) {
        let (start, bytes) = region.chunk_meta_pages(chunks);
        if bytes != 0 && self.os.capabilities().purges_under_readers {
            // SAFETY: no granule of the chunks is anyone else's, so their metadata is that of free granules: all zero but
            // for what a slab's or block's beginning writes anew. A look or a swap that comes late finds what a free
            // granule has in any case.
            let _ = unsafe { self.os.purge(start, bytes) };
        }
    }
}

/// Which chunks go back together with one that goes whole, if they are wholly free and dirty.
#[derive(Clone, Copy, Debug)]
enum Beside {
    /// Those above it that are due.
    Above(Due),
    /// So many below it.
    Below(usize),
}

/// What became of granules that were to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purged {
    /// That many bytes were.
    Bytes(usize),
    /// The kernel did not take some of them.
    Refused,
}

impl Purged {
    fn add(&mut self, more: usize) {
        if let Self::Bytes(bytes) = self {
            *bytes += more;
        }
    }
}

impl<P: Pages> Depot<P> {
    /// Notes the chunks of a span as unpurged; where huge pages go back whole, all that share one with them. `true`: one of
    /// them was not.
    pub(super) fn note_unpurged(&self, span: &Span<'_>) -> bool {
        let together = if self.settings.keeps_huge_pages_whole() { HUGE_PAGE_CHUNKS } else { 1 };
        let (region, chunks) = (span.region, span.chunks());
        let first = chunks.start - chunks.start % together;
        let end = chunks.end.next_multiple_of(together).min(region.chunks_ever());
        (first..end).fold(false, |any, chunk| any | self.note_unpurged_in(region, chunk))
    }
}

/// Calls `run` with the start and length of each run of set bits.
pub(super) fn for_each_run(mut mask: u64, mut run: impl FnMut(usize, usize)) {
    while mask != 0 {
        let from = mask.trailing_zeros() as usize;
        let count = (!(mask >> from)).trailing_zeros().min(64 - from as u32) as usize;
        run(from, count);
        mask &= !(low_bits(count) << from);
    }
}
