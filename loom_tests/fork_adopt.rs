//! In the child of a fork: local heaps whose threads are gone, and who takes over what they had.
//!
//! # Modelled    `ThreadRegistry::{note_lost_in_fork, take_lost}`, `Shared::adopt_lost`: whoever needs memory adopts a local heap whose thread
//!               is gone, brings home what its cache has, closes its stack, gives its slabs to the depot and its number
//!               up; several at once, while others free blocks of its slabs or fetch what was pushed for it, and a new
//!               thread takes the number
//! # Asserted    conservation: each local heap is adopted once; at the end each slab with a free block is in exactly one place:
//!               with the new thread, on an open stack, or in the depot; all blocks are there.
//!               visibility: who adopts comes after the gone thread, the new thread after who adopted; a slab's next
//!               holder comes after its last one.
//! # Bounds      1 owner that is gone, 3 slabs of 2 words, 4 threads, 2 preemptions; with 3 threads 4
#![cfg(loom)]

mod common;

use common::local_heap::{FORGOTTEN, Heap};
use common::{Payload, RACE, assert_caught, check, join, spawn};
use magalloc::local::index_set::IndexSet;
use magalloc::sync::{AtomicU8, Ordering};
use std::sync::Arc;

struct Child {
    heap: Heap,
    gone: IndexSet,
    any_lost: AtomicU8,
    /// The blocks in the cache of the thread that is gone; only for who has its number.
    cache: Payload,
}

impl Child {
    /// Just after the fork. The local heap has slab 2; its cache has a block of slab 1, and block 0 of slab 0 is in use by a
    /// thread of the child.
    fn new() -> Arc<Self> {
        let child =
            Self { heap: Heap::new(), gone: IndexSet::new(), any_lost: AtomicU8::new(0), cache: Payload::new() };
        child.cache.own(|blocks| *blocks = 1);
        // `ThreadRegistry::note_lost_in_fork`.
        child.gone.put(0);
        child.any_lost.store(1, Ordering::Relaxed);
        Arc::new(child)
    }

    /// `ThreadRegistry::take_lost`.
    fn take_lost_in_fork(&self) -> bool {
        if self.any_lost.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let taken = self.gone.take(1).is_some();
        if !taken {
            self.any_lost.store(0, Ordering::Relaxed);
        }
        taken
    }

    /// `Shared::adopt_lost`. How many were adopted?
    fn adopt_lost_in_fork(&self) -> usize {
        let mut adopted = 0;
        while self.take_lost_in_fork() {
            for _ in 0..self.cache.own(core::mem::take) {
                self.heap.free_own(1, 0);
            }
            self.heap.end();
            adopted += 1;
        }
        adopted
    }

    /// `Shared::flush_remote_frees`.
    fn fetch(&self) {
        self.heap.chain(self.heap.remote_frees.take_all()).into_iter().for_each(|slab| self.heap.give(slab));
    }
}

/// Two adopt, one frees, a new thread begins.
fn two_adopt_one_frees_one_begins() {
    let child = Child::new();
    let adopter = spawn(&child, Child::adopt_lost_in_fork);
    let freer = spawn(&child, |child| child.heap.free(0, 0));
    let next = spawn(&child, |child| child.heap.begin());
    let adopted = child.adopt_lost_in_fork() + adopter.join().unwrap();
    freer.join().unwrap();
    assert_eq!(adopted, 1, "an owner was adopted twice, or never");
    child.heap.check(next.join().unwrap(), 3);
}

/// One adopts and begins with the number, while two others free the blocks of one slab.
fn one_adopts_and_begins_two_free() {
    let child = Child::new();
    let freers = [0, 1].map(|block| spawn(&child, move |child| child.heap.free(0, block)));
    assert_eq!(child.adopt_lost_in_fork(), 1);
    assert!(child.heap.begin());
    join(freers);
    child.heap.check(true, 4);
}

/// One adopts, one frees, one fetches what was pushed.
fn one_adopts_one_frees_one_fetches() {
    let child = Child::new();
    let freer = spawn(&child, |child| child.heap.free(0, 0));
    let fetcher = spawn(&child, Child::fetch);
    assert_eq!(child.adopt_lost_in_fork(), 1);
    join([freer, fetcher]);
    child.heap.check(false, 3);
}

#[test]
fn an_owner_is_adopted_once() {
    check(Some(2), two_adopt_one_frees_one_begins);
}

#[test]
fn the_next_thread_sees_what_was_left() {
    check(Some(4), one_adopts_and_begins_two_free);
}

#[test]
fn what_was_pushed_is_fetched_once() {
    check(Some(4), one_adopts_one_frees_one_fetches);
}

#[test]
fn adopt_by_store_is_caught() {
    assert_caught("adopt by store", RACE, Some(2), two_adopt_one_frees_one_begins);
}

#[test]
fn relaxed_orphan_is_caught() {
    assert_caught("relaxed abandon", RACE, Some(2), two_adopt_one_frees_one_begins);
}

#[test]
fn number_given_up_too_early_is_caught() {
    assert_caught("number given up too early", RACE, Some(2), two_adopt_one_frees_one_begins);
}

#[test]
fn close_without_taking_is_caught() {
    assert_caught("close without taking", FORGOTTEN, Some(4), one_adopts_and_begins_two_free);
}

#[test]
fn end_without_closing_is_caught() {
    assert_caught("end without closing", FORGOTTEN, Some(4), one_adopts_and_begins_two_free);
}

#[test]
fn take_without_the_mark_is_caught() {
    // The mark of a closed stack is taken for a slab.
    assert_caught("take without the mark", "index out of bounds", Some(4), one_adopts_one_frees_one_fetches);
}

#[test]
fn closed_is_forgotten_is_caught() {
    assert_caught("closed is forgotten", FORGOTTEN, Some(4), one_adopts_one_frees_one_fetches);
}

#[test]
fn relaxed_notify_is_caught() {
    assert_caught("relaxed notify", RACE, Some(4), one_adopts_one_frees_one_fetches);
}
