//! The whole allocator as a value: small blocks through caches, large ones as spans, statistics, the end.
//!
//! ```text
//! # Role        what the global allocator calls when the fast path cannot serve, and what a test makes of its own
//! # States      open, then closed for ever: after `release`, a late free is ignored and a late malloc gets pages of
//!               its own, which the kernel takes with the process
//! # Not here    the one static, thread-local storage (see `global`)
//! ```

mod census;
mod figures;
mod large;
mod mapped;
pub mod purge;
mod stats;
#[cfg(test)]
mod tests;
mod zeroing;

pub use figures::{Bytes, Figure, Unit};
pub use stats::{ClassStats, Stats};

use crate::config::{ALIGN_MAX, GRANULE_BYTES, PARKED_BYTES_ALL};
use crate::depot::Depot;
use crate::heap::purge::Purge;
use crate::local::{Adopted, LocalHeap, LocalIndex, Shared, ThreadRegistry};
use crate::options::{HugePages, Options, SoftLimit};
use crate::purge::pace::{Due, Ticks};
use crate::size_class::shape;
use crate::slab::SpanKind;
use crate::sync::{AtomicU8, Ordering};
use crate::sys::{Pages, platform};
use crate::units::ClassIndex;

/// What ended threads leave to the next ones is at most the heap divided by this, where that is more than
/// `PARKED_BYTES_ALL`.
const PARKED_SHARE: usize = 32;

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In a block of that class.
    Small(ClassIndex),
    /// The start of a large block.
    Large {
        /// Bytes of its span.
        bytes: usize,
    },
    /// In the heap, where no block begins.
    Nothing,
    /// Not in the heap.
    Foreign,
}

/// An allocator.
pub struct Heap<P> {
    depot: Depot<P>,
    registry: ThreadRegistry,
    ticks: Ticks,
    /// 1 after `release`.
    closed: AtomicU8,
}

impl<P: Pages> Heap<P> {
    /// An empty heap. Nothing is mapped before the first use.
    pub const fn new(pages: P) -> Self {
        Self {
            depot: Depot::new(pages),
            registry: ThreadRegistry::new(),
            ticks: Ticks::new(),
            closed: AtomicU8::new(0),
        }
    }

    /// Takes over `options`.
    pub fn configure(&self, options: &Options) {
        self.take_over(options, options.soft_limit_bytes(|| self.depot.os.memory_limit()));
    }

    /// Takes over `options` in the place of others, with that soft limit, that were taken over before. The control group is
    /// read anew only where they say something else of it.
    pub fn reconfigure(&self, before: SoftLimit, options: &Options) {
        if before == options.soft_limit {
            self.take_over(options, self.depot.settings.soft_limit());
        } else {
            self.configure(options);
        }
    }

    fn take_over(&self, options: &Options, soft_limit: usize) {
        let depot = &self.depot;
        let whole_huge_pages = match options.huge_pages {
            HugePages::Auto | HugePages::Never => false,
            HugePages::System => depot.os.has_huge_pages_unasked(),
            HugePages::Always => depot.os.capabilities().has_huge_pages,
        };
        depot.settings.apply(options, soft_limit, whole_huge_pages);
        depot.os.allow_batches(options.extra_calls);
    }

    /// What is known of the address of a block.
    pub fn find(&self, block: *const u8) -> Found {
        let Some((region, granule)) = self.depot.regions.find(block.addr()) else {
            return mapped::find(&self.depot, block.addr());
        };
        match region.span_kind(granule) {
            SpanKind::Slab(class) => Found::Small(class),
            SpanKind::Large if region.address(granule).as_ptr().cast_const() == block => {
                Found::Large { bytes: region.descriptor(granule).granules() * GRANULE_BYTES }
            }
            SpanKind::Large | SpanKind::Other => Found::Nothing,
        }
    }

    /// Is `address` in this heap?
    pub fn owns(&self, address: *const u8) -> bool {
        self.find(address) != Found::Foreign
    }

    /// What the heap shares.
    pub fn depot(&self) -> &Depot<P> {
        &self.depot
    }

    /// Was the heap released?
    pub fn is_closed(&self) -> bool {
        // ordering: Relaxed; only the thread that released it is left, or a thread that must not exist.
        self.closed.load(Ordering::Relaxed) != 0
    }

    /// Gives the calling thread a cache. `None`: closed, or no memory or number for one; the thread is then served
    /// without.
    pub fn register(&self) -> Option<LocalHeap<'_, P>> {
        if self.is_closed() || !self.depot.prepare() {
            return None;
        }
        let (me, is_empty) = match self.shared().adopt()? {
            Adopted::Parked(me) => (me, false),
            Adopted::Empty(me) => (me, true),
        };
        // SAFETY: adopted just now, for the calling thread.
        let local = unsafe { self.local(me) };
        if is_empty {
            local.cache.begin();
        }
        Some(local)
    }

    /// Local heap number `me`.
    ///
    /// # Safety
    /// The calling thread has it, from `register` to `unregister` or `park`.
    pub unsafe fn local(&self, me: LocalIndex) -> LocalHeap<'_, P> {
        // SAFETY: the caller's promise.
        unsafe { LocalHeap::new(self.shared(), me) }
    }

    /// What gives memory back.
    pub fn purge(&self) -> Purge<'_, P> {
        Purge { shared: self.shared(), ticks: &self.ticks }
    }

    /// In the child of a fork, before it does anything else: the threads of all other caches are gone.
    pub fn note_fork(&self, me: Option<LocalIndex>) {
        self.depot.in_flight.reset();
        self.depot.forget_claims();
        self.registry.forget_claims();
        self.depot.recount();
        self.recount_mapped();
        self.depot.forget_watcher();
        self.registry.note_lost_in_fork(me);
        if let Some(me) = me {
            self.registry.reattach(me);
        }
        // Whoever had taken the purge signal may be gone as well.
        self.purge().raise_if_unpurged();
    }

    /// In the child of a fork, whose only thread calls it: a thread that vanished amid mapping or unmapping has left
    /// something that nobody knows of, counted or not.
    pub fn recount_mapped(&self) {
        self.depot
            .os
            .recount(self.committed(|region| region.committed_chunks().count(), self.depot.mappings.recount()));
    }

    /// Which threads have local heaps.
    pub fn registry(&self) -> &ThreadRegistry {
        &self.registry
    }

    /// What all local heaps share.
    pub fn shared(&self) -> Shared<'_, P> {
        Shared { depot: &self.depot, registry: &self.registry }
    }

    /// Takes the cache from the calling thread; its blocks go home and its slabs to the depot.
    pub fn unregister(&self, local: &LocalHeap<'_, P>) {
        if !self.is_closed() {
            local.drain();
            self.shared().abandon(local.me);
        }
    }

    /// Takes the cache from the calling thread, which ends: the next thread has it as it is, if one begins before a
    /// epoch, or somebody who would use new memory, gives home what is in it.
    pub fn park(&self, local: &LocalHeap<'_, P>) {
        // First: a closed heap has no caches any more.
        if self.is_closed() {
            return;
        }
        // As if all that rest had as much.
        let most = PARKED_BYTES_ALL.max(self.depot.budget.held() / PARKED_SHARE) / (1 + self.registry.parked());
        let may_park = !self.depot.is_pressed() && local.cache.may_park(most);
        if may_park && self.shared().park(local.me) {
            return;
        }
        self.unregister(local);
    }

    /// Empties the cache of the calling thread, which goes on: its blocks go home and its slabs to the depot.
    pub fn flush(&self, local: &LocalHeap<'_, P>) {
        if !self.is_closed() {
            local.drain();
            self.shared().give_all(local.me);
        }
    }

    /// Does any thread other than the caller's have a cache?
    pub fn has_other_threads(&self, registered: bool) -> bool {
        self.registry.in_use() > usize::from(registered)
    }

    /// A block of `class`; null at the end of memory.
    pub fn allocate_small(&self, local: Option<&LocalHeap<'_, P>>, class: ClassIndex) -> *mut u8 {
        match local {
            _ if self.is_closed() => {
                let bytes = shape(class).bytes as usize;
                // All the alignment that the class promises.
                self.allocate_late(bytes, 1 << bytes.trailing_zeros())
            }
            Some(local) => {
                // The caller may have looked before it got this cache, which may be one that was parked; or at the dummy.
                let block = local.pop(class);
                if block.is_null() {
                    return local.allocate(class);
                }
                self.registry.settle(local.me);
                block
            }
            None => self.shared().take_one(class),
        }
    }

    /// Frees a block of `class`.
    pub fn free_small(&self, local: Option<&LocalHeap<'_, P>>, class: ClassIndex, block: *mut u8) {
        match local {
            _ if self.is_closed() => {}
            // As in `allocate_small`.
            Some(local) if local.push(class, block) => self.registry.settle(local.me),
            Some(local) => local.free(class, block),
            None => self.shared().flush(None, class, &[block]),
        }
    }

    /// Pages of its own for a malloc after the end.
    fn allocate_late(&self, size: usize, align: usize) -> *mut u8 {
        let Some(bytes) = size.max(1).checked_add(align.max(GRANULE_BYTES)) else { return core::ptr::null_mut() };
        let bytes = bytes.next_multiple_of(GRANULE_BYTES);
        let Some(start) = self.depot.os.map(bytes) else { return core::ptr::null_mut() };
        start.as_ptr().map_addr(|address| address.next_multiple_of(align))
    }

    /// Gives back the pages of all free memory; the address space stays.
    pub fn release_free(&self) {
        if !self.is_closed() {
            self.purge().epoch(Due::All, || false);
        }
    }

    /// Gives home what all threads' caches have, whether they run or not. `true`: no block is live.
    ///
    /// # Safety
    /// No other thread is in the heap, or uses it again.
    pub unsafe fn empty_caches(&self) -> bool {
        self.shared().flush_parked();
        self.registry.note_lost_in_fork(None);
        self.shared().adopt_lost();
        let mut regions = self.depot.regions.iter();
        let are_unused = regions.all(|region| region.committed_chunks().all(|chunk| region.is_unused(chunk)));
        are_unused && self.depot.mappings.iter().next().is_none()
    }

    /// Gives everything back but chunks with live blocks, and closes the heap. Returns the bytes that were mapped and those
    /// unmapped.
    ///
    /// # Safety
    /// No other thread is in the heap, or uses it again; the caches are empty. Live blocks stay.
    pub unsafe fn release_unused(&self) -> (usize, usize) {
        self.release_free();
        // SAFETY: the caller's promise.
        unsafe { self.close(false) }
    }

    /// Gives everything back and closes the heap. Returns the bytes that were mapped and those unmapped.
    ///
    /// # Safety
    /// No other thread runs, and nobody touches a block again; a late free or malloc is served.
    pub unsafe fn release(&self) -> (usize, usize) {
        // Not for the memory: a block that an ended thread has freed twice is noticed when it comes home.
        self.shared().flush_parked();
        // SAFETY: the caller's promise.
        unsafe { self.close(true) }
    }

    /// Closes the heap and gives it back; chunks with live blocks only if `also_live`.
    ///
    /// # Safety
    /// As for `release` and `release_unused`.
    unsafe fn close(&self, also_live: bool) -> (usize, usize) {
        // ordering: Relaxed; the caller is alone.
        self.closed.store(1, Ordering::Relaxed);
        let before = self.depot.os.mapped();
        // SAFETY: the caller's promise.
        unsafe { self.registry.release(&self.depot) };
        // SAFETY: the caller's promise.
        unsafe { self.depot.release(also_live) };
        (before, before - self.depot.os.mapped())
    }

    /// A block of `size` bytes at `align`, where no class serves; null at the end of memory.
    pub fn allocate_large(&self, size: usize, align: usize, zeroed: bool) -> *mut u8 {
        if align > ALIGN_MAX {
            return core::ptr::null_mut();
        }
        if self.is_closed() {
            return self.allocate_late(size, align);
        }
        // Before new memory is used.
        self.shared().adopt_lost();
        let block = large::allocate(&self.depot, size, align, zeroed);
        if block.is_null() {
            self.shared().take_stashes();
            // What a purge has in flight comes back when it is through with its chunk.
            platform::wait_briefly(|| self.depot.in_flight.is_empty());
            return large::allocate(&self.depot, size, align, zeroed);
        }
        block
    }

    /// Frees a block that no class serves.
    pub fn free_large(&self, block: *mut u8) {
        if !self.is_closed() {
            large::free(&self.depot, block);
        }
    }

    /// Changes the size of a block that no class serves to one that no class serves: in place or by moving its
    /// pages. Null: neither was possible, the block is as it was.
    pub fn resize_large(&self, block: *mut u8, new_size: usize, align: usize) -> *mut u8 {
        if self.is_closed() {
            return core::ptr::null_mut();
        }
        large::resize(&self.depot, block, new_size, align)
    }
}
