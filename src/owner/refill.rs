//! Owners and their slabs: where a thread's blocks come from.
//!
//! ```text
//! # Role        current slab and short list per class; next slab: own list, own notifications, the depot's partial
//!               slabs, then new memory
//! # Invariants  I1: only the thread that has an owner's number touches its `current` and `list`.
//!               I2: the slabs in `current`, `list` and the notify stack are queued, and this owner is their holder.
//!               I3: whoever becomes a slab's holder by `enter_queue` reads its class anew: between the release that
//!                   led there and the entering, the slab may have been retired and its granule become another slab.
//!                   What it holds then is that slab, rightly.
//!               I4: a resting owner is nobody's; it has what its last thread left, notify stack open, as if that thread
//!                   idled. Whoever takes its number has it, and its cache.
//! # Bound       `OWNER_LIST_MAX` slabs and the current one per class; what is more goes to the depot
//! # Fork        the thread of an owner may vanish at any instruction; what it leaves is an owner all the same: the
//!               slab in its hand is lost, `current` and `list` are whole
//! # Not here    giving blocks back (see `dissolve`)
//! ```

use crate::config::{CACHE_WORDS, OWNER_LIST_MAX, POPULATE_BYTES_FIRST, RECORDS_MAX};
use crate::depot::Depot;
use crate::depot::alarm::Call;
use crate::depot::magazines::Slot;
use crate::granule_map::SlabRef;
use crate::meta::Range;
use crate::owner::notify::{Closed, NotifyStack};
use crate::owner::number_set::NumberSet;
use crate::size_class::{self, CLASS_COUNT};
use crate::sync::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use crate::sys::{Pages, platform};
use crate::units::{ClassIndex, SlabId};
use core::ptr::NonNull;

/// Number of an owner, and of the thread cache that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerIndex(u32);

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
    notified: NotifyStack,
    /// Per class: the slab that refills come from.
    current: [AtomicU32; CLASS_COUNT],
    /// Per class: the first slab of the list.
    list: [AtomicU32; CLASS_COUNT],
    /// Per class: slabs in the list.
    list_len: [AtomicU8; CLASS_COUNT],
}

impl Owner {
    fn current(&self, class: ClassIndex) -> Option<SlabId> {
        // ordering: Relaxed, I1.
        SlabId::from_raw(self.current[class.get()].load(Ordering::Relaxed))
    }

    fn set_current(&self, class: ClassIndex, slab: Option<SlabId>) {
        // ordering: Relaxed, I1.
        self.current[class.get()].store(SlabId::raw_option(slab), Ordering::Relaxed);
    }

    /// Puts a slab that the caller holds on the notify stack.
    ///
    /// # Errors
    /// `Closed`: the owner has no thread; the caller keeps the slab.
    pub(super) fn notify(&self, slab: SlabId, set_link: impl Fn(Option<SlabId>)) -> Result<(), Closed> {
        self.notified.push(slab, set_link)
    }

    fn list_len(&self, class: ClassIndex) -> u8 {
        // ordering: Relaxed, I1.
        self.list_len[class.get()].load(Ordering::Relaxed)
    }

    fn list_push(&self, slab: &SlabRef<'_>) {
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

    fn list_pop<'h, P: Pages>(&self, depot: &'h Depot<P>, class: ClassIndex) -> Option<SlabRef<'h>> {
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

/// Slabs that a fork's child makes before it brings home what its parent's other threads had: most children start another
/// program at once, and to touch 8 threads' caches copies more than 100 pages.
const GONE_SLABS: u8 = 4;

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

/// An owner, and room for its thread's cache, which lies above this module: a thread that uses few classes touches one page.
/// The cache's own references are to that part only.
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

    /// Does any owner rest, at some moment?
    pub fn any_resting(&self) -> bool {
        self.resting.count(self.made()) != 0
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
    fn adopts_gone_now(&self) -> bool {
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

    /// Gives the slabs that others have put on notify stacks to the depot: their owners may be idle, or, in the child
    /// of a fork, gone.
    fn fetch_notified<P: Pages>(&self, depot: &Depot<P>) {
        for number in 0..self.made().min(RECORDS_MAX) {
            give_chain(depot, self.owner(OwnerIndex(number as u32)).notified.take_all());
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

    /// Owners that a thread has, at some moment.
    pub fn in_use(&self) -> usize {
        let made = self.made().min(RECORDS_MAX);
        made.saturating_sub(self.orphans.count(made) + self.resting.count(made) + self.gone.count(made))
    }

    pub(super) fn owner(&self, index: OwnerIndex) -> &Owner {
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

    /// Moves blocks of `class` to `slots`: whole words while fewer than `want` are there, at most all. Returns
    /// their number; 0 is out of memory. A pop from the end of the slots sees each word in address order.
    ///
    /// `reclaim` is asked before new memory is used, and again where there is none.
    pub fn refill<P: Pages>(
        &self,
        depot: &Depot<P>,
        me: OwnerIndex,
        class: ClassIndex,
        slots: &mut [Slot],
        want: usize,
        reclaim: &impl Reclaim,
    ) -> usize {
        let owner = self.owner(me);
        let mut taken = 0;
        loop {
            let current = owner.current(class).and_then(|id| depot.regions.slab(id));
            let Some(slab) = current.or_else(|| self.next_slab(depot, me, class, taken > 0, reclaim)) else {
                return taken;
            };
            taken += claim_into(depot, &slab, &mut slots[taken..], want - taken);
            if taken >= want {
                owner.set_current(class, Some(slab.id()));
                return taken;
            }
            owner.set_current(class, None);
            if slab.descriptor().leave_queue(|| slab.has_free()) {
                self.receive(depot, me, slab.id());
            }
        }
    }

    /// The slab to go on with; new memory only if `enough` says that there is nothing to hand out yet.
    fn next_slab<'h, P: Pages>(
        &self,
        depot: &'h Depot<P>,
        me: OwnerIndex,
        class: ClassIndex,
        enough: bool,
        reclaim: &impl Reclaim,
    ) -> Option<SlabRef<'h>> {
        let owner = self.owner(me);
        let own = owner.list_pop(depot, class).or_else(|| {
            self.take_notified(depot, me);
            owner.list_pop(depot, class)
        });
        let mut slab = own.or_else(|| depot.take_partial(class));
        if slab.is_none() && !enough {
            slab = self.last_slab(depot, class, reclaim);
        }
        let slab = slab?;
        slab.descriptor().set_owner(me.0);
        slab.descriptor().set_cursor(0);
        Some(slab)
    }

    /// A slab for who has nowhere else to turn: what others withhold, then new memory.
    pub(super) fn last_slab<'h, P: Pages>(
        &self,
        depot: &'h Depot<P>,
        class: ClassIndex,
        reclaim: &impl Reclaim,
    ) -> Option<SlabRef<'h>> {
        if self.adopts_gone_now() {
            reclaim.adopt_gone();
        }
        reclaim.empty_resting();
        self.fetch_notified(depot);
        if let Some(slab) = depot.take_partial(class).or_else(|| depot.new_slab(class)) {
            return Some(slab);
        }
        reclaim.adopt_gone();
        reclaim.take_stashes();
        self.fetch_notified(depot);
        // What a purge has in hand comes back when it is through with its chunk.
        platform::wait_briefly(|| depot.hand.is_empty());
        depot.take_partial(class).or_else(|| depot.new_slab(class))
    }

    /// Sorts the slabs that others put on the notify stack.
    fn take_notified<P: Pages>(&self, depot: &Depot<P>, me: OwnerIndex) {
        let mut next = self.owner(me).notified.take_all();
        while let Some(slab) = next.and_then(|id| depot.regions.slab(id)) {
            next = slab.descriptor().link();
            self.keep_or_give(depot, me, slab);
        }
    }

    /// Takes in a slab that the caller has just become the holder of.
    pub(super) fn receive<P: Pages>(&self, depot: &Depot<P>, me: OwnerIndex, id: SlabId) {
        // The class is read anew: I3. A held slab has one.
        if let Some(slab) = depot.regions.slab(id) {
            self.keep_or_give(depot, me, slab);
        }
    }

    fn keep_or_give<P: Pages>(&self, depot: &Depot<P>, me: OwnerIndex, slab: SlabRef<'_>) {
        let owner = self.owner(me);
        if owner.list_len(slab.class) < OWNER_LIST_MAX {
            slab.descriptor().set_owner(me.0);
            owner.list_push(&slab);
        } else {
            depot.give_slab(slab);
        }
    }

    /// Bytes of address space, and bytes committed.
    pub fn extent(&self) -> (usize, usize) {
        self.range.extent()
    }

    /// Gives everything back to the OS.
    ///
    /// # Safety
    /// Nobody uses any owner, now or later.
    pub unsafe fn release<P: Pages>(&self, depot: &Depot<P>) {
        let made = self.made();
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

/// Moves free blocks of `slab`, which the caller holds, to `slots`.
fn claim_into<P: Pages>(depot: &Depot<P>, slab: &SlabRef<'_>, slots: &mut [Slot], want: usize) -> usize {
    let words = slab.shape().words();
    let bytes = slab.shape().bytes as usize;
    let base = slab.base().as_ptr();
    let mut word = slab.descriptor().cursor();
    let (mut taken, mut untouched) = (0, 0);
    let (mut from, mut to) = (usize::MAX, 0);
    while word < words && taken < want {
        let bits = slab.word(word).claim((slots.len() - taken).min(64) as u32);
        if bits == 0 {
            word += 1;
            continue;
        }
        // SAFETY: the word's first block lies in the slab.
        let first = unsafe { base.add(word * 64 * bytes) };
        let purged = slab.note_used(word, bits);
        if purged != 0 {
            untouched += purged;
            from = from.min((word * 64 + bits.trailing_zeros() as usize) * bytes);
            to = (word * 64 + 64 - bits.leading_zeros() as usize) * bytes;
        }
        let end = taken + bits.count_ones() as usize;
        // SAFETY: the claim was bounded by the slots, so there is one for each bit, and each bit that was set is a block
        // of the slab.
        unsafe { write_blocks(slots[taken..end].as_mut_ptr(), first, bytes, bits) };
        taken = end;
    }
    slab.descriptor().set_cursor(word);
    if untouched != 0 {
        bring_in(depot, slab, from..to, untouched);
    }
    taken
}

/// Brings the pages of blocks in that were claimed, bytes `range` of the slab, where `untouched` bytes of them are not in
/// memory. They go to a magazine, and from there to the program, which would have the kernel bring each in.
fn bring_in<P: Pages>(depot: &Depot<P>, slab: &SlabRef<'_>, range: core::ops::Range<usize>, untouched: usize) {
    let page = 1 << slab.region().page_shift();
    if untouched > page && slab.shape().bytes as usize <= page && depot.budget.held() > POPULATE_BYTES_FIRST {
        let from = range.start & !(page - 1);
        // SAFETY: the blocks lie in the slab.
        let start = unsafe { slab.base().add(from) };
        // SAFETY: a slab is committed, and a multiple of pages.
        unsafe { depot.os.populate(start, range.end.next_multiple_of(page) - from) };
    }
}

/// Writes the blocks of a claimed word, the lowest to the last slot.
///
/// # Safety
/// `slots` is valid for as many writes as `bits` has bits; each bit is a block of `bytes` from `first` on.
#[inline]
unsafe fn write_blocks(slots: *mut Slot, first: *mut u8, bytes: usize, mut bits: u64) {
    if bits == u64::MAX {
        for number in 0..64 {
            // SAFETY: 64 slots and 64 blocks.
            unsafe { slots.add(63 - number).write(first.add(number * bytes)) };
        }
        return;
    }
    // SAFETY: the end of the slots.
    let mut slot = unsafe { slots.add(bits.count_ones() as usize) };
    while bits != 0 {
        let number = bits.trailing_zeros() as usize;
        bits &= bits - 1;
        // SAFETY: one slot for each bit.
        slot = unsafe { slot.sub(1) };
        // SAFETY: a block of the slab.
        unsafe { slot.write(first.add(number * bytes)) };
    }
}

/// Where there may be blocks in caches that nobody is going to use soon. The caches lie above this module.
pub trait Reclaim {
    /// Brings home what threads had that this process, the child of a fork, does not have.
    fn adopt_gone(&self);
    /// Brings home what threads left that have ended.
    fn empty_resting(&self);
    /// Brings home what can be had from the caches of other threads.
    fn take_stashes(&self);
}

/// Takes one block of `class` without an owner: for threads that have none, before or after their time.
pub(crate) fn take_one<P: Pages>(
    depot: &Depot<P>,
    owners: &Owners,
    class: ClassIndex,
    reclaim: &impl Reclaim,
) -> *mut u8 {
    let mut block: Slot = core::ptr::null_mut();
    loop {
        let Some(slab) = depot.take_partial(class).or_else(|| owners.last_slab(depot, class, reclaim)) else {
            return core::ptr::null_mut();
        };
        slab.descriptor().set_cursor(0);
        let taken = claim_into(depot, &slab, core::slice::from_mut(&mut block), 1);
        if slab.has_free() {
            depot.give_slab(slab);
        } else if slab.descriptor().leave_queue(|| slab.has_free())
            && let Some(slab) = depot.regions.slab(slab.id())
        {
            depot.give_slab(slab);
        }
        if taken == 1 {
            return block;
        }
    }
}
