//! Commitment of memory that grows (`meta::Commit`): several threads may commit the same part.
//!
//! # Modelled    three threads that ensure different lengths; a flag for each page stands for the kernel's work
//! # Asserted    conservation: the committed length is the longest that was granted, a refusal changes nothing and
//!               the next attempt succeeds; committing twice changes nothing.
//!               visibility: nobody is told `true` before all pages below that length are there.
//! # Bounds      2 pages, 3 threads, 3 preemptions
#![cfg(loom)]

mod common;

use common::{assert_caught, check};
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use magalloc::meta::Commit;
use std::sync::Arc;

const PAGES: usize = 2;
const PREEMPTIONS: Option<usize> = Some(3);
const MISSING: &str = "a page is missing that was said to be there";

struct Memory {
    commit: Commit,
    /// Which pages are readable and writable. Relaxed: all order must come from `Commit`.
    there: [AtomicBool; PAGES],
}

impl Memory {
    fn new() -> Arc<Self> {
        Arc::new(Self { commit: Commit::new(), there: core::array::from_fn(|_| AtomicBool::new(false)) })
    }

    /// The kernel's part: idempotent.
    fn map(&self, from: usize, to: usize) -> bool {
        assert!(from < to && to <= PAGES, "committed backwards");
        self.there[from..to].iter().for_each(|page| page.store(true, Ordering::Relaxed));
        true
    }

    /// Ensures `pages`, and uses them.
    fn grow(&self, pages: usize) {
        assert!(self.commit.ensure(pages, |from, to| self.map(from, to)), "refused for no reason");
        self.check_there(pages);
    }

    fn check_there(&self, pages: usize) {
        assert!(self.there[..pages].iter().all(|page| page.load(Ordering::Relaxed)), "{MISSING}");
    }
}

fn three_threads_grow() {
    let memory = Memory::new();
    let growers = [1, 2].map(|pages| {
        let memory = Arc::clone(&memory);
        thread::spawn(move || memory.grow(pages))
    });
    memory.grow(2);
    growers.into_iter().for_each(|grower| grower.join().unwrap());
    assert_eq!(memory.commit.bytes(), PAGES);
    memory.check_there(PAGES);
}

#[test]
fn nobody_is_told_before_the_pages_are_there() {
    check(PREEMPTIONS, three_threads_grow);
}

#[test]
fn a_refused_commit_leaves_what_was_committed() {
    check(PREEMPTIONS, || {
        let memory = Memory::new();
        let grower = Arc::clone(&memory);
        let grower = thread::spawn(move || grower.grow(1));
        let refused = Arc::clone(&memory);
        let refused = thread::spawn(move || refused.commit.ensure(2, |_, _| false));
        memory.grow(1);
        assert!(!refused.join().unwrap(), "{MISSING}");
        grower.join().unwrap();
        assert_eq!(memory.commit.bytes(), 1, "a refused commit counts");
        memory.grow(2);
        assert_eq!(memory.commit.bytes(), 2);
    });
}

#[test]
fn announce_before_commit_is_caught() {
    assert_caught("announce before commit", MISSING, PREEMPTIONS, three_threads_grow);
}

#[test]
fn relaxed_commit_is_caught() {
    assert_caught("relaxed commit", MISSING, PREEMPTIONS, three_threads_grow);
}
