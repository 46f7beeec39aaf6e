//! A kernel for tests: the real one, but it refuses when told to, and knows what was never given back.

use super::platform::SystemPages;
use super::{HugeAdvice, HugePage, PageRun, Pages, Relocated, Renewed};
use crate::config::HUGE_PAGE_BYTES;
use crate::sync::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use core::ptr::NonNull;
use std::collections::BTreeSet;
use std::sync::Mutex;

/// What becomes of pages that are to be moved, and of ranges that are to be mapped anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moves {
    Granted,
    /// Nothing changes.
    Refused,
    /// The target, or the range, is somebody else's afterwards.
    Lost,
}

/// Which calls are refused. Calls are counted from 1; `release` cannot be refused and is not counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refuse {
    None,
    /// That call only.
    Call(u64),
    /// That call and all after it.
    From(u64),
}

pub(crate) struct FakePages {
    calls: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
    /// 1 once a call was refused.
    refused: AtomicU8,
    /// Bytes of the largest reservation that is not refused.
    largest: AtomicUsize,
    /// Milliseconds that the clock shows.
    now_ms: AtomicU64,
    /// Bytes of an OS page, a multiple of the real one.
    page_bytes: AtomicUsize,
    reserved: Mutex<Vec<(usize, usize)>>,
    moves: Mutex<Moves>,
    /// How often pages were to be moved.
    moves_asked: AtomicUsize,
    /// What there is where a huge page is wanted.
    huge_pages: Mutex<HugePages>,
}

#[derive(Debug)]
struct HugePages {
    has: HugePage,
    /// Whether that is the system's policy.
    unasked: bool,
    /// How many were begun.
    begun: usize,
    /// Addresses of those advised.
    advised: BTreeSet<usize>,
    /// Addresses of those that were split.
    split: BTreeSet<usize>,
}

impl FakePages {
    pub(crate) const fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            first: AtomicU64::new(u64::MAX),
            last: AtomicU64::new(0),
            refused: AtomicU8::new(0),
            largest: AtomicUsize::new(usize::MAX),
            now_ms: AtomicU64::new(1),
            page_bytes: AtomicUsize::new(4 << 10),
            reserved: Mutex::new(Vec::new()),
            moves: Mutex::new(Moves::Granted),
            moves_asked: AtomicUsize::new(0),
            huge_pages: Mutex::new(HugePages {
                has: HugePage::None,
                unasked: false,
                begun: 0,
                advised: BTreeSet::new(),
                split: BTreeSet::new(),
            }),
        }
    }

    /// Starts counting anew.
    pub(crate) fn refuse(&self, what: Refuse) {
        let (first, last) = match what {
            Refuse::None => (u64::MAX, 0),
            Refuse::Call(number) => (number, number),
            Refuse::From(number) => (number, u64::MAX),
        };
        self.calls.store(0, Ordering::SeqCst);
        self.refused.store(0, Ordering::SeqCst);
        self.first.store(first, Ordering::SeqCst);
        self.last.store(last, Ordering::SeqCst);
    }

    /// Refuses reservations of more than `bytes`, as a memory limit does.
    pub(crate) fn limit_reservations(&self, bytes: usize) {
        self.largest.store(bytes, Ordering::SeqCst);
    }

    /// Grants moves from now on, or not.
    pub(crate) fn set_moves(&self, moves: Moves) {
        *self.moves.lock().unwrap() = moves;
    }

    /// How often pages were to be moved.
    pub(crate) fn moves_asked(&self) -> usize {
        self.moves_asked.load(Ordering::SeqCst)
    }

    fn moves(&self) -> Moves {
        let moves = *self.moves.lock().unwrap();
        if self.grants() { moves } else { Moves::Lost }
    }

    /// Lets the clock go on.
    pub(crate) fn pass_ms(&self, milliseconds: u64) {
        self.now_ms.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// Makes OS pages larger.
    pub(crate) fn set_page_bytes(&self, bytes: usize) {
        self.page_bytes.store(bytes, Ordering::SeqCst);
    }

    /// Has huge pages from now on, or not: at first it has none, and the real ones are never asked for.
    pub(crate) fn set_huge_pages(&self, has: HugePage) {
        self.huge_pages.lock().unwrap().has = has;
    }

    /// Makes it the system's policy to have them unasked.
    pub(crate) fn set_huge_pages_unasked(&self) {
        self.huge_pages.lock().unwrap().unasked = true;
    }

    /// Bytes of a committed range that are in memory, by the real kernel's own count.
    pub(crate) fn resident(&self, start: NonNull<u8>, bytes: usize) -> usize {
        let page = SystemPages.page_bytes();
        let mut present = vec![0u8; bytes / page];
        // SAFETY: a mapped range, and a byte for each of its pages.
        assert_eq!(unsafe { libc::mincore(start.as_ptr().cast(), bytes, present.as_mut_ptr()) }, 0);
        present.iter().filter(|&&page| page & 1 != 0).count() * page
    }

    /// How many huge pages were begun, had or not.
    pub(crate) fn huge_pages_begun(&self) -> usize {
        self.huge_pages.lock().unwrap().begun
    }

    /// The addresses of the huge pages that are advised.
    pub(crate) fn huge_pages_advised(&self) -> BTreeSet<usize> {
        self.huge_pages.lock().unwrap().advised.clone()
    }

    /// The addresses of the huge pages that were split.
    pub(crate) fn huge_pages_split(&self) -> BTreeSet<usize> {
        self.huge_pages.lock().unwrap().split.clone()
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::SeqCst) != 0
    }

    /// Reservations that were not released.
    pub(crate) fn reserved(&self) -> Vec<(usize, usize)> {
        self.reserved.lock().unwrap().clone()
    }

    fn grants(&self) -> bool {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let refuses = (self.first.load(Ordering::SeqCst)..=self.last.load(Ordering::SeqCst)).contains(&call);
        if refuses {
            self.refused.store(1, Ordering::SeqCst);
        }
        !refuses
    }

    fn is_reserved(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let (from, end) = (start.addr().get(), start.addr().get() + bytes);
        self.reserved.lock().unwrap().iter().any(|&(start, bytes)| start <= from && end <= start + bytes)
    }
}

// SAFETY: the real pages, or a refusal.
unsafe impl Pages for FakePages {
    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes > self.largest.load(Ordering::SeqCst) || !self.grants() {
            return None;
        }
        let start = SystemPages.reserve(bytes)?;
        self.reserved.lock().unwrap().push((start.addr().get(), bytes));
        Some(start)
    }

    fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes > self.largest.load(Ordering::SeqCst) || !self.grants() {
            return None;
        }
        let start = SystemPages.map(bytes)?;
        self.reserved.lock().unwrap().push((start.addr().get(), bytes));
        Some(start)
    }

    unsafe fn remap(&self, start: NonNull<u8>, bytes: usize, new_bytes: usize) -> Option<NonNull<u8>> {
        assert!(self.is_reserved(start, bytes), "remap of what is not mapped");
        if new_bytes > self.largest.load(Ordering::SeqCst) || !self.grants() {
            return None;
        }
        let mut reserved = self.reserved.lock().unwrap();
        // SAFETY: the same promise.
        let moved = unsafe { SystemPages.remap(start, bytes, new_bytes) }?;
        let known = reserved.iter().position(|&range| range == (start.addr().get(), bytes));
        reserved.swap_remove(known.expect("remap of a whole mapping"));
        reserved.push((moved.addr().get(), new_bytes));
        Some(moved)
    }

    unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        assert!(self.is_reserved(start, bytes), "commit outside of a reservation");
        // SAFETY: the same promise.
        self.grants() && unsafe { SystemPages.commit(start, bytes) }
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let page = self.page_bytes();
        assert!(start.addr().get().is_multiple_of(page) && bytes.is_multiple_of(page), "purge of parts of pages");
        assert!(self.is_reserved(start, bytes), "purge outside of a reservation");
        // SAFETY: the same promise.
        self.grants() && unsafe { SystemPages.purge(start, bytes) }
    }

    unsafe fn purge_runs(&self, runs: &[PageRun]) -> bool {
        let page = self.page_bytes();
        for &PageRun { start, bytes } in runs {
            assert!(start.addr().get().is_multiple_of(page) && bytes.is_multiple_of(page), "purge of parts of pages");
            assert!(self.is_reserved(start, bytes), "purge outside of a reservation");
        }
        // SAFETY: the same promise. What the real kernel cannot do at once it does one by one.
        self.grants()
            && (unsafe { SystemPages.purge_runs(runs) }
                // SAFETY: likewise.
                || runs.iter().all(|run| unsafe { SystemPages.purge(run.start, run.bytes) }))
    }

    unsafe fn populate(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let page = self.page_bytes();
        assert!(start.addr().get().is_multiple_of(page) && bytes.is_multiple_of(page), "parts of pages brought in");
        assert!(self.is_reserved(start, bytes), "pages brought in outside of a reservation");
        // SAFETY: the same promise.
        self.grants() && unsafe { SystemPages.populate(start, bytes) }
    }

    unsafe fn begin_huge_page(&self, start: NonNull<u8>) -> HugePage {
        assert!(self.is_reserved(start, HUGE_PAGE_BYTES), "huge page outside of a reservation");
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
        assert!(self.is_reserved(start, HUGE_PAGE_BYTES), "split outside of a reservation");
        self.huge_pages.lock().unwrap().split.insert(start.addr().get());
    }

    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocated {
        assert!(self.is_reserved(from, bytes) && self.is_reserved(to, bytes), "relocate outside of a reservation");
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
                forbid(to, bytes);
                Relocated::Lost { at: 0, bytes }
            }
        }
    }

    unsafe fn renew(&self, start: NonNull<u8>, bytes: usize) -> Renewed {
        assert!(self.is_reserved(start, bytes), "renew outside of a reservation");
        match self.moves() {
            // SAFETY: the same promise.
            Moves::Granted => unsafe { SystemPages.renew(start, bytes) },
            Moves::Refused => Renewed::Refused,
            Moves::Lost => {
                forbid(start, bytes);
                Renewed::Lost
            }
        }
    }

    unsafe fn advise(&self, start: NonNull<u8>, bytes: usize, advice: HugeAdvice) {
        assert!(self.is_reserved(start, bytes), "advice outside of a reservation");
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

    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn has_huge_pages_unasked(&self) -> bool {
        self.huge_pages.lock().unwrap().unasked
    }

    fn memory_limit(&self) -> Option<usize> {
        Some(1 << 30)
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) {
        let mut reserved = self.reserved.lock().unwrap();
        let (from, end) = (start.addr().get(), start.addr().get() + bytes);
        let known = reserved.iter().position(|&(start, bytes)| start <= from && end <= start + bytes);
        let (before, whole) = reserved.swap_remove(known.expect("release of what was reserved"));
        let rest = [(before, from - before), (end, before + whole - end)];
        reserved.extend(rest.into_iter().filter(|&(_, bytes)| bytes != 0));
        // SAFETY: the same promise.
        unsafe { SystemPages.release(start, bytes) };
    }
}

/// Makes a range that may not be touched any more one that cannot be.
fn forbid(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the range is the caller's, which has lost it.
    assert_eq!(unsafe { libc::mprotect(start.as_ptr().cast(), bytes, libc::PROT_NONE) }, 0);
}
