//! How much a thread may cache: slow start, growth where it is missed, and one bound in bytes over all classes.
//!
//! ```text
//! # Accounting  `granted` = sum over classes of (capacity + blocks in the stash) * block bytes; magazines that others
//!               took from the stash count until the thread comes upon their places.
//!               `granted_loaded` = the same without stashes: at most a share of the bound, because others can take
//!               the stash of a thread that idles, but not what is loaded
//! # Bound       `Options::cache_bytes_max`, or less where the heap is small: a share of it, and a quarter in any case.
//!               What a cache has beyond `CACHE_BYTES_SURE` comes from a credit that all caches share: an eighth of the
//!               heap, or `caches_bytes_max` if that is more. So many threads, each of them busy once, keep little.
//! # Policy      where a class misses often in a step of the clock, a miss doubles its capacity, up to a whole magazine;
//!               where there is no more, full magazines are stashed: three, and as many more as refills have shown to
//!               be missing, if their blocks lie together or would not at home either. At the bound, capacity is taken
//!               from classes that did not miss since the search came by last, but only at every 16th miss: else classes
//!               in use would take from each other all the time. Once in an epoch, each class that did not miss since the last one
//!               loses half, and what was stashed because it would find no neighbours at home goes there.
//! ```

use super::miss::slot_at;
use super::cache::{ClassCache, LocalHeap, ThreadCache};
use crate::config::{
    CACHE_BYTES_SURE, CREDIT_STEP_BYTES, MAGAZINE_BLOCKS_FIRST, MAGAZINE_BYTES_FIRST, STASH_FIRST,
};
use crate::local::stash::{Full, InMagazine};
use crate::size_class::{self, CLASS_COUNT, shape};
use crate::sys::Pages;
use crate::units::ClassIndex;

/// A first magazine of at most that many bytes is granted in any case: all of them together hold less than 160 KiB.
const FIRST_BYTES_SURE: usize = 8 << 10;

/// Misses of a class between two searches for capacity to take away.
const MISSES_PER_SEARCH: u8 = 16;

/// The bound divided by this is what a thread may have in any case, and what its loaded magazines hold at most: 1 MiB
/// by default, as much as other allocators' pages of a thread's size classes.
const SURE_SHARE: usize = 4;
/// Beyond that, the caches of all threads together hold at most what the heap holds, divided by this.
const HEAP_SHARE: usize = 8;

/// After so many misses of free, without one of malloc between them, a class is one that the thread only frees.
const STREAK: u8 = 4;
/// Of what a thread may have loaded, this share is for such classes: their blocks are of no use to it, each may keep a
/// whole OS page, and what an idle thread has loaded nobody can take.
const IN_ONLY_SHARE: usize = 4;

/// Milliseconds in which the misses of a class are counted: the longest step that a kernel's coarse clock has (100 Hz), so
/// that no step is left out while a thread runs, whatever the kernel's are.
const STEP_MS: u64 = 10;
/// Steps without a miss after which others may take the slabs that a thread keeps: a thread of a pool had its turn then.
const IDLE_STEPS: u16 = 2;
/// A class that misses so often in a step is given more; where it misses less, misses cost less than half a percent.
const FREQUENT_MISSES: u8 = 10;

/// Free blocks of a word, where a refill finds them, from which on it pays to send blocks home so that they meet their
/// neighbours: an atomic operation each way, for the cache lines that the program finds together later. Measured:
/// programs that live on order find 20 and more, those that do not care find 5 to 9.
const DENSITY_MIN: u8 = 8;

/// What capacity is granted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A loaded magazine.
    Loaded,
    /// A loaded magazine of a class that the thread only frees.
    InOnly,
    Stash,
}

/// Which way the blocks of a class went when it missed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// malloc found nothing.
    Out = 0,
    /// free found no room.
    In = 1,
}

/// Blocks that the first magazine of a class holds.
fn first_blocks(class: ClassIndex) -> usize {
    let shape = shape(class);
    (MAGAZINE_BYTES_FIRST / shape.bytes as usize).clamp(1, MAGAZINE_BLOCKS_FIRST).min(shape.magazine_blocks.into())
}

/// The next smaller capacity: half, but what a class has first at least; from there on nothing, where that is not sure to
/// be granted; else the same.
fn smaller_capacity(class: ClassIndex, capacity: usize) -> usize {
    let first = first_blocks(class);
    if capacity > first {
        (capacity / 2).max(first)
    } else if first * shape(class).bytes as usize > FIRST_BYTES_SURE {
        0
    } else {
        capacity
    }
}

/// Do the blocks of a full magazine lie together, so that the mallocs to come find warm pages? Then it is worth keeping
/// as it is; else its blocks had better go home, where they meet their neighbours. A sample decides.
fn is_local(class: ClassIndex, full: Full) -> bool {
    /// Blocks from one look to the next.
    const STEP: usize = 16;
    /// What lies between them, at most: two OS pages, or twice the blocks.
    const NEAR_BYTES: usize = 8192;
    const NEAR_BLOCKS: usize = 2 * STEP;
    let near = NEAR_BYTES.max(NEAR_BLOCKS * shape(class).bytes as usize);
    let sample = |number: usize| {
        // SAFETY: I2 of `local::stash`: these slots hold blocks; the magazine is the caller's.
        unsafe { *slot_at(full.magazine, usize::from(full.start) + number) }.addr()
    };
    let looks = (full.blocks() - 1) / STEP;
    let far = (0..looks).filter(|look| sample(look * STEP).abs_diff(sample((look + 1) * STEP)) > near).count();
    // One more than every fourth: a magazine mostly has blocks of two or three places.
    far <= 1 + looks / 4
}

impl ClassCache {
    /// Counts a miss; never 0, which means that the class did not miss since the search came by. Returns what a larger
    /// magazine would be granted for.
    pub(super) fn count_miss(&self, way: Way) -> Place {
        self.set_misses(self.misses().wrapping_add(1).max(1));
        let last = self.streak();
        let is_same = last & Way::In as u8 == way as u8;
        let length = if is_same { (last >> 1).saturating_add(1).min(STREAK) } else { 1 };
        self.set_streak(length << 1 | way as u8);
        if way == Way::In && length == STREAK { Place::InOnly } else { Place::Loaded }
    }

    /// Has the class not missed for a while, as far as others can tell?
    fn is_idle(&self, now_ms: u64) -> bool {
        // A step ahead: the thread has missed since the caller read the clock.
        let passed = ((now_ms / STEP_MS) as u16).wrapping_sub(self.step());
        passed >= IDLE_STEPS && passed != u16::MAX
    }

    /// Counts a miss in the clock's step of that time. Were there so many that a larger cache pays?
    fn count_frequency(&self, now_ms: u64) -> bool {
        let step = (now_ms / STEP_MS) as u16;
        let passed = step.wrapping_sub(self.step());
        if passed != 0 {
            self.set_step(step);
            // What missed often before is taken to go on so, lest each step begin with other decisions: a quarter counts in
            // the next step, an eighth in a later one. Two steps are as good as many: a thread that had to wait for a
            // processor could not miss.
            self.set_step_misses(self.step_misses() >> (1 + passed.min(2)));
        }
        self.set_step_misses(self.step_misses().saturating_add(1));
        self.step_misses() >= FREQUENT_MISSES
    }

    /// Notes that blocks had to come from slabs: had the thread kept more of what it freed, they had not.
    pub(super) fn count_refill(&self) {
        self.set_stash_limit(self.stash_limit().saturating_add(1));
    }

    /// Do the blocks of the class meet few neighbours at home?
    fn is_sparse(&self) -> bool {
        (1..DENSITY_MIN).contains(&self.density())
    }

    /// Notes that the search came by; was there a miss since the last time?
    fn take_misses(&self) -> bool {
        let missed = self.misses() != 0;
        self.set_misses(0);
        missed
    }
}

impl ThreadCache {
    /// Has the thread not missed the class for a while? A hint, for other threads.
    pub(super) fn is_idle(&self, class: ClassIndex, now_ms: u64) -> bool {
        self.classes[class.get()].is_idle(now_ms)
    }
}

impl<P: Pages> LocalHeap<'_, P> {
    /// Capacity of a class's first magazine. Granted in any case to classes of small blocks: without it, there is no
    /// cache. 0: not granted.
    pub(super) fn first_capacity(&self, class: ClassIndex, place: Place) -> usize {
        let blocks = first_blocks(class);
        let bytes = blocks * shape(class).bytes as usize;
        if bytes > FIRST_BYTES_SURE {
            return if self.grant(bytes, place, class) { blocks } else { 0 };
        }
        self.count_granted(bytes, Place::Loaded);
        blocks
    }

    /// Counts a miss of the class in this step of the clock. Were there so many that a larger cache pays?
    pub(super) fn is_frequent(&self, class: ClassIndex) -> bool {
        self.cache.classes[class.get()].count_frequency(self.shared.depot.os.now_ms())
    }

    /// Capacity of the loaded magazine after the attempt to double it.
    pub(super) fn grown_capacity(&self, class: ClassIndex, place: Place) -> usize {
        let shape = shape(class);
        let state = &self.cache.classes[class.get()];
        let capacity = state.capacity();
        let grown = (capacity * 2).min(shape.magazine_blocks.into());
        let more = (grown - capacity) * shape.bytes as usize;
        if more > 0 && self.grant(more, place, class) { grown } else { capacity }
    }

    /// Takes the newest magazine out of the stash, to be loaded instead of the present one.
    pub(super) fn stash_pop(&self, class: ClassIndex) -> Option<Full> {
        let state = &self.cache.classes[class.get()];
        let Some(popped) = state.stash.pop(&InMagazine).or_else(|| state.older.pop(&InMagazine)) else {
            self.uncount_lost(class);
            return None;
        };
        let bytes = shape(class).bytes as usize;
        // The present one's capacity is given up, the popped one's is counted as loaded from now on.
        self.cache.set_granted(self.cache.granted() - state.capacity() * bytes);
        let loaded = self.cache.granted_loaded() - state.capacity() * bytes;
        self.cache.set_granted_loaded(loaded + popped.blocks() * bytes);
        Some(popped)
    }

    /// May `full` be stashed? What others took of the stash does not count any more.
    pub(super) fn grant_stash(&self, class: ClassIndex, full: Full) -> bool {
        self.uncount_lost(class);
        let state = &self.cache.classes[class.get()];
        let limit = STASH_FIRST.max(state.stash_limit());
        state.stashed_blocks() / full.blocks() < limit.into()
            && self.grant(full.blocks() * shape(class).bytes as usize, Place::Stash, class)
    }

    /// Is `full` worth being stashed beside what is there, or instead of it?
    pub(super) fn is_worth_stashing(&self, class: ClassIndex, full: Full) -> bool {
        let state = &self.cache.classes[class.get()];
        let stashed = state.stashed_blocks() / full.blocks();
        stashed < STASH_FIRST.into() || state.is_sparse() || is_local(class, full)
    }

    /// Takes a magazine of the older half of the stash out, to be flushed.
    pub(super) fn stash_shift(&self, class: ClassIndex) -> Option<Full> {
        let state = &self.cache.classes[class.get()];
        let shifted = state.older.pop(&InMagazine).or_else(|| {
            self.uncount_lost(class);
            self.uncount_stash(class, state.stash.move_to(&state.older));
            state.older.pop(&InMagazine)
        })?;
        self.uncount_stash(class, shifted.blocks());
        Some(shifted)
    }

    /// Gives home all that is stashed.
    pub(super) fn empty_stash(&self, class: ClassIndex) {
        while let Some(full) = self.stash_shift(class) {
            self.flush(class, full.magazine, full.start.into(), full.blocks());
            self.put_aside(full.magazine);
        }
        self.uncount_lost(class);
    }

    fn uncount_lost(&self, class: ClassIndex) {
        let state = &self.cache.classes[class.get()];
        self.uncount_stash(class, state.stash.forget_lost() + state.older.forget_lost());
    }

    /// Gives up what was granted for a magazine of `blocks` in the stash.
    pub(super) fn uncount_stash(&self, class: ClassIndex, blocks: usize) {
        self.cache.set_granted(self.cache.granted() - blocks * shape(class).bytes as usize);
    }

    /// Grants `bytes` to `class`, if need be by taking them from other classes.
    fn grant(&self, bytes: usize, place: Place, class: ClassIndex) -> bool {
        if !self.may_have(bytes, place) {
            if !self.cache.classes[class.get()].misses().is_multiple_of(MISSES_PER_SEARCH) {
                return false;
            }
            self.cache.enter(None);
            // Twice around: the first round may find only classes that missed.
            for _ in 0..2 * CLASS_COUNT {
                self.take_from_next(class);
                if self.may_have(bytes, place) {
                    break;
                }
            }
            self.cache.enter(Some(class));
        }
        let may = self.may_have(bytes, place);
        if may {
            self.count_granted(bytes, place);
        }
        may
    }

    /// Do `bytes` more stay within the cache's bounds and within those of all caches?
    fn may_have(&self, bytes: usize, place: Place) -> bool {
        self.fits(bytes, place) && self.has_credit(bytes)
    }

    /// Takes credit for `bytes` more if need be. `false`: all caches together have what they may.
    fn has_credit(&self, bytes: usize) -> bool {
        let (wanted, has) = (self.cache.granted() + bytes, CACHE_BYTES_SURE + self.cache.credit());
        if wanted <= has {
            return true;
        }
        let more = (wanted - has).next_multiple_of(CREDIT_STEP_BYTES);
        let limit = self.shared.depot.caches_bytes_max().max(self.shared.depot.budget.held() / HEAP_SHARE);
        let takes = self.shared.depot.credit.take(more, limit);
        if takes {
            self.cache.set_credit(self.cache.credit() + more);
        }
        takes
    }

    /// Gives back the credit that is not needed for what is granted.
    pub(super) fn give_credit(&self) {
        let needed = self.cache.granted().saturating_sub(CACHE_BYTES_SURE).next_multiple_of(CREDIT_STEP_BYTES);
        let more = self.cache.credit().saturating_sub(needed);
        if more != 0 {
            self.cache.set_credit(self.cache.credit() - more);
            self.shared.depot.credit.give(more);
        }
    }

    /// Do `bytes` more stay within the bounds?
    fn fits(&self, bytes: usize, place: Place) -> bool {
        let most = self.shared.depot.settings.cache_bytes_max();
        let sure = most / SURE_SHARE;
        let share = self.shared.depot.budget.held() / (HEAP_SHARE * self.shared.registry.made().max(1));
        let all = share.clamp(sure, most);
        let loaded = match place {
            Place::Loaded => sure,
            Place::InOnly => sure / IN_ONLY_SHARE,
            Place::Stash => usize::MAX,
        };
        self.cache.granted_loaded() + bytes <= loaded && self.cache.granted() + bytes <= all
    }

    /// Capacity of the loaded magazine, which is full, when older blocks have been given home: less of it, if the class
    /// is one that the thread only frees and such classes have more than their share. 0: the magazine is to be unloaded.
    pub(super) fn kept_capacity(&self, class: ClassIndex, place: Place) -> usize {
        let capacity = self.cache.classes[class.get()].capacity();
        let kept = smaller_capacity(class, capacity);
        if place != Place::InOnly || kept >= capacity || self.fits(0, place) {
            return capacity;
        }
        let freed = (capacity - kept) * shape(class).bytes as usize;
        self.cache.set_granted(self.cache.granted() - freed);
        self.cache.set_granted_loaded(self.cache.granted_loaded() - freed);
        kept
    }

    fn count_granted(&self, bytes: usize, place: Place) {
        self.cache.set_granted(self.cache.granted() + bytes);
        if place != Place::Stash {
            self.cache.set_granted_loaded(self.cache.granted_loaded() + bytes);
        }
    }

    /// Once in an epoch: takes capacity from each class that did not miss since the last one.
    pub(super) fn shrink_unused(&self) {
        self.cache.enter(None);
        for class in size_class::all() {
            let state = &self.cache.classes[class.get()];
            if !state.take_misses() {
                self.shrink(class);
            } else if state.is_sparse() {
                // Others may have freed the neighbours since, and a stash that serves every miss lets no refill look.
                self.empty_stash(class);
                state.set_density(0);
            }
        }
        self.give_credit();
    }

    /// Moves the hand on by one class, and takes capacity from it if it is not `except` and did not miss.
    fn take_from_next(&self, except: ClassIndex) {
        let hand = (self.cache.hand() + 1) % CLASS_COUNT as u8;
        self.cache.set_hand(hand);
        // SAFETY: ClassIndex I1: a remainder.
        let class = unsafe { ClassIndex::new(hand) };
        if class != except && !self.cache.classes[class.get()].take_misses() {
            self.shrink(class);
        }
    }

    /// Flushes the class's stash, and halves its magazine; takes it away where nothing else would be less.
    fn shrink(&self, class: ClassIndex) {
        let Some(magazine) = self.cache.loaded(class) else { return };
        let state = &self.cache.classes[class.get()];
        self.empty_stash(class);
        state.set_stash_limit(state.stash_limit() / 2);
        let capacity = state.capacity();
        let bytes = shape(class).bytes as usize;
        let smaller = smaller_capacity(class, capacity);
        if smaller == capacity {
            return;
        }
        let blocks = self.cache.loaded_blocks(class);
        let excess = blocks.saturating_sub(smaller);
        if excess > 0 {
            self.flush(class, magazine, state.start().into(), excess);
        }
        if smaller > 0 {
            self.move_blocks(class, magazine, blocks - excess, smaller);
        } else {
            self.unload(class, magazine);
        }
        let freed = (capacity - smaller) * bytes;
        self.cache.set_granted(self.cache.granted() - freed);
        self.cache.set_granted_loaded(self.cache.granted_loaded() - freed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Lets a class miss `per_ms` times a millisecond for a second, by the coarse clock of a kernel with `hz` ticks a second.
    /// Whether it was frequent, from the first tenth of the second on: always, never, or now and then.
    fn frequency(per_ms: u64, every_ms: u64, hz: u64) -> Option<bool> {
        // SAFETY: zeroed memory is a class that nobody has used.
        let class: ClassCache = unsafe { core::mem::zeroed() };
        let mut said = std::collections::BTreeSet::new();
        for now_us in (0..1_000_000).step_by(1000) {
            let tick = now_us * hz / 1_000_000;
            let coarse_ms = tick * 1000 / hz;
            let misses = if (now_us / 1000).is_multiple_of(every_ms) { per_ms } else { 0 };
            for _ in 0..misses {
                let is_frequent = class.count_frequency(coarse_ms);
                if now_us >= 100_000 {
                    said.insert(is_frequent);
                }
            }
        }
        if said.len() == 1 { said.pop_first() } else { None }
    }

    #[test]
    fn what_is_frequent_is_the_same_for_every_kernels_clock() {
        for hz in [100, 250, 300, 1000] {
            // Far above the bound: also a step's first misses are.
            assert_eq!(frequency(4, 1, hz), Some(true), "{hz} Hz");
            // Bursts, with pauses between of a step and of several.
            assert_eq!(frequency(100, 15, hz), Some(true), "{hz} Hz, bursts");
            assert_eq!(frequency(100, 40, hz), Some(true), "{hz} Hz, bursts far apart");
            // Below it.
            assert_eq!(frequency(1, 2, hz), Some(false), "{hz} Hz, seldom");
        }
    }
}
