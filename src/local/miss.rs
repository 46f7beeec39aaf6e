//! What happens when the loaded magazine is empty (malloc) or full (free).
//!
//! ```text
//! # Order       malloc: the newest stashed magazine, else a refill from slabs.
//!               free: more capacity, else the stash, else older blocks are flushed: the newest, which are warm,
//!               stay.
//! ```

use super::sizing::{Place, Way};
use super::cache::{LocalHeap, dummy_top};
use crate::config::MAGAZINE_SLOTS;
use crate::depot::magazines::{Magazine, Slot};
use crate::local::stash::{Full, InMagazine};
use crate::size_class;
use crate::sync::{AtomicU64, Ordering};
use crate::sys::Pages;
use crate::units::ClassIndex;

/// Misses of a thread in which one at least does what is due from time to time, wherever its blocks come from.
const CALLS_PER_POLICY: u64 = 8;

impl<P: Pages> LocalHeap<'_, P> {
    /// malloc after `pop` found nothing: a block of `class`, or null at the end of memory.
    pub fn allocate(&self, class: ClassIndex) -> *mut u8 {
        self.begin(class);
        let mut block = self.allocate_inside(class);
        if block.is_null() {
            // The thread's own free blocks of other classes may fill slabs, and its own slabs may be empty.
            self.drain();
            self.shared.give_all(self.me);
            self.cache.enter(Some(class));
            block = self.allocate_inside(class);
        }
        self.cache.leave();
        block
    }

    /// malloc after `pop` found nothing, if the stash serves it: a block of `class`, else null, and nothing was done. Most
    /// misses of a busy class end here; but every eighth is for `allocate`, which does what is due from time to time, and for
    /// the purge that follows it.
    pub fn allocate_stashed(&self, class: ClassIndex) -> *mut u8 {
        // ordering: Relaxed, a count that only this thread writes.
        let calls = self.cache.slow_calls.load(Ordering::Relaxed).wrapping_add(1);
        let Some(empty) = self.cache.loaded(class) else { return core::ptr::null_mut() };
        // The caller may have looked at the dummy, and this magazine may have blocks: see `Heap::allocate_small`.
        if calls.is_multiple_of(CALLS_PER_POLICY) || self.cache.loaded_blocks(class) != 0 {
            return core::ptr::null_mut();
        }
        self.cache.enter(Some(class));
        let mut block = core::ptr::null_mut();
        if self.load_stashed(class, empty) {
            // ordering: Relaxed, as above.
            self.cache.slow_calls.store(calls, Ordering::Relaxed);
            let _ = self.cache.classes[class.get()].count_miss(Way::Out);
            block = self.pop(class);
        }
        self.cache.leave();
        block
    }

    /// Loads the newest stashed magazine in the place of `empty`. `false`: there is none.
    #[inline]
    fn load_stashed(&self, class: ClassIndex, empty: *mut Magazine) -> bool {
        let Some(full) = self.stash_pop(class) else { return false };
        self.put_aside(empty);
        self.cache.classes[class.get()].set_start(full.start);
        self.cache.tops.set_top(class, slot_at(full.magazine, MAGAZINE_SLOTS));
        true
    }

    /// free after `push` found no room. `block` is the caller's.
    pub fn free(&self, class: ClassIndex, block: *mut u8) {
        self.begin(class);
        self.free_inside(class, block);
        self.cache.leave();
    }

    /// What every miss begins with.
    fn begin(&self, class: ClassIndex) {
        // ordering: Relaxed, a count that only this thread writes.
        let calls = self.cache.slow_calls.load(Ordering::Relaxed).wrapping_add(1);
        self.cache.slow_calls.store(calls, Ordering::Relaxed);
        let epoch = self.shared.depot.epoch();
        if epoch != self.cache.epoch() {
            self.cache.set_epoch(epoch);
            self.shrink_unused();
        }
        self.cache.enter(Some(class));
    }

    fn allocate_inside(&self, class: ClassIndex) -> *mut u8 {
        let state = &self.cache.classes[class.get()];
        let place = state.count_miss(Way::Out);
        match self.cache.loaded(class) {
            None => {
                // Others take the slabs of a class that seems never to have missed.
                let _ = self.is_frequent(class);
                if !self.load_first(class, place) {
                    return self.shared.take_one(class);
                }
            }
            Some(empty) => {
                if self.load_stashed(class, empty) {
                    return self.pop(class);
                }
                let capacity =
                    if self.is_frequent(class) { self.grown_capacity(class, place) } else { state.capacity() };
                self.set_empty(class, empty, capacity);
            }
        }
        self.refill(class);
        self.pop(class)
    }

    fn free_inside(&self, class: ClassIndex, block: *mut u8) {
        let state = &self.cache.classes[class.get()];
        let place = state.count_miss(Way::In);
        let has_room = match self.cache.loaded(class) {
            None => self.load_first(class, place),
            Some(full) => self.make_room(class, full, place),
        };
        if !has_room {
            self.shared.flush(Some(self.me), class, &[block]);
            return;
        }
        let pushed = self.push(class, block);
        debug_assert!(pushed, "there is room now");
    }

    /// Gives the class its first magazine, empty. `false`: there is none for it.
    fn load_first(&self, class: ClassIndex, place: Place) -> bool {
        let Some(magazine) = self.take_magazine() else { return false };
        let capacity = self.first_capacity(class, place);
        if capacity == 0 {
            self.put_aside(magazine);
            return false;
        }
        self.set_empty(class, magazine, capacity);
        true
    }

    /// Fills part of the empty loaded magazine: half, so that the frees to come find room as well.
    fn refill(&self, class: ClassIndex) {
        let capacity = self.cache.classes[class.get()].capacity();
        let top = self.cache.tops.top(class);
        count(&self.cache.refills);
        self.cache.classes[class.get()].count_refill();
        let want = capacity.div_ceil(2);
        // SAFETY: the magazine is empty, so `capacity` slots of it, which hold stale pointers, lie behind `top`.
        let slots = unsafe { core::slice::from_raw_parts_mut(top, capacity) };
        let (taken, density) = self.shared.fill(self.me, class, slots, want);
        self.cache.traffic(class).taken.add_own(taken);
        if let Some(blocks) = density.per_word() {
            self.cache.classes[class.get()].set_density(blocks);
        }
        // SAFETY: at most `capacity`.
        self.cache.tops.set_top(class, unsafe { top.add(taken) });
    }

    /// Makes room in the full loaded magazine. `false`: the class has none any more.
    fn make_room(&self, class: ClassIndex, full: *mut Magazine, place: Place) -> bool {
        let state = &self.cache.classes[class.get()];
        let capacity = state.capacity();
        let stashed = Full { magazine: full, start: state.start() };
        if self.is_frequent(class) {
            let grown = self.grown_capacity(class, place);
            if grown > capacity {
                self.move_blocks(class, full, capacity, grown);
                return true;
            }
            if self.is_worth_stashing(class, stashed) && self.stash(class, stashed) {
                return true;
            }
        }
        // Half: the next frees find room, and the next mallocs blocks.
        let kept = self.kept_capacity(class, place);
        let old = capacity - kept / 2;
        self.flush(class, stashed.magazine, usize::from(stashed.start), old);
        if kept == 0 {
            // With the magazine it is out of sight: nobody would ask for it.
            self.empty_stash(class);
            self.unload(class, stashed.magazine);
            return false;
        }
        self.move_blocks(class, stashed.magazine, capacity - old, kept);
        true
    }

    /// Stashes the loaded magazine, which is full, and loads an empty one; if need be in the place of an older one.
    fn stash(&self, class: ClassIndex, full: Full) -> bool {
        let push = |empty| {
            let lost = self.cache.classes[class.get()].stash.push(full, &InMagazine);
            self.uncount_stash(class, lost);
            self.set_empty(class, empty, full.blocks());
            // A turn takes it away if the thread idles. If a turn that is under way misses this one, the next stashed
            // one is noted.
            self.shared.depot.note(false);
        };
        if self.grant_stash(class, full) {
            if let Some(empty) = self.take_magazine() {
                push(empty);
                return true;
            }
            self.uncount_stash(class, full.blocks());
        }
        let Some(older) = self.stash_shift(class) else { return false };
        self.flush(class, older.magazine, older.start.into(), older.blocks());
        // What it held is granted to the one that takes its place.
        if self.grant_stash(class, full) {
            push(older.magazine);
            return true;
        }
        self.put_aside(older.magazine);
        false
    }

    /// Gives all blocks back to their slabs and all magazines to the pool.
    pub fn drain(&self) {
        for class in size_class::all() {
            self.cache.enter(Some(class));
            let state = &self.cache.classes[class.get()];
            self.empty_stash(class);
            if let Some(magazine) = self.cache.loaded(class) {
                let blocks = self.cache.loaded_blocks(class);
                self.flush(class, magazine, usize::from(state.start()), blocks);
                self.cache.tops.set_top(class, dummy_top());
                self.give_magazine(magazine);
            }
            state.begin();
        }
        let reserve = self.cache.reserve();
        self.cache.set_reserve(core::ptr::null_mut());
        self.give_magazine(reserve);
        self.cache.set_granted(0);
        self.cache.set_granted_loaded(0);
        self.give_credit();
        self.cache.leave();
    }

    /// Takes the loaded magazine, which is empty, away from its class.
    pub(super) fn unload(&self, class: ClassIndex, magazine: *mut Magazine) {
        self.cache.tops.set_top(class, dummy_top());
        self.put_aside(magazine);
    }

    /// Loads `magazine`, empty, with room for `capacity` blocks.
    fn set_empty(&self, class: ClassIndex, magazine: *mut Magazine, capacity: usize) {
        let start = MAGAZINE_SLOTS - capacity;
        // SAFETY: the magazine is this thread's; a capacity is below the number of slots, so a slot is before.
        unsafe { slot_at(magazine, start - 1).write(core::ptr::null_mut()) };
        self.cache.classes[class.get()].set_start(start as u8);
        self.cache.tops.set_top(class, slot_at(magazine, start));
    }

    /// Moves the newest `blocks` of the loaded magazine to where a capacity of `capacity` wants them.
    pub(super) fn move_blocks(&self, class: ClassIndex, magazine: *mut Magazine, blocks: usize, capacity: usize) {
        debug_assert!(blocks <= capacity);
        let from = self.cache.tops.top(class).wrapping_sub(blocks);
        let to = slot_at(magazine, MAGAZINE_SLOTS - capacity);
        // First, because the sentinel may take the place of one of them.
        // SAFETY: both lie in the magazine, which is this thread's.
        unsafe { core::ptr::copy(from, to, blocks) };
        self.set_empty(class, magazine, capacity);
        self.cache.tops.set_top(class, to.wrapping_add(blocks));
    }

    /// Gives `blocks` blocks from slot `from` on back to their slabs.
    pub(super) fn flush(&self, class: ClassIndex, magazine: *mut Magazine, from: usize, blocks: usize) {
        count(&self.cache.flushes);
        // SAFETY: the slots hold blocks; the magazine is this thread's and does not change meanwhile.
        let blocks = unsafe { core::slice::from_raw_parts(slot_at(magazine, from), blocks) };
        self.shared.flush(Some(self.me), class, blocks);
    }

    fn take_magazine(&self) -> Option<*mut Magazine> {
        let reserve = self.cache.reserve();
        if reserve.is_null() {
            return self.shared.depot.magazines.take(&self.shared.depot.os).map(core::ptr::NonNull::as_ptr);
        }
        self.cache.set_reserve(core::ptr::null_mut());
        Some(reserve)
    }

    /// Keeps an empty magazine in reserve, or gives it to the pool.
    pub(super) fn put_aside(&self, magazine: *mut Magazine) {
        if self.cache.reserve().is_null() {
            self.cache.set_reserve(magazine);
        } else {
            self.give_magazine(magazine);
        }
    }

    fn give_magazine(&self, magazine: *mut Magazine) {
        if let Some(magazine) = core::ptr::NonNull::new(magazine) {
            // SAFETY: it came from the pool, and this thread has let go of it.
            unsafe { self.shared.depot.magazines.give(magazine) };
        }
    }
}

/// Slot `index` of a magazine, or its end.
pub(super) fn slot_at(magazine: *mut Magazine, index: usize) -> *mut Slot {
    Magazine::slots(magazine).wrapping_add(index)
}

/// Adds one to a counter that only this thread writes.
fn count(counter: &AtomicU64) {
    // ordering: Relaxed, a statistic; no read-modify-write, as nobody else writes.
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
