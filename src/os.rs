//! The operating system with its calls counted.
//!
//! ```text
//! # Role        every call of `Pages` goes through here: how many there were, how many bytes are mapped, and whether
//!               address space turned out to be scarce; the annex, which is reserved space for who wants part of it
//! # Not here    the calls themselves (see `sys`), when to make them (see `depot`, `meta`)
//! ```

use crate::sync::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, CachePadded, Ordering};
use crate::sys::{HugeAdvice, HugePage, PageRun, Pages, Relocated, Renewed};
use core::ptr::NonNull;

/// `Pages`, counting.
#[derive(Debug)]
pub struct Os<P> {
    pages: P,
    counts: CachePadded<Counts>,
    annex: Annex,
}

/// Address space that somebody has reserved, and will release, for others to have parts of.
#[derive(Debug)]
struct Annex {
    /// Null until there is one.
    start: AtomicPtr<u8>,
    bytes: AtomicUsize,
    /// Bytes given out; beyond the end where a request did not fit.
    given: AtomicUsize,
}

/// Who releases a part of address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Whoever has it.
    Own,
    /// Whoever reserved the annex that it is part of.
    OfAnnex,
}

#[derive(Debug)]
struct Counts {
    calls: AtomicU64,
    purges: AtomicU64,
    mapped: AtomicUsize,
    /// 1 once a reservation was refused.
    scarce: AtomicU8,
    /// 1 while several ranges may be given back in one call.
    batches: AtomicU8,
    /// 1 once it said that it does not know how to bring pages in.
    on_demand: AtomicU8,
}

impl<P: Pages> Os<P> {
    /// Nothing asked yet.
    pub const fn new(pages: P) -> Self {
        let counts = Counts {
            calls: AtomicU64::new(0),
            purges: AtomicU64::new(0),
            mapped: AtomicUsize::new(0),
            scarce: AtomicU8::new(0),
            batches: AtomicU8::new(0),
            on_demand: AtomicU8::new(0),
        };
        let annex = Annex {
            start: AtomicPtr::new(core::ptr::null_mut()),
            bytes: AtomicUsize::new(0),
            given: AtomicUsize::new(0),
        };
        Self { pages, counts: CachePadded::new(counts), annex }
    }

    /// Calls made so far.
    pub fn calls(&self) -> u64 {
        // ordering: Relaxed, a statistic.
        self.counts.calls.load(Ordering::Relaxed)
    }

    /// Those of them that gave pages back.
    pub fn purges(&self) -> u64 {
        // ordering: Relaxed, a statistic.
        self.counts.purges.load(Ordering::Relaxed)
    }

    /// Was a reservation ever refused? Then address space is dear here.
    pub fn is_scarce(&self) -> bool {
        // ordering: Relaxed, a hint.
        self.counts.scarce.load(Ordering::Relaxed) != 0
    }

    /// Bytes of address space held now.
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
        // ordering: Relaxed, a statistic.
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn count_purge(&self) {
        self.count();
        // ordering: Relaxed, a statistic.
        self.counts.purges.fetch_add(1, Ordering::Relaxed);
    }

    /// See `Pages::reserve`.
    pub fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.count();
        let Some(start) = self.pages.reserve(bytes) else {
            // ordering: Relaxed, a hint about the machine.
            self.counts.scarce.store(1, Ordering::Relaxed);
            return None;
        };
        // ordering: Relaxed, a statistic.
        self.counts.mapped.fetch_add(bytes, Ordering::Relaxed);
        Some(start)
    }

    /// See `Pages::map`.
    pub fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.count();
        let start = self.pages.map(bytes)?;
        // ordering: Relaxed, a statistic.
        self.counts.mapped.fetch_add(bytes, Ordering::Relaxed);
        Some(start)
    }

    /// See `Pages::remap`.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn remap(&self, start: NonNull<u8>, bytes: usize, new_bytes: usize) -> Option<NonNull<u8>> {
        self.count();
        // SAFETY: the same promise.
        let moved = unsafe { self.pages.remap(start, bytes, new_bytes) }?;
        // ordering: Relaxed, a statistic.
        self.counts.mapped.fetch_add(new_bytes.wrapping_sub(bytes), Ordering::Relaxed);
        Some(moved)
    }

    /// Lends out `bytes` of reserved address space from now on; at most once at a time.
    pub fn open_annex(&self, start: NonNull<u8>, bytes: usize) {
        // ordering: Relaxed; published by the next one.
        self.annex.bytes.store(bytes, Ordering::Relaxed);
        // ordering: Release [ANNEX] its length; pairs with Acquire in `reserve_part`. The space needs no more than its
        // address.
        self.annex.start.store(start.as_ptr(), Ordering::Release);
    }

    /// Nobody gets a part of the annex any more.
    pub fn close_annex(&self) {
        // ordering: Relaxed; the caller is alone.
        self.annex.start.store(core::ptr::null_mut(), Ordering::Relaxed);
    }

    /// Address space as `reserve` gives it, but a part of the annex where that has room.
    pub fn reserve_part(&self, bytes: usize) -> Option<(NonNull<u8>, Space)> {
        // ordering: Acquire [ANNEX] pairs with Release in `open_annex`.
        if let Some(start) = NonNull::new(self.annex.start.load(Ordering::Acquire)) {
            // ordering: Relaxed; parts are told apart by the count itself. It cannot overflow: few ranges ask.
            let from = self.annex.given.fetch_add(bytes, Ordering::Relaxed);
            if from + bytes <= self.annex.bytes.load(Ordering::Relaxed) {
                // SAFETY: within the annex.
                return Some((unsafe { start.add(from) }, Space::OfAnnex));
            }
        }
        self.reserve(bytes).map(|start| (start, Space::Own))
    }

    /// See `Pages::commit`.
    ///
    /// # Safety
    /// As there.
    #[must_use]
    pub unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        self.count();
        // SAFETY: the same promise.
        unsafe { self.pages.commit(start, bytes) }
    }

    /// See `Pages::purge`.
    ///
    /// # Safety
    /// As there.
    #[must_use]
    pub unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        self.count_purge();
        // SAFETY: the same promise.
        unsafe { self.pages.purge(start, bytes) }
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
        let at_once = runs.len() > 1 && self.counts.batches.load(Ordering::Relaxed) != 0;
        if at_once {
            self.count_purge();
            // SAFETY: the same promise.
            if unsafe { self.pages.purge_runs(runs) } {
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
        if self.counts.on_demand.load(Ordering::Relaxed) == 0 {
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
        unsafe { self.pages.relocate(from, to, bytes) }
    }

    /// See `Pages::renew`.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn renew(&self, start: NonNull<u8>, bytes: usize) -> Renewed {
        self.count();
        // SAFETY: the same promise.
        unsafe { self.pages.renew(start, bytes) }
    }

    /// See `Pages::advise`.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn advise(&self, start: NonNull<u8>, bytes: usize, advice: HugeAdvice) {
        self.count();
        // SAFETY: the same promise.
        unsafe { self.pages.advise(start, bytes, advice) };
    }

    /// See `Pages::page_bytes`.
    pub fn page_bytes(&self) -> usize {
        self.pages.page_bytes()
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
        // ordering: Relaxed, a statistic.
        self.counts.mapped.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::fake::FakePages;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_does_not_fit_into_the_annex_is_reserved_by_itself() {
        let os = Os::new(FakePages::new());
        let annex = os.reserve(3 * MIB).expect("address space");
        os.open_annex(annex, 3 * MIB);
        let part = |bytes| os.reserve_part(bytes).expect("address space");
        let (first, second) = (part(MIB), part(2 * MIB));
        // SAFETY: within the annex.
        let behind_first = unsafe { annex.add(MIB) };
        assert_eq!((first, second), ((annex, Space::OfAnnex), (behind_first, Space::OfAnnex)));
        assert_eq!(os.mapped(), 3 * MIB);
        let third = part(MIB);
        assert_eq!((third.1, os.mapped()), (Space::Own, 4 * MIB));
        os.close_annex();
        let fourth = part(MIB);
        assert_eq!(fourth.1, Space::Own);
        for (start, bytes) in [(annex, 3 * MIB), (third.0, MIB), (fourth.0, MIB)] {
            // SAFETY: reserved above, not used any more.
            unsafe { os.release(start, bytes) };
        }
        assert_eq!(os.mapped(), 0);
    }

    #[test]
    fn runs_that_touch_are_given_back_in_one_call_and_all_at_once_on_demand_only() {
        const PAGE: usize = 4096;
        let os = Os::new(FakePages::new());
        let start = os.reserve(MIB).expect("address space");
        // SAFETY: our own reservation.
        assert!(unsafe { os.commit(start, MIB) });
        // SAFETY: within it.
        let run = |page: usize, pages: usize| PageRun { start: unsafe { start.add(page * PAGE) }, bytes: pages * PAGE };
        let runs = [run(0, 1), run(1, 2), run(3, 1), run(5, 1), run(9, 1), run(10, 1)];
        let purges = |allow| {
            let before = os.purges();
            os.allow_batches(allow);
            // SAFETY: committed, and this test's own.
            unsafe { start.write_bytes(1, MIB) };
            // SAFETY: likewise.
            assert!(unsafe { os.purge_runs(&runs) });
            assert_eq!(os.pages().resident(start, MIB), MIB - 7 * PAGE);
            os.purges() - before
        };
        assert_eq!((purges(false), purges(true)), (3, 1));
        // SAFETY: not used any more.
        unsafe { os.release(start, MIB) };
    }
}
