//! Partial slabs of the depot (`chunk::partial_set`), and when an empty one leaves it (`depot::slabs`).
//!
//! # Modelled    putting and taking by class; a hint that is cleared while a slab is put; a granule that becomes a
//!               slab of another class between a taker's look and its taking; the last block of a slab that comes
//!               home while the slab is put; the last blocks of two words that come home at once
//! # Asserted    conservation: a slab has one holder at a time and is found by a take of its class at the end; an
//!               empty slab does not stay.
//!               visibility: a slab's next holder comes after its last one.
//! # Bounds      2 classes, 2 chunks, up to 2 slabs, 3 threads, 4 preemptions
#![cfg(loom)]

mod common;

use common::{Payload, RACE, assert_caught, check};
use loom::thread;
use magalloc::chunk::partial_set::{PartialSet, Place};
use magalloc::size_class;
use magalloc::slab::Slab;
use magalloc::slab::bitmap::FreeWord;
use magalloc::sync::{AtomicU8, Ordering};
use magalloc::units::ClassIndex;
use std::sync::Arc;

const SLABS: usize = 2;
const PREEMPTIONS: Option<usize> = Some(4);
const LOST: &str = "a slab cannot be found any more";
const WRONG_CLASS: &str = "a slab of another class was handed out";
const STAYS: &str = "an empty slab stays in the depot";

fn class(number: usize) -> ClassIndex {
    size_class::all().nth(number).expect("a model has two classes")
}

/// Slab 0 is in chunk 0, slab 1 in chunk 1.
fn place(slab: usize) -> Place {
    Place { chunk: slab, granule: 5 }
}

struct Depot {
    partial: PartialSet<2>,
    /// What the page map says of each slab.
    classes: [AtomicU8; SLABS],
    /// What only a slab's holder touches.
    held: [Payload; SLABS],
}

impl Depot {
    /// The caller holds all slabs; they are of class 0.
    fn new() -> Arc<Self> {
        Arc::new(Self {
            partial: PartialSet::new(),
            classes: core::array::from_fn(|_| AtomicU8::new(0)),
            held: core::array::from_fn(|_| Payload::new()),
        })
    }

    fn class_of(&self, slab: usize) -> ClassIndex {
        // Relaxed, as in the page map.
        class(self.classes[slab].load(Ordering::Relaxed).into())
    }

    /// The holder retires the slab, and the granule becomes a slab of that class, which it holds too.
    fn change_class(&self, slab: usize, class: u8) {
        self.held[slab].touch();
        self.classes[slab].store(class, Ordering::Relaxed);
    }

    fn put(&self, slab: usize) {
        self.held[slab].touch();
        self.partial.put(place(slab), self.class_of(slab));
    }

    fn take(&self, class: ClassIndex) -> Option<usize> {
        let class_of = |place: Place| Some(self.class_of(place.chunk));
        let give_back = |place, class| self.partial.put(place, class);
        let slab = self.partial.take(class, class_of, give_back)?.chunk;
        self.held[slab].touch();
        assert_eq!(self.class_of(slab), class, "{WRONG_CLASS}");
        Some(slab)
    }

    /// At rest: the slabs that `taken` does not have can be taken by class, and nothing else.
    fn check(&self, taken: impl IntoIterator<Item = usize>) {
        let mut seen = [false; SLABS];
        let rest = [0, 1].map(class).into_iter().flat_map(|class| core::iter::from_fn(move || self.take(class)));
        for slab in taken.into_iter().chain(rest) {
            assert!(!seen[slab], "a slab has two holders");
            seen[slab] = true;
        }
        assert!(seen.iter().all(|&seen| seen), "{LOST}");
    }
}

/// One slab is there, one is being put, two threads take.
fn two_take_what_one_puts() {
    let depot = Depot::new();
    depot.put(0);
    let putter = Arc::clone(&depot);
    let putter = thread::spawn(move || putter.put(1));
    let taker = Arc::clone(&depot);
    let taker = thread::spawn(move || taker.take(class(0)));
    let own = depot.take(class(0));
    putter.join().unwrap();
    depot.check(own.into_iter().chain(taker.join().unwrap()));
}

/// The hint says that chunk 0 may have a slab; it has none; one is put while two takers find that out.
fn a_hint_is_cleared_while_a_slab_is_put() {
    let depot = Depot::new();
    depot.put(0);
    assert!(depot.partial.take_this(place(0)));
    let putter = Arc::clone(&depot);
    let putter = thread::spawn(move || putter.put(0));
    let taker = Arc::clone(&depot);
    let taker = thread::spawn(move || taker.take(class(0)));
    let own = depot.take(class(0));
    putter.join().unwrap();
    depot.check([1].into_iter().chain(own).chain(taker.join().unwrap()));
}

/// Slab 0 is taken, becomes a slab of class 1 and is put again, while others want class 0 or class 1.
fn a_granule_changes_its_class() {
    let depot = Depot::new();
    depot.put(0);
    let changer = Arc::clone(&depot);
    let changer = thread::spawn(move || {
        if let Some(slab) = changer.take(class(0)) {
            changer.change_class(slab, 1);
            changer.put(slab);
        }
    });
    let other = Arc::clone(&depot);
    let other = thread::spawn(move || other.take(class(1)));
    let own = depot.take(class(0));
    changer.join().unwrap();
    depot.check([1].into_iter().chain(own).chain(other.join().unwrap()));
}

/// A slab of two blocks: one is free, the other comes home while the slab is put.
struct LastBlock {
    partial: PartialSet<2>,
    word: FreeWord,
    /// How often the slab was retired; only for its holder.
    retired: Payload,
}

const ALL: u64 = 0b11;

impl LastBlock {
    /// What `Depot::give_slab` does, for the holder.
    fn give(&self) {
        if self.word.look() == ALL {
            let taken = self.word.claim_all();
            if taken == ALL {
                self.retired.touch();
                return;
            }
            let _ = self.word.release(taken);
        }
        self.partial.put(place(0), class(0));
        if self.word.look() == ALL {
            self.retire_if_partial();
        }
    }

    fn retire_if_partial(&self) {
        if self.partial.take_this(place(0)) {
            self.give();
        }
    }
}

fn the_last_block_comes_home() {
    let slab = LastBlock { partial: PartialSet::new(), word: FreeWord::new(0b01), retired: Payload::new() };
    let slab = Arc::new(slab);
    let releaser = Arc::clone(&slab);
    let releaser = thread::spawn(move || {
        let _ = releaser.word.release(0b10);
        // It was the last: what `retire_if_free` does.
        releaser.retire_if_partial();
    });
    slab.give();
    releaser.join().unwrap();
    assert_eq!(slab.partial.members(0), 0, "{STAYS}");
    slab.retired.own(|times| assert_eq!(*times, 1, "a slab was retired twice, or never"));
}

/// A slab of two words of one block each, in the depot; both blocks are in use.
struct LastWords {
    partial: PartialSet<2>,
    descriptor: Slab,
    words: [FreeWord; 2],
    /// How often the slab was retired; only for its holder.
    retired: Payload,
}

impl LastWords {
    /// What a flush does that fills a word: `release`, `retire_if_free`, `Depot::retire_if_partial`.
    fn fill(&self, word: usize) {
        let _ = self.words[word].release(1);
        self.descriptor.after_full_word();
        if self.words.iter().all(|word| word.look() == 1) && self.partial.take_this(place(0)) {
            assert!(self.words.iter().all(|word| word.claim_all() == 1), "its blocks are free for the holder alone");
            self.retired.touch();
        }
    }
}

fn the_last_blocks_of_two_words_come_home() {
    let slab = Arc::new(LastWords {
        partial: PartialSet::new(),
        descriptor: Slab::new(),
        words: [FreeWord::new(0), FreeWord::new(0)],
        retired: Payload::new(),
    });
    slab.partial.put(place(0), class(0));
    let other = Arc::clone(&slab);
    let other = thread::spawn(move || other.fill(0));
    slab.fill(1);
    other.join().unwrap();
    assert_eq!(slab.partial.members(0), 0, "{STAYS}");
    slab.retired.own(|times| assert_eq!(*times, 1, "a slab was retired twice, or never"));
}

#[test]
fn slabs_have_one_holder_at_a_time() {
    check(PREEMPTIONS, two_take_what_one_puts);
}

#[test]
fn a_slab_put_behind_a_cleared_hint_is_found() {
    check(PREEMPTIONS, a_hint_is_cleared_while_a_slab_is_put);
}

#[test]
fn a_slab_is_taken_by_the_class_it_has() {
    check(PREEMPTIONS, a_granule_changes_its_class);
}

#[test]
fn an_empty_slab_does_not_stay() {
    check(PREEMPTIONS, the_last_block_comes_home);
}

#[test]
fn a_slab_emptied_by_two_threads_does_not_stay() {
    check(PREEMPTIONS, the_last_blocks_of_two_words_come_home);
}

#[test]
fn look_at_once_is_caught() {
    assert_caught("look at once", STAYS, PREEMPTIONS, the_last_blocks_of_two_words_come_home);
}

#[test]
fn take_by_load_is_caught() {
    assert_caught("take by load", RACE, PREEMPTIONS, two_take_what_one_puts);
}

#[test]
fn relaxed_put_is_caught() {
    // In the other model the hint's own ordering would hide it.
    assert_caught("relaxed put", RACE, PREEMPTIONS, a_hint_is_cleared_while_a_slab_is_put);
}

#[test]
fn hint_cleared_without_a_second_look_is_caught() {
    let model = a_hint_is_cleared_while_a_slab_is_put;
    assert_caught("hint cleared without a second look", LOST, PREEMPTIONS, model);
}

#[test]
fn class_not_looked_at_again_is_caught() {
    assert_caught("class not looked at again", WRONG_CLASS, PREEMPTIONS, a_granule_changes_its_class);
}

#[test]
fn put_without_acquire_is_caught() {
    assert_caught("put without acquire", STAYS, PREEMPTIONS, the_last_block_comes_home);
}
