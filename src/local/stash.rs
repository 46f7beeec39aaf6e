//! Full magazines: what a thread caches of a class behind the loaded one, and what others may take while it idles.
//!
//! ```text
//! # Role        a stack, linked through the magazines' first slots
//! # Invariants  I1: only the owning thread pushes and pops; anyone may take all, by a swap. Whoever's exchange got a
//!                   magazine out has it, its blocks, and what hangs on it.
//!               I2: a stashed magazine is full: its blocks reach from its start to its end, and the slot before the
//!                   start is null.
//!               I3: `blocks` counts what the owner put in and did not take out; what others took counts until the
//!                   owner comes upon the empty stack.
//! # Ordering    STASH: `push`, `pop` and `move_to` (Release) -> `take_all` (Acquire): slots and links.
//! # No ABA      a pop fails if others took all meanwhile, because then the head is null: nobody but the owner, who is
//!               popping, pushes.
//! # Progress    wait-free
//! # Checked by  loom_tests/stash.rs, heap::tests::purging, heap::tests::cache_bound
//! ```

use crate::config::{MAGAZINE_BYTES, MAGAZINE_SLOTS};
#[cfg(not(loom))]
use crate::depot::magazines::Magazine;
use crate::sync::planted::bug;
use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// What a model uses instead; only its address matters here.
#[cfg(loom)]
#[derive(Debug)]
pub enum Magazine {}

/// Zeroed memory is an empty one.
#[derive(Debug)]
#[repr(C)]
pub struct Stash {
    /// The newest magazine, or null.
    head: AtomicPtr<u8>,
    /// I3.
    blocks: AtomicU32,
}

/// A magazine that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// The magazine, which whoever has this has.
    pub magazine: *mut Magazine,
    /// Number of its first slot with a block.
    pub start: u8,
}

const _: () = assert!(MAGAZINE_SLOTS <= MAGAZINE_BYTES, "a start fits into the low bits of a magazine's address");

impl Full {
    /// Bytes that the address of a magazine is a multiple of.
    pub const ALIGN: usize = MAGAZINE_BYTES;

    /// Its blocks.
    pub fn blocks(self) -> usize {
        MAGAZINE_SLOTS - usize::from(self.start)
    }

    /// Both in a pointer: a magazine is aligned to its size.
    fn packed(full: Option<Self>) -> *mut u8 {
        full.map_or(core::ptr::null_mut(), |full| full.magazine.cast::<u8>().wrapping_add(full.start.into()))
    }

    fn unpacked(packed: *mut u8) -> Option<Self> {
        let start = packed.addr() & (Self::ALIGN - 1);
        let magazine = packed.wrapping_sub(start).cast();
        (!packed.is_null()).then_some(Self { magazine, start: start as u8 })
    }
}

/// Where a magazine's link to the next older one is kept.
pub trait Links {
    /// The link of a magazine, which may be another thread's by now.
    fn link(&self, magazine: *mut Magazine) -> &AtomicPtr<u8>;
}

/// In the magazine itself: its first slot holds no block.
#[cfg(not(loom))]
#[derive(Clone, Copy, Debug)]
pub struct InMagazine;

#[cfg(not(loom))]
impl Links for InMagazine {
    fn link(&self, magazine: *mut Magazine) -> &AtomicPtr<u8> {
        // SAFETY: magazines are type-stable until the heap ends, and this slot of theirs is never accessed otherwise.
        unsafe { &*magazine.cast() }
    }
}

/// Magazines that were taken out of a stash together, the newest first.
#[derive(Debug)]
#[must_use = "the magazines would be lost"]
pub struct Chain(Option<Full>);

impl Chain {
    /// The newest magazine, taken out.
    pub fn pop(&mut self, links: &impl Links) -> Option<Full> {
        let newest = self.0?;
        // ordering: Relaxed; the chain's, which nobody else writes.
        self.0 = Full::unpacked(links.link(newest.magazine).load(Ordering::Relaxed));
        Some(newest)
    }
}

#[cfg(any(test, loom))]
impl Default for Stash {
    fn default() -> Self {
        Self::new()
    }
}

impl Stash {
    /// An empty one.
    #[cfg(any(test, loom))]
    pub fn new() -> Self {
        Self { head: AtomicPtr::new(core::ptr::null_mut()), blocks: AtomicU32::new(0) }
    }

    /// Empties zeroed memory, or the stash of a thread that has ended. Only for the owning thread.
    pub fn begin(&self) {
        // ordering: Relaxed; the cache is nobody else's yet.
        self.head.store(core::ptr::null_mut(), Ordering::Relaxed);
        self.set_blocks(0);
    }

    fn set_blocks(&self, blocks: usize) {
        // ordering: Relaxed, I1.
        self.blocks.store(blocks as u32, Ordering::Relaxed);
    }

    /// What the owner counts.
    fn counted(&self) -> usize {
        // ordering: Relaxed, I1.
        self.blocks.load(Ordering::Relaxed) as usize
    }

    /// Stops counting what others took; returns how many blocks that were. Only for the owning thread.
    #[must_use = "what was granted for them is to be given up"]
    pub fn forget_lost(&self) -> usize {
        // ordering: Relaxed; only an empty stack matters, and nobody but the owner fills it.
        if !self.head.load(Ordering::Relaxed).is_null() {
            return 0;
        }
        let lost = self.counted();
        self.set_blocks(0);
        lost
    }

    /// Puts a magazine in. Only for the owning thread. Returns how many blocks others took, of which that was not
    /// noticed yet.
    #[must_use = "what was granted for them is to be given up"]
    pub fn push(&self, full: Full, links: &impl Links) -> usize {
        // ordering: Relaxed; the owner's own head, or null.
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // ordering: Relaxed; published by the exchange.
            links.link(full.magazine).store(head, Ordering::Relaxed);
            let order = if bug("relaxed stash") { Ordering::Relaxed } else { Ordering::Release };
            // ordering: Release [STASH] the slots and the link; pairs with Acquire in `take_all`.
            match self.head.compare_exchange(head, Full::packed(Some(full)), order, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        let lost = if head.is_null() { self.counted() } else { 0 };
        self.set_blocks(self.counted() - lost + full.blocks());
        lost
    }

    /// Takes the newest magazine out. Only for the owning thread.
    pub fn pop(&self, links: &impl Links) -> Option<Full> {
        // ordering: Relaxed; the owner's own head, or null.
        let head = self.head.load(Ordering::Relaxed);
        let newest = Full::unpacked(head)?;
        // ordering: Relaxed; what this thread put there, or another owner by now, and then the exchange fails.
        let next = links.link(newest.magazine).load(Ordering::Relaxed);
        if bug("pop by store") {
            // ordering: none that would help.
            self.head.store(next, Ordering::Release);
        } else {
            // ordering: Release [STASH] what stays: its slots and link. What comes out this thread put in itself.
            self.head.compare_exchange(head, next, Ordering::Release, Ordering::Relaxed).ok()?;
        }
        self.set_blocks(self.counted() - newest.blocks());
        Some(newest)
    }

    /// Moves everything to `other`, which is empty and of which nothing is lost unnoticed. Only for the owning thread of
    /// both. Returns how many blocks others took of this one, of which that was not noticed yet.
    #[must_use = "what was granted for them is to be given up"]
    pub fn move_to(&self, other: &Self) -> usize {
        debug_assert!(other.blocks() == 0 && other.counted() == 0, "nothing is overwritten, and nothing counted twice");
        let chain = self.take_all();
        let counted = self.counted();
        self.set_blocks(0);
        if chain.0.is_none() {
            return counted;
        }
        let order = if bug("relaxed move") { Ordering::Relaxed } else { Ordering::Release };
        // ordering: Release [STASH] slots and links; pairs with Acquire in `take_all`. A store, as nobody else pushes.
        other.head.store(Full::packed(chain.0), order);
        other.set_blocks(counted);
        0
    }

    /// Takes everything out: for any thread.
    pub fn take_all(&self) -> Chain {
        // ordering: Relaxed, spares a write where there is nothing.
        if self.head.load(Ordering::Relaxed).is_null() {
            return Chain(None);
        }
        // ordering: Acquire [STASH] pairs with Release in `push`, `pop` and `move_to`.
        Chain(Full::unpacked(self.head.swap(core::ptr::null_mut(), Ordering::Acquire)))
    }

    /// Blocks in it, at some moment.
    pub fn blocks(&self) -> usize {
        // ordering: Relaxed, a statistic.
        if self.head.load(Ordering::Relaxed).is_null() { 0 } else { self.counted() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn full(magazine: &Magazine, start: u8) -> Full {
        Full { magazine: (&raw const *magazine).cast_mut(), start }
    }

    #[test]
    fn newest_comes_out_first() {
        let (stash, magazines) = (Stash::new(), [const { Magazine::new() }; 3]);
        let starts = magazines.iter().zip([2, 64, 100]);
        let full: Vec<Full> = starts.map(|(magazine, start)| full(magazine, start)).collect();
        full.iter().for_each(|&full| assert_eq!(stash.push(full, &InMagazine), 0));
        assert_eq!(stash.blocks(), 126 + 64 + 28);
        assert_eq!(stash.pop(&InMagazine), Some(full[2]));
        assert_eq!(stash.pop(&InMagazine), Some(full[1]));
        assert_eq!(stash.blocks(), 126);
        assert_eq!(stash.pop(&InMagazine), Some(full[0]));
        assert_eq!((stash.pop(&InMagazine), stash.blocks()), (None, 0));
    }

    #[test]
    fn what_others_took_counts_until_it_is_noticed() {
        let (stash, magazines) = (Stash::new(), [const { Magazine::new() }; 5]);
        magazines.iter().for_each(|magazine| assert_eq!(stash.push(full(magazine, 28), &InMagazine), 0));
        assert_eq!(stash.forget_lost(), 0);
        let mut taken = stash.take_all();
        assert_eq!(core::iter::from_fn(|| taken.pop(&InMagazine)).count(), 5);
        assert_eq!((stash.blocks(), stash.pop(&InMagazine)), (0, None));
        assert_eq!(stash.forget_lost(), 500);
        assert_eq!(stash.forget_lost(), 0);
        assert_eq!(stash.push(full(&magazines[0], 28), &InMagazine), 0);
        assert_eq!(stash.take_all().pop(&InMagazine).map(Full::blocks), Some(100));
        assert_eq!(stash.push(full(&magazines[0], 64), &InMagazine), 100);
        assert_eq!(stash.blocks(), 64);
        let older = Stash::new();
        assert_eq!(stash.move_to(&older), 0);
        assert_eq!((stash.blocks(), older.blocks()), (0, 64));
        assert_eq!(older.take_all().pop(&InMagazine).map(Full::blocks), Some(64));
        assert_eq!((older.forget_lost(), stash.move_to(&older)), (64, 0));
    }
}
