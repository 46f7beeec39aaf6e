//! The full magazines behind a loaded one: what a thread caches beyond it, and what others may take while it idles.
//!
//! ```text
//! # Invariants  I1: only the owning thread puts magazines in and moves them; anyone may take one out, by a swap.
//!                   Whoever's swap got it has the magazine and its blocks.
//!               I2: a stashed magazine is full: its blocks reach from its start to its end, and the slot before the
//!                   start is null.
//! # Ordering    STASH: `push` and `shift` (Release) -> a swap that takes out (Acquire): the slots.
//! # Progress    wait-free
//! # Checked by  heap::purging, heap::cache_bound
//! ```

use crate::config::{MAGAZINE_SLOTS, STASH_MAX};
use crate::depot::magazines::{Magazine, Slot};
use crate::sync::{AtomicPtr, AtomicU8, Ordering};

/// Zeroed memory is an empty one.
#[derive(Debug)]
#[repr(C)]
pub struct Stash {
    /// Oldest first; null where another thread took one.
    magazines: [AtomicPtr<Magazine>; STASH_MAX],
    /// Their starts: of all places in use, also of those that another thread emptied.
    starts: [AtomicU8; STASH_MAX],
    /// Places in use.
    len: AtomicU8,
}

/// A magazine that is full.
#[derive(Clone, Copy, Debug)]
pub struct Full {
    /// The magazine, which whoever has this has.
    pub magazine: *mut Magazine,
    /// Number of its first slot with a block.
    pub start: u8,
}

impl Full {
    /// Its blocks.
    pub fn blocks(self) -> usize {
        MAGAZINE_SLOTS - usize::from(self.start)
    }
}

impl Stash {
    /// Places in use, also those that another thread emptied.
    fn len(&self) -> usize {
        // ordering: Relaxed, I1.
        self.len.load(Ordering::Relaxed).into()
    }

    fn set_len(&self, len: usize) {
        // ordering: Relaxed, I1.
        self.len.store(len as u8, Ordering::Relaxed);
    }

    fn start(&self, place: usize) -> u8 {
        // ordering: Relaxed, I1; others read it for statistics.
        self.starts[place].load(Ordering::Relaxed)
    }

    /// Empties zeroed memory, or the stash of a thread that has ended. Only for the owning thread.
    pub fn begin(&self) {
        for magazine in &self.magazines {
            // ordering: Relaxed; the cache is nobody else's yet.
            magazine.store(core::ptr::null_mut(), Ordering::Relaxed);
        }
        self.set_len(0);
    }

    /// Is there no place left?
    pub fn is_full(&self) -> bool {
        self.len() == STASH_MAX
    }

    /// Puts a magazine in; there is a place.
    pub fn push(&self, full: Full) {
        self.put(self.len(), full.magazine, full.start);
        self.set_len(self.len() + 1);
    }

    fn put(&self, place: usize, magazine: *mut Magazine, start: u8) {
        // ordering: Relaxed, I1.
        self.starts[place].store(start, Ordering::Relaxed);
        // ordering: Release [STASH] the slots; pairs with Acquire in `swap_out`.
        self.magazines[place].store(magazine, Ordering::Release);
    }

    fn swap_out(&self, place: usize) -> Option<*mut Magazine> {
        // ordering: Acquire [STASH] pairs with Release in `put`.
        let magazine = self.magazines[place].swap(core::ptr::null_mut(), Ordering::Acquire);
        (!magazine.is_null()).then_some(magazine)
    }

    /// Takes the newest magazine out; only for the owning thread. `lost` is told the blocks of each magazine that
    /// another thread took meanwhile.
    pub fn pop(&self, mut lost: impl FnMut(usize)) -> Option<Full> {
        loop {
            let place = self.len().checked_sub(1)?;
            let start = self.start(place);
            self.set_len(place);
            match self.swap_out(place) {
                Some(magazine) => return Some(Full { magazine, start }),
                None => lost(MAGAZINE_SLOTS - usize::from(start)),
            }
        }
    }

    /// Takes the oldest magazine out; else as `pop`.
    pub fn shift(&self, mut lost: impl FnMut(usize)) -> Option<Full> {
        loop {
            let len = self.len().checked_sub(1)?;
            let (oldest, start) = (self.swap_out(0), self.start(0));
            for place in 0..len {
                let next = self.swap_out(place + 1).unwrap_or(core::ptr::null_mut());
                self.put(place, next, self.start(place + 1));
            }
            self.set_len(len);
            match oldest {
                Some(magazine) => return Some(Full { magazine, start }),
                None => lost(MAGAZINE_SLOTS - usize::from(start)),
            }
        }
    }

    /// Takes magazines out, in no order: for any thread.
    pub fn take_any(&self) -> Option<Full> {
        (0..STASH_MAX).find_map(|place| {
            // ordering: Relaxed, spares a write where there is nothing.
            if self.magazines[place].load(Ordering::Relaxed).is_null() {
                return None;
            }
            self.swap_out(place).map(|magazine| Full { magazine, start: start_of(magazine) })
        })
    }

    /// Blocks in it, at some moment.
    pub fn blocks(&self) -> usize {
        let blocks = |place: usize| MAGAZINE_SLOTS - usize::from(self.start(place));
        // ordering: Relaxed, a statistic.
        let is_there = |&place: &usize| !self.magazines[place].load(Ordering::Relaxed).is_null();
        (0..STASH_MAX).filter(is_there).map(blocks).sum()
    }
}

/// Where the blocks of a full magazine start: behind the last null (I2). The owning thread's note of it cannot be
/// read together with the magazine.
fn start_of(magazine: *mut Magazine) -> u8 {
    let slots: *mut Slot = Magazine::slots(magazine);
    let mut start = MAGAZINE_SLOTS;
    // SAFETY: a slot of the magazine, which the caller has; the first one is null at the latest.
    while start > 1 && !unsafe { *slots.add(start - 1) }.is_null() {
        start -= 1;
    }
    start as u8
}
