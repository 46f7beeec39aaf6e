//! Containers of allocator-api2 and hashbrown on the heap and on arenas: what they hold is what was put in, whatever grows,
//! shrinks and ends in between.

mod light;

use hashbrown::{DefaultHashBuilder, HashMap};
use light::Random;
use magalloc::{Arena, Magalloc, SharedArena};
use std::alloc::Layout;
use std::collections::VecDeque;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new();

macro_rules! version {
    ($name:ident, $api:ident) => {
        mod $name {
            use super::*;
            use $api::alloc::Allocator;
            use $api::boxed::Box;
            use $api::vec::Vec;

            #[test]
            fn vectors_and_boxes_hold_what_was_put_in() {
                fn check<A: Allocator + Copy>(allocator: A) {
                    let mut words: Vec<Vec<u8, A>, A> = Vec::new_in(allocator);
                    for word in 0..100_u8 {
                        let mut bytes = Vec::with_capacity_in(1, allocator);
                        (0..=word).for_each(|byte| bytes.push(byte));
                        if word % 3 == 0 {
                            bytes.shrink_to_fit();
                        }
                        words.push(bytes);
                    }
                    words.swap_remove(50);
                    let boxed = Box::new_in([7_u64; 100], allocator);
                    assert_eq!((words.len(), words[49][49], words[98][97], boxed[99]), (99, 49, 97, 7));
                    assert_eq!(words.iter().map(|word| word.len()).sum::<usize>(), 5_050 - 51);
                }
                check(&GLOBAL);
                let (mut arena, shared) = (Arena::new(), SharedArena::new());
                check(&arena);
                check(&shared);
                arena.scope(|scope| check(&*scope));
            }

            #[test]
            fn any_sequence_of_calls_keeps_contents() {
                for seed in 0..20 {
                    println!("seed {seed}");
                    sequence(&GLOBAL, seed);
                    sequence(&Arena::new(), seed);
                    sequence(&SharedArena::new(), seed);
                }
            }

            fn sequence(allocator: impl Allocator, seed: u64) {
                let mut random = Random::new(seed);
                let mut blocks: VecDeque<(std::ptr::NonNull<u8>, Layout, u8)> = VecDeque::new();
                for step in 0..2_000_u32 {
                    let size = if random.below(100) == 0 { random.below(600_000) } else { random.size_below(500) };
                    let layout = Layout::from_size_align(size, 1 << random.below(8)).unwrap();
                    match random.below(8) {
                        0..3 => {
                            let zeroed = random.below(2) == 0;
                            let block = if zeroed {
                                allocator.allocate_zeroed(layout).unwrap()
                            } else {
                                allocator.allocate(layout).unwrap()
                            };
                            let tag = if zeroed { 0 } else { step as u8 | 1 };
                            blocks.push_back((fresh(block, layout, tag), layout, tag));
                        }
                        // The newest, an old one and the oldest.
                        kind @ 3..6 if !blocks.is_empty() => {
                            let place = [blocks.len() - 1, blocks.len() / 2, 0][kind - 3];
                            let (block, old, tag) = blocks[place];
                            // SAFETY: the block is one of that layout, and given up for the result.
                            let resized = unsafe {
                                if size >= old.size() {
                                    allocator.grow(block, old, layout).unwrap()
                                } else {
                                    allocator.shrink(block, old, layout).unwrap()
                                }
                            };
                            check(resized.cast(), old.size().min(size), tag);
                            let tag = step as u8 | 1;
                            blocks[place] = (fresh(resized, layout, tag), layout, tag);
                        }
                        kind @ 6..8 if !blocks.is_empty() => {
                            let (block, layout, tag) = blocks.remove((blocks.len() - 1) * (kind - 6)).unwrap();
                            check(block, layout.size(), tag);
                            // SAFETY: the block is one of that layout, and not used any more.
                            unsafe { allocator.deallocate(block, layout) };
                        }
                        _ => {}
                    }
                    if random.below(50) == 0 {
                        blocks.iter().for_each(|(block, layout, tag)| check(*block, layout.size(), *tag));
                    }
                }
                for (block, layout, tag) in blocks {
                    check(block, layout.size(), tag);
                    // SAFETY: the block is one of that layout, and not used any more.
                    unsafe { allocator.deallocate(block, layout) };
                }
            }
        }
    };
}

version!(version_02, allocator_api2_02);
version!(version_04, allocator_api2_04);

/// Fills a block with its tag; 0 is what it has already.
fn fresh(block: std::ptr::NonNull<[u8]>, layout: Layout, tag: u8) -> std::ptr::NonNull<u8> {
    let start = block.cast::<u8>();
    assert!(block.len() >= layout.size() && start.addr().get().is_multiple_of(layout.align()));
    if tag != 0 {
        // SAFETY: the block is the caller's.
        unsafe { start.write_bytes(tag, layout.size()) };
    }
    start
}

fn check(block: std::ptr::NonNull<u8>, bytes: usize, tag: u8) {
    // SAFETY: a block of at least as many bytes, all of which were written.
    let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), bytes) };
    assert!(bytes.iter().all(|byte| *byte == tag), "not what was written");
}

#[test]
fn hash_map_lives_in_an_arena() {
    let mut arena = Arena::new();
    for round in 0..10_u64 {
        let mut map = HashMap::with_hasher_in(DefaultHashBuilder::default(), &arena);
        map.extend((0..1_000).map(|key| (key, key * round)));
        map.retain(|key, _| key % 2 == 0);
        assert!(map.len() == 500 && map.iter().all(|(key, value)| *value == key * round));
        drop(map);
        arena.reset();
    }
    let shared = SharedArena::new();
    let mut map = HashMap::with_hasher_in(DefaultHashBuilder::default(), &shared);
    map.insert("one", 1);
    let mut on_heap = HashMap::with_hasher_in(DefaultHashBuilder::default(), &GLOBAL);
    on_heap.extend(map.iter().map(|(key, value)| (*key, *value)));
    assert_eq!(on_heap.get("one"), Some(&1));
}

#[test]
fn vector_that_grows_alone_leaves_nothing_behind() {
    use allocator_api2_04::vec::Vec;
    let arena = Arena::with_capacity(100_000).unwrap();
    let before = arena.held_bytes();
    let mut vector = Vec::new_in(&arena);
    (0..16_000_u32).for_each(|number| vector.push(number));
    assert!(vector.iter().copied().eq(0..16_000));
    drop(vector);
    arena.alloc([0_u8; 99_000]).unwrap();
    assert_eq!(arena.held_bytes(), before);
}
