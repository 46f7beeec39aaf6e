//! Arenas and pools are a part of the process's heap: its limit holds for them, its statistics count them, what they give
//! back is free for others, and their use brings no options of its own.

use magalloc::{AllocError, Arena, Magalloc, Pool, SharedArena, stats};
use process::{command, run, say};

use std::rc::Rc;
mod process;

const LIMIT: usize = 48 << 20;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new().purge_delay_ms(100).at_exit(magalloc::AtExit::Unused);

fn main() {
    process::main(
        &[("options", options), ("limit", limit), ("counted", counted)],
        &[
            ("arenas_bring_no_options", || expect_silence("options")),
            ("limit_is_an_error_and_nothing_is_lost", || expect_silence("limit")),
            ("what_arenas_have_is_counted_and_comes_back", || expect_silence("counted")),
        ],
    );
}

fn expect_silence(name: &str) {
    // The limit is the child's only, which makes no backtrace: that needs more.
    let mut command = command(name);
    let outcome = run(command.env("MAGALLOC_HARD_LIMIT", LIMIT.to_string()).env("RUST_BACKTRACE", "0"));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    assert_eq!(outcome.stdout, "done\n");
}

/// The options of the program's own `Magalloc` differ from the default in each respect that a line could name.
fn options() {
    let arena = Arena::new();
    for round in 0..100 {
        arena.alloc([round as u8; 100_000]).unwrap();
        SharedArena::new().alloc([round; 100]).unwrap();
        Pool::new().insert([round; 1_000]).unwrap();
        drop(vec![round; 10_000]);
    }
    say("done\n");
}

/// Fills until there is no memory, with each kind; the next one has as much.
fn limit() {
    const ROUNDS: usize = 20;
    // Now: there is no memory for it later.
    let counted = Rc::new(());
    for round in 0..ROUNDS {
        let size = [100, 3_000, 40_000, 600_000][round % 4];
        let arena = Arena::new();
        fill(|| arena.alloc_slice_fill_with(size, |_| 1_u8).map(|_| size));
        let more = arena.alloc_slice_fill_with(LIMIT, |_| 1_u8);
        assert_eq!(more.map(|_| ()), Err(AllocError));
        if size == 100 {
            let refused = arena.alloc_box((Rc::clone(&counted), [1_u8; 4_096])).is_err();
            assert!(refused && Rc::strong_count(&counted) == 1, "what is refused is dropped");
        }
        drop(arena);
        let shared = SharedArena::new();
        fill(|| shared.alloc_slice_fill_with(size, |_| 1_u8).map(|_| size));
        drop(shared);
        let mut pool = Pool::new();
        fill(|| pool.insert([1_u8; 1_000]).map(|_| 1_000));
        let count = pool.len();
        assert_eq!(pool.iter().count(), count, "those that were refused are not there");
        pool.clear();
        (0..count).for_each(|_| assert!(pool.insert([2_u8; 1_000]).is_ok(), "the pool keeps its memory"));
        drop(pool);
        let mut arena = Arena::new();
        let mark = arena.mark().unwrap();
        for _ in 0..2 {
            fill(|| arena.alloc_slice_fill_with(size, |_| 1_u8).map(|_| size));
            arena.roll_back(mark).unwrap();
        }
    }
    say("done\n");
}

/// Calls until it fails; a good part of the limit was had, however chunks and slabs are cut.
fn fill(mut take: impl FnMut() -> Result<usize, AllocError>) {
    let mut bytes = 0;
    while let Ok(more) = take() {
        bytes += more;
    }
    assert!((LIMIT / 4..=LIMIT).contains(&bytes), "{bytes}");
}

fn counted() {
    let before = stats().live;
    let mut arena = Arena::new();
    let shared = SharedArena::new();
    let pool = Pool::new();
    for _ in 0..100 {
        arena.alloc([1_u8; 50_000]).unwrap();
        shared.alloc([1_u8; 50_000]).unwrap();
        pool.insert([1_u8; 50_000]).unwrap();
    }
    let held = (arena.held_bytes() + shared.held_bytes() + pool.held_bytes()) as u64;
    assert!(held >= 300 * 50_000 && stats().live >= before + held, "{} {held}", stats().live);
    arena.reset();
    assert!(stats().live <= before + held - (3 << 20), "{}", stats().live);
    drop((arena, shared, pool));
    assert!(stats().live <= before + 100_000, "{} and {before} before", stats().live);
    say("done\n");
}
