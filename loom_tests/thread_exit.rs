//! A thread ends while others free blocks of its slabs: the notify stack, the orphans and the partial slabs together.
//!
//! # Modelled    `Owners::orphan`: the owner closes its stack, gives its slabs to the depot and its number up;
//!               `Owners::queue`: remote frees that push on the stack or, where it is closed, give to the depot;
//!               `Owners::adopt`: a new thread that takes the number and what is pushed for it
//! # Asserted    conservation: at the end each slab with a free block is in exactly one place: with the new thread,
//!               on an open stack, or in the depot; nothing is on a closed stack; all blocks are there.
//!               visibility: a slab's next holder comes after its last one, an owner's next thread likewise.
//! # Bounds      3 slabs of 2 words, 4 threads, 3 preemptions; with two frees in one slab 3 threads, 4 preemptions
#![cfg(loom)]

mod common;

use common::{Payload, RACE, assert_caught, check};
use loom::thread;
use magalloc::chunk_group::partial_set::{PartialSet, Place};
use magalloc::owner::notify::NotifyStack;
use magalloc::owner::number_set::NumberSet;
use magalloc::size_class;
use magalloc::slab::Slab;
use magalloc::slab::bitmap::{FreeWord, Released};
use magalloc::sync::planted::bug;
use magalloc::units::{ClassIndex, GranuleIndex, SlabId};
use std::sync::Arc;

const SLABS: usize = 3;
const WORDS: usize = 2;
const FORGOTTEN: &str = "a free block is where nobody will find it";

/// A slab of `WORDS` words with one block each.
struct TestSlab {
    descriptor: Slab,
    words: [FreeWord; WORDS],
    blocks: [Payload; WORDS],
    /// What only the holder touches.
    held: Payload,
}

impl TestSlab {
    fn has_free(&self) -> bool {
        self.words.iter().any(|word| word.look() != 0)
    }
}

/// The owner with number 0, its slabs, and the depot.
struct Heap {
    slabs: [TestSlab; SLABS],
    notified: NotifyStack,
    /// The slabs in the owner's list, as bits; only for the owner's thread.
    list: Payload,
    orphans: NumberSet,
    partial: PartialSet<1>,
}

fn class() -> ClassIndex {
    size_class::all().next().expect("there are classes")
}

impl Heap {
    /// The calling thread is the owner. Slabs 0 and 1 are exhausted and in no queue; slab 2 is in its list, with a
    /// free block.
    fn new() -> Arc<Self> {
        let heap = Self {
            slabs: core::array::from_fn(|slab| TestSlab {
                descriptor: Slab::new(),
                words: core::array::from_fn(|word| FreeWord::new(u64::from(slab == 2 && word == 1))),
                blocks: core::array::from_fn(|_| Payload::new()),
                held: Payload::new(),
            }),
            notified: NotifyStack::new(),
            list: Payload::new(),
            orphans: NumberSet::new(),
            partial: PartialSet::new(),
        };
        for slab in &heap.slabs {
            slab.descriptor.begin(1);
        }
        for slab in &heap.slabs[..2] {
            assert!(!slab.descriptor.leave_queue(|| slab.has_free()));
        }
        heap.list.own(|slabs| *slabs = 0b100);
        Arc::new(heap)
    }

    /// The slabs of a chain, for their holder.
    fn chain(&self, first: Option<SlabId>) -> Vec<usize> {
        let mut slabs = Vec::new();
        let mut next = first;
        while let Some(id) = next {
            let slab = id.granule().get();
            self.slabs[slab].held.touch();
            next = self.slabs[slab].descriptor.link();
            assert!(slabs.len() < SLABS, "a slab is in a queue twice");
            slabs.push(slab);
        }
        slabs
    }

    fn list(&self) -> Vec<usize> {
        let bits = self.list.own(core::mem::take);
        (0..SLABS).filter(|slab| bits >> slab & 1 != 0).collect()
    }

    /// `Depot::give_slab`, for the holder of a slab that is not empty.
    fn give(&self, slab: usize) {
        self.slabs[slab].held.touch();
        self.partial.put(Place { chunk: 0, granule: slab }, class());
    }

    /// `Owners::dissolve` of one block, by a thread that is not the owner.
    fn free(&self, slab: usize, block: usize) {
        let number = slab;
        let slab = &self.slabs[number];
        slab.blocks[block].touch();
        let Released::First { .. } = slab.words[block].release(1) else { return };
        if slab.descriptor.enter_queue() {
            slab.held.touch();
            let id = SlabId::new(0, GranuleIndex::new(number));
            let pushed = self.notified.push(id, |next| slab.descriptor.set_link(next));
            if pushed.is_err() && !bug("closed is forgotten") {
                self.give(number);
            }
        }
    }

    /// `Owners::orphan`.
    fn end(&self) {
        let pushed = self.chain(self.notified.close());
        pushed.into_iter().chain(self.list()).for_each(|slab| self.give(slab));
        self.orphans.put(0);
    }

    /// `Owners::adopt`, and a refill that looks at what was pushed. Is the calling thread the owner now?
    fn begin(&self) -> bool {
        if self.orphans.take(1).is_none() {
            return false;
        }
        assert!(self.list().is_empty(), "an orphan has slabs");
        self.notified.open();
        let pushed = self.chain(self.notified.take_all());
        self.list.own(|slabs| *slabs = pushed.iter().fold(0, |slabs, slab| slabs | 1 << slab));
        true
    }

    /// At rest: every slab with a free block is in one place, and all `blocks` are there.
    fn check(&self, adopted: bool, blocks: u32) {
        let pushed = self.chain(self.notified.close());
        assert!(adopted || pushed.is_empty(), "a slab is on a closed stack");
        let given = core::iter::from_fn(|| {
            Some(self.partial.take(class(), |_| Some(class()), |place, class| self.partial.put(place, class))?.granule)
        });
        let mut seen = [false; SLABS];
        for slab in pushed.into_iter().chain(self.list()).chain(given) {
            assert!(!seen[slab], "a slab is in two places");
            seen[slab] = true;
            self.slabs[slab].held.touch();
        }
        for (slab, seen) in self.slabs.iter().zip(seen) {
            assert_eq!(slab.has_free(), seen, "{FORGOTTEN}");
            assert_eq!(slab.descriptor.is_queued(), seen, "the flag of a slab is wrong");
        }
        let free: u32 = self.slabs.iter().flat_map(|slab| &slab.words).map(|word| word.claim_all().count_ones()).sum();
        assert_eq!(free, blocks, "blocks are lost");
    }
}

fn spawn<R: 'static>(heap: &Arc<Heap>, work: impl FnOnce(&Heap) -> R + 'static) -> thread::JoinHandle<R> {
    let heap = Arc::clone(heap);
    thread::spawn(move || work(&heap))
}

/// The owner ends, two others free blocks of two of its slabs, a new thread begins.
fn one_ends_one_begins_two_free() {
    let heap = Heap::new();
    let first = spawn(&heap, |heap| heap.free(0, 0));
    let second = spawn(&heap, |heap| heap.free(1, 0));
    let next = spawn(&heap, Heap::begin);
    heap.end();
    first.join().unwrap();
    second.join().unwrap();
    let adopted = next.join().unwrap();
    heap.check(adopted, 3);
}

/// The owner ends, another thread frees into one of its slabs, a third fetches what was pushed, as a refill does that
/// would map new memory.
fn one_ends_one_frees_one_fetches() {
    let heap = Heap::new();
    let free = spawn(&heap, |heap| heap.free(0, 0));
    let fetch = spawn(&heap, |heap| heap.chain(heap.notified.take_all()).into_iter().for_each(|slab| heap.give(slab)));
    heap.end();
    free.join().unwrap();
    fetch.join().unwrap();
    heap.check(false, 2);
}

/// The owner ends and begins again, while others free the two blocks of one slab.
fn one_ends_two_free_in_one_slab() {
    let heap = Heap::new();
    let frees = [0, 1].map(|block| spawn(&heap, move |heap| heap.free(0, block)));
    heap.end();
    let adopted = heap.begin();
    assert!(adopted);
    frees.into_iter().for_each(|free| free.join().unwrap());
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
    assert_caught("relaxed orphan", RACE, Some(3), one_ends_one_begins_two_free);
}

#[test]
fn enter_by_load_is_caught() {
    assert_caught("enter by load", RACE, Some(4), one_ends_two_free_in_one_slab);
}
