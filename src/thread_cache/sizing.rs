//! How much a thread may cache: slow start, growth where it is missed, and one bound in bytes over all classes.
//!
//! ```text
//! # Accounting  `granted` = sum over classes of (capacity + blocks in the stash) * block bytes; magazines that others
//!               took from the stash count until the thread comes upon their places.
//!               `granted_loaded` = the same without stashes: at most a share of the bound, because others can take
//!               the stash of a thread that idles, but not what is loaded
//! # Policy      a miss doubles the class's capacity, up to a whole magazine; where there is no more, full magazines
//!               are stashed. At the bound, capacity is taken from classes that did not miss since the search came by
//!               last, but only at every 16th miss: else classes in use would take from each other all the time.
//!               Once in a turn of purging, each class that did not miss since the last one loses half.
//! ```

use super::{Cached, ClassCache, Full};
use crate::config::{MAGAZINE_BLOCKS_FIRST, MAGAZINE_BYTES_FIRST};
use crate::size_class::{self, CLASS_COUNT, shape};
use crate::sys::Pages;
use crate::units::ClassIndex;

/// A first magazine of at most that many bytes is granted in any case: all of them together hold less than 160 KiB.
const FIRST_BYTES_SURE: usize = 8 << 10;

/// Misses of a class between two searches for capacity to take away.
const MISSES_PER_SEARCH: u8 = 16;

/// The loaded magazines together hold at most the bound divided by this: 256 KiB by default.
const LOADED_SHARE: usize = 4;
/// The bound is divided by this while the heap holds more than the soft limit.
const PRESSED_SHARE: usize = 8;

/// What capacity is granted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Loaded,
    Stash,
}

/// Blocks that the first magazine of a class holds.
fn first_blocks(class: ClassIndex) -> usize {
    let shape = shape(class);
    (MAGAZINE_BYTES_FIRST / shape.bytes as usize).clamp(1, MAGAZINE_BLOCKS_FIRST).min(shape.magazine_blocks.into())
}

impl ClassCache {
    /// Counts a miss; never 0, which means that the class did not miss since the search came by.
    pub(super) fn count_miss(&self) {
        self.set_misses(self.misses().wrapping_add(1).max(1));
    }

    /// Notes that the search came by; was there a miss since the last time?
    fn take_misses(&self) -> bool {
        let missed = self.misses() != 0;
        self.set_misses(0);
        missed
    }
}

impl<P: Pages> Cached<'_, P> {
    /// Capacity of a class's first magazine. Granted in any case to classes of small blocks: without it, there is no
    /// cache. 0: not granted.
    pub(super) fn first_capacity(&self, class: ClassIndex) -> usize {
        let blocks = first_blocks(class);
        let bytes = blocks * shape(class).bytes as usize;
        if bytes > FIRST_BYTES_SURE {
            return if self.grant(bytes, Place::Loaded, class) { blocks } else { 0 };
        }
        self.count_granted(bytes, Place::Loaded);
        blocks
    }

    /// Capacity of the loaded magazine after the attempt to double it.
    pub(super) fn grown_capacity(&self, class: ClassIndex) -> usize {
        let shape = shape(class);
        let capacity = self.cache.classes[class.get()].capacity();
        let grown = (capacity * 2).min(shape.magazine_blocks.into());
        let more = (grown - capacity) * shape.bytes as usize;
        if more > 0 && self.grant(more, Place::Loaded, class) { grown } else { capacity }
    }

    /// May a full magazine of `blocks` be stashed?
    pub(super) fn grant_stash(&self, class: ClassIndex, blocks: usize) -> bool {
        self.grant(blocks * shape(class).bytes as usize, Place::Stash, class)
    }

    /// Takes the newest magazine out of the stash, to be loaded instead of the present one.
    pub(super) fn stash_pop(&self, class: ClassIndex) -> Option<Full> {
        let state = &self.cache.classes[class.get()];
        let popped = state.stash.pop(|lost| self.uncount_stash(class, lost))?;
        let bytes = shape(class).bytes as usize;
        // The present one's capacity is given up, the popped one's is counted as loaded from now on.
        self.cache.set_granted(self.cache.granted() - state.capacity() * bytes);
        let loaded = self.cache.granted_loaded() - state.capacity() * bytes;
        self.cache.set_granted_loaded(loaded + popped.blocks() * bytes);
        Some(popped)
    }

    /// Takes the oldest magazine out of the stash, to be dissolved.
    pub(super) fn stash_shift(&self, class: ClassIndex) -> Option<Full> {
        let state = &self.cache.classes[class.get()];
        let shifted = state.stash.shift(|lost| self.uncount_stash(class, lost))?;
        self.uncount_stash(class, shifted.blocks());
        Some(shifted)
    }

    /// Gives up what was granted for a magazine of `blocks` in the stash.
    pub(super) fn uncount_stash(&self, class: ClassIndex, blocks: usize) {
        self.cache.set_granted(self.cache.granted() - blocks * shape(class).bytes as usize);
    }

    /// Grants `bytes` to `class`, if need be by taking them from other classes.
    fn grant(&self, bytes: usize, place: Place, class: ClassIndex) -> bool {
        if !self.fits(bytes, place) {
            if !self.cache.classes[class.get()].misses().is_multiple_of(MISSES_PER_SEARCH) {
                return false;
            }
            self.cache.enter(None);
            // Twice around: the first round may find only classes that missed.
            for _ in 0..2 * CLASS_COUNT {
                self.take_from_next(class);
                if self.fits(bytes, place) {
                    break;
                }
            }
            self.cache.enter(Some(class));
        }
        let fits = self.fits(bytes, place);
        if fits {
            self.count_granted(bytes, place);
        }
        fits
    }

    /// Do `bytes` more stay within the bounds?
    fn fits(&self, bytes: usize, place: Place) -> bool {
        let share = if self.depot.is_pressed() { PRESSED_SHARE } else { 1 };
        let most = self.depot.settings.cache_bytes_max() / share;
        let loaded_fits = place != Place::Loaded || self.cache.granted_loaded() + bytes <= most / LOADED_SHARE;
        loaded_fits && self.cache.granted() + bytes <= most
    }

    fn count_granted(&self, bytes: usize, place: Place) {
        self.cache.set_granted(self.cache.granted() + bytes);
        if place == Place::Loaded {
            self.cache.set_granted_loaded(self.cache.granted_loaded() + bytes);
        }
    }

    /// Once in a turn of purging: takes capacity from each class that did not miss since the last one.
    pub(super) fn shrink_unused(&self) {
        self.cache.enter(None);
        for class in size_class::all() {
            if !self.cache.classes[class.get()].take_misses() {
                self.shrink(class);
            }
        }
    }

    /// Moves the hand on by one class, and takes capacity from it if it is not `except` and did not miss.
    fn take_from_next(&self, except: ClassIndex) {
        let hand = (self.cache.hand() + 1) % CLASS_COUNT as u8;
        self.cache.set_hand(hand);
        let class = ClassIndex::new(hand);
        if class != except && !self.cache.classes[class.get()].take_misses() {
            self.shrink(class);
        }
    }

    /// Dissolves the class's stash, and halves its magazine; takes it away where nothing else would be less.
    fn shrink(&self, class: ClassIndex) {
        let Some(magazine) = self.cache.loaded(class) else { return };
        let state = &self.cache.classes[class.get()];
        while let Some(oldest) = self.stash_shift(class) {
            self.dissolve(class, oldest.magazine, oldest.start.into(), oldest.blocks());
            self.put_aside(oldest.magazine);
        }
        let (capacity, first) = (state.capacity(), first_blocks(class));
        let bytes = shape(class).bytes as usize;
        let smaller = if capacity > first {
            (capacity / 2).max(first)
        } else if first * bytes > FIRST_BYTES_SURE {
            0
        } else {
            return;
        };
        let blocks = self.cache.loaded_blocks(class);
        let excess = blocks.saturating_sub(smaller);
        if excess > 0 {
            self.dissolve(class, magazine, state.start().into(), excess);
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
