//! The registry of local heaps: which thread has which, and what becomes of one when its thread ends.
//!
//! ```text
//! # Role        a local heap's slabs; its number, and the cache that goes with it. A local heap is made, adopted, and then
//!               parked for the next thread, abandoned, or, in the child of a fork, lost
//! # Invariants  I1: only the thread that has a local heap puts slabs in its `current` and `list`; others may take all that
//!                   is there (see `kept`).
//!               I2: the slabs in `current`, `list` and the remote-free queue are queued, and this local heap holds them.
//!               I3: a parked local heap is nobody's; it has what its last thread left, remote-free queue open, as if that
//!                   thread idled. Whoever takes its number has it, and its cache.
//! # Fork        the thread may vanish at any instruction; what it leaves is a local heap all the same. What it had in its
//!               hand is lost: a slab, or the current one and the list of a class (up to `OWNER_LIST_MAX` + 1 slabs), its own
//!               or those that it was taking from an idle thread
//! # Not here    where slabs come from (see `fill`), giving blocks back (see `flush`)
//! ```

use crate::config::{RECORDS_MAX, SLAB_OWNERS_MAX, SUMMARY_WIDTH};
use crate::depot::Depot;
use crate::local::Shared;
use crate::local::cache::{ThreadCache, Tops};
use crate::local::index_set::IndexSet;
use crate::local::kept::Kept;
use crate::local::remote_free::{Closed, RemoteFreeQueue};
use crate::local::switch::{Reach, Switch};
use crate::metadata::GrowableArray;
use crate::pagemap::SlabRef;
use crate::purge::signal::PurgeRequest;
use crate::size_class::{self, CLASS_COUNT};
use crate::summary::Summary;
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::sys::Pages;
use crate::units::{ClassIndex, SlabId};

/// Number of a local heap that was made, in the registry that it is used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalIndex(u32);

impl LocalIndex {
    /// The local heap of that number.
    ///
    /// # Safety
    /// `get` of one that the registry gave has told the number.
    pub const unsafe fn from_number(number: usize) -> Self {
        Self(number as u32)
    }

    /// The number, to index with.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// A thread's slabs. Zeroed memory has none, and its queue is open.
#[derive(Debug)]
#[repr(C)]
pub struct LocalSlabs {
    pub(super) remote_frees: RemoteFreeQueue,
    /// Per class: the slab that refills come from.
    current: [Kept; CLASS_COUNT],
    /// Per class: the list.
    list: [Kept; CLASS_COUNT],
    /// Per class: slabs in the list, or more than there are after another thread took it.
    list_len: [AtomicU8; CLASS_COUNT],
    /// The thread that has it, as whoever asks for it knows threads; 0 if none is known.
    thread: AtomicU64,
    /// Where that thread's fast path can be turned away.
    pub(super) reach: Reach<Tops>,
}

impl LocalSlabs {
    /// The slab that refills come from, for who has the local heap.
    pub(super) fn current(&self, class: ClassIndex) -> &Kept {
        &self.current[class.get()]
    }

    pub(super) fn list_len(&self, class: ClassIndex) -> u8 {
        // ordering: Relaxed, I1.
        self.list_len[class.get()].load(Ordering::Relaxed)
    }

    fn set_list_len(&self, class: ClassIndex, len: u8) {
        // ordering: Relaxed, I1.
        self.list_len[class.get()].store(len, Ordering::Relaxed);
    }

    pub(super) fn list_push(&self, slab: &SlabRef<'_>) {
        let list = &self.list[slab.class.get()];
        let next = list.take();
        self.set_list_len(slab.class, if next.is_some() { self.list_len(slab.class) + 1 } else { 1 });
        slab.descriptor().set_link(next);
        list.put(Some(slab.id()));
    }

    pub(super) fn list_pop<'h, P: Pages>(&self, depot: &'h Depot<P>, class: ClassIndex) -> Option<SlabRef<'h>> {
        let list = &self.list[class.get()];
        let Some(slab) = list.take().and_then(|id| depot.regions.slab(id)) else {
            self.set_list_len(class, 0);
            return None;
        };
        list.put(slab.descriptor().link());
        self.set_list_len(class, self.list_len(class).saturating_sub(1));
        Some(slab)
    }

    /// Gives all slabs of a class to the depot. For anyone: who has the local heap finds nothing then. `true`: there were some.
    fn give_class<P: Pages>(&self, depot: &Depot<P>, class: ClassIndex) -> bool {
        let (list, current) = (self.list[class.get()].take(), self.current[class.get()].take());
        give_chain(depot, list);
        if let Some(slab) = current.and_then(|id| depot.regions.slab(id)) {
            depot.give_slab(slab);
        }
        list.or(current).is_some()
    }
}

/// All local heaps, with and without threads.
#[derive(Debug)]
pub struct ThreadRegistry {
    records: GrowableArray<Record>,
    /// Local heaps whose remote-free queues may have slabs.
    remote_frees: Summary<REMOTE_LEAVES, REMOTE_MIDDLES>,
    /// Abandoned: the thread has ended, and all that it had went home.
    abandoned: IndexSet,
    /// Parked: the thread has ended and left all as it was, cache included. To everybody else that is like the local heap of
    /// an idle thread, until a new thread, or whoever needs memory, takes it.
    parked: IndexSet<PARKED_WORDS>,
    /// Lost in a fork: in the child, those of threads that it does not have, and that nobody has adopted yet.
    lost: IndexSet,
    /// 0 if `lost` has no members; else 1 more than the slabs that are made before they are adopted.
    any_lost: AtomicU8,
    /// Where the look for slabs of idle threads goes on.
    looked: AtomicU32,
    /// Which mode is on.
    pub(super) switch: Switch,
}

/// Local heaps that a thread looks at before it maps memory for a slab.
const IDLE_LOOKS: usize = 4;

/// Slabs that a fork's child makes before it brings home what its parent's other threads had: most children start
/// another program at once, and to touch 8 threads' caches copies more than 100 pages.
const LOST_SLABS: u8 = 4;

/// Words of the summary of remote-free queues.
const REMOTE_LEAVES: usize = RECORDS_MAX / SUMMARY_WIDTH;
const REMOTE_MIDDLES: usize = REMOTE_LEAVES.div_ceil(SUMMARY_WIDTH);

/// Words of the set of parked local heaps: its bound is 64 times as many.
const PARKED_WORDS: usize = 1;

/// A local heap that a thread has adopted.
#[derive(Clone, Copy, Debug)]
pub enum Adopted {
    /// A new one, or one that has nothing.
    Empty(LocalIndex),
    /// One with all that its last thread had; its cache can be used as it is.
    Parked(LocalIndex),
}

/// What a thread has: a thread that uses few classes touches one page of it.
#[derive(Debug)]
#[repr(C)]
struct Record {
    slabs: LocalSlabs,
    cache: ThreadCache,
}

/// Address space for records, in bytes.
const RANGE_BYTES: usize = (RECORDS_MAX * size_of::<Record>()).next_power_of_two();

impl ThreadRegistry {
    /// None yet.
    pub const fn new() -> Self {
        Self {
            records: GrowableArray::new(RANGE_BYTES),
            remote_frees: Summary::new(),
            abandoned: IndexSet::new(),
            parked: IndexSet::new(),
            lost: IndexSet::new(),
            any_lost: AtomicU8::new(0),
            looked: AtomicU32::new(0),
            switch: Switch::new(),
        }
    }

    /// Notes which thread has a local heap; 0 before the thread gives it up. Returns what was noted before.
    pub fn set_thread(&self, me: LocalIndex, thread: u64) -> u64 {
        // ordering: AcqRel; whoever sees it sees a local heap that is that thread's.
        self.slabs(me).thread.swap(thread, Ordering::AcqRel)
    }

    /// The thread that has local heap number `number`; 0 if none is known, or there is no such local heap.
    pub fn thread_of(&self, number: usize) -> u64 {
        // ordering: Acquire, as above.
        self.slabs_hinted(number as u32).map_or(0, |slabs| slabs.thread.load(Ordering::Acquire))
    }

    /// Takes the local heap from a thread that is not there any more without having given it up, for the caller to empty its
    /// cache and to `abandon` it. `None`: another caller was faster. A number cannot have gone to a thread of the same name
    /// meanwhile: the one that is not there still had it.
    pub(super) fn take_from(&self, number: usize, thread: u64) -> Option<LocalIndex> {
        let index = LocalIndex(number as u32);
        // ordering: Acquire, as above; the thread's last writes came before the kernel forgot it.
        let slabs = self.slabs_hinted(index.0)?;
        let taken = slabs.thread.compare_exchange(thread, 0, Ordering::Acquire, Ordering::Relaxed);
        taken.ok().map(|_| {
            slabs.reach.close();
            index
        })
    }

    /// Is any local heap parked, at some moment?
    pub fn any_parked(&self) -> bool {
        self.parked() != 0
    }

    /// Parked local heaps, at some moment.
    pub fn parked(&self) -> usize {
        self.parked.count(self.made())
    }

    /// Takes a parked local heap, to have it or to empty its cache and to `abandon` it.
    pub(super) fn take_parked(&self) -> Option<LocalIndex> {
        self.parked.take(self.made()).map(|number| LocalIndex(number as u32))
    }

    /// In the child of a fork, which has only the calling thread: notes that the threads of all other local heaps are lost.
    /// Writes no more than a few words: most children start another program at once.
    pub fn note_lost_in_fork(&self, me: Option<LocalIndex>) {
        for number in 0..self.made().min(RECORDS_MAX) {
            let is_mine = me.is_some_and(|me| me.get() == number);
            let is_lost = !is_mine && !self.abandoned.has(number) && !self.parked.has(number);
            if self.lost.has(number) && !is_lost {
                self.lost.remove(number);
            } else if is_lost && !self.lost.has(number) {
                self.lost.put(number);
                // ordering: Relaxed; the caller is alone.
                self.any_lost.store(1 + LOST_SLABS, Ordering::Relaxed);
            }
        }
    }

    /// Is it time to adopt what lost threads had? Not for the first slabs.
    pub(super) fn adopts_lost_now(&self) -> bool {
        // ordering: Relaxed, a count that may be late or lose steps.
        let left = self.any_lost.load(Ordering::Relaxed);
        if left > 1 {
            self.any_lost.store(left - 1, Ordering::Relaxed);
        }
        left == 1
    }

    /// Takes a local heap that was lost in a fork, for the caller to empty its cache and to `abandon` it.
    pub(super) fn take_lost(&self) -> Option<LocalIndex> {
        // ordering: Relaxed; set before there was a second thread.
        if self.any_lost.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let taken = self.lost.take(self.made()).map(|number| LocalIndex(number as u32));
        if taken.is_none() {
            // ordering: Relaxed, a hint: members are only put in where there is no second thread.
            self.any_lost.store(0, Ordering::Relaxed);
        }
        taken
    }

    /// Before the caller gives a local heap up: it is not lost, though a signal handler's fork, from which the caller went on in
    /// the child, took it for lost while it was in the caller's hand.
    fn forget_lost(&self, me: LocalIndex) {
        // ordering: Relaxed, as in `take_lost`.
        if self.any_lost.load(Ordering::Relaxed) != 0 && self.lost.has(me.get()) {
            self.lost.remove(me.get());
        }
    }

    /// Puts a slab that the caller holds on the remote-free queue of local heap number `number`, if it was made.
    ///
    /// # Errors
    /// `Closed`: the local heap has no thread; the caller keeps the slab.
    pub(super) fn push_remote_free(&self, number: u32, slab: SlabRef<'_>) -> Result<(), Closed> {
        let slabs = self.slabs_hinted(number).ok_or(Closed)?;
        slabs.remote_frees.push(slab.id(), |next| slab.descriptor().set_link(next))?;
        self.remote_frees.only().note(number as usize);
        Ok(())
    }

    /// Local heaps made so far, with and without threads.
    pub fn made(&self) -> usize {
        self.records.len()
    }

    /// Are there so many local heaps that none keeps slabs of its own?
    pub(super) fn share_slabs(&self) -> bool {
        self.made() > SLAB_OWNERS_MAX
    }

    /// Local heaps that a thread has, at some moment.
    pub fn in_use(&self) -> usize {
        let made = self.made().min(RECORDS_MAX);
        made.saturating_sub(self.abandoned.count(made) + self.parked.count(made) + self.lost.count(made))
    }

    fn record(&self, index: LocalIndex) -> &Record {
        #[cfg(test)]
        crate::summary::steps::step();
        // SAFETY: a `LocalIndex` is below `made`.
        let record = unsafe { self.records.get(index.get()) };
        // SAFETY: mapped, type-stable, and atomics only; zeroed memory is a valid record.
        unsafe { record.as_ref() }
    }

    pub(super) fn slabs(&self, index: LocalIndex) -> &LocalSlabs {
        &self.record(index).slabs
    }

    /// The cache of a local heap, zeroed or as its threads left it.
    pub(super) fn cache(&self, index: LocalIndex) -> &ThreadCache {
        &self.record(index).cache
    }

    /// All caches, of local heaps with and without threads.
    pub fn caches(&self) -> impl Iterator<Item = &ThreadCache> {
        (0..self.made()).map(|number| self.cache(LocalIndex(number as u32)))
    }

    /// What all local heaps have, with and without threads.
    pub(super) fn all_slabs(&self) -> impl Iterator<Item = &LocalSlabs> {
        (0..self.made()).map(|number| self.slabs(LocalIndex(number as u32)))
    }

    /// The slabs of local heap number `number`, if it was made: a slab's hint may name one that is gone by now.
    fn slabs_hinted(&self, number: u32) -> Option<&LocalSlabs> {
        ((number as usize) < self.made()).then(|| self.slabs(LocalIndex(number)))
    }

    /// Bytes committed.
    pub fn committed(&self) -> usize {
        self.records.committed()
    }

    /// In the child of a fork: whoever was mapping memory, or turning a mode on, is not here.
    pub fn forget_claims(&self) {
        self.records.forget_claims();
        self.switch.note_fork();
    }

    /// Gives everything back to the OS.
    ///
    /// # Safety
    /// Nobody uses any local heap, now or later.
    pub unsafe fn release<P: Pages>(&self, depot: &Depot<P>) {
        let made = self.made();
        self.remote_frees.only().reset();
        self.abandoned.reset(made);
        self.parked.reset(made);
        self.lost.reset(made);
        // SAFETY: the caller's promise.
        unsafe { self.records.release(&depot.os) };
    }
}

impl Default for ThreadRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Pages> Shared<'_, P> {
    /// A local heap for the calling thread: a parked one if there is one, else an abandoned one, else a new one. `None`: no
    /// memory or no number.
    pub fn adopt(self) -> Option<Adopted> {
        let registry = self.registry;
        if let Some(index) = registry.take_parked() {
            return Some(Adopted::Parked(index));
        }
        if let Some(number) = registry.abandoned.take(registry.made()) {
            let index = LocalIndex(number as u32);
            registry.slabs(index).remote_frees.open();
            return Some(Adopted::Empty(index));
        }
        if registry.made() >= RECORDS_MAX {
            return None;
        }
        // A new one is open from the start, and a slab whose hint names it may have been pushed already.
        let number = registry.records.grow(&self.depot.os).filter(|&number| number < RECORDS_MAX)?;
        self.depot.spread_over(number + 1);
        Some(Adopted::Empty(LocalIndex(number as u32)))
    }

    /// Parks the local heap of a thread that ends, for the next thread. `false`: there is no place, the thread has it.
    #[must_use]
    pub fn park(self, me: LocalIndex) -> bool {
        if !IndexSet::<PARKED_WORDS>::fits(me.get()) {
            return false;
        }
        self.registry.forget_lost(me);
        self.registry.parked.put(me.get());
        // An epoch takes what nobody has adopted by then.
        self.depot.raise(PurgeRequest::Raised);
        true
    }

    /// Abandons the local heap of a thread that ends: its slabs go to the depot, its number to a later thread.
    pub fn abandon(self, me: LocalIndex) {
        give_chain(self.depot, self.registry.slabs(me).remote_frees.close());
        self.give_all(me);
        self.registry.forget_lost(me);
        self.registry.abandoned.put(me.get());
    }

    /// Gives all slabs of a local heap whose thread goes on to the depot.
    pub fn give_all(self, me: LocalIndex) {
        let slabs = self.registry.slabs(me);
        give_chain(self.depot, slabs.remote_frees.take_all());
        for class in size_class::all() {
            let _ = slabs.give_class(self.depot, class);
        }
    }

    /// Gives the slabs in remote-free queues to the depot: the threads whose they are may be idle, or, in the child of a
    /// fork, lost. Looks only at queues that may have some: its cost does not grow with the local heaps made.
    pub(super) fn flush_remote_frees(self) {
        let queues = self.registry.remote_frees.only();
        let mut from = 0;
        while let Some(number) = queues.next(from) {
            queues.clear(number, || {
                let index = LocalIndex(number as u32);
                give_chain(self.depot, self.registry.slabs(index).remote_frees.take_all());
                false
            });
            from = number + 1;
        }
    }

    /// Gives to the depot what local heaps keep of a class that their threads have not missed lately. Looks at a few of them,
    /// next time at others: its cost does not grow with the local heaps made.
    pub(super) fn take_idle_slabs(self, class: ClassIndex) {
        let registry = self.registry;
        let made = registry.made();
        if made < 2 {
            return;
        }
        let now = self.depot.os.now_ms();
        // ordering: Relaxed, a place to begin; two threads at the same one do no harm.
        let from = registry.looked.load(Ordering::Relaxed) as usize;
        registry.looked.store(from.wrapping_add(IDLE_LOOKS) as u32, Ordering::Relaxed);
        for look in 0..IDLE_LOOKS.min(made) {
            let index = LocalIndex((from.wrapping_add(look) % made) as u32);
            if registry.cache(index).is_idle(class, now) && registry.slabs(index).give_class(self.depot, class) {
                return;
            }
        }
    }

    /// The same for one queue, after the last block of a slab came home that may wait in it.
    pub(super) fn flush_remote_frees_of(self, number: u32) {
        if let Some(slabs) = self.registry.slabs_hinted(number) {
            give_chain(self.depot, slabs.remote_frees.take_all());
        }
    }
}

/// Gives all slabs of a chain to the depot.
fn give_chain<P: Pages>(depot: &Depot<P>, mut next: Option<SlabId>) {
    while let Some(slab) = next.and_then(|id| depot.regions.slab(id)) {
        next = slab.descriptor().link();
        depot.give_slab(slab);
    }
}
