//! One word of a slab's free bitmap: anyone releases, and whoever clears a bit has its block.
//!
//! ```text
//! # Role        who owns which of 64 neighbouring blocks; no memory, no policy
//! # Invariants  I1: a set bit is a free block that nobody may touch.
//!               I2: the thread whose read-modify-write cleared a bit owns its block until it sets the bit again.
//! # Ordering    RELEASE-BLOCK: `release` (Release) -> `claim`, `claim_all` (Acquire): what the last user wrote
//!               happens before what the next one does.
//! # Progress    lock-free; `claim_all` is wait-free
//! # Not here    which slab is asked (see `local::fill`), who queues a slab that was exhausted (see `slab`)
//! # Checked by  loom_tests/bitmap.rs, tests/cross_thread.rs
//! ```

use crate::sync::planted::bug;
use crate::sync::{AtomicU64, Ordering};

/// 64 blocks, a bit each: set is free.
#[derive(Debug)]
#[repr(transparent)]
pub struct FreeWord(AtomicU64);

/// What a release found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Released {
    /// The word had no free block: the caller must see to it that the slab is queued.
    First {
        /// The word's free blocks now.
        now: u64,
    },
    /// The word had free blocks: whoever released the first of them saw to the slab.
    More {
        /// The word's free blocks now.
        now: u64,
    },
    /// Some of the blocks were free already. Nothing was changed that matters: their bits stay set.
    DoubleFree {
        /// The blocks that were.
        blocks: u64,
    },
}

impl FreeWord {
    /// A word with `free` blocks.
    pub fn new(free: u64) -> Self {
        Self(AtomicU64::new(free))
    }

    /// Makes the word's first contents. Only for the exclusive holder of the whole slab.
    #[inline]
    pub fn fill(&self, free: u64) {
        // ordering: Release [RELEASE-BLOCK] the slab's class, to a purge that comes upon the slab unasked; everyone else
        // learns of the slab by a queue or a block.
        self.0.store(free, Ordering::Release);
    }

    /// Takes up to `most` of the lowest free blocks. 0 is none.
    #[inline]
    #[must_use]
    pub fn claim(&self, most: u32) -> u64 {
        if most >= u64::BITS {
            return self.claim_all();
        }
        loop {
            // ordering: Relaxed, a guess that the read-modify-write below corrects.
            let wanted = lowest(self.0.load(Ordering::Relaxed), most);
            if wanted == 0 {
                return 0;
            }
            if bug("claim without taking") {
                return wanted;
            }
            // ordering: Acquire [RELEASE-BLOCK] pairs with Release in `release`.
            let taken = self.0.fetch_and(!wanted, Ordering::Acquire) & wanted;
            if taken != 0 {
                return taken;
            }
        }
    }

    /// Takes every free block.
    #[inline]
    #[must_use]
    pub fn claim_all(&self) -> u64 {
        // ordering: Relaxed, only skips the write on a word that is empty anyway.
        if self.0.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        // ordering: Acquire [RELEASE-BLOCK] pairs with Release in `release`.
        self.0.swap(0, Ordering::Acquire)
    }

    /// Takes those of the blocks of `mask` that are free. For a purge, which wants certain blocks.
    #[must_use]
    pub fn claim_these(&self, mask: u64) -> u64 {
        // ordering: Acquire [RELEASE-BLOCK] pairs with Release in `release`, and in `fill`.
        self.0.fetch_and(!mask, Ordering::Acquire) & mask
    }

    /// Gives back the blocks of `mask`, which the caller owns (I2) unless the program frees twice.
    #[inline]
    pub fn release(&self, mask: u64) -> Released {
        let order = if bug("relaxed release") { Ordering::Relaxed } else { Ordering::Release };
        // ordering: Release [RELEASE-BLOCK] what the user wrote; pairs with Acquire in `claim` and `claim_all`.
        let before = self.0.fetch_or(mask, order);
        if before & mask != 0 {
            Released::DoubleFree { blocks: before & mask }
        } else if before == 0 {
            Released::First { now: mask }
        } else {
            Released::More { now: before | mask }
        }
    }

    /// The free blocks, at some moment. Acquire, so that a look after a queue transition sees what it must.
    #[inline]
    pub fn look(&self) -> u64 {
        // ordering: Acquire; see `Slab::leave_queue`, which decides by it.
        self.0.load(Ordering::Acquire)
    }
}

/// The lowest `most` bits of `bits`.
#[inline]
fn lowest(bits: u64, most: u32) -> u64 {
    if bits.count_ones() <= most {
        return bits;
    }
    let mut rest = bits;
    for _ in 0..most {
        rest &= rest.wrapping_sub(1);
    }
    bits & !rest
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn claim_takes_the_lowest_free_blocks() {
        let word = FreeWord::new(0b1011_0110);
        assert_eq!(word.claim(3), 0b0001_0110);
        assert_eq!(word.claim(64), 0b1010_0000);
        assert_eq!(word.claim(1), 0);
    }

    #[test]
    fn release_tells_the_first_the_next_and_the_double_free() {
        let word = FreeWord::new(0);
        assert_eq!(word.release(0b01), Released::First { now: 0b01 });
        assert_eq!(word.release(0b10), Released::More { now: 0b11 });
        assert_eq!(word.release(0b110), Released::DoubleFree { blocks: 0b010 });
    }
}
