//! Arenas against a model: whatever was given out keeps its contents until it is taken back, in any order of calls.

mod light;

use light::Random;
use magalloc::{AllocError, Arena, Mark, Scope, SharedArena, StaleMark};
use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::NonNull;
use std::thread;

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

/// Bytes up to which chunks double, and from which on a request may have a block of its own.
const CHUNK_BYTES_BOUND: usize = 1 << 20;
const LARGE_BYTES_MIN: usize = CHUNK_BYTES_BOUND / 4;

/// Memory from an arena, filled with a tag.
#[derive(Clone, Copy)]
struct Piece {
    start: NonNull<u8>,
    layout: Layout,
    tag: u8,
}

impl Piece {
    fn new(start: NonNull<u8>, layout: Layout, tag: u8) -> Self {
        assert!(start.addr().get().is_multiple_of(layout.align()), "{layout:?} at {start:?}");
        // SAFETY: the arena's caller has that many bytes.
        unsafe { start.write_bytes(tag, layout.size()) };
        Self { start, layout, tag }
    }

    fn check(&self) {
        // SAFETY: filled by `new`, and not taken back.
        let bytes = unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) };
        assert!(bytes.iter().all(|byte| *byte == self.tag), "{:?} is not what was written", self.layout);
    }
}

/// Mostly small, sometimes a large block, sometimes nothing, sometimes aligned to much.
fn any_layout(random: &mut Random) -> Layout {
    let size = match random.below(200) {
        0 => LARGE_BYTES_MIN - 100 + random.below(200_000),
        1..10 => random.below(20_000),
        10..20 => 0,
        _ => random.size_below(300),
    };
    let align = if random.below(20) == 0 { 1 << random.below(16) } else { 1 << random.below(5) };
    Layout::from_size_align(size, align).unwrap()
}

#[test]
fn any_sequence_of_calls_agrees_with_the_model() {
    for seed in 0..40 {
        println!("seed {seed}");
        sequence(seed, 3_000);
    }
}

fn sequence(seed: u64, steps: usize) {
    let mut random = Random::new(seed);
    let mut arena = Arena::new();
    let mut pieces: Vec<Piece> = Vec::new();
    // Marks that are good, with the number of pieces before each.
    let mut good: Vec<(Mark, usize)> = Vec::new();
    let mut stale: Vec<Mark> = vec![Arena::new().mark().unwrap()];
    for step in 0..steps {
        match random.below(1_000) {
            0..2 => {
                arena.reset();
                assert!(arena.held_bytes() <= CHUNK_BYTES_BOUND, "one chunk stays");
                pieces.clear();
                stale.extend(good.drain(..).map(|(mark, _)| mark));
            }
            2..40 => good.push((arena.mark().unwrap(), pieces.len())),
            40..60 if !good.is_empty() => {
                let place = random.below(good.len());
                let (mark, count) = good[place];
                arena.roll_back(mark).unwrap();
                pieces.truncate(count);
                stale.extend(good.drain(place + 1..).map(|(mark, _)| mark));
            }
            60..80 => {
                assert_eq!(arena.roll_back(stale[random.below(stale.len())]), Err(StaleMark));
            }
            80..90 => arena.scope(|scope| fill(scope, &mut random, 3)),
            _ => {
                let layout = any_layout(&mut random);
                pieces.push(Piece::new(arena.alloc_layout(layout).unwrap(), layout, step as u8));
            }
        }
        if random.below(50) == 0 {
            pieces.iter().for_each(Piece::check);
        }
    }
    pieces.iter().for_each(Piece::check);
    let bytes: usize = pieces.iter().map(|piece| piece.layout.size() + piece.layout.align()).sum();
    // Half of what is in chunks may be the newest one's free part, a quarter of others may be lost at their ends.
    let most = 3 * bytes + good.len() * 64 + 2 * CHUNK_BYTES_BOUND + 4_096;
    assert!(arena.held_bytes() <= most, "{} bytes for {bytes}", arena.held_bytes());
}

/// Scopes in scopes; each looks at what it has after the inner ones ended.
fn fill(scope: &mut Scope<'_, '_>, random: &mut Random, depth: usize) {
    let mut mine: Vec<(&mut [u32], u32)> = Vec::new();
    for _ in 0..random.below(20) {
        let (count, value) = (random.size_below(500), random.below(1 << 30) as u32);
        mine.push((scope.alloc_slice_fill_with(count, |_| value).unwrap(), value));
        if depth > 0 && random.below(3) == 0 {
            scope.scope(|inner| fill(inner, random, depth - 1));
        }
    }
    for (slice, value) in mine {
        assert!(slice.iter().all(|found| *found == value));
    }
}

#[test]
fn values_slices_and_texts_are_what_was_put_in() {
    macro_rules! all {
        ($arena:expr) => {{
            let arena = &$arena;
            let texts = arena.alloc_slice_fill_with(2, |index| index.to_string()).unwrap();
            let (number, numbers) = (arena.alloc(7).unwrap(), arena.alloc_slice_copy(&[1, 2, 3]).unwrap());
            let text = arena.alloc_str("text").unwrap();
            *number += numbers[2];
            assert_eq!((*number, &*numbers, &*text, &*texts[1]), (10, &[1, 2, 3][..], "text", "1"));
            assert!(arena.alloc_slice_copy::<u64>(&[]).unwrap().is_empty());
            assert_eq!(magalloc::ArenaBox::into_inner(arena.alloc_box(String::from("in")).unwrap()), "in");
            #[repr(align(4096))]
            struct Aligned;
            assert!(std::ptr::from_ref(arena.alloc(Aligned).unwrap()).addr().is_multiple_of(4096));
        }};
    }
    all!(Arena::new());
    all!(Arena::with_capacity(10).unwrap());
    all!(SharedArena::new());
    all!(SharedArena::with_capacity(10).unwrap());
    Arena::new().scope(|scope| all!(scope));
}

#[test]
fn empty_arena_needs_no_memory_for_nothing() {
    let (arena, shared) = (Arena::new(), SharedArena::new());
    for align in [1, 16, 32, 1 << 20] {
        let layout = Layout::from_size_align(0, align).unwrap();
        assert!(arena.alloc_layout(layout).unwrap().addr().get().is_multiple_of(align));
        assert!(shared.alloc_layout(layout).unwrap().addr().get().is_multiple_of(align));
    }
    assert_eq!((arena.held_bytes(), shared.held_bytes()), (0, 0));
}

#[test]
fn request_that_nothing_can_hold_is_an_error_and_the_next_is_served() {
    let (arena, shared) = (Arena::new(), SharedArena::new());
    let layouts = [(isize::MAX as usize, 1), (isize::MAX as usize - 4_095, 4_096), (8, isize::MAX as usize / 2 + 1)];
    for (size, align) in layouts {
        let layout = Layout::from_size_align(size, align).unwrap();
        assert_eq!(arena.alloc_layout(layout), Err(AllocError), "{layout:?}");
        assert_eq!(shared.alloc_layout(layout), Err(AllocError), "{layout:?}");
        assert_eq!((arena.alloc(1).as_deref(), shared.alloc(1).as_deref()), (Ok(&1), Ok(&1)));
    }
    assert!(arena.alloc_slice_fill_with(usize::MAX / 8, |_| 0_u64).is_err());
    assert!(Arena::with_capacity(usize::MAX).is_err() && SharedArena::with_capacity(usize::MAX - 20).is_err());
}

#[test]
fn reset_keeps_the_largest_chunk_and_the_same_work_needs_no_more() {
    let (mut arena, mut shared) = (Arena::new(), SharedArena::new());
    let mut held = (0, 0);
    for round in 0..100 {
        for _ in 0..100 {
            arena.alloc([round; 100]).unwrap();
            shared.alloc([round; 100]).unwrap();
        }
        arena.reset();
        shared.reset();
        match round {
            0..5 => held = (arena.held_bytes(), shared.held_bytes()),
            _ => assert_eq!(held, (arena.held_bytes(), shared.held_bytes())),
        }
    }
    assert!(held.0 >= 40_000 && held.0 < 200_000, "{held:?}");
}

#[test]
fn scope_that_unwinds_gives_back_what_it_had() {
    let mut arena = Arena::new();
    let mark = arena.mark().unwrap();
    let before = arena.held_bytes();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        arena.scope(|scope| {
            for _ in 0..100 {
                scope.alloc([0_u8; LARGE_BYTES_MIN]).unwrap();
            }
            panic!("on purpose");
        })
    }));
    assert!(outcome.is_err());
    assert!(arena.held_bytes() <= before + CHUNK_BYTES_BOUND, "{}", arena.held_bytes());
    arena.roll_back(mark).unwrap();
}

#[test]
fn boxes_run_destructors_once() {
    struct Count<'c>(&'c Cell<u32>);
    impl Drop for Count<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let count = Cell::new(0);
    let mut arena = Arena::new();
    drop(arena.alloc_box(Count(&count)).unwrap());
    assert_eq!(count.get(), 1);
    drop(magalloc::ArenaBox::into_inner(arena.alloc_box(Count(&count)).unwrap()));
    assert_eq!(count.get(), 2);
    let _ = arena.alloc(Count(&count)).unwrap();
    arena.scope(|scope| drop(scope.alloc_box(Count(&count)).unwrap()));
    arena.reset();
    drop(arena);
    assert_eq!(count.get(), 3, "what is in no box is never dropped");
}

#[test]
fn threads_share_an_arena_and_get_nothing_twice() {
    const THREADS: usize = 4;
    let mut arena = SharedArena::new();
    for round in 0..20 {
        thread::scope(|threads| {
            let work = |id: usize| {
                let mut random = Random::new((round * THREADS + id) as u64);
                let pieces = (0..2_000).map(|_| {
                    let layout = any_layout(&mut random);
                    Piece::new(arena.alloc_layout(layout).unwrap(), layout, id as u8 + 1)
                });
                let pieces: Vec<_> = pieces.collect();
                pieces.iter().for_each(Piece::check);
            };
            (0..THREADS).for_each(|id| drop(threads.spawn(move || work(id))));
        });
        arena.reset();
        assert!(arena.held_bytes() <= CHUNK_BYTES_BOUND);
    }
}

#[test]
fn arena_goes_to_another_thread() {
    let arena = Arena::new();
    arena.alloc_str("here").unwrap();
    let arena = thread::spawn(move || {
        arena.alloc_str("there").unwrap();
        arena
    });
    arena.join().unwrap().alloc(1).unwrap();
}
