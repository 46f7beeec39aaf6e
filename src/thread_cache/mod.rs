//! Thread caches: a loaded magazine per class, and a short stash behind it.
//!
//! ```text
//! # Role        malloc and free of the fast path (`pop`, `push`), and what happens when the loaded magazine is empty
//!               or full (`miss`)
//! # Accounting  blocks cached of a class = blocks in the loaded magazine + stashed magazines * `magazine_blocks`;
//!               bytes granted to all classes together stay within `Options::cache_bytes_max` (see `sizing`)
//! # Invariants  I1: only the thread that has the cache's number writes it; others read it for statistics, so all
//!                   of it is Relaxed atomics, which cost what plain memory costs.
//!               I2: `top` points behind the newest block of a magazine whose slot before the first is null, or
//!                   into the dummy magazine, which looks empty to malloc and full to free.
//! # Not here    where blocks come from and go to (see `owner`)
//! ```

mod miss;
mod sizing;

use crate::config::{MAGAZINE_SLOTS, STASH_MAX};
use crate::depot::Depot;
use crate::depot::magazines::{MAGAZINE_BYTES, Magazine, Slot};
use crate::owner::{OwnerIndex, Owners};
use crate::size_class::{self, CLASS_COUNT, shape};
use crate::sync::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use crate::units::ClassIndex;

/// A magazine that looks empty to malloc and full to free: of every class before its first use, and of every
/// class of a thread that has no cache.
static DUMMY: Magazine = Magazine::new();

/// The top of the dummy magazine: its end. The slot before is null; the address is a multiple of its size.
const fn dummy_top() -> *mut Slot {
    // SAFETY: one past the end of the dummy.
    unsafe { Magazine::slots(&raw const DUMMY).add(MAGAZINE_SLOTS) }
}

/// What malloc and free of a thread without a cache look at: every class empty and full.
pub static NO_CACHE: Tops = Tops([const { AtomicPtr::new(dummy_top()) }; CLASS_COUNT]);

/// Per class: the slot behind the newest block of the loaded magazine.
#[derive(Debug)]
#[repr(transparent)]
pub struct Tops([AtomicPtr<Slot>; CLASS_COUNT]);

impl Tops {
    /// Where the top of `class` is kept.
    #[inline(always)]
    fn cell(&self, class: ClassIndex) -> &AtomicPtr<Slot> {
        // SAFETY: ClassIndex I1.
        let cell = without_index(unsafe { self.0.get_unchecked(class.get()) });
        // SAFETY: the same address.
        unsafe { &*cell }
    }

    #[inline(always)]
    fn top(&self, class: ClassIndex) -> *mut Slot {
        // ordering: Relaxed, I1.
        self.cell(class).load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set_top(&self, class: ClassIndex, top: *mut Slot) {
        // ordering: Relaxed, I1.
        self.cell(class).store(top, Ordering::Relaxed);
    }

    /// malloc: the newest block of `class`, or null where the magazine is empty.
    #[inline(always)]
    pub fn pop(&self, class: ClassIndex) -> *mut u8 {
        let cell = self.cell(class);
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

    /// free: keeps `block`; `false` where the magazine is full.
    #[inline(always)]
    pub fn push(&self, class: ClassIndex, block: *mut u8) -> bool {
        let cell = self.cell(class);
        // ordering: Relaxed, I1.
        let top = cell.load(Ordering::Relaxed);
        if top.addr() & (MAGAZINE_BYTES - 1) == 0 {
            return false;
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

/// The same address, but in a register of its own: the compiler cannot fold an array index into the accesses.
///
/// A malloc loads the top that the last free stored. Processors with memory renaming (Intel since 2021) forward a
/// store to a load at no cost, but only if the address has no index register: 0.7 ns instead of 4.3 ns for a pair.
#[inline(always)]
#[expect(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written through it there")]
fn without_index<T>(mut address: *const T) -> *const T {
    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    // SAFETY: no instruction; the value is only hidden from the optimiser.
    unsafe {
        core::arch::asm!("/* {0} */", inout(reg) address, options(pure, nomem, nostack, preserves_flags));
    }
    #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
    let _ = &mut address;
    address
}

/// A thread's cache. Zeroed memory is not one yet: see `begin`.
#[derive(Debug)]
#[repr(C)]
pub struct ThreadCache {
    /// First, so that the fast path needs no offset.
    tops: Tops,
    classes: [ClassCache; CLASS_COUNT],
    /// Bytes of blocks that the magazines of all classes may hold.
    granted: AtomicUsize,
    /// Class where the search for capacity to take away goes on.
    hand: AtomicU8,
    /// An empty magazine in reserve, or null.
    reserve: AtomicPtr<Magazine>,
    refills: AtomicU64,
    dissolves: AtomicU64,
}

/// What the slow path knows of a class.
#[derive(Debug)]
#[repr(C)]
struct ClassCache {
    /// Full magazines, oldest first.
    stash: [AtomicPtr<Magazine>; STASH_MAX],
    /// First slot of the loaded magazine: its capacity is what lies behind.
    start: AtomicU8,
    /// Magazines in the stash.
    stash_len: AtomicU8,
    /// Magazines that the stash may have.
    stash_limit: AtomicU8,
    /// Misses since the search for capacity came by; see `sizing`.
    misses: AtomicU8,
}

/// Relaxed accesses: I1.
macro_rules! fields {
    ($($get:ident $set:ident: $field:ident $type:ty;)*) => {
        $(
            fn $get(&self) -> $type {
                // ordering: Relaxed, I1 of the module.
                self.$field.load(Ordering::Relaxed)
            }

            fn $set(&self, value: $type) {
                // ordering: Relaxed, I1 of the module.
                self.$field.store(value, Ordering::Relaxed);
            }
        )*
    };
}

impl ClassCache {
    fields! {
        start set_start: start u8;
        stash_len set_stash_len: stash_len u8;
        stash_limit set_stash_limit: stash_limit u8;
        misses set_misses: misses u8;
    }

    /// Blocks that the loaded magazine can hold.
    fn capacity(&self) -> usize {
        MAGAZINE_SLOTS - usize::from(self.start())
    }

    fn stash_push(&self, magazine: *mut Magazine) {
        // ordering: Relaxed, I1.
        self.stash[usize::from(self.stash_len())].store(magazine, Ordering::Relaxed);
        self.set_stash_len(self.stash_len() + 1);
    }

    fn stash_pop(&self) -> Option<*mut Magazine> {
        let len = self.stash_len().checked_sub(1)?;
        self.set_stash_len(len);
        // ordering: Relaxed, I1.
        Some(self.stash[usize::from(len)].load(Ordering::Relaxed))
    }

    /// Takes the oldest magazine out.
    fn stash_shift(&self) -> Option<*mut Magazine> {
        let len = usize::from(self.stash_len().checked_sub(1)?);
        // ordering: Relaxed, I1.
        let oldest = self.stash[0].load(Ordering::Relaxed);
        for index in 0..len {
            let next = self.stash[index + 1].load(Ordering::Relaxed);
            self.stash[index].store(next, Ordering::Relaxed);
        }
        self.set_stash_len(len as u8);
        Some(oldest)
    }
}

/// Counts of a cache, and of all threads that had it before.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheCounts {
    /// Blocks cached, in bytes.
    pub cached_bytes: usize,
    /// Times that blocks came from slabs.
    pub refills: u64,
    /// Times that blocks went back to slabs.
    pub dissolves: u64,
}

/// A thread's cache together with all that its slow paths need: the calling thread's own, so neither `Send` nor
/// `Sync`.
pub struct Cached<'h, P> {
    /// The cache.
    pub cache: &'h ThreadCache,
    /// Its number.
    pub me: OwnerIndex,
    /// Where slabs come from.
    pub depot: &'h Depot<P>,
    /// Where blocks come from.
    pub owners: &'h Owners,
    /// A thread's own.
    pub own: core::marker::PhantomData<*mut ()>,
}

impl ThreadCache {
    fields! {
        granted set_granted: granted usize;
        hand set_hand: hand u8;
        reserve set_reserve: reserve *mut Magazine;
    }

    /// Makes zeroed memory, or a cache whose thread has ended, an empty cache. Counts go on.
    pub fn begin(&self) {
        for class in size_class::all() {
            self.tops.set_top(class, dummy_top());
            let state = &self.classes[class.get()];
            state.set_start(0);
            state.set_stash_len(0);
            state.set_stash_limit(0);
            state.set_misses(0);
        }
        self.set_granted(0);
        self.set_hand(0);
        self.set_reserve(core::ptr::null_mut());
    }

    /// What the fast path uses.
    pub fn tops(&self) -> &Tops {
        &self.tops
    }

    /// The loaded magazine of `class`, if the class was used.
    fn loaded(&self, class: ClassIndex) -> Option<*mut Magazine> {
        magazine_of(self.tops.top(class))
    }

    /// Blocks in the loaded magazine of `class`.
    fn loaded_blocks(&self, class: ClassIndex) -> usize {
        // Read once: to another thread's look, the next reading may be in another magazine.
        let top = self.tops.top(class);
        let Some(magazine) = magazine_of(top) else { return 0 };
        let filled = (top.addr() - magazine.addr()) / size_of::<Slot>();
        // Another thread's look may see `top` and `start` of different moments.
        filled.saturating_sub(usize::from(self.classes[class.get()].start()))
    }

    /// Blocks cached of `class`, at some moment.
    pub fn blocks(&self, class: ClassIndex) -> usize {
        let stashed = usize::from(self.classes[class.get()].stash_len()) * usize::from(shape(class).magazine_blocks);
        self.loaded_blocks(class) + stashed
    }

    /// What was counted, and what is cached, at some moment; a cache whose thread has ended holds nothing.
    pub fn counts(&self) -> CacheCounts {
        CacheCounts {
            cached_bytes: size_class::all().map(|class| self.blocks(class) * shape(class).bytes as usize).sum(),
            // ordering: Relaxed, statistics.
            refills: self.refills.load(Ordering::Relaxed),
            dissolves: self.dissolves.load(Ordering::Relaxed),
        }
    }
}

/// The magazine that `top` points into or behind; none for the dummy and in zeroed memory.
fn magazine_of(top: *mut Slot) -> Option<*mut Magazine> {
    if top.is_null() || top == dummy_top() {
        return None;
    }
    // The slot before `top` lies in the magazine, also when that is full or empty: the first slot is never 0.
    Some(top.wrapping_sub(1).map_addr(|address| address & !(MAGAZINE_BYTES - 1)).cast())
}
