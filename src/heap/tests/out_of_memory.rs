//! Tests: the kernel refuses, at each call of a scenario in turn, and nothing is lost.

use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::options::Options;
use crate::size_class::class_of;
use crate::sys::fake::{FakePages, Refuse};

/// Sizes of the scenario: small ones of several slab shapes, enough to fill magazines and slabs; large ones inside a
/// chunk, of a chunk, and beyond, so that committing, growing in place and relocating all happen.
const SIZES: [(usize, usize); 9] = [
    (8, 100),
    (64, 3000),
    (1000, 200),
    (5 << 10, 60),
    (32 << 10, 20),
    (100 << 10, 10),
    (4 << 20, 2),
    (9 << 20, 2),
    (70 << 20, 1),
];

struct Block {
    start: *mut u8,
    size: usize,
}

/// One thread's use of a heap.
struct User<'h> {
    heap: &'h Heap<FakePages>,
    cached: Option<LocalHeap<'h, FakePages>>,
    refused: usize,
}

impl User<'_> {
    fn allocate(&mut self, size: usize) -> Option<Block> {
        let start = match class_of(size, 8) {
            Some(class) => {
                let popped = self.cached.as_ref().map_or(core::ptr::null_mut(), |cached| cached.pop(class));
                if popped.is_null() { self.heap.allocate_small(self.cached.as_ref(), class) } else { popped }
            }
            None => self.heap.allocate_large(size, 8, true),
        };
        if start.is_null() {
            self.refused += 1;
            return None;
        }
        if class_of(size, 8).is_none() {
            // Where `mark` writes: whatever was refused, zeroed memory is zero.
            for offset in (0..size - 8).step_by(64 << 10).chain([size - 8]) {
                // SAFETY: within the block.
                assert_eq!(unsafe { start.add(offset).cast::<u64>().read_unaligned() }, 0, "offset {offset} of {size}");
            }
        }
        let block = Block { start, size };
        block.mark();
        Some(block)
    }

    fn free(&self, block: &Block) {
        block.verify();
        match class_of(block.size, 8) {
            Some(class) => {
                if !self.cached.as_ref().is_some_and(|cached| cached.push(class, block.start)) {
                    self.heap.free_small(self.cached.as_ref(), class, block.start);
                }
            }
            None => self.heap.free_large(block.start),
        }
    }

    /// Doubles a large block, in place or by moving its pages; where neither is possible it stays as it is.
    fn grow(&self, block: &mut Block) {
        block.verify();
        let moved = self.heap.resize_large(block.start, block.size * 2, 8);
        if moved.is_null() {
            return;
        }
        let old_end = block.size - 1;
        block.start = moved;
        // SAFETY: the old bytes are the new block's first.
        assert_eq!(unsafe { *moved.add(old_end) }, block.size as u8, "contents move along");
        block.size *= 2;
        block.mark();
    }
}

impl Block {
    /// The last byte tells the size, the first one the address. In a large block every granule is written.
    fn mark(&self) {
        for offset in (0..self.size).step_by(64 << 10) {
            // SAFETY: within the block.
            unsafe { self.start.add(offset).write(1) };
        }
        // SAFETY: the block has at least that many bytes.
        unsafe { self.start.write(self.start.addr().to_le_bytes()[2]) };
        // SAFETY: the block has at least that many bytes.
        unsafe { self.start.add(self.size - 1).write(self.size as u8) };
    }

    fn verify(&self) {
        // SAFETY: a live block of that size.
        assert_eq!(unsafe { *self.start.add(self.size - 1) }, self.size as u8);
        // SAFETY: a live block of that size.
        assert_eq!(unsafe { *self.start }, self.start.addr().to_le_bytes()[2]);
    }
}

/// Allocates, grows, frees and shrinks. Returns how many requests were refused.
fn scenario(heap: &Heap<FakePages>) -> usize {
    let mut user = User { heap, cached: heap.register(), refused: 0 };
    let mut blocks = Vec::new();
    for round in 0..2 {
        for (size, count) in SIZES {
            blocks.extend((0..count).filter_map(|_| user.allocate(size)));
        }
        for block in blocks.iter_mut().filter(|block| class_of(block.size, 8).is_none()) {
            user.grow(block);
        }
        // Every second block first, so that slabs are partial for a while.
        let (first, rest): (Vec<_>, Vec<_>) = blocks.drain(..).enumerate().partition(|(index, _)| index % 2 == round);
        first.into_iter().chain(rest).for_each(|(_, block)| user.free(&block));
        heap.check();
    }
    if let Some(cached) = &user.cached {
        heap.unregister(cached);
    }
    let stats = heap.stats();
    assert_eq!((stats.live, stats.cached, stats.slabs, stats.large_blocks), (0, 0, 0, 0), "{stats:?}");
    user.refused
}

/// How much address space there is.
#[derive(Clone, Copy)]
enum Space {
    Plenty,
    /// A number that only one test has, and bytes.
    Limited(usize, usize),
}

fn heap(space: Space) -> Box<Heap<FakePages>> {
    let heap = Box::new(Heap::new(FakePages::new()));
    // A low bound, so that purging is part of the scenario.
    heap.configure(&Options { dirty_bytes_max: 8 << 20, ..Options::new() });
    if let Space::Limited(number, bytes) = space {
        heap.depot().os.pages().limit_space(number, bytes);
    }
    heap
}

fn release(heap: &Heap<FakePages>) {
    // SAFETY: the heap is this test's, and all its blocks are freed.
    let (mapped, unmapped) = unsafe { heap.release() };
    assert_eq!(mapped, unmapped);
    assert_eq!(heap.depot().os.pages().mapped(), [], "everything mapped was released");
}

/// Runs the scenario once for each call that it makes, which `refuse` turns into a refusal. Returns how many requests
/// of the program were refused.
fn refuse_each(space: Space, refuse: fn(u64) -> Refuse) -> usize {
    let clean = heap(space);
    clean.depot().os.pages().refuse(Refuse::None);
    assert_eq!(scenario(&clean), 0, "without a refusal every request is served");
    let calls = clean.depot().os.pages().calls();
    release(&clean);
    assert!(calls > 40, "the scenario asks the kernel often: {calls}");
    let mut nulls = 0;
    for number in 1..=calls {
        let heap = heap(space);
        let pages = heap.depot().os.pages();
        pages.refuse(refuse(number));
        nulls += scenario(&heap);
        assert!(pages.has_refused(), "call {number} of {calls}");
        pages.refuse(Refuse::None);
        assert_eq!(scenario(&heap), 0, "after the refusal of call {number} every request is served again");
        release(&heap);
    }
    nulls
}

#[test]
fn a_refused_call_loses_nothing() {
    assert_eq!(refuse_each(Space::Plenty, Refuse::Call), 0, "one refusal is made good by a second attempt");
}

#[test]
fn a_refused_call_loses_nothing_where_address_space_is_scarce() {
    assert_eq!(
        refuse_each(Space::Limited(1, 512 << 20), Refuse::Call),
        0,
        "one refusal is made good by a second attempt"
    );
}

#[test]
fn a_kernel_that_refuses_from_some_call_on_loses_nothing() {
    assert!(refuse_each(Space::Plenty, Refuse::From) > 0, "the program is told");
}

#[test]
fn memory_of_others_is_never_touched_and_costs_no_request() {
    let clean = heap(Space::Plenty);
    clean.depot().os.pages().send_stranger(0);
    assert_eq!(scenario(&clean), 0);
    let commits = clean.depot().os.pages().commits();
    release(&clean);
    assert!(commits > 15, "the scenario maps often: {commits}");
    for number in 1..=commits {
        let heap = heap(Space::Plenty);
        heap.depot().os.pages().send_stranger(number);
        assert_eq!(scenario(&heap), 0, "a stranger in the way of commit {number} of {commits}");
        assert_eq!(scenario(&heap), 0, "the same again");
        release(&heap);
        heap.depot().os.pages().see_stranger_off();
    }
}

#[test]
fn a_small_address_space_is_filled_by_several_regions() {
    const SPACE: usize = 400 << 20;
    let heap = heap(Space::Limited(2, SPACE));
    let mut user = User { heap: &heap, cached: heap.register(), refused: 0 };
    let blocks: Vec<Block> = std::iter::from_fn(|| user.allocate(3 << 20)).collect();
    assert!(blocks.len() * (3 << 20) > SPACE / 2, "{} blocks", blocks.len());
    assert!(heap.depot().regions.iter().count() > 1);
    blocks.iter().for_each(|block| user.free(block));
    heap.check();
    heap.unregister(user.cached.as_ref().expect("there is memory for a cache"));
    release(&heap);
}

#[test]
fn a_released_heap_serves_late_calls() {
    let heap = heap(Space::Plenty);
    let mut user = User { heap: &heap, cached: None, refused: 0 };
    let early = user.allocate(64).expect("memory");
    release(&heap);
    // Ignored: the block is gone.
    heap.free_small(None, class_of(64, 8).expect("a small size"), early.start);
    for size in [2, 64, 5000, 1 << 20] {
        let late = user.allocate(size).expect("pages of its own");
        user.free_late(&late);
    }
}

impl User<'_> {
    /// After the release a free does nothing, and the block keeps its contents.
    fn free_late(&self, block: &Block) {
        self.free(block);
        block.verify();
    }
}
