//! What the integration tests share: seeded random numbers, blocks that know what must be in them, a small runner.

// Each test uses its own part of this.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The allocator, called directly. It shares its heap with a test's global one, if that has one.
pub static MAGALLOC: magalloc::Magalloc = magalloc::Magalloc::new();

/// Bytes of a granule.
pub const GRANULE: usize = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) { 16 << 10 } else { 64 << 10 };
/// Bytes of a chunk.
pub const CHUNK: usize = 64 * GRANULE;
/// Bytes of the largest size class.
pub const SMALL_MAX: usize = 32 << 10;
/// Largest alignment of blocks of size classes, in bytes.
pub const ALIGN_SMALL_MAX: usize = if GRANULE < SMALL_MAX { GRANULE } else { SMALL_MAX };

/// A layout that must be a valid one.
pub fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a valid layout")
}

/// The number of the next block: no two blocks hold the same pattern.
static NEXT_TAG: AtomicU64 = AtomicU64::new(1);

/// xorshift64*: fast, and good enough to mix sizes.
pub struct Random(u64);

impl Random {
    /// Seeded from the environment variable `TEST_SEED`, or else from the clock. Prints the seed.
    pub fn new() -> Self {
        let clock = |_| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
        let given = std::env::var("TEST_SEED").map(|text| text.parse().expect("TEST_SEED is a number"));
        let seed = given.unwrap_or_else(clock);
        println!("seed: TEST_SEED={seed}");
        Self::with_seed(seed)
    }

    /// With that seed; nearby seeds give unrelated sequences.
    pub fn with_seed(seed: u64) -> Self {
        Self(mix(seed) | 1)
    }

    /// A sequence of its own for thread number `thread`.
    pub fn fork(&self, thread: u64) -> Self {
        Self::with_seed(self.0 ^ mix(thread + 1))
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// A size below `end`, of which each power of two is about as likely as the next.
    pub fn size_below(&mut self, end: usize) -> usize {
        let bits = 1 + self.below(end.ilog2() as usize + 1);
        self.below((1 << bits).min(end))
    }
}

fn mix(value: u64) -> u64 {
    let mixed = (value ^ (value >> 31)).wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ (mixed >> 29)
}

/// Blocks up to that size are filled and verified to the last byte.
const WHOLE_BYTES_MAX: usize = 256 << 10;
/// The ends of longer ones are, of that length; in between one word in every `STRIDE` bytes, or `STRIDE_HUGE` from
/// `HUGE_BYTES_MIN` on.
const END_BYTES: usize = 4096;
const STRIDE: usize = 4096;
const STRIDE_HUGE: usize = 64 << 10;
const HUGE_BYTES_MIN: usize = 16 << 20;

/// A block of memory that is filled with a pattern, so that whoever else writes to it is found out. Verified and freed
/// when dropped.
pub struct Block {
    start: NonNull<u8>,
    layout: Layout,
    tag: u64,
    /// Does it hold the pattern?
    filled: bool,
}

// SAFETY: the block is its holder's alone, like a Box.
unsafe impl Send for Block {}

/// Panics with the place of a wrong byte or word.
#[cold]
#[inline(never)]
fn corrupt(block: &Block, offset: usize) -> ! {
    panic!("block {:p} of {:?}, tag {:#x}: wrong at offset {offset}", block.start, block.layout, block.tag)
}

impl Block {
    fn from_start(start: *mut u8, layout: Layout) -> Option<Self> {
        let tag = NEXT_TAG.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let block = Self { start: NonNull::new(start)?, layout, tag, filled: false };
        block.expect_aligned();
        Some(block)
    }

    /// Allocates and fills a block; `None` where the allocator says no.
    pub fn try_new(size: usize, align: usize) -> Option<Self> {
        let layout = layout(size, align);
        // SAFETY: a valid layout; a size of zero is served by this allocator.
        let mut block = Self::from_start(unsafe { MAGALLOC.alloc(layout) }, layout)?;
        block.fill();
        Some(block)
    }

    /// Allocates and fills a block.
    pub fn new(size: usize, align: usize) -> Self {
        Self::try_new(size, align).unwrap_or_else(|| panic!("no memory for {size} bytes at {align}"))
    }

    /// Allocates a zeroed block, verifies that it is, and fills it.
    pub fn zeroed(size: usize, align: usize) -> Self {
        let layout = layout(size, align);
        // SAFETY: a valid layout; a size of zero is served by this allocator.
        let block = Self::from_start(unsafe { MAGALLOC.alloc_zeroed(layout) }, layout);
        let mut block = block.unwrap_or_else(|| panic!("no memory for zeroed {layout:?}"));
        assert!(block.is_zero(), "a zeroed block of {layout:?} at {:p} is not zero", block.start);
        block.fill();
        block
    }

    /// The address of its first byte, exposed: a pointer can be made of it again.
    pub fn address(&self) -> usize {
        self.start.as_ptr().expose_provenance()
    }

    /// What it was allocated with.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    fn expect_aligned(&self) {
        assert!(self.address().is_multiple_of(self.layout.align()), "{:p} of {:?}", self.start, self.layout);
    }

    /// Overwrites every byte, so that nothing of it is zero. It is not verified until it is filled again.
    pub fn dirty(&mut self) {
        // SAFETY: the block is ours and that long.
        unsafe { self.start.write_bytes(0xA5, self.layout.size()) };
        self.filled = false;
    }

    /// Overwrites every byte and frees the block.
    pub fn dirty_and_free(mut self) {
        self.dirty();
    }

    fn is_zero(&self) -> bool {
        // SAFETY: the block is ours, that long, and was zeroed by the allocator.
        let bytes = unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) };
        // Each byte equals its neighbour: one memcmp, fast in a debug build too.
        bytes.first().is_none_or(|&first| first == 0 && bytes[1..] == bytes[..bytes.len() - 1])
    }

    /// What the word at `offset`, a multiple of 8, must hold.
    fn pattern(&self, offset: usize) -> u64 {
        (self.tag ^ offset as u64).wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    }

    /// Offsets of the words to fill and to verify.
    fn words(&self) -> impl Iterator<Item = usize> + use<> {
        let size = self.layout.size();
        let end = size / 8 * 8;
        let (head, tail) = if size <= WHOLE_BYTES_MAX { (end, end) } else { (END_BYTES, end - END_BYTES) };
        let stride = if size <= HUGE_BYTES_MIN { STRIDE } else { STRIDE_HUGE };
        (0..head).step_by(8).chain((head..tail).step_by(stride)).chain((tail..end).step_by(8))
    }

    fn fill(&mut self) {
        self.filled = true;
        for offset in self.words() {
            // SAFETY: a whole word inside the block.
            let word = unsafe { self.start.add(offset) }.cast::<u64>();
            // SAFETY: inside the block, which is ours.
            unsafe { word.write_unaligned(self.pattern(offset).to_le()) };
        }
        for offset in self.layout.size() / 8 * 8..self.layout.size() {
            // SAFETY: a byte inside the block.
            let byte = unsafe { self.start.add(offset) };
            // SAFETY: inside the block, which is ours.
            unsafe { byte.write(self.pattern(offset & !7).to_le_bytes()[offset % 8]) };
        }
    }

    /// Verifies all that was filled.
    pub fn verify(&self) {
        self.verify_start(self.layout.size());
    }

    /// Verifies what was filled of the first `len` bytes.
    fn verify_start(&self, len: usize) {
        if !self.filled {
            return;
        }
        for offset in self.words().take_while(|offset| offset + 8 <= len) {
            // SAFETY: a whole word inside the block.
            let word = unsafe { self.start.add(offset) }.cast::<u64>();
            // SAFETY: inside the block, which is ours and was filled.
            if unsafe { word.read_unaligned() } != self.pattern(offset).to_le() {
                corrupt(self, offset);
            }
        }
        // What is left of the last word; of a long block's, only if it was filled.
        if self.layout.size() > WHOLE_BYTES_MAX && len < self.layout.size() {
            return;
        }
        for offset in len / 8 * 8..len {
            // SAFETY: a byte inside the block.
            let byte = unsafe { self.start.add(offset) };
            // SAFETY: inside the block, which is ours and was filled.
            if unsafe { byte.read() } != self.pattern(offset & !7).to_le_bytes()[offset % 8] {
                corrupt(self, offset);
            }
        }
    }

    /// Changes the size to `size` (not 0), verifies that the contents are kept, and fills all of the new size. Returns
    /// whether the allocator could; if not, the block must be as it was.
    pub fn try_resize(&mut self, size: usize) -> bool {
        // SAFETY: the block came from this allocator with this layout; the new size is valid.
        let new = unsafe { MAGALLOC.realloc(self.start.as_ptr(), self.layout, size) };
        let Some(new) = NonNull::new(new) else {
            self.verify();
            return false;
        };
        // First, so that a block with wrong contents is still freed by its right layout.
        let resized = Self { start: new, layout: layout(size, self.layout.align()), tag: self.tag, filled: false };
        let old = ManuallyDrop::new(std::mem::replace(self, resized));
        let moved = ManuallyDrop::new(Self { start: new, layout: old.layout, tag: old.tag, filled: old.filled });
        self.expect_aligned();
        moved.verify_start(old.layout.size().min(size));
        self.fill();
        true
    }

    /// Like `try_resize`, and the allocator must be able to.
    pub fn resize(&mut self, size: usize) {
        assert!(self.try_resize(size), "no memory to resize {:?} to {size}", self.layout);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.verify();
        }
        // SAFETY: the block came from this allocator with this layout, and is given up.
        unsafe { MAGALLOC.dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Panics if two blocks share a byte.
pub fn expect_disjoint(blocks: &[Block]) {
    let mut ranges: Vec<_> = blocks.iter().map(|block| (block.address(), block.layout.size().max(1))).collect();
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "blocks overlap: {pair:x?}");
    }
}

/// Block sizes of the size classes by their documented rule: 8, multiples of 16 up to 128, then 8 steps per doubling
/// up to 32 KiB.
pub fn class_sizes() -> Vec<usize> {
    let linear = std::iter::once(8).chain((16..=128).step_by(16));
    let doublings = (7..15).flat_map(|shift| (1..=8).map(move |step| (1 << shift) + step * (1 << (shift - 3))));
    linear.chain(doublings).collect()
}

/// Runs the scenarios in this order in the main thread, for tests that cannot bear libtest's threads beside them
/// (`harness = false`). A scenario that panics ends the process. Arguments select scenarios by parts of their names.
pub fn run(scenarios: &[(&str, fn())]) {
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let selected = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let mut passed = 0;
    for (name, scenario) in scenarios.iter().filter(|(name, _)| selected(name)) {
        scenario();
        println!("test {name} ... ok");
        passed += 1;
    }
    println!("\ntest result: ok. {passed} passed; 0 failed; {} filtered out", scenarios.len() - passed);
}
