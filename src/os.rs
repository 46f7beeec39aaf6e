//! The operating system with its calls counted, and the places of what grows.
//!
//! ```text
//! # Role        every call of `Pages` goes through here: how many there were, and how many bytes are mapped; `place`
//!               says where regions and metadata ranges shall lie
//! # Places      nothing is held before it is used, so a limit of address space counts what is used, and a core file or
//!               an emulator has no more to look at. The kernel maps downwards from where a first small mapping goes;
//!               places lie below that, each below the last, and are filled upwards, so that both sides share what lies
//!               between. Where the kernel maps upwards and begins low (valgrind, qemu-user), they lie above instead.
//!               Whether a place is free shows when it is committed. A platform that holds places chooses them itself
//! # Ballast     that first mapping stays, and goes when the kernel refuses memory: where address space is limited, a heap
//!               that has taken all of it leaves the program enough for a thread. The heap grows on with a new one only
//! # Not here    the calls themselves (see `sys`), when to make them (see `depot`, `meta`)
//! ```

use crate::config::{CHUNK_BYTES, GRANULE_SHIFT, HUGE_PAGE_BYTES};
use crate::count::Count;
use crate::sync::{AtomicPtr, AtomicU8, AtomicUsize, CachePadded, Ordering};
use crate::sys::{Capabilities, HugeAdvice, HugePage, NotMapped, PageRun, Pages, Relocated, Renewed};
use core::ptr::NonNull;

/// `Pages`, counting.
#[derive(Debug)]
pub struct Os<P> {
    pages: P,
    counts: CachePadded<Counts>,
    /// Address below which the next place lies; 0 before the first.
    floor: AtomicUsize,
    /// A mapping of `BALLAST_BYTES` without access, or null.
    ballast: AtomicPtr<u8>,
}

/// Alignment of places, in bytes: chunks and huge pages are where they can be told by their numbers.
pub const PLACE_ALIGN: usize = if CHUNK_BYTES > HUGE_PAGE_BYTES { CHUNK_BYTES } else { HUGE_PAGE_BYTES };

/// Bytes of the ballast: larger than gaps between libraries, and a stack of 2 MiB with what a heap needs for its thread.
const BALLAST_BYTES: usize = 3 << 20;

/// The first place ends somewhere in this share of its length below the kernel's. Where exactly depends on the kernel's
/// own choice, so that the places of a second copy of the allocator in the process begin elsewhere.
const SPREAD_SHARE: usize = 4;

#[derive(Debug)]
struct Counts {
    calls: Count,
    purges: Count,
    /// Bytes that these were about, where the kernel took them.
    purged: Count,
    mapped: AtomicUsize,
    /// 1 while several ranges may be given back in one call.
    batches: AtomicU8,
    /// 1 once it said that it does not know how to bring pages in.
    on_demand: AtomicU8,
}

impl<P: Pages> Os<P> {
    /// Nothing asked yet.
    pub const fn new(pages: P) -> Self {
        let counts = Counts {
            calls: Count::new(),
            purges: Count::new(),
            purged: Count::new(),
            mapped: AtomicUsize::new(0),
            batches: AtomicU8::new(0),
            on_demand: AtomicU8::new(0),
        };
        Self {
            pages,
            counts: CachePadded::new(counts),
            floor: AtomicUsize::new(0),
            ballast: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// Calls made so far.
    pub fn calls(&self) -> u64 {
        self.counts.calls.get()
    }

    /// Those of them that gave pages back.
    pub fn purges(&self) -> u64 {
        self.counts.purges.get()
    }

    /// Bytes of address space of which these gave the pages back.
    pub fn purged(&self) -> u64 {
        self.counts.purged.get()
    }

    /// Bytes mapped now.
    pub fn mapped(&self) -> usize {
        // ordering: Relaxed, a statistic.
        self.counts.mapped.load(Ordering::Relaxed)
    }

    /// The seam itself, for a test's fake.
    #[cfg(test)]
    pub fn pages(&self) -> &P {
        &self.pages
    }

    fn count(&self) {
        self.counts.calls.add(1);
    }

    fn count_purge(&self) {
        self.count();
        self.counts.purges.add(1);
    }

    /// A place for `bytes`, which nobody else is told of; nothing is mapped. `None`: there is no room for so many.
    pub fn place(&self, bytes: usize) -> Option<NonNull<u8>> {
        let bytes = bytes.checked_next_multiple_of(PLACE_ALIGN)?;
        if self.capabilities().holds_places {
            self.count();
            return self.pages.hold_place(bytes, PLACE_ALIGN);
        }
        loop {
            // ordering: Relaxed, here and below: an address to try, corrected by the exchange.
            let floor = self.floor.load(Ordering::Relaxed);
            let top = if floor == 0 { self.first_top(bytes)? } else { floor };
            let start = top.checked_sub(bytes).filter(|&start| start >= self.pages.lowest())?;
            // ordering: Relaxed, as above.
            if self.floor.compare_exchange(floor, start, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return NonNull::new(core::ptr::with_exposed_provenance_mut(start));
            }
        }
    }

    /// Takes a place back, if it is held, or still the lowest.
    ///
    /// # Safety
    /// `place` gave it, and it is not used any more: nothing in it is committed.
    pub unsafe fn unplace(&self, start: NonNull<u8>, bytes: usize) {
        let bytes = bytes.next_multiple_of(PLACE_ALIGN);
        if self.capabilities().holds_places {
            self.count();
            // SAFETY: the same promise.
            return unsafe { self.pages.leave_place(start, bytes) };
        }
        let (start, end) = (start.addr().get(), start.addr().get() + bytes);
        // ordering: Relaxed, as above.
        let _ = self.floor.compare_exchange(start, end, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Where the first place, of so many bytes, ends.
    fn first_top(&self, bytes: usize) -> Option<usize> {
        let kernels = self.ballast()?.addr().get();
        // Fibonacci hashing: neighbouring addresses give distant numbers.
        let number = (kernels >> GRANULE_SHIFT).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize) >> (usize::BITS / 2);
        let spread = number % (bytes / SPREAD_SHARE / PLACE_ALIGN).max(1) * PLACE_ALIGN;
        let below = kernels & !(PLACE_ALIGN - 1);
        // As much room again for places below the first.
        let twice = bytes.checked_mul(2)?;
        if below < twice && self.pages.maps_upwards() {
            return below.checked_add(twice)?.checked_add(spread);
        }
        Some(below.saturating_sub(spread))
    }

    /// The ballast, new if need be. `None`: refused.
    fn ballast(&self) -> Option<NonNull<u8>> {
        // ordering: Relaxed, here and below: nobody looks into it.
        let known = NonNull::new(self.ballast.load(Ordering::Relaxed));
        if known.is_some() {
            return known;
        }
        self.count();
        let new = self.pages.hold(BALLAST_BYTES)?;
        self.note_mapped(BALLAST_BYTES);
        let null = core::ptr::null_mut();
        // ordering: Relaxed, as above.
        match self.ballast.compare_exchange(null, new.as_ptr(), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Some(new),
            Err(other) => {
                // SAFETY: mapped just now.
                unsafe { self.release(new, BALLAST_BYTES) };
                NonNull::new(other)
            }
        }
    }

    /// May the heap grow? Not without ballast.
    pub fn may_grow(&self) -> bool {
        self.ballast().is_some()
    }

    /// Unmaps the ballast.
    pub fn drop_ballast(&self) {
        // ordering: Relaxed, as above.
        if let Some(ballast) = NonNull::new(self.ballast.swap(core::ptr::null_mut(), Ordering::Relaxed)) {
            // SAFETY: out of the hands of others by the swap.
            unsafe { self.release(ballast, BALLAST_BYTES) };
        }
    }

    fn note_mapped(&self, bytes: usize) {
        // ordering: Relaxed, a statistic.
        self.counts.mapped.fetch_add(bytes, Ordering::Relaxed);
    }

    /// In the child of a fork: `others` bytes are mapped beside the ballast.
    pub fn recount(&self, others: usize) {
        // ordering: Relaxed, all of it; the caller is alone.
        let ballast = if self.ballast.load(Ordering::Relaxed).is_null() { 0 } else { BALLAST_BYTES };
        self.counts.mapped.store(others + ballast, Ordering::Relaxed);
    }

    /// See `Pages::map`.
    pub fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.count();
        self.pages.map(bytes).inspect(|_| self.note_mapped(bytes))
    }

    /// See `Pages::remap`.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn remap(&self, start: NonNull<u8>, bytes: usize, new_bytes: usize) -> Option<NonNull<u8>> {
        self.count();
        // SAFETY: the same promise.
        let moved = unsafe { self.pages.remap(start, bytes, new_bytes) }?;
        self.note_mapped(new_bytes.wrapping_sub(bytes));
        Some(moved)
    }

    /// See `Pages::commit`. A refusal ends the ballast.
    pub fn commit(&self, start: NonNull<u8>, bytes: usize) -> Result<(), NotMapped> {
        self.count();
        let outcome = self.pages.commit(start, bytes);
        match outcome {
            Ok(()) => self.note_mapped(bytes),
            Err(NotMapped::Taken) => {}
            Err(NotMapped::Refused) => self.drop_ballast(),
        }
        outcome
    }

    /// See `Pages::uncommit`.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn uncommit(&self, start: NonNull<u8>, bytes: usize) {
        self.count();
        // SAFETY: the same promise.
        unsafe { self.pages.uncommit(start, bytes) };
        self.forget(bytes);
    }

    /// See `Pages::purge`.
    ///
    /// # Safety
    /// As there.
    #[must_use]
    pub unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        self.count_purge();
        // SAFETY: the same promise.
        let gone = unsafe { self.pages.purge(start, bytes) };
        self.counts.purged.add(if gone { bytes } else { 0 });
        gone
    }

    /// Lets `purge_runs` make the call that ordinary allocators do not make, or not.
    pub fn allow_batches(&self, allow: bool) {
        // ordering: Relaxed, an independent value.
        self.counts.batches.store(u8::from(allow), Ordering::Relaxed);
    }

    /// Gives the pages of all runs back, which are in order of address: in one call where that is allowed and the kernel
    /// knows it, else in one for each run, or for runs that touch. `false`: some were refused.
    ///
    /// # Safety
    /// As for `Pages::purge_runs`.
    #[must_use]
    pub unsafe fn purge_runs(&self, runs: &[PageRun]) -> bool {
        // ordering: Relaxed, an independent value.
        let is_allowed = self.counts.batches.load(Ordering::Relaxed) != 0;
        let at_once = runs.len() > 1 && is_allowed && self.capabilities().purges_runs;
        if at_once {
            self.count_purge();
            // SAFETY: the same promise.
            if unsafe { self.pages.purge_runs(runs) } {
                self.counts.purged.add(runs.iter().map(|run| run.bytes).sum());
                return true;
            }
        }
        let mut all = true;
        let mut rest = runs.iter().copied().peekable();
        while let Some(mut run) = rest.next() {
            while let Some(next) = rest.next_if(|next| run.end() == next.start.addr().get()) {
                run.bytes += next.bytes;
            }
            // SAFETY: the same promise, for each run.
            all &= unsafe { self.purge(run.start, run.bytes) };
        }
        if at_once && all {
            // It was the call, not the pages.
            self.allow_batches(false);
        }
        all
    }

    /// Brings the pages of a range in that is about to be written, where the kernel does that.
    ///
    /// # Safety
    /// As for `Pages::populate`.
    pub unsafe fn populate(&self, start: NonNull<u8>, bytes: usize) {
        // ordering: Relaxed, a hint about the machine.
        if self.counts.on_demand.load(Ordering::Relaxed) == 0 && self.capabilities().populates {
            self.count();
            // SAFETY: the same promise.
            if !unsafe { self.pages.populate(start, bytes) } {
                // ordering: Relaxed, as above.
                self.counts.on_demand.store(1, Ordering::Relaxed);
            }
        }
    }

    /// See `Pages::begin_huge_page`.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn begin_huge_page(&self, start: NonNull<u8>) -> HugePage {
        self.count();
        // SAFETY: the same promise.
        unsafe { self.pages.begin_huge_page(start) }
    }

    /// See `Pages::split_huge_page`.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn split_huge_page(&self, start: NonNull<u8>) {
        self.count();
        // SAFETY: the same promise.
        unsafe { self.pages.split_huge_page(start) };
    }

    /// See `Pages::relocate`.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocated {
        self.count();
        // SAFETY: the same promise.
        let relocated = unsafe { self.pages.relocate(from, to, bytes) };
        if let Relocated::Lost { at: _, bytes } = relocated {
            self.forget(bytes);
        }
        relocated
    }

    /// See `Pages::renew`.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn renew(&self, start: NonNull<u8>, bytes: usize) -> Renewed {
        self.count();
        // SAFETY: the same promise.
        let renewed = unsafe { self.pages.renew(start, bytes) };
        if renewed == Renewed::Lost {
            self.forget(bytes);
        }
        renewed
    }

    /// After `bytes` that were ours are not any more.
    fn forget(&self, bytes: usize) {
        // ordering: Relaxed, a statistic.
        self.counts.mapped.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// See `Pages::advise`. Nothing where there are no huge pages.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn advise(&self, start: NonNull<u8>, bytes: usize, advice: HugeAdvice) {
        if self.capabilities().has_huge_pages {
            self.count();
            // SAFETY: the same promise.
            unsafe { self.pages.advise(start, bytes, advice) };
        }
    }

    /// See `Pages::capabilities`.
    pub fn capabilities(&self) -> Capabilities {
        self.pages.capabilities()
    }

    /// See `Pages::page_bytes`.
    pub fn page_bytes(&self) -> usize {
        self.pages.page_bytes()
    }

    /// See `Pages::thread_us`.
    pub fn thread_us(&self) -> u64 {
        self.pages.thread_us()
    }

    /// See `Pages::now_ms`.
    pub fn now_ms(&self) -> u64 {
        self.pages.now_ms()
    }

    /// See `Pages::has_huge_pages_unasked`.
    pub fn has_huge_pages_unasked(&self) -> bool {
        self.pages.has_huge_pages_unasked()
    }

    /// See `Pages::memory_limit`.
    pub fn memory_limit(&self) -> Option<usize> {
        self.pages.memory_limit()
    }

    /// See `Pages::release`.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn release(&self, start: NonNull<u8>, bytes: usize) {
        self.count();
        // SAFETY: the same promise.
        unsafe { self.pages.release(start, bytes) };
        self.forget(bytes);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
