//! Owners: which slabs a thread has, and what becomes of them when it ends.
//!
//! ```text
//! # Role        an owner's slabs; its number, and the thread cache that goes with it: made, adopted, left to the next
//!               thread, or orphaned; in the child of a fork, gone
//! # Invariants  I1: only the thread that has an owner's number touches its `current` and `list`.
//!               I2: the slabs in `current`, `list` and the notify stack are queued, and this owner is their holder.
//!               I3: a resting owner is nobody's; it has what its last thread left, notify stack open, as if that
//!                   thread idled. Whoever takes its number has it, and its cache.
//! # Fork        the thread of an owner may vanish at any instruction; what it leaves is an owner all the same: the
//!               slab in its hand is lost, `current` and `list` are whole
//! # Not here    where slabs come from (see `refill`), giving blocks back (see `dissolve`)
//! ```

use crate::config::{CACHE_WORDS, RECORDS_MAX, SLAB_OWNERS_MAX, SUMMARY_WIDTH};
use crate::depot::Depot;
use crate::depot::alarm::Call;
use crate::granule_map::SlabRef;
use crate::meta::Range;
use crate::owner::notify::{Closed, NotifyStack};
use crate::owner::number_set::NumberSet;
use crate::size_class::{self, CLASS_COUNT};
use crate::summary::Summary;
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sys::Pages;
use crate::units::{ClassIndex, SlabId};
use core::ptr::NonNull;

/// Number of an owner, and of the thread cache that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerIndex(pub(super) u32);

impl OwnerIndex {
    /// The owner of that number, which `get` has told.
    pub const fn new(number: usize) -> Self {
        Self(number as u32)
    }

    /// The number, to index with.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// A thread's slabs. Zeroed memory is an open owner without any.
#[derive(Debug)]
#[repr(C)]
pub struct Owner {
    pub(super) notified: NotifyStack,
    /// Per class: the slab that refills come from.
    current: [AtomicU32; CLASS_COUNT],
    /// Per class: the first slab of the list.
    list: [AtomicU32; CLASS_COUNT],
    /// Per class: slabs in the list.
    list_len: [AtomicU8; CLASS_COUNT],
    /// The thread that has it, as whoever asks for it knows threads; 0 if none is known.
    thread: AtomicU64,
}

impl Owner {
    pub(super) fn current(&self, class: ClassIndex) -> Option<SlabId> {
        // ordering: Relaxed, I1.
        SlabId::from_raw(self.current[class.get()].load(Ordering::Relaxed))
    }

    pub(super) fn set_current(&self, class: ClassIndex, slab: Option<SlabId>) {
        // ordering: Relaxed, I1.
        self.current[class.get()].store(SlabId::raw_option(slab), Ordering::Relaxed);
    }

    pub(super) fn list_len(&self, class: ClassIndex) -> u8 {
        // ordering: Relaxed, I1.
        self.list_len[class.get()].load(Ordering::Relaxed)
    }

    pub(super) fn list_push(&self, slab: &SlabRef<'_>) {
        let class = slab.class.get();
        // ordering: Relaxed, I1.
        slab.descriptor().set_link(SlabId::from_raw(self.list[class].load(Ordering::Relaxed)));
        self.list[class].store(slab.id().raw(), Ordering::Relaxed);
        self.list_len[class].store(self.list_len(slab.class) + 1, Ordering::Relaxed);
    }

    /// Empties the list: whatever was under way when a thread vanished in a fork, what hangs on it is a list.
    fn list_take(&self, class: ClassIndex) -> Option<SlabId> {
        // ordering: Relaxed, I1.
        let first = SlabId::from_raw(self.list[class.get()].load(Ordering::Relaxed));
        self.list[class.get()].store(0, Ordering::Relaxed);
        self.list_len[class.get()].store(0, Ordering::Relaxed);
        first
    }

    pub(super) fn list_pop<'h, P: Pages>(&self, depot: &'h Depot<P>, class: ClassIndex) -> Option<SlabRef<'h>> {
        // ordering: Relaxed, I1.
        let slab = depot.regions.slab(SlabId::from_raw(self.list[class.get()].load(Ordering::Relaxed))?)?;
        self.list[class.get()].store(SlabId::raw_option(slab.descriptor().link()), Ordering::Relaxed);
        self.list_len[class.get()].store(self.list_len(class) - 1, Ordering::Relaxed);
        Some(slab)
    }
}

/// All owners.
#[derive(Debug)]
pub struct Owners {
    range: Range<Record>,
    /// Owners whose notify stacks may have slabs.
    notified: Summary<NOTIFIED_LEAVES, NOTIFIED_MIDDLES>,
    /// Owners whose threads have ended.
    orphans: NumberSet,
    /// Owners whose threads have ended and left all that they had, caches included, as it was: to everybody else they
    /// are like owners whose threads idle, until a new thread or whoever needs memory takes one.
    resting: NumberSet<RESTING_WORDS>,
    /// In the child of a fork: owners whose threads it does not have, and that nobody has adopted yet.
    gone: NumberSet,
    /// 0 if `gone` has no members; else 1 more than the slabs that are made before they are adopted.
    any_gone: AtomicU8,
}

/// Slabs that a fork's child makes before it brings home what its parent's other threads had: most children start
/// another program at once, and to touch 8 threads' caches copies more than 100 pages.
const GONE_SLABS: u8 = 4;

/// Words of the summary of notify stacks.
const NOTIFIED_LEAVES: usize = RECORDS_MAX / SUMMARY_WIDTH;
const NOTIFIED_MIDDLES: usize = NOTIFIED_LEAVES.div_ceil(SUMMARY_WIDTH);

/// Words of the set of resting owners: its bound is 64 times as many.
const RESTING_WORDS: usize = 1;

/// An owner that a thread has adopted.
#[derive(Clone, Copy, Debug)]
pub enum Adopted {
    /// A new one, or one that has nothing.
    Empty(OwnerIndex),
    /// One with all that its last thread had; its cache can be used as it is.
    Rested(OwnerIndex),
}

/// An owner, and room for its thread's cache, which lies above this module: a thread that uses few classes touches one
/// page. The cache's own references are to that part only.
#[derive(Debug)]
#[repr(C)]
struct Record {
    owner: Owner,
    cache: [AtomicUsize; CACHE_WORDS],
}

/// Alignment of a cache's place, at least.
pub(crate) const CACHE_ALIGN: usize = 16;

const _: () = assert!(align_of::<Record>() >= CACHE_ALIGN);
const _: () = assert!(core::mem::offset_of!(Record, cache).is_multiple_of(CACHE_ALIGN));

/// Address space for owners, in bytes.
const RANGE_BYTES: usize = (RECORDS_MAX * size_of::<Record>()).next_power_of_two();

impl Owners {
    /// None yet.
    pub const fn new() -> Self {
        Self {
            range: Range::new(RANGE_BYTES),
            notified: Summary::new(),
            orphans: NumberSet::new(),
            resting: NumberSet::new(),
            gone: NumberSet::new(),
            any_gone: AtomicU8::new(0),
        }
    }

    /// An owner for the calling thread: a resting one if there is one, else an orphan.
    pub fn adopt<P: Pages>(&self, depot: &Depot<P>) -> Option<Adopted> {
        if let Some(index) = self.take_resting() {
            return Some(Adopted::Rested(index));
        }
        if let Some(number) = self.orphans.take(self.made()) {
            let index = OwnerIndex(number as u32);
            self.owner(index).notified.open();
            return Some(Adopted::Empty(index));
        }
        if self.made() >= RECORDS_MAX {
            return None;
        }
        // A new owner is open from the start, and a slab whose hint names it may have been pushed already.
        let number = self.range.grow(&depot.os).filter(|&number| number < RECORDS_MAX)?;
        Some(Adopted::Empty(OwnerIndex(number as u32)))
    }

    /// Takes the owner from its ending thread as it is, cache included. `false`: there is no place, the thread has it.
    #[must_use]
    pub fn rest<P: Pages>(&self, depot: &Depot<P>, me: OwnerIndex) -> bool {
        if !NumberSet::<RESTING_WORDS>::fits(me.get()) {
            return false;
        }
        self.resting.put(me.get());
        // A turn of purging takes what nobody has adopted by then.
        depot.raise(Call::Raised);
        true
    }

    /// Notes which thread has an owner; 0 before the thread gives it up. Returns what was noted before.
    pub fn set_thread(&self, me: OwnerIndex, thread: u64) -> u64 {
        // ordering: AcqRel; whoever sees it sees an owner that is that thread's.
        self.owner(me).thread.swap(thread, Ordering::AcqRel)
    }

    /// The thread that has owner number `number`, which is below `made`; 0 if none is known.
    pub fn thread_of(&self, number: usize) -> u64 {
        // ordering: Acquire, as above.
        self.owner(OwnerIndex(number as u32)).thread.load(Ordering::Acquire)
    }

    /// Takes the owner from a thread that is not there any more without having given it up, for the caller to empty its
    /// cache and to `orphan` it. `None`: another caller was faster. A number cannot have gone to a thread of the same name
    /// meanwhile: the one that is not there still had it.
    pub fn take_from(&self, number: usize, thread: u64) -> Option<OwnerIndex> {
        let index = OwnerIndex(number as u32);
        // ordering: Acquire, as above; the thread's last writes came before the kernel forgot it.
        let taken = self.owner(index).thread.compare_exchange(thread, 0, Ordering::Acquire, Ordering::Relaxed);
        taken.ok().map(|_| index)
    }

    /// Does any owner rest, at some moment?
    pub fn any_resting(&self) -> bool {
        self.resting() != 0
    }

    /// Owners that rest, at some moment.
    pub fn resting(&self) -> usize {
        self.resting.count(self.made())
    }

    /// Takes a resting owner, to have it or to empty its cache and to `orphan` it.
    pub fn take_resting(&self) -> Option<OwnerIndex> {
        self.resting.take(self.made()).map(|number| OwnerIndex(number as u32))
    }

    /// Takes the owner from its ending thread; its slabs go to the depot.
    pub fn orphan<P: Pages>(&self, depot: &Depot<P>, me: OwnerIndex) {
        give_chain(depot, self.owner(me).notified.close());
        self.give_all(depot, me);
        self.orphans.put(me.get());
    }

    /// Gives all slabs of an owner whose thread goes on to the depot.
    pub fn give_all<P: Pages>(&self, depot: &Depot<P>, me: OwnerIndex) {
        let owner = self.owner(me);
        give_chain(depot, owner.notified.take_all());
        for class in size_class::all() {
            give_chain(depot, owner.list_take(class));
            if let Some(slab) = owner.current(class).and_then(|id| depot.regions.slab(id)) {
                owner.set_current(class, None);
                depot.give_slab(slab);
            }
        }
    }

    /// In the child of a fork, which has only the calling thread: notes that the threads of all other owners are gone.
    /// Writes no more than a few words: most children start another program at once.
    pub fn note_gone(&self, me: Option<OwnerIndex>) {
        for number in 0..self.made().min(RECORDS_MAX) {
            let is_mine = me.is_some_and(|me| me.get() == number);
            if !is_mine && !self.orphans.has(number) && !self.resting.has(number) && !self.gone.has(number) {
                self.gone.put(number);
                // ordering: Relaxed; the caller is alone.
                self.any_gone.store(1 + GONE_SLABS, Ordering::Relaxed);
            }
        }
    }

    /// Is it time to adopt what gone threads had? Not for the first slabs.
    pub(super) fn adopts_gone_now(&self) -> bool {
        // ordering: Relaxed, a count that may be late or lose steps.
        let left = self.any_gone.load(Ordering::Relaxed);
        if left > 1 {
            self.any_gone.store(left - 1, Ordering::Relaxed);
        }
        left == 1
    }

    /// Takes an owner whose thread is gone, for the caller to empty its cache and to `orphan` it.
    pub fn take_gone(&self) -> Option<OwnerIndex> {
        // ordering: Relaxed; set before there was a second thread.
        if self.any_gone.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let taken = self.gone.take(self.made()).map(|number| OwnerIndex(number as u32));
        if taken.is_none() {
            // ordering: Relaxed, a hint: members are only put in where there is no second thread.
            self.any_gone.store(0, Ordering::Relaxed);
        }
        taken
    }

    /// Puts a slab that the caller holds on the notify stack of owner number `number`, if it was made.
    ///
    /// # Errors
    /// `Closed`: the owner has no thread; the caller keeps the slab.
    pub(super) fn notify(&self, number: u32, slab: SlabRef<'_>) -> Result<(), Closed> {
        let owner = self.owner_hinted(number).ok_or(Closed)?;
        owner.notified.push(slab.id(), |next| slab.descriptor().set_link(next))?;
        self.notified.only().note(number as usize);
        Ok(())
    }

    /// Gives the slabs that others have put on notify stacks to the depot: their owners may be idle, or, in the child
    /// of a fork, gone. Looks at those stacks only that may have some: its cost does not grow with the owners made.
    pub(super) fn fetch_notified<P: Pages>(&self, depot: &Depot<P>) {
        let mut from = 0;
        while let Some(number) = self.notified.only().next(from) {
            self.notified.only().clear(number, || {
                give_chain(depot, self.owner(OwnerIndex(number as u32)).notified.take_all());
                false
            });
            from = number + 1;
        }
    }

    /// Does the same for one owner, after the last block of a slab came home that this owner has.
    pub(super) fn fetch_notified_of<P: Pages>(&self, depot: &Depot<P>, number: u32) {
        if let Some(owner) = self.owner_hinted(number) {
            give_chain(depot, owner.notified.take_all());
        }
    }

    /// Owners made so far, with and without threads.
    pub fn made(&self) -> usize {
        self.range.len()
    }

    /// Are there so many owners that none keeps slabs of its own?
    pub(super) fn share_slabs(&self) -> bool {
        self.made() > SLAB_OWNERS_MAX
    }

    /// Owners that a thread has, at some moment.
    pub fn in_use(&self) -> usize {
        let made = self.made().min(RECORDS_MAX);
        made.saturating_sub(self.orphans.count(made) + self.resting.count(made) + self.gone.count(made))
    }

    pub(super) fn owner(&self, index: OwnerIndex) -> &Owner {
        #[cfg(test)]
        crate::summary::steps::step();
        // SAFETY: an index comes from `adopt`.
        let record = unsafe { self.range.get(index.get()) };
        // SAFETY: the owner comes first; committed, type-stable, and atomics only.
        unsafe { record.cast::<Owner>().as_ref() }
    }

    /// Where the cache of owner number `number` is, of `CACHE_WORDS` words; zeroed, or what its threads left.
    ///
    /// # Safety
    /// The number is below what `made` has told the caller, or came from `adopt`.
    pub unsafe fn cache_place(&self, number: usize) -> NonNull<u8> {
        // SAFETY: the caller's promise.
        let record = unsafe { self.range.get(number) }.cast::<u8>();
        // SAFETY: within the record.
        unsafe { record.add(core::mem::offset_of!(Record, cache)) }
    }

    /// Owner number `number`, if it was made: a slab's hint may be of an owner that is gone by now.
    pub(super) fn owner_hinted(&self, number: u32) -> Option<&Owner> {
        if (number as usize) < self.made() { Some(self.owner(OwnerIndex(number))) } else { None }
    }

    /// Bytes committed.
    pub fn committed(&self) -> usize {
        self.range.committed()
    }

    /// In the child of a fork: whoever was mapping memory is not here.
    pub fn forget_claims(&self) {
        self.range.forget_claims();
    }

    /// Gives everything back to the OS.
    ///
    /// # Safety
    /// Nobody uses any owner, now or later.
    pub unsafe fn release<P: Pages>(&self, depot: &Depot<P>) {
        let made = self.made();
        self.notified.only().reset();
        self.orphans.reset(made);
        self.resting.reset(made);
        self.gone.reset(made);
        // SAFETY: the caller's promise.
        unsafe { self.range.release(&depot.os) };
    }
}

impl Default for Owners {
    fn default() -> Self {
        Self::new()
    }
}

/// Gives all slabs of a chain to the depot.
fn give_chain<P: Pages>(depot: &Depot<P>, mut next: Option<SlabId>) {
    while let Some(slab) = next.and_then(|id| depot.regions.slab(id)) {
        next = slab.descriptor().link();
        depot.give_slab(slab);
    }
}
