//! Numbers of local heaps without a thread (`local::index_set`), and how a thread gets one (`Shared::adopt`).
//!
//! # Modelled    threads that end and threads that begin; a thread that leaves its cache as it is (`Shared::park`), for the
//!               next one or for who needs memory and empties it; a number that is made anew while another thread already
//!               notifies its local heap, because zeroed slab descriptors name number 0
//! # Asserted    conservation: a number has one thread at a time, none is lost; a slab pushed on a local heap stays there.
//!               a cache that was left full is emptied at most once, and is empty when its number was abandoned.
//!               visibility: a local heap's next thread comes after its last one.
//! # Bounds      2 numbers, 3 threads, 4 preemptions
#![cfg(loom)]

mod common;

use common::{Payload, RACE, assert_caught, check};
use loom::thread;
use magalloc::local::index_set::IndexSet;
use magalloc::local::remote_free::RemoteFreeQueue;
use magalloc::sync::planted::bug;
use magalloc::sync::{AtomicU32, AtomicUsize, Ordering};
use magalloc::units::{GranuleIndex, SlabId};
use std::sync::Arc;

const NUMBERS: usize = 2;
/// In a parked cache.
const BLOCKS: u64 = 3;
const PREEMPTIONS: Option<usize> = Some(4);
const LOST: &str = "a slab that was pushed is lost";

struct ThreadRegistry {
    abandoned: IndexSet,
    parked: IndexSet<1>,
    /// What only a number's thread touches: blocks in its cache.
    owners: [Payload; NUMBERS],
}

impl ThreadRegistry {
    /// `ended` numbers have no thread, the others belong to the caller.
    fn new(ended: usize) -> Arc<Self> {
        let (abandoned, parked) = (IndexSet::new(), IndexSet::new());
        let owners = Self { abandoned, parked, owners: core::array::from_fn(|_| Payload::new()) };
        (0..ended).for_each(|number| owners.end(number));
        Arc::new(owners)
    }

    /// `Shared::adopt`.
    fn begin(&self) -> Option<usize> {
        if let Some(number) = self.parked.take(NUMBERS) {
            self.owners[number].own(|blocks| assert_eq!(*blocks, BLOCKS, "the cache was parked"));
            return Some(number);
        }
        let number = self.abandoned.take(NUMBERS)?;
        self.owners[number].own(|blocks| assert_eq!(*blocks, 0, "what was abandoned has nothing"));
        Some(number)
    }

    /// `Shared::park`.
    fn park(&self, number: usize) {
        self.owners[number].own(|blocks| *blocks = BLOCKS);
        self.parked.put(number);
    }

    /// `Others::flush_parked`: the blocks that came home.
    fn flush_parked(&self) -> u64 {
        let mut home = 0;
        while let Some(number) = self.parked.take(NUMBERS) {
            home += self.owners[number].own(core::mem::take);
            self.end(number);
        }
        home
    }

    fn end(&self, number: usize) {
        self.owners[number].own(|blocks| *blocks = 0);
        self.abandoned.put(number);
    }

    /// At rest: the numbers that `taken` does not have can be adopted, and no others.
    fn check(&self, taken: impl IntoIterator<Item = usize>) {
        let mut seen = [false; NUMBERS];
        for number in taken.into_iter().chain(core::iter::from_fn(|| self.begin())) {
            assert!(!seen[number], "a number has two threads");
            seen[number] = true;
        }
        assert!(seen.iter().all(|&seen| seen), "a number is lost");
        assert_eq!(self.abandoned.count(NUMBERS), 0);
    }
}

/// Two abandoned, three threads begin.
fn three_threads_begin() {
    let owners = ThreadRegistry::new(2);
    let begins = [(); 2].map(|()| {
        let owners = Arc::clone(&owners);
        thread::spawn(move || owners.begin())
    });
    let own = owners.begin();
    owners.check(begins.into_iter().flat_map(|begin| begin.join().unwrap()).chain(own));
}

/// One abandoned; its next thread begins and ends, another ends too, a third begins.
fn threads_end_while_one_begins() {
    let owners = ThreadRegistry::new(1);
    let short = Arc::clone(&owners);
    let short = thread::spawn(move || short.begin().into_iter().for_each(|number| short.end(number)));
    let last = Arc::clone(&owners);
    let last = thread::spawn(move || last.end(1));
    let own = owners.begin();
    short.join().unwrap();
    last.join().unwrap();
    owners.check(own);
}

/// A thread leaves its cache, another begins, and who needs memory empties what nobody has.
fn a_cache_rests() {
    let owners = ThreadRegistry::new(1);
    let ending = Arc::clone(&owners);
    let ending = thread::spawn(move || ending.park(1));
    let needy = Arc::clone(&owners);
    let needy = thread::spawn(move || needy.flush_parked());
    let own = owners.begin();
    ending.join().unwrap();
    let home = needy.join().unwrap();
    let kept = own.map_or(0, |number| owners.owners[number].own(core::mem::take));
    // The model's end: whoever comes next takes what is parked still.
    assert_eq!(home + kept + owners.flush_parked(), BLOCKS, "blocks are lost, or there twice");
    owners.check(own);
}

/// Number 0 is made by its first thread, while a thread without a local heap frees a block of a slab that names it.
fn a_new_owner_is_notified_at_once() {
    let made: (AtomicUsize, RemoteFreeQueue, IndexSet) = (AtomicUsize::new(0), RemoteFreeQueue::new(), IndexSet::new());
    let made = Arc::new(made);
    let slab = SlabId::new(0, GranuleIndex::new(7));
    let begin = Arc::clone(&made);
    let begin = thread::spawn(move || {
        let (len, remote_frees, abandoned) = &*begin;
        // `Shared::adopt`: none is abandoned, so a number is made. Zeroed memory is an open local heap.
        if abandoned.take(len.load(Ordering::Acquire)).is_none() {
            len.fetch_add(1, Ordering::Release);
            if bug("open a new owner") {
                remote_frees.open();
            }
        }
        remote_frees.take_all()
    });
    let (len, remote_frees, _) = &*made;
    let link = AtomicU32::new(0);
    // `ThreadRegistry::slabs_hinted` and `push_remote_free`.
    let pushed = len.load(Ordering::Acquire) > 0
        && remote_frees.push(slab, |next| link.store(SlabId::raw_option(next), Ordering::Relaxed)).is_ok();
    let taken = begin.join().unwrap().or_else(|| remote_frees.take_all());
    assert_eq!(taken, pushed.then_some(slab), "{LOST}");
}

#[test]
fn a_number_has_one_thread_at_a_time() {
    check(PREEMPTIONS, three_threads_begin);
}

#[test]
fn a_thread_sees_what_the_last_one_left() {
    check(PREEMPTIONS, threads_end_while_one_begins);
}

#[test]
fn what_rests_has_one_taker() {
    check(PREEMPTIONS, a_cache_rests);
}

#[test]
fn a_new_owner_keeps_what_it_is_given() {
    check(PREEMPTIONS, a_new_owner_is_notified_at_once);
}

#[test]
fn adopt_by_store_is_caught() {
    assert_caught("adopt by store", RACE, PREEMPTIONS, three_threads_begin);
    assert_caught("adopt by store", RACE, PREEMPTIONS, a_cache_rests);
}

#[test]
fn relaxed_orphan_is_caught() {
    assert_caught("relaxed abandon", RACE, PREEMPTIONS, threads_end_while_one_begins);
    assert_caught("relaxed abandon", RACE, PREEMPTIONS, a_cache_rests);
}

#[test]
fn open_a_new_owner_is_caught() {
    assert_caught("open a new owner", LOST, PREEMPTIONS, a_new_owner_is_notified_at_once);
}
