//! Chunks of a shared arena (`arena::shared_chunks`): pieces of the newest one, and the next one.
//!
//! # Modelled    threads that take pieces and add a chunk where there is none or no room, as `SharedArena` does
//! # Asserted    conservation: no piece is given out twice; no chunk is lost from the list.
//!               visibility: who takes from a chunk sees its header
//! # Bounds      two pieces a chunk; 2 threads with every interleaving, 3 threads with 3 preemptions
#![cfg(loom)]

mod common;

use common::{Payload, RACE, assert_caught, check, join, spawn};
use loom::cell::UnsafeCell;
use magalloc::arena::shared_chunks::{Chunk, Chunks, HEADER_BYTES};
use std::alloc::Layout;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// Pieces of a chunk.
const PIECES: usize = 2;
const PIECE_BYTES: usize = 16;
const LOST: &str = "a chunk is lost";

/// A chunk with what loom is to watch beside it.
#[repr(C)]
struct Watched {
    chunk: Chunk,
    /// What is written of a header before others see it.
    header: UnsafeCell<u64>,
    pieces: [Payload; PIECES],
}

struct Arena {
    chunks: Chunks,
    added: loom::sync::atomic::AtomicUsize,
}

// SAFETY: chunks are shared by the protocol that is modelled; what is in them, loom watches.
unsafe impl Send for Arena {}
// SAFETY: likewise.
unsafe impl Sync for Arena {}

impl Arena {
    fn new() -> Arc<Self> {
        Arc::new(Self { chunks: Chunks::new(), added: loom::sync::atomic::AtomicUsize::new(0) })
    }

    /// `SharedArena::bump`, and the use of what it returns.
    fn take(&self) {
        loop {
            let last = self.chunks.newest();
            if last.is_some_and(Self::take_of) {
                return;
            }
            let previous = last.map_or(null_mut(), NonNull::as_ptr);
            let chunk = Chunk::new(HEADER_BYTES + PIECES * PIECE_BYTES, previous);
            let watched = Watched { chunk, header: UnsafeCell::new(0), pieces: [(); PIECES].map(|()| Payload::new()) };
            let watched = NonNull::from(Box::leak(Box::new(watched)));
            // SAFETY: nobody else knows the chunk yet.
            unsafe { watched.as_ref() }.header.with_mut(|header| {
                // SAFETY: as loom has just checked.
                unsafe { *header = 1 };
            });
            assert!(Self::take_of(watched.cast()));
            if self.chunks.add(watched.cast(), previous) {
                self.added.fetch_add(1, loom::sync::atomic::Ordering::Relaxed);
                return;
            }
            // SAFETY: nobody else knows the chunk.
            drop(unsafe { Box::from_raw(watched.as_ptr()) });
        }
    }

    fn take_of(chunk: NonNull<Chunk>) -> bool {
        // SAFETY: chunks stay until the end.
        let watched = unsafe { chunk.cast::<Watched>().as_ref() };
        // SAFETY: as loom has just checked.
        watched.header.with(|header| assert_eq!(unsafe { *header }, 1));
        let piece = watched.chunk.take(Layout::from_size_align(PIECE_BYTES, 1).unwrap());
        let piece = piece.map(|offset| (offset - HEADER_BYTES) / PIECE_BYTES);
        piece.inspect(|piece| watched.pieces[*piece].own(|uses| *uses += 1)).is_some()
    }

    /// At rest: as many chunks are in the list as were added, and as many pieces were used as there were requests.
    fn check(&self, requests: u64) {
        let (mut chunks, mut used) = (0, 0);
        let mut next = self.chunks.newest();
        while let Some(chunk) = next {
            // SAFETY: a chunk that was leaked, and the other threads have ended.
            let watched = unsafe { Box::from_raw(chunk.cast::<Watched>().as_ptr()) };
            next = NonNull::new(watched.chunk.previous());
            chunks += 1;
            for piece in &watched.pieces {
                used += piece.own(|uses| {
                    assert!(*uses <= 1, "a piece is given out twice");
                    *uses
                });
            }
        }
        assert_eq!(chunks, self.added.load(loom::sync::atomic::Ordering::Relaxed), "{LOST}");
        assert_eq!(used, requests, "{LOST}");
    }
}

fn two_threads_take() {
    let arena = Arena::new();
    let other = spawn(&arena, Arena::take);
    arena.take();
    arena.take();
    join([other]);
    arena.check(3);
}

fn three_threads_take() {
    let arena = Arena::new();
    let others = [(); 2].map(|()| spawn(&arena, Arena::take));
    arena.take();
    join(others);
    arena.check(3);
}

#[test]
fn pieces_are_given_out_once() {
    check(None, two_threads_take);
}

#[test]
fn three_threads_share_chunks() {
    check(Some(3), three_threads_take);
}

#[test]
fn take_by_store_is_caught() {
    assert_caught("take by store", RACE, None, two_threads_take);
}

#[test]
fn relaxed_chunk_is_caught() {
    assert_caught("relaxed chunk", RACE, None, two_threads_take);
}

#[test]
fn add_by_store_is_caught() {
    assert_caught("add by store", LOST, None, two_threads_take);
}
