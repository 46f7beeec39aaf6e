//! Huge pages in large heaps: memory that is about to be filled comes in by one fault, and takes one entry of the TLB.
//!
//! ```text
//! # Role        when the kernel is asked for huge pages, and when no more (`HugePages::Auto`)
//! # When        a span is claimed, in a heap of `HUGE_PAGES_FROM_BYTES` that is not near a limit:
//!               short of a huge page, and the first in one: comes in with all of the huge page, which later spans fill;
//!               longer: the whole huge pages inside it are advised, and come in as they are written
//! # Advice      must not outlast the first hole that a purge makes: the kernel would fill it, some time later. That for
//!               a short span is withdrawn at once, that for a long one before the purge.
//! # Accounting  what comes in around a short span is dirty: free memory that is held, claimed next as it is the lowest,
//!               or given back by the purge once it has aged
//! # Invariants  I1: a chunk that is advised, longer than a claim takes, is in `ChunkGroup::advised`.
//! # Progress    wait-free; others claim granules of the huge page meanwhile as they like
//! # Not here    huge pages everywhere or nowhere, as a user may ask (see `granule_map::region`)
//! # Checked by  heap::huge_pages
//! ```

use super::dirty::HUGE_PAGE_CHUNKS;
use super::spans::{Depot, Part, Span};
use crate::chunk_group::span_map::low_bits;
use crate::config::{CHUNK_BYTES, CHUNK_GRANULES, GRANULE_BYTES, GROUP_CHUNKS, HUGE_PAGE_BYTES, HUGE_PAGES_FROM_BYTES};
use crate::granule_map::Region;
use crate::options::HugePages;
use crate::sync::{AtomicU32, Ordering};
use crate::sys::{HugeAdvice, HugePage, Pages};
use crate::units::GranuleIndex;

/// Granules of a huge page.
const HUGE_PAGE_GRANULES: usize = HUGE_PAGE_BYTES / GRANULE_BYTES;
/// log2 of the bytes of the OS pages to which `HUGE_PAGE_BYTES` belongs.
const PAGE_SHIFT: u32 = 12;
/// Chances passed by after one at which the kernel had no huge page, or was late with it; as many again after each
/// further one, up to the most: 128 MiB of short spans.
const PAUSE_FIRST: u32 = 4;
const PAUSE_MOST: u32 = 64;

/// When not to ask for a huge page.
#[derive(Debug)]
pub struct Pause {
    /// Chances still to be passed by.
    left: AtomicU32,
    /// Length of the present pause, or of the last; 0 after a huge page that came in time.
    length: AtomicU32,
}

impl Pause {
    /// None.
    pub const fn new() -> Self {
        Self { left: AtomicU32::new(0), length: AtomicU32::new(0) }
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
    }
}

impl<P: Pages> Depot<P> {
    /// Has a span backed by huge pages where that is worth it; the caller has just claimed and committed it.
    pub(super) fn want_huge_pages(&self, span: &Span<'_>) {
        if !self.has_room_for_huge_page() || span.region.page_shift() != PAGE_SHIFT {
            return;
        }
        if span.granules < HUGE_PAGE_GRANULES {
            self.begin_huge_page(span);
            return;
        }
        let first = span.first.get().next_multiple_of(HUGE_PAGE_GRANULES);
        let end = span.first.offset(span.granules).get() / HUGE_PAGE_GRANULES * HUGE_PAGE_GRANULES;
        if first < end {
            let inside = Span { region: span.region, first: GranuleIndex::new(first), granules: end - first };
            if Self::dirty_granules(&inside) != inside.granules && !self.huge_pages_pause.passes() {
                for part in inside.parts() {
                    part.group.advised.add(1 << part.in_group());
                }
                // SAFETY: the chunks are committed with the span.
                unsafe { self.os.advise(span.region.address(inside.first), inside.bytes(), HugeAdvice::Always) };
            }
        }
    }

    /// Is the heap large enough for a huge page to count little, and far enough from every limit?
    fn has_room_for_huge_page(&self) -> bool {
        let (held, settings) = (self.budget.held(), &self.settings);
        held >= HUGE_PAGES_FROM_BYTES
            && settings.huge_pages() == HugePages::Auto
            && settings.dirty_bytes_max() >= HUGE_PAGE_BYTES
            && settings.hard_limit().min(settings.soft_limit()) > held + HUGE_PAGE_BYTES
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
        let (start, inside) = (page.region.address(page.first), page.region.address(span.first));
        // SAFETY: committed with the span, as steps of commitment are whole huge pages. The span is the caller's, and zero.
        let had = unsafe { self.os.begin_huge_page(start, HUGE_PAGE_BYTES, inside) };
        self.huge_pages_pause.note(had);
        for part in span.parts() {
            part.group.spans.dirtied(part.in_group(), part.mask);
        }
        if had == HugePage::None {
            return;
        }
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

    /// Before some of the pages of a chunk are given back: the kernel is not to make a huge page of the others and of new
    /// ones.
    pub fn withdraw_advice(&self, region: &Region, chunk: usize) {
        let first = chunk - chunk % HUGE_PAGE_CHUNKS;
        let chunks = low_bits(HUGE_PAGE_CHUNKS) << (first % GROUP_CHUNKS);
        if region.group(first / GROUP_CHUNKS).advised.remove(chunks) {
            let start = region.address(GranuleIndex::new(first * CHUNK_GRANULES));
            // SAFETY: committed, as a chunk of them is.
            unsafe { self.os.advise(start, HUGE_PAGE_CHUNKS * CHUNK_BYTES, HugeAdvice::Never) };
        }
    }
}

/// The parts of a huge page without a span inside it.
fn rest<'h>(page: &Span<'h>, span: &Span<'h>) -> impl Iterator<Item = Part<'h>> + use<'h> {
    let inside = *span;
    page.parts().map(move |part| inside.parts().fold(part, Part::without))
}
