//! The table of blocks that are kernel mappings of their own (`depot::mapping_table`).
//!
//! # Modelled    threads that make mappings, end them, and end one of another thread's; a kernel that has one place only, and
//!               gives it anew as soon as the mapping there has ended; a program that frees a block twice at once
//! # Asserted    conservation: of two that free a block, one has it; a live mapping is in the table, of its own length.
//!               visibility: who has a mapping comes after all that the last one did.
//! # Bounds      one slot, 3 threads, 4 preemptions
#![cfg(loom)]

mod common;

use common::{Payload, RACE, assert_caught, check, join, spawn};
use magalloc::depot::mapping_table::{Mapping, MappingTable};
use magalloc::sync::{AtomicU8, AtomicU64, Ordering};
use std::sync::Arc;

const PREEMPTIONS: Option<usize> = Some(4);
const TWICE: &str = "two threads have the same block";
const LOST: &str = "a live block is not found";

/// The only place that the kernel has.
const START: usize = 0x7000;

struct Machine {
    words: [AtomicU64; 1],
    /// 1 while something is mapped at the place.
    is_mapped: AtomicU8,
    /// What only who has the mapping touches.
    contents: Payload,
}

impl Machine {
    fn new() -> Arc<Self> {
        Arc::new(Self { words: [AtomicU64::new(0)], is_mapped: AtomicU8::new(0), contents: Payload::new() })
    }

    fn table(&self) -> MappingTable<'_> {
        MappingTable(&self.words)
    }

    /// Makes a mapping, if the kernel has its place free. The kernel's lock orders it after the end of the last one.
    fn make(&self, granules: usize) -> Option<Mapping> {
        let mapping = Mapping { start: START, bytes: (1 << 28) + (granules << 16) };
        if self.is_mapped.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return None;
        }
        self.contents.touch();
        assert!(self.table().put(mapping), "{LOST}");
        Some(mapping)
    }

    /// Frees the block at the place; `false` where there is none.
    fn free(&self) -> bool {
        let Some(_mapping) = self.table().take(START) else { return false };
        self.contents.touch();
        assert_eq!(self.is_mapped.swap(0, Ordering::AcqRel), 1, "{TWICE}");
        true
    }
}

/// One thread frees a block while others make theirs, and use and free them.
fn ended_and_made() {
    let machine = Machine::new();
    machine.make(1);
    let makers = [2, 3].map(|granules| {
        spawn(&machine, move |machine: &Machine| {
            if let Some(mapping) = machine.make(granules) {
                assert_eq!(machine.table().find(START), Some(mapping), "{LOST}");
                assert!(machine.free(), "{LOST}");
            }
        })
    });
    assert!(machine.free(), "{LOST}");
    join(makers);
    assert_eq!(machine.is_mapped.load(Ordering::Acquire), 0);
    assert_eq!(machine.table().at(0), None);
}

#[test]
fn a_place_that_is_used_again_at_once_has_the_new_block() {
    check(PREEMPTIONS, ended_and_made);
}

/// Two threads free the same block.
fn freed_twice() {
    let machine = Machine::new();
    machine.make(1);
    let other = spawn(&machine, Machine::free);
    let mine = machine.free();
    let [others] = join([other]);
    assert_eq!(u8::from(mine) + u8::from(others), 1, "{TWICE}");
}

#[test]
fn one_of_two_that_free_a_block_has_it() {
    check(PREEMPTIONS, freed_twice);
}

#[test]
fn a_take_by_store_is_caught() {
    assert_caught("take by store", RACE, PREEMPTIONS, freed_twice);
}

/// Two mappings that begin in one slot (which the kernel never makes, as none is so short).
fn made_in_one_slot() {
    let words = Arc::new([AtomicU64::new(0)]);
    let put = |start: usize| move |words: &[AtomicU64; 1]| MappingTable(words).put(Mapping { start, bytes: 1 << 28 });
    let other = spawn(&words, put(START));
    let mine = put(2 * START)(&words);
    let [others] = join([other]);
    assert_eq!(u8::from(mine) + u8::from(others), 1, "{LOST}");
}

#[test]
fn a_slot_that_is_in_use_is_left_alone() {
    check(PREEMPTIONS, made_in_one_slot);
}

#[test]
fn a_put_by_store_is_caught() {
    assert_caught("put by store", LOST, PREEMPTIONS, made_in_one_slot);
}
