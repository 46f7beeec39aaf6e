//! The hierarchical bitset that says where there may be something (`summary`).
//!
//! # Modelled    two threads put something at a place each, or at the same one, and one or two search, take what they find
//!               and clear the bits; places under the same word, and under different words of each level
//! # Asserted    conservation: what was put was taken once, or is found by a search at the end.
//! # Bounds      words of 2 bits, so 8 places at three levels; 3 threads, 3 preemptions
#![cfg(loom)]

mod common;

use common::{assert_caught, check, join, spawn};
use magalloc::summary::Summary;
use magalloc::sync::{AtomicU8, Ordering};
use std::sync::Arc;

const PREEMPTIONS: Option<usize> = Some(3);
const PLACES: usize = 8;
const LOST: &str = "what was put is not found any more";

struct Things {
    summary: Summary<4, 2>,
    /// How many things are at each place. Relaxed, but for what the summary orders.
    things: [AtomicU8; PLACES],
}

impl Things {
    fn new() -> Arc<Self> {
        Arc::new(Self { summary: Summary::new(), things: core::array::from_fn(|_| AtomicU8::new(0)) })
    }

    fn put(&self, place: usize) {
        self.things[place].fetch_add(1, Ordering::Relaxed);
        self.summary.only().note(place);
    }

    /// Takes what is there by a load and an exchange, as a remote-free queue is taken.
    fn take_at(&self, place: usize) -> u8 {
        match self.things[place].load(Ordering::Relaxed) {
            0 => 0,
            _ => self.things[place].swap(0, Ordering::Relaxed),
        }
    }

    /// Takes everything that a search finds.
    fn take(&self) -> u8 {
        let (mut taken, mut from) = (0, 0);
        while let Some(place) = self.summary.only().next(from) {
            self.summary.only().clear(place, || {
                taken += self.take_at(place);
                false
            });
            from = place + 1;
        }
        taken
    }

    /// Looks for something, takes nothing, and clears the bits of places where there is nothing.
    fn look(&self) -> u8 {
        let mut from = 0;
        while let Some(place) = self.summary.only().next(from) {
            let is_there = || self.things[place].load(Ordering::Relaxed) != 0;
            if !is_there() {
                self.summary.only().clear(place, is_there);
            }
            from = place + 1;
        }
        0
    }
}

/// Two threads put things at `places` while a third searches by `search`.
fn put_and_search(places: [usize; 2], search: fn(&Things) -> u8) -> impl Fn() + Send + Sync + 'static {
    move || {
        let things = Things::new();
        let putters = places.map(|place| {
            spawn(&things, move |things: &Things| {
                things.put(place);
                0
            })
        });
        let taken = search(&things);
        join(putters);
        assert_eq!(taken + things.take(), 2, "{LOST}");
    }
}

#[test]
fn what_is_put_at_one_place_is_found() {
    check(PREEMPTIONS, put_and_search([5, 5], Things::take));
}

#[test]
fn what_is_put_under_one_word_is_found() {
    check(PREEMPTIONS, put_and_search([4, 5], Things::take));
}

#[test]
fn what_is_put_under_neighbouring_words_is_found() {
    check(PREEMPTIONS, put_and_search([4, 6], Things::take));
}

#[test]
fn what_is_put_far_apart_is_found() {
    check(PREEMPTIONS, put_and_search([0, 7], Things::take));
}

/// A thread takes what there was and another looks in vain, while a third puts something there again.
fn taken_and_put_again() {
    let things = Things::new();
    things.put(3);
    let putter = spawn(&things, |things: &Things| {
        things.put(3);
        0
    });
    let looker = spawn(&things, Things::look);
    let taken = things.take();
    join([putter, looker]);
    assert_eq!(taken + things.take(), 2, "{LOST}");
}

#[test]
fn what_is_put_again_is_found() {
    check(PREEMPTIONS, taken_and_put_again);
}

#[test]
fn a_note_without_a_fence_is_caught() {
    assert_caught("note without a fence", LOST, PREEMPTIONS, taken_and_put_again);
}

#[test]
fn a_bit_cleared_without_a_second_look_is_caught() {
    assert_caught("cleared without a second look", LOST, PREEMPTIONS, || {
        let things = Things::new();
        things.summary.only().note(3);
        let putter = spawn(&things, |things: &Things| {
            things.put(3);
            0
        });
        things.look();
        join([putter]);
        assert_eq!(things.take(), 1, "{LOST}");
    });
}

#[test]
fn an_upper_bit_cleared_without_a_second_look_is_caught() {
    assert_caught("upper bit cleared without a second look", LOST, PREEMPTIONS, put_and_search([4, 5], Things::take));
}

#[test]
fn an_upper_bit_that_is_seen_and_not_set_is_caught() {
    assert_caught("bit not set where it is seen", LOST, PREEMPTIONS, put_and_search([4, 5], Things::take));
}
