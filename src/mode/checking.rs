//! Checking: every free is checked at once.
//!
//! ```text
//! # Role        no thread caches anything: a block comes from its slab and goes back to it, one by one. A slab's bitmap
//!               knows each block, so a double free, and a free of what is no block of that size, are noticed by the free
//!               itself, not when a cache is flushed
//! # Cost        some 100 ns a call; a slab's word is written for each, by all threads that use the slab
//! # Not seen    what has been handed out anew since: a block that is freed once too often after that is another one's
//! ```

use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::sys::Pages;
use crate::units::ClassIndex;

/// A block of `class`; null at the end of memory.
pub fn allocate<P: Pages>(heap: &Heap<P>, local: Option<&LocalHeap<'_, P>>, class: ClassIndex) -> *mut u8 {
    empty(heap, local);
    heap.allocate_small(None, class)
}

/// Frees a block of `class`.
pub fn free<P: Pages>(heap: &Heap<P>, local: Option<&LocalHeap<'_, P>>, class: ClassIndex, block: *mut u8) {
    empty(heap, local);
    heap.free_small(None, class, block);
}

/// What is cached would hide what was freed twice.
fn empty<P: Pages>(heap: &Heap<P>, local: Option<&LocalHeap<'_, P>>) {
    if let Some(local) = local
        && !local.cache.may_hold_nothing()
    {
        heap.flush(local);
    }
}
