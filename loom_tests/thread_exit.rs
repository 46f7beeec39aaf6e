//! A thread ends while others free blocks of its slabs: the remote-free queue, the abandoned and the partial slabs together.
//!
//! # Modelled    `Shared::abandon`: the local heap closes its stack, gives its slabs to the depot and its number up;
//!               `Shared::queue`: remote frees that push on the stack or, where it is closed, give to the depot;
//!               `Shared::adopt`: a new thread that takes the number and what is pushed for it
//! # Asserted    conservation: at the end each slab with a free block is in exactly one place: with the new thread,
//!               on an open stack, or in the depot; nothing is on a closed stack; all blocks are there.
//!               visibility: a slab's next holder comes after its last one, a local heap's next thread likewise.
//! # Bounds      3 slabs of 2 words, 4 threads, 3 preemptions; with two frees in one slab 3 threads, 4 preemptions
#![cfg(loom)]

mod common;

use common::local_heap::{FORGOTTEN, Heap};
use common::{RACE, assert_caught, check, join, spawn};
use std::sync::Arc;

/// The local heap ends, two others free blocks of two of its slabs, a new thread begins.
fn one_ends_one_begins_two_free() {
    let heap = Arc::new(Heap::new());
    let first = spawn(&heap, |heap| heap.free(0, 0));
    let second = spawn(&heap, |heap| heap.free(1, 0));
    let next = spawn(&heap, Heap::begin);
    heap.end();
    join([first, second]);
    let adopted = next.join().unwrap();
    heap.check(adopted, 3);
}

/// The local heap ends, another thread frees into one of its slabs, a third fetches what was pushed, as a refill does that
/// would map new memory.
fn one_ends_one_frees_one_fetches() {
    let heap = Arc::new(Heap::new());
    let free = spawn(&heap, |heap| heap.free(0, 0));
    let fetch =
        spawn(&heap, |heap| heap.chain(heap.remote_frees.take_all()).into_iter().for_each(|slab| heap.give(slab)));
    heap.end();
    join([free, fetch]);
    heap.check(false, 2);
}

/// The local heap ends and begins again, while others free the two blocks of one slab.
fn one_ends_two_free_in_one_slab() {
    let heap = Arc::new(Heap::new());
    let frees = [0, 1].map(|block| spawn(&heap, move |heap| heap.free(0, block)));
    heap.end();
    let adopted = heap.begin();
    assert!(adopted);
    join(frees);
    heap.check(adopted, 3);
}

#[test]
fn slabs_of_an_ended_thread_are_found() {
    check(Some(3), one_ends_one_begins_two_free);
}

#[test]
fn a_slab_freed_into_by_two_is_queued_once() {
    check(Some(4), one_ends_two_free_in_one_slab);
}

#[test]
fn slabs_fetched_by_others_are_found() {
    check(Some(4), one_ends_one_frees_one_fetches);
}

#[test]
fn take_without_the_mark_is_caught() {
    // The mark of a closed stack is taken for a slab.
    assert_caught("take without the mark", "index out of bounds", Some(4), one_ends_one_frees_one_fetches);
}

#[test]
fn close_without_taking_is_caught() {
    assert_caught("close without taking", FORGOTTEN, Some(3), one_ends_one_begins_two_free);
}

#[test]
fn closed_is_forgotten_is_caught() {
    assert_caught("closed is forgotten", FORGOTTEN, Some(3), one_ends_one_begins_two_free);
}

#[test]
fn relaxed_notify_is_caught() {
    assert_caught("relaxed notify", RACE, Some(3), one_ends_one_begins_two_free);
}

#[test]
fn relaxed_orphan_is_caught() {
    assert_caught("relaxed abandon", RACE, Some(3), one_ends_one_begins_two_free);
}

#[test]
fn enter_by_load_is_caught() {
    assert_caught("enter by load", RACE, Some(4), one_ends_two_free_in_one_slab);
}
