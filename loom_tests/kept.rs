//! Slabs that a local heap keeps (`local::kept`), and a thread that takes them because the local heap's does not use them.
//!
//! # Modelled    who has the local heap refills from its current slab, pops from its list and pushes to it
//!               (`LocalSlabs::list_pop`, `list_push`), while one or two others take what is there (`LocalSlabs::give_class`)
//! # Asserted    conservation: each slab is taken once, or is there at the end. visibility: whoever takes a slab comes after
//!               whoever had it; a chain's links are those of its last holder.
//! # Bounds      2 slabs, 2 threads, all interleavings; 3 threads, 3 preemptions
#![cfg(loom)]

mod common;

use common::{Payload, RACE, assert_caught, check, join, spawn};
use magalloc::local::kept::Kept;
use magalloc::units::{GranuleIndex, SlabId};
use std::sync::Arc;

const SLABS: usize = 2;
const TWICE: &str = "a slab is in two places, or in none";

fn slab(number: usize) -> SlabId {
    SlabId::new(0, GranuleIndex::new(number))
}

fn number(slab: SlabId) -> usize {
    slab.granule().get()
}

struct LocalSlabs {
    current: Kept,
    list: Kept,
    /// Of each slab, its link as `SlabId::raw_option` has it: only its holder touches it.
    links: [Payload; SLABS],
}

impl LocalSlabs {
    /// Slab 0 is the current one, slab 1 is in the list.
    fn new() -> Arc<Self> {
        let slabs = Self { current: Kept::new(), list: Kept::new(), links: core::array::from_fn(|_| Payload::new()) };
        slabs.current.put(Some(slab(0)));
        slabs.list.put(Some(slab(1)));
        Arc::new(slabs)
    }

    fn link(&self, of: SlabId) -> Option<SlabId> {
        SlabId::from_raw(self.links[number(of)].own(|link| *link) as u32)
    }

    fn list_push(&self, slab: SlabId) {
        let next = self.list.take();
        self.links[number(slab)].own(|link| *link = SlabId::raw_option(next).into());
        self.list.put(Some(slab));
    }

    fn list_pop(&self) -> Option<SlabId> {
        let first = self.list.take()?;
        self.list.put(self.link(first));
        self.links[number(first)].own(|link| *link = 0);
        Some(first)
    }

    /// Takes all; how often each slab was in it.
    fn give_class(&self) -> [usize; SLABS] {
        let mut seen = [0; SLABS];
        for first in [self.list.take(), self.current.take()] {
            let mut next = first;
            while let Some(slab) = next {
                seen[number(slab)] += 1;
                assert!(seen[number(slab)] == 1, "{TWICE}");
                next = self.links[number(slab)].own(|link| SlabId::from_raw(core::mem::take(link) as u32));
            }
        }
        seen
    }
}

/// The local heap's thread puts its current slab in the list and goes on with the first one there.
fn refill(slabs: &LocalSlabs) {
    if let Some(current) = slabs.current.take() {
        slabs.list_push(current);
    }
    slabs.current.put(slabs.list_pop());
}

fn others_take<const OTHERS: usize>() {
    let slabs = LocalSlabs::new();
    let others = [(); OTHERS].map(|()| spawn(&slabs, LocalSlabs::give_class));
    refill(&slabs);
    let left = join(others).into_iter().fold(slabs.give_class(), |mut all, taken| {
        all.iter_mut().zip(taken).for_each(|(all, taken)| *all += taken);
        all
    });
    assert_eq!(left, [1; SLABS], "{TWICE}");
}

#[test]
fn a_kept_slab_has_one_holder() {
    check(None, others_take::<1>);
}

#[test]
fn a_kept_slab_has_one_holder_with_two_takers() {
    check(Some(3), others_take::<2>);
}

#[test]
fn take_by_load_is_caught() {
    assert_caught("take by load", "", None, others_take::<1>);
}

#[test]
fn relaxed_take_is_caught() {
    assert_caught("relaxed take", RACE, None, others_take::<1>);
}
