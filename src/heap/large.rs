//! Large blocks: a span each.
//!
//! ```text
//! # Role        any size above the largest class, any alignment up to 1 GiB
//! # Growth      in place by claiming the granules behind; else, from `RELOCATE_BYTES_MIN` on, by moving the pages
//!               to a larger span, which costs page-table entries instead of bytes; for a while after the kernel refused
//!               that, by copying (see the caller)
//! # Misuse      whoever frees or resizes a block takes it first, by one exchange: of two threads that do so at once, one ends
//!               the process. Not so one that comes when the memory is a large block anew: nothing tells it from the owner
//! # Zeroing     granules that were never written, or were purged, need no memset; the others see `heap::zeroing`
//! # Errors      a pointer that is no large block ends the process with one line
//! # Checked by  loom_tests/large_block.rs, tests/misuse.rs
//! ```

use crate::config::{GRANULE_BYTES, RELOCATE_BYTES_MIN};
use crate::depot::Depot;
use crate::depot::span::Span;
use crate::heap::{mapped, zeroing};
use crate::size_class::shape;
use crate::slab::{Slab, SpanKind};
use crate::sys::{Pages, Relocated, Renewed, decimal, hex, platform};

fn granules(size: usize) -> usize {
    size.div_ceil(GRANULE_BYTES).max(1)
}

/// A block of `size` bytes at `align`; null at the end of memory.
pub(super) fn allocate<P: Pages>(depot: &Depot<P>, size: usize, align: usize, zeroed: bool) -> *mut u8 {
    if let Some(block) = mapped::allocate(depot, size, align) {
        return block.as_ptr();
    }
    let Some(span) = depot.claim_span(granules(size), align.div_ceil(GRANULE_BYTES)) else {
        return core::ptr::null_mut();
    };
    if zeroed {
        zeroing::make_zero(depot, &span);
    }
    begin(&span);
    span.region.address(span.first).as_ptr()
}

fn begin(span: &Span<'_>) {
    span.region.descriptor(span.first).begin(span.granules);
    span.region.set_span_kind(span.first, SpanKind::Large);
}

/// The same for a span to which the block's pages were moved.
pub(super) fn begin_moved(span: &Span<'_>) {
    begin(span);
    span.region.descriptor(span.first).set_moved();
}

/// Takes a live large block, for the caller to free it, to move it, or to put it back: no other thread can meanwhile.
pub(super) fn take<P: Pages>(depot: &Depot<P>, block: *mut u8) -> Span<'_> {
    if let Some((region, first)) = depot.regions.find(block.addr())
        && region.address(first).as_ptr() == block
        && region.take_large(first)
    {
        return Span { region, first, granules: region.descriptor(first).granules() };
    }
    invalid_free(depot, block)
}

/// After `take`, where the block lives on.
pub(super) fn put_back(span: &Span<'_>) {
    span.region.set_span_kind(span.first, SpanKind::Large);
}

/// Ends the process: `block` is no live large block.
#[cold]
#[inline(never)]
pub(super) fn invalid_free<P: Pages>(depot: &Depot<P>, block: *mut u8) -> ! {
    let found = depot.regions.find(block.addr()).map(|(region, granule)| region.span_kind(granule));
    let address = hex(block.addr());
    if let Some(SpanKind::Slab(class)) = found {
        let bytes = decimal(shape(class).bytes as usize);
        let what = b", which is not a live large block: there are blocks of ";
        platform::fatal(&[b"magalloc: free of ", &address, what, &bytes])
    }
    let what = b", which is not a live large block: freed twice, or never allocated";
    platform::fatal(&[b"magalloc: free of ", &address, what])
}

/// Frees a block.
pub(super) fn free<P: Pages>(depot: &Depot<P>, block: *mut u8) {
    if mapped::free(depot, block) {
        return;
    }
    let span = take(depot, block);
    give(depot, &span, span.region.descriptor(span.first));
}

/// Gives the span of the block with that descriptor, or the end of it, back. A moved one is mapped anew, so that the kernel
/// can join its mapping with the neighbours again: mappings stay few.
fn give<P: Pages>(depot: &Depot<P>, span: &Span<'_>, block: &Slab) {
    if !block.is_moved() {
        if block.is_advised() {
            depot.withdraw_advice(span);
        }
        depot.free_span(span);
        return;
    }
    depot.end_huge_pages(span);
    // SAFETY: the granules are claimed by the caller, which does not use them any more.
    match unsafe { depot.os.renew(span.region.address(span.first), span.bytes()) } {
        Renewed::Yes => {
            depot.renew_advice(span);
            depot.free_clean_span(span);
        }
        Renewed::Refused => depot.free_span(span),
        Renewed::Lost => {
            depot.spans.spans.ended.add(1);
            lose(depot, span);
        }
    }
}

/// Changes the size of a block; null where it would have to be copied.
pub(super) fn resize<P: Pages>(depot: &Depot<P>, block: *mut u8, new_size: usize, align: usize) -> *mut u8 {
    if let Some(resized) = mapped::resize(depot, block, new_size, align) {
        return resized;
    }
    let span = take(depot, block);
    let resized = resize_taken(depot, &span, new_size, align);
    if resized.is_null() || resized == block {
        put_back(&span);
    }
    resized
}

/// The same for a block that the caller has taken; its granules are no longer claimed where the result is another block.
fn resize_taken<P: Pages>(depot: &Depot<P>, span: &Span<'_>, new_size: usize, align: usize) -> *mut u8 {
    let block = span.region.address(span.first).as_ptr();
    let descriptor = span.region.descriptor(span.first);
    let wanted = granules(new_size);
    if wanted <= span.granules {
        if wanted < span.granules {
            descriptor.set_granules(wanted);
            // The block goes on.
            depot.spans.spans.ended.sub(1);
            give(depot, &span.tail(wanted), descriptor);
        }
        return block;
    }
    if depot.extend_span(span, wanted - span.granules) {
        descriptor.set_granules(wanted);
        // No block more.
        depot.spans.spans.made.sub(1);
        if depot.want_huge_pages_inside(&Span { granules: wanted, ..*span }.tail(span.granules)) {
            descriptor.set_advised();
        }
        return block;
    }
    if span.bytes() < RELOCATE_BYTES_MIN || !depot.os.capabilities().moves_pages || depot.moves_pause.passes() {
        return core::ptr::null_mut();
    }
    let Some(new) = depot.claim_span(wanted, align.div_ceil(GRANULE_BYTES)) else { return core::ptr::null_mut() };
    let (from, to) = (span.region.address(span.first), new.region.address(new.first));
    depot.end_huge_pages(span);
    // SAFETY: two spans that the caller has, so they do not overlap and nobody else uses them.
    let relocated = unsafe { depot.os.relocate(from, to, span.bytes()) };
    depot.moves_pause.note(relocated == Relocated::Moved);
    if let Relocated::Lost { at, bytes } = relocated {
        free_around(depot, &new, at, bytes);
        return core::ptr::null_mut();
    }
    let is_advised = depot.want_huge_pages_inside(&new.tail(span.granules));
    begin_moved(&new);
    if is_advised {
        new.region.descriptor(new.first).set_advised();
    }
    give_moved(depot, span, relocated);
    to.as_ptr()
}

/// Leaves a span, which is somebody else's by now, claimed for ever.
fn lose<P: Pages>(depot: &Depot<P>, span: &Span<'_>) {
    depot.counts.lost.add(span.bytes());
    (0..span.granules).for_each(|granule| span.region.lose(span.first.offset(granule)));
}

/// Gives back a span but for the `lost` bytes from `at` on, which are somebody else's by now.
pub(super) fn free_around<P: Pages>(depot: &Depot<P>, span: &Span<'_>, at: usize, lost: usize) {
    let (before, behind) = (span.head(at / GRANULE_BYTES), span.tail((at + lost) / GRANULE_BYTES));
    lose(depot, &span.head(span.granules - behind.granules).tail(before.granules));
    let parts = [before, behind];
    let rest = parts.iter().filter(|part| part.granules != 0);
    // One block less, in whatever parts it goes.
    depot.spans.spans.ended.add(1);
    depot.spans.spans.ended.sub(rest.clone().count());
    rest.for_each(|part| depot.free_span(part));
}

/// Gives back the span of a block that was taken, and whose pages were moved elsewhere.
pub(super) fn give_moved<P: Pages>(depot: &Depot<P>, span: &Span<'_>, relocated: Relocated) {
    let descriptor = span.region.descriptor(span.first);
    if descriptor.is_moved() || relocated == Relocated::Copied {
        give(depot, span, descriptor);
    } else {
        depot.free_clean_span(span);
    }
}
