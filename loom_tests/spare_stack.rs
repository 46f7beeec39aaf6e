//! Stack of spare magazines (`depot::spare`): the one structure with a single pop.
//!
//! # Modelled    threads that take magazines, fill them and give them back, in the order that makes ABA
//! # Asserted    conservation: at the end every magazine is on the stack once, none was handed out twice.
//!               visibility: a magazine's next owner comes after its last one.
//! # Bounds      2 magazines; 3 threads, 3 preemptions; ABA with 2 threads, every interleaving
#![cfg(loom)]

mod common;

use common::{Payload, RACE, assert_caught, check};
use loom::thread;
use magalloc::depot::spare::SpareStack;
use magalloc::sync::AtomicU32;
use std::sync::Arc;

const MAGAZINES: usize = 2;
const PREEMPTIONS: Option<usize> = Some(3);

struct Pool {
    spare: SpareStack,
    links: [AtomicU32; MAGAZINES],
    magazines: [Payload; MAGAZINES],
}

impl Pool {
    /// All magazines are spare, number 0 on top.
    fn new() -> Arc<Self> {
        let pool = Self {
            spare: SpareStack::new(),
            links: core::array::from_fn(|_| AtomicU32::new(0)),
            magazines: core::array::from_fn(|_| Payload::new()),
        };
        (0..MAGAZINES as u32).rev().for_each(|number| pool.give(number));
        Arc::new(pool)
    }

    fn take(&self) -> Option<u32> {
        let number = self.spare.pop(|number| &self.links[number as usize])?;
        self.magazines[number as usize].touch();
        Some(number)
    }

    fn give(&self, number: u32) {
        self.magazines[number as usize].touch();
        self.spare.push(number, |number| &self.links[number as usize]);
    }

    /// At rest: every magazine is spare, once.
    fn check(&self) {
        let mut seen = [false; MAGAZINES];
        while let Some(number) = self.take() {
            assert!(!seen[number as usize], "a magazine is on the stack twice");
            seen[number as usize] = true;
        }
        assert!(seen.iter().all(|&seen| seen), "a magazine is lost");
    }
}

/// One thread's pop may sleep between its look at the top and its exchange, while the other pops both magazines and
/// gives the first one back.
fn a_pop_sleeps() {
    let pool = Pool::new();
    let sleeper = Arc::clone(&pool);
    let sleeper = thread::spawn(move || sleeper.take());
    let (first, second) = (pool.take(), pool.take());
    first.into_iter().for_each(|number| pool.give(number));
    let third = pool.take();
    let slept = sleeper.join().unwrap();
    for number in [second, third, slept].into_iter().flatten() {
        pool.give(number);
    }
    pool.check();
}

fn three_threads_take_and_give() {
    let pool = Pool::new();
    let threads = [(); 2].map(|()| {
        let pool = Arc::clone(&pool);
        thread::spawn(move || pool.take().into_iter().for_each(|number| pool.give(number)))
    });
    pool.take().into_iter().for_each(|number| pool.give(number));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    pool.check();
}

#[test]
fn a_pop_that_slept_does_not_install_an_old_link() {
    check(None, a_pop_sleeps);
}

#[test]
fn magazines_have_one_owner_at_a_time() {
    check(PREEMPTIONS, three_threads_take_and_give);
}

#[test]
fn no_tag_is_caught() {
    assert_caught("no tag", "on the stack twice", None, a_pop_sleeps);
}

#[test]
fn relaxed_spare_is_caught() {
    assert_caught("relaxed spare", RACE, PREEMPTIONS, three_threads_take_and_give);
}
