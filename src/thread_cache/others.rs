//! All caches, and what other threads may do with one: take the stash of a thread that idles, and all that a thread had
//! that is not there: in the child of a fork, or because it ended by a system call of its own.
//!
//! ```text
//! # Role        what keeps idle threads from withholding memory, at no cost for the fast path
//! # Invariants  I1: whoever took a number out of the owners' `gone` or `resting`, or from a thread that is not there,
//!                   has that number's cache as if it were its own.
//! # Progress    lock-free
//! # Not here    a thread's own emptying (see `Cached::drain`)
//! ```

use super::miss::slot_at;
use super::{Cached, ClassCache, ThreadCache, dummy_top};
use crate::config::CACHE_WORDS;
use crate::depot::Depot;
use crate::depot::stash::{Full, InMagazine};
use crate::owner::{CACHE_ALIGN, OwnerIndex, Owners, Reclaim};
use crate::size_class;
use crate::sync::Ordering;
use crate::sys::Pages;
use crate::units::ClassIndex;
use core::ptr::NonNull;

const _: () = assert!(size_of::<ThreadCache>() <= CACHE_WORDS * size_of::<usize>());
const _: () = assert!(align_of::<ThreadCache>() <= CACHE_ALIGN);

/// The cache of an owner.
///
/// # Safety
/// The number was made: it comes from `Owners`, or is below a length that the caller has seen.
pub unsafe fn cache_of(owners: &Owners, number: OwnerIndex) -> &ThreadCache {
    // SAFETY: the caller's promise.
    let place = unsafe { owners.cache_place(number.get()) };
    // SAFETY: committed, type-stable, and atomics only.
    unsafe { place.cast().as_ref() }
}

/// All caches, with and without threads.
pub fn caches(owners: &Owners) -> impl Iterator<Item = &ThreadCache> {
    // SAFETY: below the length.
    (0..owners.made()).map(|number| unsafe { cache_of(owners, OwnerIndex::new(number)) })
}

/// The caches, as other threads than theirs see them.
pub struct Others<'h, P> {
    /// Where spans and magazines go.
    pub depot: &'h Depot<P>,
    /// Where blocks go, and the caches are.
    pub owners: &'h Owners,
}

impl<P: Pages> Others<'_, P> {
    /// Takes the stashes of threads that did not call the slow path since this was called last, and all that threads
    /// left that have ended.
    pub fn take_idle_stashes(&self) {
        self.empty_resting();
        for cache in caches(self.owners) {
            // ordering: Relaxed, counts.
            let calls = cache.slow_calls.load(Ordering::Relaxed);
            if cache.slow_calls_seen.swap(calls, Ordering::Relaxed) == calls {
                self.take_stash(cache);
            }
        }
    }

    /// Does any thread have a stash, or did one leave a cache?
    pub fn has_stashes(&self) -> bool {
        let has = |cache: &ThreadCache| cache.classes.iter().any(|state| state.stashed_blocks() > 0);
        self.owners.any_resting() || caches(self.owners).any(has)
    }

    fn take_stash(&self, cache: &ThreadCache) {
        for class in size_class::all() {
            let state = &cache.classes[class.get()];
            if state.stashed_blocks() == 0 {
                continue;
            }
            // In hand meanwhile: a fork waits for it, or the child would not have it, and so does a request that found no
            // memory.
            if !self.depot.hand.take_up() {
                return;
            }
            self.dissolve_stash(state, class);
            self.depot.hand.put_down();
        }
    }

    fn dissolve_stash(&self, state: &ClassCache, class: ClassIndex) {
        for stash in [&state.older, &state.stash] {
            let mut taken = stash.take_all();
            while let Some(full) = taken.pop(&InMagazine) {
                self.dissolve(class, full);
            }
        }
    }

    /// Gives home the blocks of a magazine that the caller has taken out of a stash.
    fn dissolve(&self, class: ClassIndex, full: Full) {
        let first = slot_at(full.magazine, full.start.into());
        // SAFETY: stash I1, I2: the slots hold blocks, and are the caller's.
        let blocks = unsafe { core::slice::from_raw_parts(first, full.blocks()) };
        self.owners.dissolve(self.depot, None, class, blocks);
        if let Some(magazine) = NonNull::new(full.magazine) {
            // SAFETY: it came from the pool, and nobody else knows it.
            unsafe { self.depot.magazines.give(magazine) };
        }
    }

    /// The cache of an owner that the caller has taken (I1).
    fn cached(&self, number: OwnerIndex) -> Cached<'_, P> {
        Cached {
            // SAFETY: it was taken out of a set of those that were made.
            cache: unsafe { cache_of(self.owners, number) },
            me: number,
            depot: self.depot,
            owners: self.owners,
            own: core::marker::PhantomData,
        }
    }

    /// Takes over what one thread had that is gone. `false`: there is none.
    fn adopt_one(&self) -> bool {
        self.owners.take_gone().map(|number| self.adopt(number)).is_some()
    }

    /// Takes over what a thread had that is not there any more without having given it up. `false`: it was done already,
    /// or a fork is under way.
    pub fn adopt_ended(&self, number: usize, thread: u64) -> bool {
        // In hand meanwhile, as in `take_stash`.
        if !self.depot.hand.take_up() {
            return false;
        }
        let taken = self.owners.take_from(number, thread);
        if let Some(number) = taken {
            self.adopt(number);
        }
        self.depot.hand.put_down();
        taken.is_some()
    }

    /// Gives home all that is in the cache of a thread that vanished at any instruction, and its number to the orphans.
    fn adopt(&self, number: OwnerIndex) {
        let cached = self.cached(number);
        for class in size_class::all().filter(|&class| cached.cache.is_in_doubt(class)) {
            // What is stashed is whole at any instant, but how much that is may be counted wrongly.
            self.dissolve_stash(&cached.cache.classes[class.get()], class);
            cached.cache.forget(class);
        }
        cached.drain();
        self.owners.orphan(self.depot, number);
    }
}

impl<P: Pages> Reclaim for Others<'_, P> {
    fn adopt_gone(&self) {
        while self.adopt_one() {}
    }

    fn empty_resting(&self) {
        // In hand meanwhile, as in `take_stash`. Each by itself: a fork waits for one at most.
        while self.owners.any_resting() && self.depot.hand.take_up() {
            if let Some(number) = self.owners.take_resting() {
                self.cached(number).drain();
                self.owners.orphan(self.depot, number);
            }
            self.depot.hand.put_down();
        }
    }

    fn take_stashes(&self) {
        self.empty_resting();
        caches(self.owners).for_each(|cache| self.take_stash(cache));
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
