//! Tests: what slow paths count is what a walk finds, after anything a program does; and to read it costs no walk.

use super::purging::{heap, release};
use crate::config::GRANULE_BYTES;
use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::options::{HugePages, Options};
use crate::purge::pace::Due;
use crate::size_class::{all, class_of, shape};
use crate::summary::steps::steps_of;
use crate::sys::Pages;
use crate::sys::fake::{FakePages, Refuse};
use crate::sys::platform::SystemPages;
use crate::units::ClassIndex;
use std::sync::Mutex;
use std::thread::scope;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * end as u128) >> 64) as usize
    }
}

/// A block that the program has.
enum Block {
    Small(ClassIndex, *mut u8),
    Large(usize, *mut u8),
}

// SAFETY: a block is whose it is given to.
unsafe impl Send for Block {}

fn large_bytes(random: &mut Random) -> usize {
    let most = if random.below(8) == 0 { 600 } else { 12 };
    let granules = 1 + random.below(most);
    granules * GRANULE_BYTES
}

/// A block of any size; none at the end of memory.
fn allocate<P: Pages>(heap: &Heap<P>, local: Option<&LocalHeap<'_, P>>, random: &mut Random) -> Option<Block> {
    let block = if random.below(20) == 0 {
        let bytes = large_bytes(random);
        let align = if random.below(4) == 0 { 8 * GRANULE_BYTES } else { 8 };
        Block::Large(bytes, heap.allocate_large(bytes, align, random.below(2) == 0))
    } else {
        // Some classes often, all of them at times.
        let classes: Vec<ClassIndex> = all().collect();
        let class = classes[if random.below(4) == 0 { random.below(classes.len()) } else { 5 * random.below(14) }];
        let popped = local.map_or(core::ptr::null_mut(), |local| local.pop(class));
        Block::Small(class, if popped.is_null() { heap.allocate_small(local, class) } else { popped })
    };
    let (Block::Small(_, pointer) | Block::Large(_, pointer)) = block;
    (!pointer.is_null()).then_some(block)
}

fn free<P: Pages>(heap: &Heap<P>, local: Option<&LocalHeap<'_, P>>, block: Block) {
    match block {
        Block::Large(_, pointer) => heap.free_large(pointer),
        Block::Small(class, pointer) if local.is_some_and(|local| local.push(class, pointer)) => {}
        Block::Small(class, pointer) => heap.free_small(local, class, pointer),
    }
}

fn resize<P: Pages>(heap: &Heap<P>, block: &mut Block, random: &mut Random) {
    if let Block::Large(bytes, pointer) = block {
        let new_bytes = large_bytes(random);
        let resized = heap.resize_large(*pointer, new_bytes, 8);
        if !resized.is_null() {
            (*bytes, *pointer) = (new_bytes, resized);
        }
    }
}

/// The counts are what a walk finds, and what the program has.
fn expect_counted<P: Pages>(heap: &Heap<P>, blocks: &[Block]) {
    heap.check_counts();
    let bytes = |block: &Block| match *block {
        Block::Small(class, _) => u64::from(shape(class).bytes),
        Block::Large(bytes, _) => bytes as u64,
    };
    let stats = heap.stats();
    assert_eq!(stats.live, blocks.iter().map(bytes).sum::<u64>(), "{stats:?}");
}

/// Of 950 steps, how many allocate while the heap grows, and while it shrinks.
const GROWING: [usize; 2] = [300, 20];

/// What a program may do, for so many steps, by a few threads in turn, of which one has no cache.
fn any_work(options: Options, seed: u64, steps: usize) {
    let heap = heap(options);
    let mut random = Random(seed);
    let mut locals: [Option<LocalHeap<'_, FakePages>>; 4] = [const { None }; 4];
    let mut blocks = Vec::new();
    for step in 0..steps {
        let who = random.below(locals.len());
        let local = locals[who].as_ref();
        match random.below(1000) {
            // Growing and shrinking by turns, so that slabs come and go.
            deed @ 0..950 if (deed < GROWING[step / 700 % 2]) || blocks.is_empty() => {
                blocks.extend((0..4).filter_map(|_| allocate(&heap, local, &mut random)));
            }
            0..950 => {
                let block = blocks.swap_remove(random.below(blocks.len()));
                free(&heap, local, block);
            }
            950..970 if !blocks.is_empty() => {
                let index = random.below(blocks.len());
                resize(&heap, &mut blocks[index], &mut random);
            }
            950..970 => {}
            970..976 if who != 0 && local.is_none() => locals[who] = heap.register(),
            970..976 => {
                if let Some(local) = locals[who].take() {
                    if random.below(2) == 0 { heap.park(&local) } else { heap.unregister(&local) }
                }
            }
            976..980 => {
                if let Some(local) = local {
                    heap.flush(local);
                }
            }
            980..984 => heap.shared().take_stashes(),
            984..988 => heap.shared().take_idle_stashes(),
            988..992 => _ = heap.purge().epoch(Due::Aged, || false),
            992 => heap.release_free(),
            993..997 => {
                heap.depot().os.pages().pass_ms(400);
                heap.purge().tick();
            }
            997 => heap.depot().os.pages().refuse(Refuse::From(1 + random.below(5) as u64)),
            _ => heap.depot().os.pages().refuse(Refuse::None),
        }
        if step % 50 == 0 {
            expect_counted(&heap, &blocks);
        }
    }
    heap.depot().os.pages().refuse(Refuse::None);
    blocks.drain(..).for_each(|block| free(&heap, None, block));
    locals.iter().flatten().for_each(|local| heap.unregister(local));
    expect_counted(&heap, &blocks);
    heap.check();
    release(&heap);
}

#[test]
fn counts_are_what_a_walk_finds_whatever_a_program_does() {
    for seed in 1..=8 {
        println!("seed {seed}");
        any_work(Options::new(), seed, 6000);
        any_work(Options { hard_limit: 24 << 20, ..Options::new() }, seed, 6000);
    }
    any_work(Options { huge_pages: HugePages::Always, ..Options::new() }, 9, 6000);
    any_work(Options { huge_pages: HugePages::Never, cache_bytes_max: 1 << 16, ..Options::new() }, 10, 6000);
}

/// The same with threads that run at once, and free each other's blocks: when they have ended.
#[test]
fn counts_of_threads_that_have_ended_are_what_a_walk_finds() {
    for round in 1..=5_u64 {
        let heap = Box::new(Heap::new(SystemPages));
        let (heap, shared) = (&*heap, &Mutex::new(Vec::new()));
        scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    let mut random = Random(round << 8 | thread);
                    let local = heap.register();
                    for _ in 0..20_000 {
                        let other = match allocate(heap, local.as_ref(), &mut random) {
                            Some(block) => {
                                let mut blocks = shared.lock().expect("no thread panicked");
                                blocks.push(block);
                                let index = random.below(blocks.len());
                                (random.below(8) != 0).then(|| blocks.swap_remove(index))
                            }
                            None => None,
                        };
                        if let Some(block) = other {
                            free(heap, local.as_ref(), block);
                        }
                        if random.below(5000) == 0 {
                            heap.release_free();
                        }
                    }
                    if let Some(local) = local {
                        if thread % 2 == 0 { heap.park(&local) } else { heap.unregister(&local) }
                    }
                });
            }
        });
        let mut blocks = shared.lock().expect("no thread panicked");
        expect_counted(heap, &blocks);
        heap.release_free();
        expect_counted(heap, &blocks);
        blocks.drain(..).for_each(|block| free(heap, None, block));
        heap.shared().take_stashes();
        expect_counted(heap, &blocks);
        assert_eq!((heap.stats().live, heap.stats().cached, heap.stats().slabs), (0, 0, 0), "{:?}", heap.stats());
        // SAFETY: the heap is this test's, its threads have ended, and its blocks are freed.
        let (mapped, unmapped) = unsafe { heap.release() };
        assert_eq!(mapped, unmapped);
    }
}

/// Blocks of small classes and large ones, of so many bytes of each, every second of which is freed again.
fn steps_of_reading(bytes: usize) -> [u64; 3] {
    let heap = heap(Options::new());
    let local = heap.register().expect("memory");
    let (small, large) = (class_of(2000, 8).expect("a small size"), 3 * GRANULE_BYTES);
    let mut blocks = Vec::new();
    for _ in 0..bytes / shape(small).bytes as usize {
        blocks.push(Block::Small(small, heap.allocate_small(Some(&local), small)));
    }
    for _ in 0..bytes / large {
        blocks.push(Block::Large(large, heap.allocate_large(large, 8, false)));
    }
    let mut kept = Vec::new();
    for (number, block) in blocks.into_iter().enumerate() {
        if number % 2 == 0 { free(&heap, Some(&local), block) } else { kept.push(block) }
    }
    let steps = [
        steps_of(|| assert!(heap.stats().live > bytes as u64 / 2)),
        steps_of(|| assert!(heap.class_stats()[small.get()].slabs > 10)),
        steps_of(|| assert!(heap.census().live > bytes as u64 / 2)),
    ];
    expect_counted(&heap, &kept);
    kept.into_iter().for_each(|block| free(&heap, Some(&local), block));
    heap.unregister(&local);
    release(&heap);
    steps
}

#[test]
fn counts_are_read_in_as_many_steps_from_a_small_heap_as_from_a_large_one() {
    let ([stats, classes, census], large) = (steps_of_reading(4 << 20), steps_of_reading(200 << 20));
    assert_eq!([stats, classes], [large[0], large[1]]);
    assert!(large[2] > 5 * census, "{census} and {} steps: else they count nothing", large[2]);
}
