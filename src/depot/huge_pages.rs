//! Huge pages in large heaps: memory that is about to be filled comes in by one fault, and takes one entry of the TLB.
//!
//! ```text
//! # Role        when the kernel is asked for huge pages, and when they are split (`HugePages::Auto`)
//! # When        a heap of `HUGE_PAGES_FROM_BYTES` that is not near a limit gets
//!               a slab or a block as short, the first span in its huge page: that comes in whole, later spans fill it;
//!               a block of a huge page and more, or the end of one that grew: the whole huge pages inside are advised,
//!               and come in as they are written. Of one block in sixteen, and of the next one where the last was late,
//!               the first huge page comes in at once, and if it is late, the block is not advised
//! # Accounting  what comes in around a short span is dirty: free memory that is held, claimed next as it is the lowest,
//!               or given back by the purge once it has aged
//! # Split       before the purge makes the first hole: the kernel keeps what is given back of a huge page until it is
//!               short of memory, though no count of the process's pages says so; and where advice lasts, it fills the
//!               hole again some time later. So advice for a short span does not last, and that for a long one ends here.
//! # Invariants  I1: a chunk that is advised for longer than a claim takes, or in a huge page that this module asked for, is
//!               in `ChunkGroup::huge`, until a purge or a move of its pages ends that. Not so the place to which pages
//!               move, which is mapped anew when it is freed, nor what the kernel makes huge unasked.
//! # Progress    wait-free; others claim granules of the huge page meanwhile as they like
//! # Not here    huge pages everywhere or nowhere, as a user may ask (see `granule_map::region`)
//! # Checked by  heap::huge_pages, tests/huge_pages.rs
//! ```

use super::dirty::HUGE_PAGE_CHUNKS;
use super::spans::{Depot, Part, Span};
use crate::chunk_group::span_map::low_bits;
use crate::config::{CHUNK_GRANULES, GRANULE_BYTES, GROUP_CHUNKS, HUGE_PAGE_BYTES, HUGE_PAGES_FROM_BYTES};
use crate::granule_map::Region;
use crate::options::HugePages;
use crate::size_class::SLAB_GRANULES_MAX;
use crate::sync::{AtomicU32, Ordering};
use crate::sys::{HugeAdvice, HugePage, Pages};
use crate::units::GranuleIndex;
use core::ptr::NonNull;

/// Granules of a huge page.
const HUGE_PAGE_GRANULES: usize = HUGE_PAGE_BYTES / GRANULE_BYTES;
/// Granules of a huge page or of a chunk, whichever is more: what `ChunkGroup::huge` tells apart.
const UNIT_GRANULES: usize = HUGE_PAGE_CHUNKS * CHUNK_GRANULES;
/// Chances passed by after one at which the kernel had no huge page, or was late with it; as many again after each
/// further one, up to the most: 128 MiB of short spans.
const PAUSE_FIRST: u32 = 4;
const PAUSE_MOST: u32 = 64;
/// Of so many long spans, one shows whether huge pages come in time. The others are not touched: a program may never write
/// the most of what it reserves.
const SPANS_PER_SAMPLE: u32 = 16;
/// A long span is advised if it is at least this share of what is held, so from 4 GiB on not every one: each is a mapping of
/// its own, as is what lies beside it, and a process may have 65,530.
const ADVISED_SHARE: usize = 2048;

/// What becomes of the huge page that a purge comes upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePageEnd {
    /// All that is in memory of it goes.
    Gone,
    /// Parts of it stay.
    Split,
}

/// When not to ask for a huge page, and when to look at how late it comes. Short spans always look, as they are about to be
/// written; long ones, of which most may never be, in turn. All of it is hints: threads may lose each other's notes.
#[derive(Debug)]
pub struct Pause {
    /// Chances still to be passed by.
    left: AtomicU32,
    /// Length of the present pause, or of the last; 0 after a huge page that came in time.
    length: AtomicU32,
    /// Long spans still to be advised unseen.
    unseen: AtomicU32,
}

impl Pause {
    /// None.
    pub const fn new() -> Self {
        Self { left: AtomicU32::new(0), length: AtomicU32::new(0), unseen: AtomicU32::new(0) }
    }

    /// Is this chance to be passed by?
    fn passes(&self) -> bool {
        // ordering: Relaxed, here and below: hints; a chance more or less does no harm.
        let left = self.left.load(Ordering::Relaxed);
        if left != 0 {
            // ordering: Relaxed, likewise.
            self.left.store(left - 1, Ordering::Relaxed);
        }
        left != 0
    }

    /// Notes what the kernel had.
    fn note(&self, had: HugePage) {
        let length = match had {
            HugePage::Prompt => 0,
            // ordering: Relaxed, likewise.
            HugePage::Late | HugePage::None => (2 * self.length.load(Ordering::Relaxed)).clamp(PAUSE_FIRST, PAUSE_MOST),
        };
        // ordering: Relaxed, likewise.
        self.length.store(length, Ordering::Relaxed);
        self.left.store(length, Ordering::Relaxed);
        // ordering: Relaxed, likewise.
        self.unseen.store(if length == 0 { SPANS_PER_SAMPLE - 1 } else { 0 }, Ordering::Relaxed);
    }

    /// Is this long span to show whether huge pages come in time?
    fn wants_sample(&self) -> bool {
        // ordering: Relaxed, likewise.
        let unseen = self.unseen.load(Ordering::Relaxed);
        // ordering: Relaxed, likewise.
        self.unseen.store(unseen.checked_sub(1).unwrap_or(SPANS_PER_SAMPLE - 1), Ordering::Relaxed);
        unseen == 0
    }
}

impl<P: Pages> Depot<P> {
    /// Has the huge page around a short span come in where that is worth it; the caller has just claimed and committed it.
    pub(super) fn want_huge_page(&self, span: &Span<'_>) {
        if span.granules <= SLAB_GRANULES_MAX && self.has_room_for_huge_page() && span.region.has_huge_pages() {
            self.begin_huge_page(span);
        }
    }

    /// Has a part of a large block backed by huge pages where that is worth it; the caller has just claimed it, and nothing
    /// in it is in use. What is clean in it stays zero.
    pub fn want_huge_pages_inside(&self, span: &Span<'_>) {
        if span.bytes() < HUGE_PAGE_BYTES || !self.has_room_for_huge_page() || !span.region.has_huge_pages() {
            return;
        }
        let first = span.first.get().next_multiple_of(HUGE_PAGE_GRANULES);
        let end = span.first.offset(span.granules).get() / HUGE_PAGE_GRANULES * HUGE_PAGE_GRANULES;
        if first >= end || (end - first) * GRANULE_BYTES < self.budget.held() / ADVISED_SHARE {
            return;
        }
        let pages = |first, granules| Span { region: span.region, first: GranuleIndex::new(first), granules };
        let is_clean = |first: &usize| Self::dirty_granules(&pages(*first, HUGE_PAGE_GRANULES)) == 0;
        let Some(clean) = (first..end).step_by(HUGE_PAGE_GRANULES).find(is_clean) else { return };
        if self.huge_pages_pause.passes() {
            return;
        }
        let sample = pages(clean, HUGE_PAGE_GRANULES);
        if self.huge_pages_pause.wants_sample() {
            // None says little: where base pages were before, the kernel may have kept their page table.
            let had = self.bring_in(&sample, &sample);
            if had != HugePage::None {
                self.huge_pages_pause.note(had);
            }
            if had == HugePage::Late {
                return;
            }
        }
        let inside = pages(first, end - first);
        note_huge(&inside);
        // SAFETY: the chunks are committed with the span.
        unsafe { self.os.advise(span.region.address(inside.first), inside.bytes(), HugeAdvice::Always) };
    }

    /// Advises the kernel about a block that is a mapping of its own: `grown`, it was filled so far, so it will be.
    pub(super) fn advise_mapping(&self, start: NonNull<u8>, bytes: usize, grown: bool) {
        let advice = match self.settings.huge_pages() {
            HugePages::Never => HugeAdvice::Never,
            HugePages::Always => HugeAdvice::Always,
            HugePages::Auto if grown && self.has_room_for_huge_page() => HugeAdvice::Always,
            HugePages::System | HugePages::Auto => return,
        };
        // SAFETY: the caller's mapping.
        unsafe { self.os.advise(start, bytes, advice) };
    }

    /// Is the heap large enough for a huge page to count little, and far enough from every limit?
    fn has_room_for_huge_page(&self) -> bool {
        let (held, settings) = (self.budget.held(), &self.settings);
        held >= HUGE_PAGES_FROM_BYTES
            && settings.huge_pages() == HugePages::Auto
            && settings.dirty_bytes_max() >= HUGE_PAGE_BYTES
            && settings.soft_limit() > held + HUGE_PAGE_BYTES
            // What comes in beside a span might be refused to others.
            && settings.hard_limit() == usize::MAX
    }

    /// Brings in the huge page around a short span, if nothing else is in it, nor was since the kernel had it.
    fn begin_huge_page(&self, span: &Span<'_>) {
        let first = span.first.get() - span.first.get() % HUGE_PAGE_GRANULES;
        let end = first + HUGE_PAGE_GRANULES;
        if span.first.offset(span.granules).get() > end || end > span.region.chunks() * CHUNK_GRANULES {
            return;
        }
        let page = Span { region: span.region, first: GranuleIndex::new(first), granules: HUGE_PAGE_GRANULES };
        let is_free = |part: Part<'_>| part.group.spans.busy(part.in_group()) & part.mask == 0;
        if !rest(&page, span).all(is_free) || Self::dirty_granules(&page) != 0 || self.huge_pages_pause.passes() {
            return;
        }
        let had = self.bring_in(&page, span);
        self.huge_pages_pause.note(had);
        if had == HugePage::None {
            // Split, for the other half of where a chunk has two.
            self.end_huge_page(page.region, page.first.chunk(), HugePageEnd::Split);
            Self::span_dirtied(&span.head(1));
            return;
        }
        Self::span_dirtied(span);
        for part in rest(&page, span) {
            let claimed = part.group.spans.claim_free(part.in_group(), part.mask);
            // Another thread may have had some of it meanwhile; then it is counted.
            let clean = claimed & !part.group.spans.dirty(part.in_group(), claimed);
            let bytes = clean.count_ones() as usize * GRANULE_BYTES;
            self.budget.take_anyway(bytes);
            self.count_dirty(bytes);
            part.group.spans.free(part.in_group(), claimed, true);
        }
        self.note_peak();
        self.note(self.note_unpurged(&page));
    }

    /// Brings a huge page in by a write to a span in it that is the caller's, and clean.
    fn bring_in(&self, page: &Span<'_>, span: &Span<'_>) -> HugePage {
        // First, so that a purge of what others have of it meanwhile splits it.
        note_huge(page);
        let (start, inside) = (page.region.address(page.first), page.region.address(span.first));
        // SAFETY: committed with the span, as steps of commitment are whole huge pages. The span is the caller's, and zero.
        unsafe { self.os.begin_huge_page(start, inside) }
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

    /// After a span was mapped anew, which ends all advice: gives it that of its commitment, which the memory beside it has
    /// but for the end of a small heap, so that the kernel can join the mappings.
    pub fn renew_advice(&self, span: &Span<'_>) {
        if let Some(advice) = span.region.advice_at_commit(span.chunks().end, self.settings.huge_pages()) {
            // SAFETY: committed.
            unsafe { self.os.advise(span.region.address(span.first), span.bytes(), advice) };
        }
    }
}

fn note_huge(pages: &Span<'_>) {
    for part in pages.parts() {
        part.group.huge.add(1 << part.in_group());
    }
}

/// The parts of a huge page without a span inside it.
fn rest<'h>(page: &Span<'h>, span: &Span<'h>) -> impl Iterator<Item = Part<'h>> + use<'h> {
    let inside = *span;
    page.parts().map(move |part| inside.parts().fold(part, Part::without))
}
