//! Blocks that are marked at their two ends only, so that a test spends its time in the allocator, and a place where
//! threads exchange them without a lock. The allocator is the test's own `GLOBAL`.

// Each test uses its own part of this.
#![allow(dead_code)]

use crate::GLOBAL;
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// xorshift64*: fast, and good enough to mix sizes.
pub struct Random(u64);

impl Random {
    /// Nearby seeds give unrelated sequences.
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)) * end as u128) >> 64) as usize
    }

    /// A size below `end`, of which each power of two is about as likely as the next.
    pub fn size_below(&mut self, end: usize) -> usize {
        let bits = 1 + self.below(end.ilog2() as usize + 1);
        self.below((1 << bits).min(end))
    }
}

/// Block sizes of the size classes by their documented rule: 8, multiples of 16 up to 128, then 8 steps per doubling
/// up to 32 KiB.
pub fn class_sizes() -> impl Iterator<Item = usize> + Clone {
    let linear = std::iter::once(8).chain((16..=128).step_by(16));
    let doublings = (7..15).flat_map(|shift| (1..=8).map(move |step| (1 << shift) + step * (1 << (shift - 3))));
    linear.chain(doublings)
}

/// No two blocks have the same mark.
static NEXT_TAG: AtomicU64 = AtomicU64::new(1);

/// A block whose first word is its mark, and whose last word the opposite. Verified and freed when dropped.
pub struct Light {
    start: NonNull<u8>,
    layout: Layout,
    tag: u64,
}

// SAFETY: the block is its holder's alone, like a Box.
unsafe impl Send for Light {}

impl Light {
    /// At least 8 bytes.
    pub fn new(size: usize, align: usize) -> Self {
        Self::made(size, align, false)
    }

    /// The same by `alloc_zeroed`; both ends must be zero.
    pub fn zeroed(size: usize, align: usize) -> Self {
        Self::made(size, align, true)
    }

    fn made(size: usize, align: usize, zeroed: bool) -> Self {
        let layout = Layout::from_size_align(size.max(8), align).unwrap();
        // SAFETY: the size is not 0.
        let start = unsafe { if zeroed { GLOBAL.alloc_zeroed(layout) } else { GLOBAL.alloc(layout) } };
        let start = NonNull::new(start).unwrap_or_else(|| panic!("no memory for {layout:?}"));
        let tag = NEXT_TAG.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut light = Self { start, layout, tag };
        assert!(start.addr().get().is_multiple_of(align), "{start:p} of {layout:?}");
        if zeroed {
            assert_eq!((light.word(0), light.word(light.last())), (0, 0), "{start:p} of {layout:?} is not zero");
        }
        light.mark();
        light
    }

    /// Offset of the last whole word.
    fn last(&self) -> usize {
        self.layout.size() / 8 * 8 - 8
    }

    fn word(&self, offset: usize) -> u64 {
        // SAFETY: a word inside the block, which is ours.
        unsafe { self.start.add(offset).cast::<u64>().read_unaligned() }
    }

    fn set_word(&mut self, offset: usize, value: u64) {
        // SAFETY: a word inside the block, which is ours.
        unsafe { self.start.add(offset).cast::<u64>().write_unaligned(value) }
    }

    fn mark(&mut self) {
        self.set_word(self.last(), !self.tag);
        self.set_word(0, self.tag);
    }

    /// Panics if one of the marks that lie within the first `len` bytes is wrong.
    fn verify(&self, len: usize) {
        let is_first_right = self.word(0) == self.tag;
        let is_last_right = self.last() == 0 || self.last() + 8 > len || self.word(self.last()) == !self.tag;
        assert!(is_first_right && is_last_right, "{:p} of {:?} was overwritten", self.start, self.layout);
    }

    /// Bytes asked for.
    pub fn size(&self) -> usize {
        self.layout.size()
    }

    /// Changes the size, at least 8 bytes; the mark that both sizes have must be kept.
    pub fn resize(&mut self, size: usize) {
        let size = size.max(8);
        self.verify(usize::MAX);
        // SAFETY: the block came from this allocator with this layout; the new size is valid.
        let start = unsafe { GLOBAL.realloc(self.start.as_ptr(), self.layout, size) };
        self.start = NonNull::new(start).unwrap_or_else(|| panic!("no memory to resize to {size}"));
        self.verify(size);
        self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        self.mark();
    }
}

impl Drop for Light {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.verify(usize::MAX);
        }
        // SAFETY: the block came from this allocator with this layout, and is given up.
        unsafe { GLOBAL.dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Places in an exchange.
const PLACES: usize = 64;
/// Words that a block in an exchange carries about itself.
const WORDS: usize = 4;

/// Where threads leave blocks to each other: one atomic swap, so that no thread can withhold it.
pub struct Exchange([AtomicPtr<u8>; PLACES]);

impl Exchange {
    /// Holds nothing.
    pub const fn new() -> Self {
        Self([const { AtomicPtr::new(std::ptr::null_mut()) }; PLACES])
    }

    /// Leaves `light` at some place, and takes what is there. A block too short to say what it is comes back.
    pub fn swap(&self, random: &mut Random, light: Light) -> Option<Light> {
        if light.size() < WORDS * 8 {
            return Some(light);
        }
        taken(self.0[random.below(PLACES)].swap(left(light), Ordering::AcqRel))
    }

    /// Takes everything.
    pub fn clear(&self) {
        for place in &self.0 {
            drop(taken(place.swap(std::ptr::null_mut(), Ordering::AcqRel)));
        }
    }
}

/// Writes into the block what it is.
fn left(light: Light) -> *mut u8 {
    light.verify(usize::MAX);
    let mut light = std::mem::ManuallyDrop::new(light);
    let words = [light.layout.size() as u64, light.layout.align() as u64, light.tag, !light.tag];
    words.into_iter().enumerate().for_each(|(index, word)| light.set_word(index * 8, word));
    light.start.as_ptr()
}

/// Reads it again.
fn taken(start: *mut u8) -> Option<Light> {
    let start = NonNull::new(start)?;
    // SAFETY: a block that `left` gave up, of at least so many words, and ours now.
    let [size, align, tag, opposite] = unsafe { start.cast::<[u64; WORDS]>().read_unaligned() };
    assert_eq!(tag, !opposite, "{start:p} was overwritten");
    let layout = Layout::from_size_align(size as usize, align as usize).unwrap();
    let mut light = Light { start, layout, tag };
    light.mark();
    Some(light)
}

/// Bytes of the largest block that `Worker` makes.
const LARGE_MAX: usize = 6 << 20;

/// A thread's share of the work: everything that a program does with an allocator, in random order.
pub struct Worker<'e> {
    random: Random,
    exchange: &'e Exchange,
    held: Vec<Light>,
    held_max: usize,
}

impl<'e> Worker<'e> {
    /// Holds up to `held_max` blocks, and leaves others in `exchange`.
    pub fn new(seed: u64, exchange: &'e Exchange, held_max: usize) -> Self {
        Self { random: Random::new(seed), exchange, held: Vec::with_capacity(held_max), held_max }
    }

    fn light(&mut self) -> Light {
        let random = &mut self.random;
        let size = match random.below(1_000) {
            0 => random.below(LARGE_MAX),
            1..15 => random.below(400 << 10),
            _ => random.size_below(33 << 10),
        };
        let align = if random.below(8) == 0 { 1 << random.below(17) } else { 8 };
        if random.below(8) == 0 { Light::zeroed(size, align) } else { Light::new(size, align) }
    }

    /// Frees all that it holds.
    pub fn clear(&mut self) {
        while let Some(light) = self.held.pop() {
            drop(light);
        }
    }

    /// One step: a block more, less, left to others, or of another size.
    pub fn step(&mut self) {
        match self.random.below(20) {
            0..10 => {
                if self.held.len() == self.held_max {
                    let index = self.random.below(self.held_max);
                    self.held.swap_remove(index);
                }
                let light = self.light();
                self.held.push(light);
            }
            10..12 => {
                let light = self.light();
                drop(self.exchange.swap(&mut self.random, light));
            }
            12..14 if !self.held.is_empty() => {
                let index = self.random.below(self.held.len());
                let end = if self.random.below(200) == 0 { LARGE_MAX } else { 50 << 10 };
                let size = self.random.size_below(end);
                self.held[index].resize(size);
            }
            _ => drop(self.held.pop()),
        }
    }
}
