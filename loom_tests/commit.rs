//! Memory that is mapped once (`meta::Frontier`, `meta::MappedSet`): several threads may want the same part.
//!
//! # Modelled    three threads that want memory of different lengths, or different parts; a word for each page stands for
//!               the kernel, which never maps what is mapped; a stranger's page in the way; a refusal
//! # Asserted    conservation: nothing is mapped twice, so what the kernel says is taken is a stranger's; after a refusal
//!               nothing is mapped, and the next attempt succeeds; what was not in the stranger's way is had.
//!               visibility: nobody is told that a page is there before it is.
//! # Bounds      2 pages, 3 threads, 3 preemptions
#![cfg(loom)]

mod common;

use common::{assert_caught, check, join, spawn};
use loom::sync::atomic::{AtomicU8, Ordering};
use magalloc::metadata::{Frontier, MappedSet, Missing};
use magalloc::sys::NotMapped;
use std::sync::Arc;

const PAGES: usize = 2;
const PREEMPTIONS: Option<usize> = Some(3);
const MISSING: &str = "a page is missing that was said to be there";
const TWICE: &str = "a page is mapped twice";
const LOST: &str = "what was refused once is never had";

const FREE: u8 = 0;
const OURS: u8 = 1;
const STRANGERS: u8 = 2;

struct Memory {
    frontier: Frontier,
    set: MappedSet,
    /// What is mapped. Relaxed: all order must come from the protocol.
    pages: [AtomicU8; PAGES],
}

impl Memory {
    fn new() -> Arc<Self> {
        let pages = core::array::from_fn(|_| AtomicU8::new(FREE));
        Arc::new(Self { frontier: Frontier::new(), set: MappedSet::new(), pages })
    }

    /// The kernel's part: all or nothing.
    fn map(&self, from: usize, to: usize) -> Result<(), NotMapped> {
        assert!(from < to && to <= PAGES, "mapped backwards");
        for page in from..to {
            match self.pages[page].compare_exchange(FREE, OURS, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {}
                Err(OURS) => panic!("{TWICE}"),
                Err(_) => {
                    self.unmap(from, page);
                    return Err(NotMapped::Taken);
                }
            }
        }
        Ok(())
    }

    fn unmap(&self, from: usize, to: usize) {
        self.pages[from..to].iter().for_each(|page| page.store(FREE, Ordering::Relaxed));
    }

    /// Has the kernel map, and then says that it did not.
    fn refuse(&self, from: usize, to: usize) -> Result<(), NotMapped> {
        self.map(from, to)?;
        self.unmap(from, to);
        Err(NotMapped::Refused)
    }

    fn check_there(&self, page: usize) {
        assert_eq!(self.pages[page].load(Ordering::Relaxed), OURS, "{MISSING}");
    }

    /// Wants `pages`, and uses them unless another thread is at it.
    fn grow(&self, pages: usize) {
        match self.frontier.ensure(pages, |from, to| self.map(from, to)) {
            Ok(()) => (0..pages).for_each(|page| self.check_there(page)),
            Err(why) => assert_eq!(why, Missing::Busy, "refused for no reason"),
        }
    }

    /// Wants the pages of `parts`, and uses those that are there.
    fn use_parts(&self, parts: u64) {
        let claimed = self.set.claim(parts);
        self.map_claimed(claimed, Self::map);
        let there = self.set.mapped();
        assert_eq!(claimed & !there, 0, "an announcement is gone");
        Self::each(there & parts).for_each(|page| self.check_there(page));
    }

    /// Maps what the caller has claimed, page by page.
    fn map_claimed(&self, claimed: u64, map: impl Fn(&Self, usize, usize) -> Result<(), NotMapped>) {
        for page in Self::each(claimed) {
            match map(self, page, page + 1) {
                Ok(()) => self.set.announce(1 << page),
                Err(_) => self.set.give_up(1 << page),
            }
        }
    }

    fn each(parts: u64) -> impl Iterator<Item = usize> {
        (0..PAGES).filter(move |page| parts >> page & 1 != 0)
    }
}

fn three_threads_grow() {
    let memory = Memory::new();
    let growers = [1, 2].map(|pages| spawn(&memory, move |memory| memory.grow(pages)));
    memory.grow(2);
    join(growers);
    assert_eq!(memory.frontier.ensure(PAGES, |from, to| memory.map(from, to)), Ok(()), "{LOST}");
    (0..PAGES).for_each(|page| memory.check_there(page));
}

fn three_threads_want_parts() {
    let memory = Memory::new();
    let users = [0b01, 0b11].map(|parts| spawn(&memory, move |memory| memory.use_parts(parts)));
    memory.use_parts(0b11);
    join(users);
    assert_eq!((memory.set.mapped(), memory.set.claim(0b11)), (0b11, 0), "{LOST}");
    (0..PAGES).for_each(|page| memory.check_there(page));
}

fn a_refusal_meets_others() {
    let memory = Memory::new();
    let grower = spawn(&memory, |memory| memory.grow(1));
    let refused = spawn(&memory, |memory| {
        let outcome = memory.frontier.ensure(2, |from, to| memory.refuse(from, to));
        assert!(outcome.is_err(), "{MISSING}");
    });
    memory.grow(1);
    join([grower, refused]);
    assert!(memory.frontier.end() <= 1, "a refused part counts");
    assert_eq!(memory.frontier.ensure(2, |from, to| memory.map(from, to)), Ok(()), "{LOST}");
}

fn a_refused_part_meets_others() {
    let memory = Memory::new();
    let user = spawn(&memory, |memory| memory.use_parts(0b01));
    let refused = spawn(&memory, |memory| {
        let claimed = memory.set.claim(0b11);
        memory.map_claimed(claimed, Memory::refuse);
    });
    memory.use_parts(0b10);
    join([user, refused]);
    let left = memory.set.claim(0b11);
    assert_eq!(memory.set.mapped() | left, 0b11, "{LOST}");
    memory.map_claimed(left, Memory::map);
    (0..PAGES).for_each(|page| memory.check_there(page));
}

fn a_stranger_is_in_the_way() {
    let memory = Memory::new();
    memory.pages[1].store(STRANGERS, Ordering::Relaxed);
    let taken = |memory: &Memory| {
        let outcome = memory.frontier.ensure(2, |from, to| memory.map(from, to));
        assert!(matches!(outcome, Err(Missing::Busy | Missing::Not(NotMapped::Taken))), "{MISSING}");
    };
    let other = spawn(&memory, move |memory| taken(memory));
    let grower = spawn(&memory, |memory| memory.grow(1));
    taken(&memory);
    join([other, grower]);
    assert_eq!(memory.frontier.ensure(1, |from, to| memory.map(from, to)), Ok(()), "{LOST}");
    memory.check_there(0);
    assert_eq!(memory.pages[1].load(Ordering::Relaxed), STRANGERS, "the stranger's page was taken");
}

#[test]
fn nobody_is_told_before_the_pages_are_there() {
    check(PREEMPTIONS, three_threads_grow);
}

#[test]
fn each_part_is_mapped_once() {
    check(PREEMPTIONS, three_threads_want_parts);
}

#[test]
fn a_refusal_leaves_what_was_mapped() {
    check(PREEMPTIONS, a_refusal_meets_others);
}

#[test]
fn a_refused_part_can_be_had_later() {
    check(PREEMPTIONS, a_refused_part_meets_others);
}

#[test]
fn what_a_stranger_has_is_not_touched() {
    check(PREEMPTIONS, a_stranger_is_in_the_way);
}

#[test]
fn announce_before_mapping_is_caught() {
    assert_caught("announce before mapping", MISSING, PREEMPTIONS, three_threads_grow);
}

#[test]
fn relaxed_announcement_is_caught() {
    assert_caught("relaxed announcement", MISSING, PREEMPTIONS, three_threads_grow);
}

#[test]
fn relaxed_announcement_of_a_part_is_caught() {
    assert_caught("relaxed announcement", MISSING, PREEMPTIONS, three_threads_want_parts);
}

#[test]
fn map_without_a_claim_is_caught() {
    assert_caught("map without a claim", TWICE, PREEMPTIONS, three_threads_grow);
}

#[test]
fn map_a_part_without_a_claim_is_caught() {
    assert_caught("map without a claim", TWICE, PREEMPTIONS, three_threads_want_parts);
}

#[test]
fn a_kept_claim_is_caught() {
    assert_caught("keep the claim of what was refused", LOST, PREEMPTIONS, a_refusal_meets_others);
}

#[test]
fn a_kept_claim_of_a_part_is_caught() {
    assert_caught("keep the claim of what was refused", LOST, PREEMPTIONS, a_refused_part_meets_others);
}

#[test]
fn a_kept_claim_behind_a_stranger_is_caught() {
    assert_caught("keep the claim of what was refused", LOST, PREEMPTIONS, a_stranger_is_in_the_way);
}
