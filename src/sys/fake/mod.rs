//! A platform for tests: real memory, but it refuses when told to, or says that a place is taken, has a clock of its own,
//! knows what was never given back, and can do as little as a port may (`Capabilities`).

mod lost;
mod machine;
mod pages;

use self::lost::LostRanges;
use super::platform::SystemPages;
use super::{Capabilities, HugePage, Pages};
use crate::config::{CHUNK_BYTES, GRANULE_BYTES};
use crate::sync::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use core::ptr::NonNull;
use std::collections::{BTreeMap, BTreeSet};
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
/// What a stranger's memory is full of.
const STRANGER: u8 = 0x5a;

/// A platform that can do all there is.
const MOST: Capabilities = Capabilities {
    holds_places: false,
    moves_pages: true,
    resizes_mappings: true,
    populates: true,
    purges_runs: true,
    has_huge_pages: true,
    purges_under_readers: true,
    purge_us_per_mib: 16,
};

/// A platform that can do what a port must fill in.
const LEAST: Capabilities = Capabilities {
    holds_places: false,
    moves_pages: false,
    resizes_mappings: false,
    populates: false,
    purges_runs: false,
    has_huge_pages: false,
    purges_under_readers: false,
    purge_us_per_mib: 0,
};

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
    /// Before which call of `commit`, counted from 1, a stranger maps memory in its place.
    stranger_comes: AtomicU64,
    /// Where the stranger's memory is; 0: it has none.
    stranger: AtomicUsize,
    commits: AtomicU64,
    /// Bytes of the largest mapping at a place of its choice that is not refused.
    largest: AtomicUsize,
    /// Where the address space ends and begins, if that is limited; else 0.
    top: AtomicUsize,
    lowest: AtomicUsize,
    /// Milliseconds that the clock shows.
    now_ms: AtomicU64,
    /// Bytes of the control group's limit; 0: none.
    memory_limit: AtomicUsize,
    /// Microseconds that threads have used.
    used_us: AtomicU64,
    /// Microseconds that giving pages back takes.
    purge_us: AtomicU64,
    /// Bytes of an OS page, a multiple of the real one.
    page_bytes: AtomicUsize,
    /// What is mapped: each range's end, by its start.
    mapped: Mutex<BTreeMap<usize, usize>>,
    moves: Mutex<Moves>,
    lost: LostRanges,
    /// How often pages were to be moved.
    moves_asked: AtomicUsize,
    /// What there is where a huge page is wanted.
    huge_pages: Mutex<HugePages>,
    /// 1 once it is to do no more than every platform must.
    least: AtomicU8,
    /// 1 once it is to hold places, where the real one does not.
    holds: AtomicU8,
    /// Places that are held: each one's end, by its start.
    held: Mutex<BTreeMap<usize, usize>>,
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

/// An address far from all else.
fn far_address() -> usize {
    const FAR: usize = if usize::BITS == 64 { 1_usize.wrapping_shl(44) } else { 1 << 30 };
    (machine::random() & !(4 * CHUNK_BYTES - 1)).saturating_sub(FAR)
}

/// Addresses with room below for a heap, apart from each other: other tests' heaps would be strangers. None where address
/// space is short. A heap's first mapping is at the address, so that of a heap that lives is not free.
fn addresses_apart() -> impl Iterator<Item = usize> {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    const PLACES: usize = 36;
    let apart = 1_usize.checked_shl(41);
    let first = NEXT.fetch_add(1, Ordering::SeqCst);
    (first..first + PLACES).filter_map(move |number| far_address().checked_sub(apart? * (1 + number % PLACES)))
}

impl FakePages {
    pub(crate) const fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            first: AtomicU64::new(u64::MAX),
            last: AtomicU64::new(0),
            refused: AtomicU8::new(0),
            stranger_comes: AtomicU64::new(0),
            stranger: AtomicUsize::new(0),
            commits: AtomicU64::new(0),
            largest: AtomicUsize::new(usize::MAX),
            top: AtomicUsize::new(0),
            lowest: AtomicUsize::new(0),
            now_ms: AtomicU64::new(1),
            memory_limit: AtomicUsize::new(0),
            used_us: AtomicU64::new(0),
            purge_us: AtomicU64::new(0),
            page_bytes: AtomicUsize::new(4 << 10),
            mapped: Mutex::new(BTreeMap::new()),
            moves: Mutex::new(Moves::Granted),
            lost: LostRanges::new(),
            moves_asked: AtomicUsize::new(0),
            huge_pages: Mutex::new(HugePages {
                has: HugePage::None,
                unasked: false,
                begun: 0,
                advised: BTreeSet::new(),
                split: BTreeSet::new(),
            }),
            least: AtomicU8::new(0),
            holds: AtomicU8::new(0),
            held: Mutex::new(BTreeMap::new()),
        }
    }

    /// Does no more than every platform must from now on; what it cannot do must not be asked for.
    pub(crate) fn do_the_least(&self) {
        self.least.store(1, Ordering::SeqCst);
    }

    /// Holds places from now on, before the first is asked for.
    pub(crate) fn hold_places(&self) {
        self.holds.store(1, Ordering::SeqCst);
    }

    /// Places that are held: start and bytes.
    pub(crate) fn held_places(&self) -> Vec<(usize, usize)> {
        self.held.lock().unwrap().iter().map(|(&start, &end)| (start, end - start)).collect()
    }

    fn holds_places(&self) -> bool {
        SystemPages.capabilities().holds_places || self.holds.load(Ordering::SeqCst) != 0
    }

    /// A place that nobody maps anything in, on a platform that holds none: far from all else, behind a mark that keeps
    /// other tests' heaps away.
    fn place_apart(bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let is_free = |top: &usize| SystemPages.commit(NonNull::new(*top as *mut u8).unwrap(), GRANULE_BYTES).is_ok();
        let top = addresses_apart().find(is_free)?;
        assert!(top.is_multiple_of(align) && bytes.is_multiple_of(align));
        NonNull::new((top - bytes) as *mut u8)
    }

    /// Takes the mark away again.
    fn leave_place_apart(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the mark, which `place_apart` mapped, is behind the place.
        let mark = unsafe { start.add(bytes) };
        // SAFETY: likewise.
        unsafe { SystemPages.release(mark, GRANULE_BYTES) };
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

    /// Maps a page in the middle of what the `number`th commit from now on asks for, just before it; 0: never.
    pub(crate) fn send_stranger(&self, number: u64) {
        self.commits.store(0, Ordering::SeqCst);
        self.stranger_comes.store(number, Ordering::SeqCst);
    }

    /// Nobody has touched the stranger's page, which goes.
    pub(crate) fn see_stranger_off(&self) {
        let page = NonNull::new(self.stranger.swap(0, Ordering::SeqCst) as *mut u8).expect("the stranger came");
        // SAFETY: mapped by `meet_stranger`.
        let bytes = unsafe { core::slice::from_raw_parts(page.as_ptr(), GRANULE_BYTES) };
        assert!(bytes.iter().all(|&byte| byte == STRANGER));
        // SAFETY: as above; the slice is not used any more.
        unsafe { SystemPages.release(page, GRANULE_BYTES) };
    }

    fn meet_stranger(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: within the range that is about to be mapped.
        let page = unsafe { start.add((bytes / 2) & !(GRANULE_BYTES - 1)) };
        if SystemPages.commit(page, GRANULE_BYTES).is_ok() {
            // SAFETY: mapped just now.
            unsafe { page.write_bytes(STRANGER, GRANULE_BYTES) };
            self.stranger.store(page.addr().get(), Ordering::SeqCst);
        }
    }

    /// Commits since `send_stranger`.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// Refuses to map more than `bytes` at a place of its choice.
    pub(crate) fn limit_mappings(&self, bytes: usize) {
        self.largest.store(bytes, Ordering::SeqCst);
    }

    /// Has address space for so many bytes only, far from all else, and from those of other numbers.
    pub(crate) fn limit_space(&self, number: usize, bytes: usize) {
        const APART: usize = if usize::BITS == 64 { 1_usize.wrapping_shl(36) } else { 1 << 28 };
        let top = far_address() - number * APART;
        self.top.store(top, Ordering::SeqCst);
        self.lowest.store(top - bytes, Ordering::SeqCst);
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

    /// Lets each `purge` take so many microseconds.
    pub(crate) fn set_purge_us(&self, microseconds: u64) {
        self.purge_us.store(microseconds, Ordering::SeqCst);
    }

    /// Lets the clock go on.
    pub(crate) fn pass_ms(&self, milliseconds: u64) {
        self.now_ms.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// Puts the process into a control group with that limit.
    pub(crate) fn set_memory_limit(&self, bytes: usize) {
        self.memory_limit.store(bytes, Ordering::SeqCst);
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
        machine::in_memory(start, bytes, page).into_iter().filter(|&is_in| is_in).count() * page
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

    /// Ranges that were not released: start and bytes.
    pub(crate) fn mapped(&self) -> Vec<(usize, usize)> {
        self.mapped.lock().unwrap().iter().map(|(&start, &end)| (start, end - start)).collect()
    }

    /// Notes a new mapping, joined with its neighbours.
    fn note_mapped(&self, start: NonNull<u8>, bytes: usize) {
        let mut mapped = self.mapped.lock().unwrap();
        let (mut from, mut end) = (start.addr().get(), start.addr().get() + bytes);
        assert!(mapped.range(..end).next_back().is_none_or(|(_, &before)| before <= from), "mapped twice");
        if let Some(behind) = mapped.remove(&end) {
            end = behind;
        }
        if let Some((&before, _)) = mapped.range(..from).next_back().filter(|&(_, &end)| end == from) {
            from = before;
        }
        mapped.insert(from, end);
    }

    fn forget_mapped(&self, start: NonNull<u8>, bytes: usize) {
        let (from, end) = (start.addr().get(), start.addr().get() + bytes);
        let mut mapped = self.mapped.lock().unwrap();
        let (before, behind) = mapped.range(..=from).next_back().map(|(&start, &end)| (start, end)).unwrap();
        mapped.remove(&before);
        for (start, end) in [(before, from), (end, behind)] {
            if start < end {
                mapped.insert(start, end);
            }
        }
    }

    fn grants(&self) -> bool {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let refuses = (self.first.load(Ordering::SeqCst)..=self.last.load(Ordering::SeqCst)).contains(&call);
        if refuses {
            self.refused.store(1, Ordering::SeqCst);
        }
        !refuses
    }

    /// Is the range in a place that is held? Where places are not, it may be anywhere.
    fn is_held(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let (from, end) = (start.addr().get(), start.addr().get() + bytes);
        let is_in_place = |held: &BTreeMap<usize, usize>| held.range(..=from).next_back().is_some_and(|(_, &to)| end <= to);
        !self.holds_places() || is_in_place(&self.held.lock().unwrap())
    }

    fn is_mapped(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let (from, end) = (start.addr().get(), start.addr().get() + bytes);
        self.mapped.lock().unwrap().range(..=from).next_back().is_some_and(|(_, &mapped)| end <= mapped)
    }
}
