//! The largest blocks: a kernel mapping each.
//!
//! ```text
//! # Role        blocks of `MAPPED_BYTES_MIN` and more, wherever the kernel has a place for them; where it has none, the
//!               caller makes an ordinary large block
//! # Growth      by the kernel, which moves page-table entries if it must. A block that grows beyond the bound moves to a
//!               mapping, one that shrinks below half of it to a span, with its pages; in between it stays what it is
//! # Zeroing     never needed: the kernel's memory is zero
//! # Not here    the mappings and their accounts (see `depot::mappings`)
//! ```

use super::{Found, large};
use crate::config::{GRANULE_BYTES, MAPPED_BYTES_MIN, RELOCATE_BYTES_MIN};
use crate::depot::Depot;
use crate::depot::mapping_table::Mapping;
use crate::sys::{Pages, Relocated};
use core::ptr::{NonNull, null_mut};

/// What is known of an address outside of all regions.
pub(super) fn find<P: Pages>(depot: &Depot<P>, address: usize) -> Found {
    match depot.mappings.find(address) {
        Some(mapping) => Found::Large { bytes: mapping.bytes },
        None if depot.mappings.contains(address) => Found::Nothing,
        None => Found::Foreign,
    }
}

/// A block of `size` bytes at `align`, if it is large enough, and a mapping for it is to be had.
pub(super) fn allocate<P: Pages>(depot: &Depot<P>, size: usize, align: usize) -> Option<NonNull<u8>> {
    if size < MAPPED_BYTES_MIN {
        return None;
    }
    depot.claim_mapping(size.checked_next_multiple_of(GRANULE_BYTES)?, align)
}

/// Frees a block that is a mapping. `false`: it is none.
pub(super) fn free<P: Pages>(depot: &Depot<P>, block: *mut u8) -> bool {
    depot.free_mapping(block.addr())
}

/// Changes the size of a block that is a mapping, or that is going to be one. Null where it would have to be copied;
/// `None` where it is the caller's to do.
pub(super) fn resize<P: Pages>(depot: &Depot<P>, block: *mut u8, new_size: usize, align: usize) -> Option<*mut u8> {
    let Some(mapping) = depot.mappings.find(block.addr()) else {
        return if new_size < MAPPED_BYTES_MIN { None } else { move_in(depot, block, new_size, align) };
    };
    let bytes = new_size.checked_next_multiple_of(GRANULE_BYTES)?;
    if bytes < MAPPED_BYTES_MIN / 2 {
        let moved = move_out(depot, block, bytes, align);
        // Where there is no room for a span, it stays what it is: to shrink a block must not fail for want of memory.
        if !moved.is_null() || bytes < RELOCATE_BYTES_MIN {
            return Some(moved);
        }
    }
    // The kernel might move one that grows to an address that is no multiple.
    let stays_aligned = bytes <= mapping.bytes || align <= depot.os.page_bytes();
    let resized = if stays_aligned { depot.resize_mapping(mapping.start, bytes.max(MAPPED_BYTES_MIN)) } else { None };
    Some(match resized {
        Some(resized) => {
            purge_range(depot, resized.addr().get() + bytes, MAPPED_BYTES_MIN.saturating_sub(bytes));
            resized.as_ptr()
        }
        None if bytes <= mapping.bytes => {
            // It keeps its length, not its pages.
            purge_range(depot, mapping.start + bytes, mapping.bytes - bytes);
            block
        }
        None => move_on(depot, block, bytes, align),
    })
}

/// Moves the pages of a mapping to a longer one, part by part: where the kernel has several mappings for it, since the
/// pages of a span were moved there, or the program has changed the access to some of it, it does not lengthen them.
fn move_on<P: Pages>(depot: &Depot<P>, block: *mut u8, bytes: usize, align: usize) -> *mut u8 {
    if !depot.os.capabilities().moves_pages {
        return null_mut();
    }
    let (Some(from), Some(to)) = (NonNull::new(block), allocate(depot, bytes, align)) else { return null_mut() };
    let old = take(depot, block);
    // SAFETY: two mappings that the caller has, so they do not overlap and nobody else uses them.
    if let Relocated::Lost { at, bytes } = unsafe { depot.os.relocate(from, to, old.bytes) } {
        depot.mappings.put_back(old);
        depot.free_mapping_around(to.addr().get(), at, bytes);
        return null_mut();
    }
    // SAFETY: taken above; its pages are elsewhere, and by the program's promise it is not used any more.
    unsafe { depot.end_mapping(old) };
    to.as_ptr()
}

/// Takes a block that is a mapping, for the caller to move it: no other thread can meanwhile.
fn take<P: Pages>(depot: &Depot<P>, block: *mut u8) -> Mapping {
    depot.mappings.take(block.addr()).unwrap_or_else(|| large::invalid_free(depot, block))
}

/// Gives the pages back at the end of a mapping that the program has shortened.
fn purge_range<P: Pages>(depot: &Depot<P>, start: usize, bytes: usize) {
    if let Some(start) = NonNull::new(core::ptr::with_exposed_provenance_mut(start)).filter(|_| bytes != 0) {
        // SAFETY: within the mapping, and not the block's any more. If the kernel refuses, they stay.
        let _ = unsafe { depot.os.purge(start, bytes) };
    }
}

/// Moves the pages of an ordinary large block to a mapping that is longer. `None`: the kernel has no place for one, or
/// moves no pages.
fn move_in<P: Pages>(depot: &Depot<P>, block: *mut u8, new_size: usize, align: usize) -> Option<*mut u8> {
    if !depot.os.capabilities().moves_pages {
        return None;
    }
    let span = large::take(depot, block);
    if span.bytes() < RELOCATE_BYTES_MIN {
        large::put_back(&span);
        return Some(null_mut());
    }
    let Some(new) = allocate(depot, new_size, align) else {
        large::put_back(&span);
        return None;
    };
    depot.end_huge_pages(&span);
    // SAFETY: a span and a mapping that the caller has, so they do not overlap and nobody else uses them.
    let relocated = unsafe { depot.os.relocate(span.region.address(span.first), new, span.bytes()) };
    if let Relocated::Lost { at, bytes } = relocated {
        large::put_back(&span);
        depot.free_mapping_around(new.addr().get(), at, bytes);
        return None;
    }
    large::give_moved(depot, &span, relocated);
    Some(new.as_ptr())
}

/// Moves the first `bytes` of a block from its mapping to a span.
fn move_out<P: Pages>(depot: &Depot<P>, block: *mut u8, bytes: usize, align: usize) -> *mut u8 {
    let Some(from) = NonNull::new(block) else { return null_mut() };
    if bytes < RELOCATE_BYTES_MIN || !depot.os.capabilities().moves_pages {
        return null_mut();
    }
    let Some(span) = depot.claim_span(bytes / GRANULE_BYTES, align.div_ceil(GRANULE_BYTES)) else { return null_mut() };
    let to = span.region.address(span.first);
    let old = take(depot, block);
    // SAFETY: a span and a mapping that the caller has, so they do not overlap and nobody else uses them.
    if let Relocated::Lost { at, bytes } = unsafe { depot.os.relocate(from, to, span.bytes()) } {
        depot.mappings.put_back(old);
        large::free_around(depot, &span, at, bytes);
        return null_mut();
    }
    large::begin_moved(&span);
    // SAFETY: taken above; its pages are elsewhere, and by the program's promise it is not used any more.
    unsafe { depot.end_mapping(old) };
    to.as_ptr()
}
