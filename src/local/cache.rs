//! Thread caches: a loaded magazine per class, and a short stash behind it.
//!
//! ```text
//! # Role        malloc and free of the fast path (`pop`, `push`), and what happens when the loaded magazine is empty
//!               or full (`miss`); the full magazines behind (`local::stash`); how much is kept (`sizing`); what others
//!               may do with a cache (`steal`)
//! # Accounting  blocks cached of a class = blocks in the loaded magazine + blocks in the stash; bytes granted to
//!               all classes together stay within `Options::cache_bytes_max`, and those of all caches within a bound of
//!               their own (see `sizing`)
//! # Invariants  I1: only the thread that has the cache's number writes it, but for the stash; others read it for
//!                   statistics, and to see whether a class is idle, so all of it is Relaxed atomics, which cost what
//!                   plain memory costs.
//!               I2: `top` points behind the newest block of a magazine whose slot before the first is null, or
//!                   into the dummy magazine, which looks empty to malloc and full to free.
//!               I3: while `busy` names a class, that class may be in a state that no other thread could take over, as
//!                   after a fork; all other classes are whole.
//! # Not here    where blocks come from and go to (see `fill`, `flush`)
//! ```

use crate::config::{MAGAZINE_BYTES, MAGAZINE_SLOTS, PARKED_BYTES_MAX};
use crate::depot::counts::Traffic;
use crate::depot::magazines::{Magazine, Slot};
use crate::local::stash::Stash;
use crate::local::Shared;
use crate::local::registry::LocalIndex;
use crate::size_class::CLASS_COUNT;
use crate::slab::KindByte;
use crate::sync::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sys::processor::without_index;
use crate::units::ClassIndex;

/// A magazine that looks empty to malloc and full to free: of every class before its first use, and of every
/// class of a thread that has no cache.
static DUMMY: Magazine = Magazine::new();

/// The top of the dummy magazine: its end. The slot before is null; the address is a multiple of its size.
pub(super) const fn dummy_top() -> *mut Slot {
    // SAFETY: one past the end of the dummy.
    unsafe { Magazine::slots(&raw const DUMMY).add(MAGAZINE_SLOTS) }
}

/// What malloc and free of a thread without a cache look at: every class empty and full.
pub static NO_CACHE: Tops = Tops([const { AtomicPtr::new(dummy_top()) }; KindByte::COUNT]);

/// Per class: the slot behind the newest block of the loaded magazine. By kind byte: what is no slab is a class whose
/// magazine is always the dummy, so that a free of it finds no room.
#[derive(Debug)]
#[repr(transparent)]
pub struct Tops([AtomicPtr<Slot>; KindByte::COUNT]);

impl Tops {
    /// Where the top of a class is kept.
    #[inline(always)]
    pub(super) fn cell(&self, class: KindByte) -> &AtomicPtr<Slot> {
        // SAFETY: I4 of `slab`.
        let cell = without_index(unsafe { self.0.get_unchecked(class.get()) });
        // SAFETY: the same address.
        unsafe { &*cell }
    }

    #[inline(always)]
    pub(super) fn top(&self, class: ClassIndex) -> *mut Slot {
        // ordering: Relaxed, I1.
        self.cell(KindByte::of(class)).load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn set_top(&self, class: ClassIndex, top: *mut Slot) {
        // ordering: Relaxed, I1.
        self.cell(KindByte::of(class)).store(top, Ordering::Relaxed);
    }

    /// malloc: the newest block of `class`, or null where the magazine is empty.
    ///
    /// # Safety
    /// The calling thread has the cache, or there is none (`NO_CACHE`): nobody else uses its magazines.
    #[inline(always)]
    pub unsafe fn pop(&self, class: ClassIndex) -> *mut u8 {
        let cell = self.cell(KindByte::of(class));
        // ordering: Relaxed, I1.
        let top = cell.load(Ordering::Relaxed);
        // SAFETY: I2: there is a slot before `top`.
        let slot = unsafe { top.sub(1) };
        // SAFETY: I2: it holds a block or null.
        let block = unsafe { *slot };
        if !block.is_null() {
            // ordering: Relaxed, I1.
            cell.store(slot, Ordering::Relaxed);
        }
        block
    }

    /// The newest block of `class`, or null where the magazine is empty. It stays there.
    ///
    /// # Safety
    /// As for `pop`.
    pub unsafe fn newest(&self, class: ClassIndex) -> *mut u8 {
        // SAFETY: I2: there is a slot before `top`.
        let slot = unsafe { self.top(class).sub(1) };
        // SAFETY: I2: it holds a block or null.
        unsafe { *slot }
    }

    /// free: keeps `block`, whose granule is used that way; `false` where the magazine is full, or that is no slab.
    ///
    /// # Safety
    /// As for `pop`.
    #[inline(always)]
    pub unsafe fn push(&self, span_kind: KindByte, block: *mut u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.push_unless::<false>(span_kind, block) }
    }

    /// The same; `false` also where `block` is the newest one there already, freed just now.
    ///
    /// # Safety
    /// As for `pop`.
    #[inline(always)]
    pub unsafe fn push_unless_newest(&self, span_kind: KindByte, block: *mut u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.push_unless::<true>(span_kind, block) }
    }

    #[inline(always)]
    unsafe fn push_unless<const NEWEST: bool>(&self, span_kind: KindByte, block: *mut u8) -> bool {
        let cell = self.cell(span_kind);
        // ordering: Relaxed, I1.
        let top = cell.load(Ordering::Relaxed);
        if top.addr() & (MAGAZINE_BYTES - 1) == 0 {
            return false;
        }
        if NEWEST {
            // SAFETY: I2: there is a slot before `top`.
            let slot = unsafe { top.sub(1) };
            // SAFETY: I2: it holds a block or null.
            if unsafe { *slot } == block {
                return false;
            }
        }
        // SAFETY: I2: `top` is not the end, so it is a slot of the magazine.
        unsafe { *top = block };
        // SAFETY: within the magazine, or its end.
        let above = unsafe { top.add(1) };
        // ordering: Relaxed, I1.
        cell.store(above, Ordering::Relaxed);
        true
    }
}

/// A thread's cache. Zeroed memory is not one yet: see `begin`.
#[derive(Debug)]
#[repr(C)]
pub struct ThreadCache {
    /// First, so that the fast path needs no offset.
    pub(super) tops: Tops,
    /// Bytes of blocks that the magazines of all classes may hold, and of these the loaded ones.
    pub(super) granted: AtomicUsize,
    pub(super) granted_loaded: AtomicUsize,
    /// Bytes that it may have beyond what every cache may, taken from what all caches share.
    pub(super) credit: AtomicUsize,
    /// Calls of the slow path, and how many of them a purge has seen: where there were no others, the thread is idle.
    pub(super) slow_calls: AtomicU64,
    pub(super) slow_calls_seen: AtomicU64,
    /// The epoch in which capacity was last taken from classes that are not used.
    pub(super) epoch: AtomicU32,
    /// Class number + 1 while the slow path works on a class, `ALL_CLASSES` while it may work on any, else 0 (I3).
    pub(super) busy: AtomicU8,
    /// Class where the search for capacity to take away goes on.
    pub(super) hand: AtomicU8,
    /// An empty magazine in reserve, or null.
    pub(super) reserve: AtomicPtr<Magazine>,
    pub(super) refills: AtomicU64,
    pub(super) flushes: AtomicU64,
    /// Last, the largest at the end: what a thread that uses no large classes does not touch.
    pub(super) classes: [ClassCache; CLASS_COUNT],
}

/// Value of `busy`.
const ALL_CLASSES: u8 = u8::MAX;

/// What the slow path knows of a class.
#[derive(Debug)]
#[repr(C)]
pub(super) struct ClassCache {
    /// Full magazines: new ones, and those that are given up first.
    pub(super) stash: Stash,
    pub(super) older: Stash,
    /// First slot of the loaded magazine: its capacity is what lies behind.
    pub(super) start: AtomicU8,
    /// Misses since the search for capacity came by; see `sizing`.
    pub(super) misses: AtomicU8,
    /// Full magazines that may be stashed if they are worth it; see `sizing`.
    pub(super) stash_limit: AtomicU8,
    /// Which way blocks went in the last misses, and in how many; see `sizing`.
    pub(super) streak: AtomicU8,
    /// Step of the clock at the last miss, and misses in it; see `sizing`.
    pub(super) step: AtomicU16,
    pub(super) step_misses: AtomicU8,
    /// Free blocks of a word, in the last refill that says something of it; 0 while none did. See `sizing`.
    pub(super) density: AtomicU8,
    /// What threads that had this cache took from slabs, and gave back to them.
    pub(super) traffic: Traffic,
}

/// Relaxed accesses: I1.
macro_rules! fields {
    ($($get:ident $set:ident: $field:ident $type:ty;)*) => {
        $(
            pub(super) fn $get(&self) -> $type {
                // ordering: Relaxed, I1 of the module.
                self.$field.load(Ordering::Relaxed)
            }

            pub(super) fn $set(&self, value: $type) {
                // ordering: Relaxed, I1 of the module.
                self.$field.store(value, Ordering::Relaxed);
            }
        )*
    };
}

impl ClassCache {
    fields! {
        start set_start: start u8;
        misses set_misses: misses u8;
        stash_limit set_stash_limit: stash_limit u8;
        streak set_streak: streak u8;
        step set_step: step u16;
        step_misses set_step_misses: step_misses u8;
        density set_density: density u8;
    }

    /// Forgets what is known of a class that has nothing in it any more: as in zeroed memory.
    pub(super) fn begin(&self) {
        self.set_start(0);
        self.set_misses(0);
        self.set_stash_limit(0);
        self.set_streak(0);
        self.set_step(0);
        self.set_step_misses(0);
        self.set_density(0);
    }

    /// Blocks in full magazines, at some moment.
    pub(super) fn stashed_blocks(&self) -> usize {
        self.stash.blocks() + self.older.blocks()
    }

    /// Blocks that the loaded magazine can hold.
    pub(super) fn capacity(&self) -> usize {
        MAGAZINE_SLOTS - usize::from(self.start())
    }
}

/// Counts of a cache, and of all threads that had it before.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheCounts {
    /// Calls of the slow path.
    pub slow_calls: u64,
    /// Times that blocks came from slabs.
    pub refills: u64,
    /// Times that blocks went back to slabs.
    pub flushes: u64,
}

/// A thread's own heap: its cache, and what its slow paths share with others. The calling thread's, so neither `Send` nor
/// `Sync`; it comes from the registry, through `Heap::register` and `Heap::local`.
pub struct LocalHeap<'h, P> {
    /// The cache.
    pub cache: &'h ThreadCache,
    /// Its number.
    pub me: LocalIndex,
    /// What all share.
    pub shared: Shared<'h, P>,
    own: core::marker::PhantomData<*mut ()>,
}

impl<'h, P> LocalHeap<'h, P> {
    /// The local heap of that number.
    ///
    /// # Safety
    /// The calling thread has it: it got the number from the registry, for itself or to empty it, and nobody else has.
    pub unsafe fn new(shared: Shared<'h, P>, me: LocalIndex) -> Self {
        Self { cache: shared.registry.cache(me), me, shared, own: core::marker::PhantomData }
    }

    /// malloc's fast path: the newest block of `class` that is cached, or null.
    #[inline(always)]
    pub fn pop(&self, class: ClassIndex) -> *mut u8 {
        // SAFETY: the cache is the calling thread's, by `new`.
        unsafe { self.cache.tops.pop(class) }
    }

    /// The newest block of `class` that is loaded, or null. It stays there.
    pub fn newest(&self, class: ClassIndex) -> *mut u8 {
        // SAFETY: as in `pop`.
        unsafe { self.cache.tops.newest(class) }
    }

    /// free's fast path: keeps `block`; `false` where there is no room.
    #[inline(always)]
    pub fn push(&self, class: ClassIndex, block: *mut u8) -> bool {
        // SAFETY: as in `pop`.
        unsafe { self.cache.tops.push(KindByte::of(class), block) }
    }
}

impl ThreadCache {
    fields! {
        granted set_granted: granted usize;
        granted_loaded set_granted_loaded: granted_loaded usize;
        credit set_credit: credit usize;
        epoch set_epoch: epoch u32;
        hand set_hand: hand u8;
        reserve set_reserve: reserve *mut Magazine;
    }

    /// May it hold no block, as nothing was granted since it was drained?
    pub fn may_hold_nothing(&self) -> bool {
        self.granted() == 0
    }

    /// Does it hold so little that it may be left to the next thread, of at most `most` bytes?
    pub fn may_park(&self, most: usize) -> bool {
        self.granted() <= PARKED_BYTES_MAX.min(most)
    }

    /// Makes zeroed memory, or a cache that was drained, an empty cache. What is known of the classes is as it should be in
    /// both, and not touched. Counts go on.
    pub fn begin(&self) {
        for top in &self.tops.0 {
            // ordering: Relaxed, I1.
            top.store(dummy_top(), Ordering::Relaxed);
        }
        self.set_granted(0);
        self.set_granted_loaded(0);
        self.set_credit(0);
        self.set_hand(0);
        self.set_reserve(core::ptr::null_mut());
        // ordering: Release [BUSY] the cache is whole again.
        self.busy.store(0, Ordering::Release);
    }

    /// Says that the slow path works on `class` from now on, or on any class.
    pub(super) fn enter(&self, class: Option<ClassIndex>) {
        let busy = class.map_or(ALL_CLASSES, |class| class.get() as u8 + 1);
        // ordering: Relaxed, and a Release fence [BUSY]: before all that the slow path writes. Its partner is a fork,
        // whose child has the memory of one moment.
        self.busy.store(busy, Ordering::Relaxed);
        fence(Ordering::Release);
    }

    /// Leaves the cache as a thread does that vanishes in a fork while it works on `class`.
    #[cfg(test)]
    pub fn vanish_amid(&self, class: ClassIndex) {
        self.enter(Some(class));
    }

    /// Says that all classes are whole.
    pub(super) fn leave(&self) {
        // ordering: Release [BUSY] after all that the slow path wrote.
        self.busy.store(0, Ordering::Release);
    }

    /// In the child of a fork, for a cache whose thread is gone: may `class` be in no state to be taken over?
    pub(super) fn is_in_doubt(&self, class: ClassIndex) -> bool {
        // ordering: Relaxed; nobody writes it any more.
        let busy = self.busy.load(Ordering::Relaxed);
        busy == ALL_CLASSES || usize::from(busy) == class.get() + 1
    }

    /// What the fast path uses.
    pub fn tops(&self) -> &Tops {
        &self.tops
    }

    /// The loaded magazine of `class`, if the class was used.
    pub(super) fn loaded(&self, class: ClassIndex) -> Option<*mut Magazine> {
        magazine_of(self.tops.top(class))
    }

    /// Blocks in the loaded magazine of `class`.
    pub(super) fn loaded_blocks(&self, class: ClassIndex) -> usize {
        // Read once: to another thread's look, the next reading may be in another magazine.
        let top = self.tops.top(class);
        let Some(magazine) = magazine_of(top) else { return 0 };
        let filled = (top.addr() - magazine.addr()) / size_of::<Slot>();
        // Another thread's look may see `top` and `start` of different moments.
        filled.saturating_sub(usize::from(self.classes[class.get()].start()))
    }

    /// Blocks cached of `class`, at some moment.
    pub fn blocks(&self, class: ClassIndex) -> usize {
        self.loaded_blocks(class) + self.classes[class.get()].stashed_blocks()
    }

    /// Bytes of the blocks cached, at some moment.
    #[cfg(test)]
    pub fn cached_bytes(&self) -> usize {
        let bytes = |class| self.blocks(class) * crate::size_class::shape(class).bytes as usize;
        crate::size_class::all().map(bytes).sum()
    }

    /// What threads that had this cache took from slabs of `class`, and gave back to them.
    pub fn traffic(&self, class: ClassIndex) -> &Traffic {
        &self.classes[class.get()].traffic
    }

    /// What was counted, at some moment.
    pub fn counts(&self) -> CacheCounts {
        CacheCounts {
            // ordering: Relaxed, statistics.
            slow_calls: self.slow_calls.load(Ordering::Relaxed),
            refills: self.refills.load(Ordering::Relaxed),
            flushes: self.flushes.load(Ordering::Relaxed),
        }
    }
}

/// The magazine that `top` points into or behind; none for the dummy and in zeroed memory.
pub(super) fn magazine_of(top: *mut Slot) -> Option<*mut Magazine> {
    if top.is_null() || top == dummy_top() {
        return None;
    }
    // The slot before `top` lies in the magazine, also when that is full or empty: the first slot is never 0.
    Some(top.wrapping_sub(1).map_addr(|address| address & !(MAGAZINE_BYTES - 1)).cast())
}
