//! A thread's stash (`local::stash`): full magazines that it pushes and pops, and that others may take while it does.
//!
//! # Modelled    the owner pushes, pops, uses a magazine that it popped again, and moves all to an older stash; one or two
//!               threads take all of both
//! # Asserted    conservation: every magazine comes out exactly once.
//!               visibility: who takes a magazine out comes after who put it in.
//!               accounting: when the owner has looked, it counts what is there
//! # Bounds      2 magazines, 2 pushes of the first one; 2 threads with every interleaving, 3 threads with 3
//! preemptions
#![cfg(loom)]

mod common;

use common::{Payload, RACE, assert_caught, check, join, spawn};
use loom::thread;
use magalloc::local::stash::{Chain, Full, Links, Magazine, Stash};
use magalloc::sync::AtomicPtr;
use std::sync::Arc;

const MAGAZINES: usize = 2;
const PREEMPTIONS: Option<usize> = Some(3);
/// First slot of the magazines: they hold 28 blocks.
const START: u8 = 100;
const BLOCKS: usize = 28;

struct Cache {
    stash: Stash,
    older: Stash,
    links: LinkTable,
    magazines: [Payload; MAGAZINES],
}

struct LinkTable([AtomicPtr<u8>; MAGAZINES]);

/// A magazine's address tells its number.
fn magazine(number: usize) -> Full {
    Full { magazine: core::ptr::without_provenance_mut((number + 1) * Full::ALIGN), start: START }
}

fn number(full: Full) -> usize {
    assert_eq!(full.start, START);
    full.magazine.addr() / Full::ALIGN - 1
}

impl Links for LinkTable {
    fn link(&self, magazine: *mut Magazine) -> &AtomicPtr<u8> {
        &self.0[magazine.addr() / Full::ALIGN - 1]
    }
}

impl Cache {
    /// The owner has stashed number 0; number 1 is in its hand.
    fn new() -> Arc<Self> {
        let cache = Self {
            stash: Stash::new(),
            older: Stash::new(),
            links: LinkTable(core::array::from_fn(|_| AtomicPtr::new(core::ptr::null_mut()))),
            magazines: core::array::from_fn(|_| Payload::new()),
        };
        cache.push(0);
        Arc::new(cache)
    }

    fn push(&self, number: usize) {
        self.magazines[number].touch();
        let _lost = self.stash.push(magazine(number), &self.links);
    }

    fn pop(&self) -> Option<usize> {
        let popped = number(self.stash.pop(&self.links)?);
        self.magazines[popped].touch();
        Some(popped)
    }

    /// Takes all, as another thread.
    fn take_all(&self) -> Vec<usize> {
        let taken = [&self.older, &self.stash].map(|stash| {
            let mut chain: Chain = stash.take_all();
            core::iter::from_fn(|| chain.pop(&self.links)).map(number).collect::<Vec<usize>>()
        });
        let taken = taken.concat();
        taken.iter().for_each(|&number| self.magazines[number].touch());
        taken
    }

    /// At rest: each magazine came out once, or is still in.
    fn check(&self, mut out: Vec<usize>) {
        let _lost = self.stash.forget_lost() + self.older.forget_lost();
        let counted = self.stash.blocks() + self.older.blocks();
        let mut rest: Vec<usize> = core::iter::from_fn(|| self.pop()).collect();
        rest.extend(core::iter::from_fn(|| self.older.pop(&self.links)).map(number));
        assert_eq!(counted, rest.len() * BLOCKS, "the owner counts what is there");
        out.extend(rest);
        out.sort_unstable();
        assert_eq!(out, [0, 1], "a magazine is lost, or came out twice");
    }
}

/// The owner pops, goes on with what it popped, and puts it in again on top of the other one.
fn owner(cache: &Cache) -> Vec<usize> {
    let popped = cache.pop();
    cache.push(1);
    popped.into_iter().for_each(|number| cache.push(number));
    let _lost = cache.stash.move_to(&cache.older);
    Vec::new()
}

fn one_takes() {
    let cache = Cache::new();
    let taker = spawn(&cache, Cache::take_all);
    let mut out = owner(&cache);
    out.extend(taker.join().unwrap());
    cache.check(out);
}

fn two_take() {
    let cache = Cache::new();
    let takers = [(); 2].map(|()| spawn(&cache, Cache::take_all));
    let mut out = owner(&cache);
    out.extend(join(takers).into_iter().flatten());
    thread::yield_now();
    cache.check(out);
}

#[test]
fn magazines_come_out_once() {
    check(None, one_takes);
}

#[test]
fn magazines_come_out_once_with_two_takers() {
    check(PREEMPTIONS, two_take);
}

#[test]
fn pop_by_store_is_caught() {
    assert_caught("pop by store", RACE, None, one_takes);
}

#[test]
fn relaxed_move_is_caught() {
    // Who takes it reads an old link.
    assert_caught("relaxed move", "a magazine is lost", None, one_takes);
}

#[test]
fn relaxed_stash_is_caught() {
    assert_caught("relaxed stash", RACE, None, one_takes);
}
