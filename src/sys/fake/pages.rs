//! The functions of `Pages`, as the fake has them.

use super::{FakePages, LEAST, MOST, Moves, addresses_apart};
use crate::config::HUGE_PAGE_BYTES;
use crate::sync::{AtomicU8, Ordering};
use crate::sys::platform::SystemPages;
use crate::sys::{Capabilities, HugeAdvice, HugePage, NotMapped, PageRun, Pages, Relocated, Renewed};
use core::ptr::NonNull;

// SAFETY: the real pages, or a refusal.
unsafe impl Pages for FakePages {
    fn capabilities(&self) -> Capabilities {
        let all = if self.least.load(Ordering::SeqCst) == 0 { MOST } else { LEAST };
        Capabilities { holds_places: self.holds_places(), ..all }
    }

    fn hold(&self, bytes: usize) -> Option<NonNull<u8>> {
        if !self.grants() {
            return None;
        }
        let limited = Some(self.top.load(Ordering::SeqCst)).filter(|&top| top != 0);
        let tops = limited.into_iter().chain(addresses_apart().filter(|_| limited.is_none()));
        let at_top = tops
            .filter_map(|top| NonNull::new(core::ptr::without_provenance_mut(top)))
            .find(|&top| SystemPages.commit(top, bytes).is_ok());
        at_top.or_else(|| SystemPages.hold(bytes)).inspect(|&start| self.note_mapped(start, bytes))
    }

    unsafe fn remap(&self, start: NonNull<u8>, bytes: usize, new_bytes: usize) -> Option<NonNull<u8>> {
        assert!(self.capabilities().resizes_mappings);
        assert!(self.is_mapped(start, bytes), "remap of what is not mapped");
        if new_bytes > self.largest.load(Ordering::SeqCst) || !self.grants() {
            return None;
        }
        // First: another thread may get the place the moment after.
        self.forget_mapped(start, bytes);
        // SAFETY: the same promise.
        let moved = unsafe { SystemPages.remap(start, bytes, new_bytes) };
        match moved {
            Some(moved) => self.note_mapped(moved, new_bytes),
            None => self.note_mapped(start, bytes),
        }
        moved
    }

    fn maps_upwards(&self) -> bool {
        SystemPages.maps_upwards()
    }

    fn lowest(&self) -> usize {
        self.lowest.load(Ordering::SeqCst).max(SystemPages.lowest())
    }

    fn hold_place(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        assert!(self.holds_places());
        if !self.grants() {
            return None;
        }
        let space = self.top.load(Ordering::SeqCst) - self.lowest.load(Ordering::SeqCst);
        let held: usize = self.held_places().iter().map(|&(_, bytes)| bytes).sum();
        if space != 0 && held + bytes > space {
            return None;
        }
        let start = match SystemPages.capabilities().holds_places {
            true => SystemPages.hold_place(bytes, align)?,
            false => Self::place_apart(bytes, align)?,
        };
        self.held.lock().unwrap().insert(start.addr().get(), start.addr().get() + bytes);
        Some(start)
    }

    unsafe fn leave_place(&self, start: NonNull<u8>, bytes: usize) {
        let (from, end) = (start.addr().get(), start.addr().get() + bytes);
        assert_eq!(self.held.lock().unwrap().remove(&from), Some(end), "a place is left that is not held");
        assert!(self.mapped.lock().unwrap().range(from..end).next().is_none(), "a place is left that is in use");
        match SystemPages.capabilities().holds_places {
            // SAFETY: the same promise.
            true => unsafe { SystemPages.leave_place(start, bytes) },
            false => Self::leave_place_apart(start, bytes),
        }
    }

    unsafe fn uncommit(&self, start: NonNull<u8>, bytes: usize) {
        assert!(self.is_mapped(start, bytes), "uncommit of what is not mapped");
        assert!(self.is_held(start, bytes), "uncommit of what is not in a place");
        self.forget_mapped(start, bytes);
        // SAFETY: the same promise.
        unsafe { SystemPages.uncommit(start, bytes) };
    }

    fn commit(&self, start: NonNull<u8>, bytes: usize) -> Result<(), NotMapped> {
        assert!(self.is_held(start, bytes), "commit outside of a place");
        let number = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        if number == self.stranger_comes.load(Ordering::SeqCst) {
            self.meet_stranger(start, bytes);
        }
        // Another test's heap may lie there: that is no call of the scenario.
        let mapped = SystemPages.commit(start, bytes);
        if mapped == Err(NotMapped::Taken) || self.grants() {
            return mapped.inspect(|()| self.note_mapped(start, bytes));
        }
        if mapped.is_ok() {
            // SAFETY: mapped just now.
            unsafe { SystemPages.uncommit(start, bytes) };
        }
        Err(NotMapped::Refused)
    }

    fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes > self.largest.load(Ordering::SeqCst) || !self.grants() {
            return None;
        }
        SystemPages.map(bytes).inspect(|&start| self.note_mapped(start, bytes))
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let page = self.page_bytes();
        assert!(start.addr().get().is_multiple_of(page) && bytes.is_multiple_of(page), "purge of parts of pages");
        assert!(self.is_mapped(start, bytes), "purge of what is not mapped");
        self.used_us.fetch_add(self.purge_us.load(Ordering::SeqCst), Ordering::SeqCst);
        // SAFETY: the same promise.
        self.grants() && unsafe { SystemPages.purge(start, bytes) }
    }

    unsafe fn purge_runs(&self, runs: &[PageRun]) -> bool {
        assert!(self.capabilities().purges_runs);
        let page = self.page_bytes();
        for &PageRun { start, bytes } in runs {
            assert!(start.addr().get().is_multiple_of(page) && bytes.is_multiple_of(page), "purge of parts of pages");
            assert!(self.is_mapped(start, bytes), "purge of what is not mapped");
        }
        // SAFETY: the same promise. What the real kernel cannot do at once it does one by one.
        self.grants()
            && (unsafe { SystemPages.purge_runs(runs) }
                // SAFETY: likewise.
                || runs.iter().all(|run| unsafe { SystemPages.purge(run.start, run.bytes) }))
    }

    unsafe fn populate(&self, start: NonNull<u8>, bytes: usize) -> bool {
        assert!(self.capabilities().populates);
        let page = self.page_bytes();
        assert!(start.addr().get().is_multiple_of(page) && bytes.is_multiple_of(page), "parts of pages brought in");
        assert!(self.is_mapped(start, bytes), "pages brought in of what is not mapped");
        // SAFETY: the same promise.
        self.grants() && unsafe { SystemPages.populate(start, bytes) }
    }

    unsafe fn begin_huge_page(&self, start: NonNull<u8>) -> HugePage {
        assert!(self.capabilities().has_huge_pages);
        assert!(self.is_mapped(start, HUGE_PAGE_BYTES), "huge page of what is not mapped");
        let mut huge_pages = self.huge_pages.lock().unwrap();
        huge_pages.begun += 1;
        if huge_pages.has != HugePage::None {
            for page in (0..HUGE_PAGE_BYTES).step_by(4096) {
                // SAFETY: within the range, which is committed.
                let byte = unsafe { start.add(page).cast::<AtomicU8>().as_ref() };
                // Brings the page in and changes nothing, whoever's it is.
                let _ = byte.compare_exchange(0, 0, Ordering::SeqCst, Ordering::SeqCst);
            }
        }
        huge_pages.has
    }

    unsafe fn split_huge_page(&self, start: NonNull<u8>) {
        assert!(self.capabilities().has_huge_pages);
        assert!(self.is_mapped(start, HUGE_PAGE_BYTES), "split of what is not mapped");
        self.huge_pages.lock().unwrap().split.insert(start.addr().get());
    }

    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocated {
        assert!(self.capabilities().moves_pages);
        assert!(self.is_mapped(from, bytes) && self.is_mapped(to, bytes), "relocate of what is not mapped");
        self.moves_asked.fetch_add(1, Ordering::SeqCst);
        match self.moves() {
            // SAFETY: the same promise.
            Moves::Granted => unsafe { SystemPages.relocate(from, to, bytes) },
            Moves::Refused => {
                // SAFETY: the same promise.
                unsafe { to.copy_from_nonoverlapping(from, bytes) };
                Relocated::Copied
            }
            Moves::Lost => {
                self.forget_mapped(to, bytes);
                self.lost.add(to, bytes);
                Relocated::Lost { at: 0, bytes }
            }
        }
    }

    unsafe fn renew(&self, start: NonNull<u8>, bytes: usize) -> Renewed {
        assert!(self.is_mapped(start, bytes), "renew of what is not mapped");
        match self.moves() {
            // SAFETY: the same promise.
            Moves::Granted => unsafe { SystemPages.renew(start, bytes) },
            Moves::Refused => Renewed::Refused,
            Moves::Lost => {
                self.forget_mapped(start, bytes);
                self.lost.add(start, bytes);
                Renewed::Lost
            }
        }
    }

    unsafe fn advise(&self, start: NonNull<u8>, bytes: usize, advice: HugeAdvice) {
        assert!(self.capabilities().has_huge_pages);
        assert!(self.is_mapped(start, bytes), "advice of what is not mapped");
        let (from, end) = (start.addr().get(), start.addr().get() + bytes);
        let (down, up) = (|address| address & !(HUGE_PAGE_BYTES - 1), from.next_multiple_of(HUGE_PAGE_BYTES));
        let advised = &mut self.huge_pages.lock().unwrap().advised;
        // Whole ones only become huge; one of which a part is not, is none.
        match advice {
            HugeAdvice::Always => advised.extend((up..down(end)).step_by(HUGE_PAGE_BYTES)),
            HugeAdvice::Never => (down(from)..end).step_by(HUGE_PAGE_BYTES).for_each(|page| _ = advised.remove(&page)),
        }
    }

    fn page_bytes(&self) -> usize {
        self.page_bytes.load(Ordering::SeqCst)
    }

    fn thread_us(&self) -> u64 {
        self.used_us.load(Ordering::SeqCst)
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn has_huge_pages_unasked(&self) -> bool {
        self.huge_pages.lock().unwrap().unasked
    }

    fn memory_limit(&self) -> Option<usize> {
        Some(self.memory_limit.load(Ordering::SeqCst)).filter(|&bytes| bytes != 0)
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) {
        assert!(self.is_mapped(start, bytes), "release of what is not mapped");
        assert!(!self.holds_places() || !self.is_held(start, bytes), "release of what is in a place");
        self.forget_mapped(start, bytes);
        // SAFETY: the same promise.
        unsafe { SystemPages.release(start, bytes) };
    }
}
