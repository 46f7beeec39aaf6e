//! Stealing: what other threads may take of a local heap. The stash of a thread that idles, and all that a thread had that is
//! not there: in the child of a fork, or because it ended by a system call of its own.
//!
//! ```text
//! # Role        keeps idle threads from withholding memory, at no cost for the fast path
//! # Invariants  I1: whoever took a number out of the registry's `lost` or `parked`, or from a thread that is not there, has
//!                   that local heap as if it were its own.
//! # Progress    lock-free
//! # Not here    a thread's own emptying (see `LocalHeap::drain`)
//! ```

use super::cache::{ClassCache, LocalHeap, ThreadCache, dummy_top};
use super::miss::slot_at;
use crate::local::Shared;
use crate::local::registry::LocalIndex;
use crate::local::stash::{Full, InMagazine};
use crate::size_class;
use crate::sync::Ordering;
use crate::sys::Pages;
use crate::units::ClassIndex;
use core::ptr::NonNull;

impl<'h, P: Pages> Shared<'h, P> {
    /// Takes the stashes of threads that did not call the slow path since this was called last, and all that threads
    /// left that have ended.
    pub fn take_idle_stashes(self) {
        self.flush_parked();
        for cache in self.registry.caches() {
            // ordering: Relaxed, counts.
            let calls = cache.slow_calls.load(Ordering::Relaxed);
            if cache.slow_calls_seen.swap(calls, Ordering::Relaxed) == calls {
                self.take_stash(cache);
            }
        }
    }

    /// Does any thread have a stash, or did one leave a cache?
    pub fn has_stashes(self) -> bool {
        let has = |cache: &ThreadCache| cache.classes.iter().any(|state| state.stashed_blocks() > 0);
        self.registry.any_parked() || self.registry.caches().any(has)
    }

    fn take_stash(self, cache: &ThreadCache) {
        for class in size_class::all() {
            let state = &cache.classes[class.get()];
            if state.stashed_blocks() == 0 {
                continue;
            }
            // In flight meanwhile: a fork waits for it, or the child would not have it, and so does a request that found no
            // memory.
            let Some(walk) = self.depot.in_flight.take_up() else { return };
            self.flush_stash(state, class);
            self.depot.in_flight.put_down(walk);
        }
    }

    fn flush_stash(self, state: &ClassCache, class: ClassIndex) {
        for stash in [&state.older, &state.stash] {
            let mut taken = stash.take_all();
            while let Some(full) = taken.pop(&InMagazine) {
                self.depot.counts.steals.add(1);
                self.flush_magazine(class, full);
            }
        }
    }

    /// Gives home the blocks of a magazine that the caller has taken out of a stash.
    fn flush_magazine(self, class: ClassIndex, full: Full) {
        let first = slot_at(full.magazine, full.start.into());
        // SAFETY: stash I1, I2: the slots hold blocks, and are the caller's.
        let blocks = unsafe { core::slice::from_raw_parts(first, full.blocks()) };
        self.flush(None, class, blocks);
        if let Some(magazine) = NonNull::new(full.magazine) {
            // SAFETY: it came from the pool, and nobody else knows it.
            unsafe { self.depot.magazines.give(magazine) };
        }
    }

    /// A local heap that the caller has taken (I1).
    fn taken(self, index: LocalIndex) -> LocalHeap<'h, P> {
        // SAFETY: I1.
        unsafe { LocalHeap::new(self, index) }
    }

    /// Brings home what threads had that this process, the child of a fork, does not have.
    pub fn adopt_lost(self) {
        while let Some(index) = self.registry.take_lost() {
            self.bring_home(index);
        }
    }

    /// Takes over what a thread had that is not there any more without having given it up. `false`: it was done already,
    /// or a fork is under way.
    pub fn adopt_ended(self, number: usize, thread: u64) -> bool {
        // In flight meanwhile, as in `take_stash`.
        let Some(walk) = self.depot.in_flight.take_up() else { return false };
        let taken = self.registry.take_from(number, thread);
        if let Some(index) = taken {
            self.bring_home(index);
        }
        self.depot.in_flight.put_down(walk);
        taken.is_some()
    }

    /// Gives home all that is in the cache of a thread that vanished at any instruction, and abandons the local heap.
    fn bring_home(self, index: LocalIndex) {
        let taken = self.taken(index);
        for class in size_class::all().filter(|&class| taken.cache.is_in_doubt(class)) {
            // What is stashed is whole at any instant, but how much that is may be counted wrongly.
            self.flush_stash(&taken.cache.classes[class.get()], class);
            taken.cache.forget(class);
        }
        taken.drain();
        self.abandon(index);
    }

    /// Brings home what threads left that have ended.
    pub fn flush_parked(self) {
        // In flight meanwhile, as in `take_stash`. Each by itself: a fork waits for one at most.
        while self.registry.any_parked()
            && let Some(walk) = self.depot.in_flight.take_up()
        {
            if let Some(index) = self.registry.take_parked() {
                self.taken(index).drain();
                self.abandon(index);
            }
            self.depot.in_flight.put_down(walk);
        }
    }

    /// Brings home what can be had from the caches of other threads.
    pub fn take_stashes(self) {
        self.flush_parked();
        self.registry.caches().for_each(|cache| self.take_stash(cache));
    }
}

impl ThreadCache {
    /// Loses what the class has loaded: its blocks and magazines may be in two places or in a vanished thread's hand.
    fn forget(&self, class: ClassIndex) {
        self.tops.set_top(class, dummy_top());
        let state = &self.classes[class.get()];
        state.stash.begin();
        state.older.begin();
    }
}
