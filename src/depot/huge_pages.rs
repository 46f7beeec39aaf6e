//! Huge pages in large heaps: memory that is about to be filled comes in by one fault, and takes one entry of the TLB.
//!
//! ```text
//! # Role        when the kernel is asked for huge pages, when they are split, and what comes in with them
//! # When        `HugePages::Auto`: in a heap of `HUGE_PAGES_FROM_BYTES` that is not near a limit,
//!               a slab or a block as short, the first span in its huge page: that comes in whole, later spans fill it;
//!               what a block grows by (it was filled so far, so it will be): the whole huge pages inside are advised, and
//!               come in as they are written. Of a new block, nothing tells how much will be written.
//!               Huge pages that are kept whole (`Settings::keeps_huge_pages_whole`): every span.
//! # Accounting  what comes in around a span is dirty: free memory that is held, claimed next as it is the lowest, or given
//!               back by the purge: once it has aged; where huge pages are kept whole, together with its huge page
//! # Split       before the purge makes the first hole: the kernel keeps what is given back of a huge page until it is
//!               short of memory, though no count of the process's pages says so; and where advice lasts, it fills the
//!               hole again some time later. So advice for a short span does not last, and a block's ends with the block.
//! # Invariants  I1: a chunk that is advised for longer than a claim takes, or in a huge page that this module asked for, is
//!               in `ChunkGroup::huge`, until a purge or a move of its pages ends that. Not so the place to which pages
//!               move, which is mapped anew when it is freed.
//!               I2: no free granule is advised, unless huge pages are kept whole.
//! # Progress    lock-free; others claim granules of the huge page meanwhile as they like
//! # Checked by  heap::huge_pages, tests/huge_pages.rs
//! ```

use super::dirty::HUGE_PAGE_CHUNKS;
use super::span::{Part, Span};
use super::spans::Depot;
use crate::chunk::span_map::low_bits;
use crate::config::{CHUNK_GRANULES, GRANULE_BYTES, GROUP_CHUNKS, HUGE_PAGE_BYTES, HUGE_PAGES_FROM_BYTES};
use crate::pagemap::{Region, advice_at_commit};
use crate::options::HugePages;
use crate::size_class::SLAB_GRANULES_MAX;
use crate::sys::{HugeAdvice, HugePage, Pages};
use crate::units::GranuleIndex;
use core::ptr::NonNull;

/// Granules of a huge page.
pub(super) const HUGE_PAGE_GRANULES: usize = HUGE_PAGE_BYTES / GRANULE_BYTES;
/// Granules of a huge page or of a chunk, whichever is more: what `ChunkGroup::huge` tells apart.
const UNIT_GRANULES: usize = HUGE_PAGE_CHUNKS * CHUNK_GRANULES;
/// What a block grows by is advised if it is at least this share of what is held, so from 4 GiB on not always: each is a
/// mapping of its own, as is what lies beside it, and a process may have 65,530.
const ADVISED_SHARE: usize = 2048;

/// What becomes of the huge page that a purge comes upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePageEnd {
    /// All that is in memory of it goes.
    Gone,
    /// Parts of it stay.
    Split,
}

impl<P: Pages> Depot<P> {
    /// Has the huge pages around a span come in where that is worth it, or counts what is going to come in; the caller has
    /// just claimed and committed it.
    pub(super) fn want_huge_pages(&self, span: &Span<'_>) {
        if !span.region.has_huge_pages() {
            return;
        }
        if self.settings.keeps_huge_pages_whole() {
            self.count_huge_pages(span);
        } else if span.granules <= SLAB_GRANULES_MAX
            && self.has_room_for_huge_page()
            // What comes in beside the span is dirty, and would be the first to go where there is more of it than may be.
            && self.dirty_bytes() + HUGE_PAGE_BYTES <= self.dirty_bound()
        {
            self.begin_huge_page(span);
        }
    }

    /// Has what a large block grew by backed by huge pages where that is worth it; nothing in it is in use. `true`: it is
    /// advised, until `withdraw_advice`.
    #[must_use]
    pub fn want_huge_pages_inside(&self, span: &Span<'_>) -> bool {
        let inside = whole_pages(span);
        if inside.granules == 0
            || !span.region.has_huge_pages()
            || !self.has_room_for_huge_page()
            || inside.bytes() < self.budget.held() / ADVISED_SHARE
            || self.huge_pages_pause.passes()
        {
            return false;
        }
        note_huge(&inside);
        // SAFETY: the chunks are committed with the span.
        unsafe { self.os.advise(span.region.address(inside.first), inside.bytes(), HugeAdvice::Always) };
        true
    }

    /// Before an advised block, or the end of one, is freed. What came in as huge pages stays so until it is given back.
    pub fn withdraw_advice(&self, span: &Span<'_>) {
        // SAFETY: committed; the span is the caller's.
        unsafe { self.os.advise(span.region.address(span.first), span.bytes(), HugeAdvice::Never) };
    }

    /// Advises the kernel about a block that is a mapping of its own: `grown`, it was filled so far, so it will be.
    pub(super) fn advise_mapping(&self, start: NonNull<u8>, bytes: usize, grown: bool) {
        let advice = match self.settings.huge_pages() {
            HugePages::Always => HugeAdvice::Always,
            HugePages::Auto if grown && self.has_room_for_huge_page() => HugeAdvice::Always,
            HugePages::Never | HugePages::Auto => HugeAdvice::Never,
            HugePages::System => return,
        };
        // SAFETY: the caller's mapping.
        unsafe { self.os.advise(start, bytes, advice) };
    }

    /// Is the heap large enough for a huge page to count little, and far enough from every limit?
    fn has_room_for_huge_page(&self) -> bool {
        let (held, settings) = (self.budget.held(), &self.settings);
        self.os.capabilities().has_huge_pages
            && held >= HUGE_PAGES_FROM_BYTES
            && settings.huge_pages() == HugePages::Auto
            && settings.dirty_bytes_max() >= HUGE_PAGE_BYTES
            && settings.soft_limit() > held + HUGE_PAGE_BYTES
            // What comes in beside a span might be refused to others.
            && settings.hard_limit() == usize::MAX
    }

    /// Brings in the huge page around a short span, if nothing else is in it, nor was since the kernel had it.
    fn begin_huge_page(&self, span: &Span<'_>) {
        let page = page_of(span.region, span.first);
        if span.end() > page.end() || !Self::is_untouched(&page, span) || self.huge_pages_pause.passes() {
            return;
        }
        // First, so that a purge of what others have of it meanwhile splits it.
        note_huge(&page);
        // SAFETY: committed with the span, as steps of commitment are whole huge pages.
        let had = unsafe { self.os.begin_huge_page(page.region.address(page.first)) };
        self.huge_pages_pause.note(had == HugePage::Prompt);
        if had == HugePage::None {
            // Split, for the other half of where a chunk has two.
            self.end_huge_page(page.region, page.first.chunk(), HugePageEnd::Split);
            return;
        }
        Self::span_dirtied(span);
        // Always true: near a hard limit, no huge page begins.
        let _ = self.count_rest(&page, span, usize::MAX);
        self.note(self.note_unpurged(&page));
    }

    /// Where huge pages are kept whole: counts what is going to come in with a span, in the huge pages at its ends if
    /// nothing else is in them, nor was since the kernel had them. Beyond the hard limit, base pages do.
    fn count_huge_pages(&self, span: &Span<'_>) {
        let mut huge = whole_pages(span);
        let (first, last) = (page_of(span.region, span.first), page_of(span.region, span.first.offset(span.granules - 1)));
        let edges = [Some(first), (last.first != first.first).then_some(last)];
        for page in edges.into_iter().flatten().filter(|page| page.first < span.first || page.end() > span.end()) {
            if !Self::is_untouched(&page, span) {
                continue;
            }
            if self.count_rest(&page, span, self.settings.hard_limit()) {
                huge = if huge.granules == 0 { page } else { huge.joined(&page) };
            } else {
                // SAFETY: committed with the span, as steps of commitment are whole huge pages.
                unsafe { self.os.advise(page.region.address(page.first), page.bytes(), HugeAdvice::Never) };
            }
        }
        if huge.granules != 0 && note_huge(&huge) && self.settings.huge_pages() == HugePages::Always {
            // SAFETY: likewise.
            unsafe { self.os.advise(huge.region.address(huge.first), huge.bytes(), HugeAdvice::Always) };
        }
    }

    /// Is a span, which the caller has claimed, the only one in a huge page, and has the page nothing in memory?
    fn is_untouched(page: &Span<'_>, span: &Span<'_>) -> bool {
        let is_free = |part: Part<'_>| part.group.spans.busy(part.in_group()) & part.mask == 0;
        page.end().get() <= page.region.chunks() * CHUNK_GRANULES
            && rest(page, span).all(is_free)
            && Self::dirty_granules(page) == 0
    }

    /// Counts what has come in, or is going to, in a huge page beside a span: it is dirty. `false`: not all of it, as
    /// `limit` does not allow it.
    fn count_rest(&self, page: &Span<'_>, span: &Span<'_>, limit: usize) -> bool {
        let mut fits = true;
        for part in rest(page, span) {
            let claimed = part.group.spans.claim_free(part.in_group(), part.mask);
            // Another thread may have had some of it meanwhile; then it is counted.
            let clean = claimed & !part.group.spans.dirty(part.in_group(), claimed);
            let bytes = clean.count_ones() as usize * GRANULE_BYTES;
            // Once one part did not fit, the next ones are not counted either.
            fits = fits && self.budget.take(bytes, limit);
            if fits {
                self.count_dirty(bytes);
            }
            self.free_in(page.region, part.chunk, claimed, fits);
        }
        self.note_peak();
        fits
    }

    /// Before pages of a chunk are given back.
    pub fn end_huge_page(&self, region: &Region, chunk: usize, end: HugePageEnd) {
        let first = chunk - chunk % HUGE_PAGE_CHUNKS;
        let group = region.group(first / GROUP_CHUNKS);
        if !group.huge.remove(low_bits(HUGE_PAGE_CHUNKS) << (first % GROUP_CHUNKS)) {
            return;
        }
        let pages = Span { region, first: GranuleIndex::new(first * CHUNK_GRANULES), granules: UNIT_GRANULES };
        // SAFETY: committed, as a chunk of them is.
        unsafe { self.os.advise(region.address(pages.first), pages.bytes(), HugeAdvice::Never) };
        if end == HugePageEnd::Split {
            for granule in (0..pages.granules).step_by(HUGE_PAGE_GRANULES) {
                // SAFETY: likewise.
                unsafe { self.os.split_huge_page(region.address(pages.first.offset(granule))) };
            }
        }
    }

    /// What a purge of `claimed` granules of a chunk makes of its huge page.
    pub(super) fn huge_page_end(region: &Region, chunk: usize, claimed: u64) -> HugePageEnd {
        let first = chunk - chunk % HUGE_PAGE_CHUNKS;
        let has_memory = |other: usize| {
            let (spans, in_group) = (&region.group(other / GROUP_CHUNKS).spans, other % GROUP_CHUNKS);
            spans.busy(in_group) | spans.free_dirty(in_group) != 0
        };
        let is_last = claimed == u64::MAX && (first..first + HUGE_PAGE_CHUNKS).all(|it| it == chunk || !has_memory(it));
        if is_last { HugePageEnd::Gone } else { HugePageEnd::Split }
    }

    /// Before a span's memory goes all at once: splits the huge pages of which others have a part, and withdraws the advice
    /// for all.
    pub fn end_huge_pages(&self, span: &Span<'_>) {
        let (from, end) = (span.first.get(), span.first.offset(span.granules).get());
        let (inner, inner_end) = (from.next_multiple_of(UNIT_GRANULES), end / UNIT_GRANULES * UNIT_GRANULES);
        for edge in [from, end - 1].into_iter().filter(|edge| !(inner..inner_end).contains(edge)) {
            self.end_huge_page(span.region, edge / CHUNK_GRANULES, HugePageEnd::Split);
        }
        if inner < inner_end {
            let inside = Span { region: span.region, first: GranuleIndex::new(inner), granules: inner_end - inner };
            let mut was_huge = false;
            inside.parts().for_each(|part| was_huge |= part.group.huge.remove(1 << part.in_group()));
            if was_huge {
                // SAFETY: committed with the span.
                unsafe { self.os.advise(span.region.address(inside.first), inside.bytes(), HugeAdvice::Never) };
            }
        }
    }

    /// After a span was mapped anew, which ends all advice: gives it that of its commitment, which the memory beside it has,
    /// so that the kernel can join the mappings.
    pub fn renew_advice(&self, span: &Span<'_>) {
        if let Some(advice) = advice_at_commit(self.settings.huge_pages()) {
            // SAFETY: committed.
            unsafe { self.os.advise(span.region.address(span.first), span.bytes(), advice) };
        }
    }
}

/// Notes that they were asked for. `true`: some of them had not been.
fn note_huge(pages: &Span<'_>) -> bool {
    pages.parts().fold(false, |any, part| any | part.group.huge.add(1 << part.in_group()))
}

/// The huge page that a granule is in.
fn page_of(region: &Region, granule: GranuleIndex) -> Span<'_> {
    let first = granule.get() - granule.get() % HUGE_PAGE_GRANULES;
    Span { region, first: GranuleIndex::new(first), granules: HUGE_PAGE_GRANULES }
}

/// The huge pages that lie in a span, whole.
fn whole_pages<'h>(span: &Span<'h>) -> Span<'h> {
    let first = span.first.get().next_multiple_of(HUGE_PAGE_GRANULES);
    let end = span.end().get() / HUGE_PAGE_GRANULES * HUGE_PAGE_GRANULES;
    Span { region: span.region, first: GranuleIndex::new(first), granules: end.saturating_sub(first) }
}

/// The parts of a huge page that are not in a span.
fn rest<'h>(page: &Span<'h>, span: &Span<'h>) -> impl Iterator<Item = Part<'h>> + use<'h> {
    let inside = *span;
    page.parts().map(move |part| inside.parts().fold(part, Part::without))
}
