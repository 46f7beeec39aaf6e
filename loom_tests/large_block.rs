//! A large block that several threads free or resize at once (`slab::KindCell::take_large`).
//!
//! # Modelled    two threads that free the same block, or one that frees and one that shrinks it, as `heap::large` does; a
//!               third that takes the granules as soon as they are free
//! # Asserted    conservation: of two that free a block, one has it, and the granules of the third stay its own; a block
//!               that lives on can be taken again, at its new length.
//!               visibility: whoever takes a block sees the descriptor, and comes after all that the last one did.
//! # Bounds      the last 2 granules of a chunk, the others in use; 3 threads, 4 preemptions
#![cfg(loom)]

mod common;

use common::{Payload, RACE, assert_caught, check, join, spawn};
use magalloc::chunk::span_map::{SpanMap, Start};
use magalloc::slab::{KindCell, Slab, SpanKind};
use std::sync::Arc;

const PREEMPTIONS: Option<usize> = Some(4);
const TWICE: &str = "two threads have the same block";
const CLEARED: &str = "another block's granules were freed";

/// The granules of the block.
const FIRST: u64 = 1 << 62;
const SECOND: u64 = 1 << 63;

struct Chunk {
    spans: SpanMap,
    kind: KindCell,
    descriptor: Slab,
    /// Contents of the block, and what only whoever has it touches.
    contents: Payload,
}

impl Chunk {
    /// With a live block of both granules.
    fn new() -> Arc<Self> {
        let chunk = Self {
            spans: SpanMap::new(),
            kind: KindCell::default(),
            descriptor: Slab::new(),
            contents: Payload::new(),
        };
        assert!(chunk.spans.claim_exact(0, u64::MAX));
        chunk.descriptor.begin(2);
        chunk.kind.set(SpanKind::Large);
        Arc::new(chunk)
    }

    fn mask(&self) -> u64 {
        match self.descriptor.granules() {
            1 => FIRST,
            2 => FIRST | SECOND,
            other => panic!("{other} granules"),
        }
    }

    /// What `heap::large::free` does; `false` where it ends the process.
    fn free(&self) -> bool {
        let is_taken = self.kind.take_large();
        if is_taken {
            self.contents.touch();
            self.spans.free(0, self.mask(), true);
        }
        is_taken
    }

    /// What `heap::large::resize` does.
    fn shrink(&self) -> bool {
        let is_taken = self.kind.take_large();
        if is_taken {
            self.contents.touch();
            self.descriptor.set_granules(1);
            self.spans.free(0, SECOND, true);
            self.kind.set(SpanKind::Large);
        }
        is_taken
    }

    /// Another block's beginning, which is no large one; its granules, if there are any.
    fn claim(&self, granules: usize) -> u64 {
        self.spans.claim(granules, 1, 1, Start::LOWEST).map_or(0, |run| run.mask)
    }
}

fn freed_twice() {
    let chunk = Chunk::new();
    let other = spawn(&chunk, Chunk::free);
    let third = spawn(&chunk, |chunk| chunk.claim(2));
    let mine = chunk.free();
    let ([others], [claimed]) = (join([other]), join([third]));
    assert_eq!(chunk.spans.busy(0) & (FIRST | SECOND), claimed, "{CLEARED}");
    assert_eq!(u8::from(mine) + u8::from(others), 1, "{TWICE}");
}

#[test]
fn one_of_two_that_free_a_block_has_it() {
    check(PREEMPTIONS, freed_twice);
}

#[test]
fn a_take_by_store_is_caught() {
    assert_caught("take large by store", RACE, PREEMPTIONS, freed_twice);
}

fn freed_and_shrunk() {
    let chunk = Chunk::new();
    let other = spawn(&chunk, Chunk::shrink);
    let third = spawn(&chunk, |chunk| chunk.claim(1));
    let is_freed = chunk.free();
    let ([is_shrunk], [claimed]) = (join([other]), join([third]));
    let live = if is_freed { 0 } else { FIRST };
    assert_eq!(chunk.spans.busy(0) & (FIRST | SECOND), live | claimed, "{CLEARED}");
    assert!(live & claimed == 0 && (is_freed || is_shrunk), "{TWICE}");
    assert_eq!(chunk.free(), !is_freed, "{TWICE}");
}

#[test]
fn a_block_that_is_freed_while_it_shrinks_is_freed_once() {
    check(PREEMPTIONS, freed_and_shrunk);
}

#[test]
fn a_shrinking_by_store_is_caught() {
    assert_caught("take large by store", RACE, PREEMPTIONS, freed_and_shrunk);
}
