//! Magazines: aligned arrays of pointers to free blocks, and the pool of those that no thread uses.
//!
//! ```text
//! # Role        memory for thread caches
//! # Numbers     a magazine's place in the range. Each `LINKS`-th place holds the links of those behind it, so that a
//!               magazine and its link are made together.
//! # Invariants  I1: a magazine belongs to the thread that took it from the pool, until it gives it back.
//! # Layout      slots fill upwards to the end of the array, which is aligned to its size: "full" is a look at the
//!               address of the next slot. The slot before the first one holds null: "empty" is a look at a slot.
//! ```

use crate::config::{MAGAZINE_BYTES, MAGAZINE_RANGE_BYTES, MAGAZINE_SLOTS};
use crate::os::Os;
use crate::depot::spare::SpareStack;
use crate::metadata::GrowableArray;
use crate::sync::AtomicU32;
use crate::sys::Pages;
use core::cell::UnsafeCell;
use core::ptr::NonNull;

/// A slot: a free block, or null.
pub type Slot = *mut u8;

/// An array of slots. On 64-bit 1 KiB.
#[repr(C)]
#[cfg_attr(target_pointer_width = "64", repr(align(1024)))]
#[cfg_attr(target_pointer_width = "32", repr(align(512)))]
pub struct Magazine(UnsafeCell<[Slot; MAGAZINE_SLOTS]>);

const _: () = assert!(size_of::<Magazine>() == MAGAZINE_BYTES && align_of::<Magazine>() == MAGAZINE_BYTES);

// SAFETY: shared as raw memory only; I1 says who touches it.
unsafe impl Sync for Magazine {}

impl Magazine {
    /// All null: as a static, empty to malloc and full to free.
    pub const fn new() -> Self {
        Self(UnsafeCell::new([core::ptr::null_mut(); MAGAZINE_SLOTS]))
    }

    /// The first slot.
    #[inline(always)]
    pub const fn slots(magazine: *const Self) -> *mut Slot {
        magazine.cast::<Slot>().cast_mut()
    }
}

impl Default for Magazine {
    fn default() -> Self {
        Self::new()
    }
}

/// All magazines, and which of them are spare.
pub struct MagazinePool {
    spare: SpareStack,
    magazines: GrowableArray<Magazine>,
}

/// Links that fit into a magazine's place.
const LINKS: usize = MAGAZINE_BYTES / size_of::<AtomicU32>();

impl MagazinePool {
    /// None yet.
    pub const fn new() -> Self {
        Self { spare: SpareStack::new(), magazines: GrowableArray::new(MAGAZINE_RANGE_BYTES) }
    }

    /// The link of magazine `number`.
    ///
    /// # Safety
    /// There is such a magazine.
    unsafe fn link(&self, number: u32) -> &AtomicU32 {
        let (number, inside) = (number as usize & !(LINKS - 1), number as usize & (LINKS - 1));
        // SAFETY: lower than the magazine, and so made before.
        let links = unsafe { self.magazines.get(number) }.cast::<AtomicU32>();
        // SAFETY: within the place.
        let link = unsafe { links.add(inside) };
        // SAFETY: committed; only atomics are in this place.
        unsafe { link.as_ref() }
    }

    /// A magazine for the caller alone, with whatever its slots held.
    pub fn take<P: Pages>(&self, os: &Os<P>) -> Option<NonNull<Magazine>> {
        // SAFETY: what is on the stack was taken from here.
        let number = match self.spare.pop(|number| unsafe { self.link(number) }) {
            Some(number) => number as usize,
            None => loop {
                let number = self.magazines.grow(os)?;
                if !number.is_multiple_of(LINKS) {
                    break number;
                }
            },
        };
        // SAFETY: it exists: it was popped, or grown just now.
        Some(unsafe { self.magazines.get(number) })
    }

    /// Gives a magazine back.
    ///
    /// # Safety
    /// It came from `take`, and the caller does not use it any more.
    pub unsafe fn give(&self, magazine: NonNull<Magazine>) {
        // SAFETY: by the caller's promise there is such a magazine.
        self.spare.push(self.magazines.index_of(magazine) as u32, |number| unsafe { self.link(number) });
    }

    /// Magazines made so far, and how many of them are spare. At rest only: it takes the spare ones and puts them back.
    #[cfg(test)]
    pub fn count(&self) -> (usize, usize) {
        // SAFETY: what is on the stack was taken from here.
        let link = |number| unsafe { self.link(number) };
        let spare: Vec<u32> = std::iter::from_fn(|| self.spare.pop(link)).collect();
        spare.iter().for_each(|&number| self.spare.push(number, link));
        (self.magazines.len() - self.magazines.len().div_ceil(LINKS), spare.len())
    }

    /// Bytes committed.
    pub fn committed(&self) -> usize {
        self.magazines.committed()
    }

    /// In the child of a fork: whoever was mapping memory is not here.
    pub fn forget_claims(&self) {
        self.magazines.forget_claims();
    }

    /// Gives everything back to the OS.
    ///
    /// # Safety
    /// Nobody uses the pool or any magazine, now or later.
    pub unsafe fn release<P: Pages>(&self, os: &Os<P>) {
        self.spare.reset();
        // SAFETY: the caller's promise.
        unsafe { self.magazines.release(os) };
    }
}

impl Default for MagazinePool {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::fake::FakePages;
    use std::collections::BTreeSet;

    #[test]
    fn links_lie_beside_the_magazines_and_are_none() {
        let (os, pool) = (Os::new(FakePages::new()), MagazinePool::new());
        let take = || pool.take(&os).expect("memory");
        let magazines: Vec<_> = (0..3 * LINKS).map(|_| take()).collect();
        for magazine in &magazines {
            // SAFETY: the magazine is this test's.
            unsafe { magazine.cast::<u8>().write_bytes(0xff, MAGAZINE_BYTES) };
        }
        let all: BTreeSet<_> = magazines.iter().copied().collect();
        assert_eq!(all.len(), magazines.len());
        // SAFETY: they are not used any more.
        magazines.iter().for_each(|&magazine| unsafe { pool.give(magazine) });
        assert_eq!(pool.count(), (3 * LINKS, 3 * LINKS));
        // What was written into them has hidden none.
        let again: BTreeSet<_> = magazines.iter().map(|_| take()).collect();
        assert_eq!(again, all);
        // SAFETY: nor are these.
        unsafe { pool.release(&os) };
    }
}
