//! Tests: what an ended thread leaves serves the next one, or comes home before new memory is used or a turn is over.

use crate::config::{CHUNK_BYTES, GRANULE_BYTES, PARKED_BYTES_MAX};
use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::options::{Options, SoftLimit};
use crate::purge::pace::Due;
use crate::purge::signal::PurgeRequest;
use crate::size_class::{self, class_of, shape};
use crate::sys::fake::FakePages;
use crate::units::ClassIndex;

/// Local heaps that can be parked.
const PARKED_MAX: usize = 64;

fn heap(options: &Options) -> Box<Heap<FakePages>> {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(options);
    heap
}

fn release(heap: &Heap<FakePages>) {
    heap.check();
    // SAFETY: the heap is this test's, and its blocks are not used any more.
    let (mapped, unmapped) = unsafe { heap.release() };
    assert_eq!(mapped, unmapped);
}

fn class() -> ClassIndex {
    class_of(640, 8).expect("a small size")
}

fn begin(heap: &Heap<FakePages>) -> LocalHeap<'_, FakePages> {
    heap.register().expect("memory")
}

/// As after a look at the dummy: all go the slow way, whatever the cache has.
fn allocate(heap: &Heap<FakePages>, cached: &LocalHeap<'_, FakePages>, count: usize) -> Vec<*mut u8> {
    (0..count).map(|_| heap.allocate_small(Some(cached), class())).inspect(|block| assert!(!block.is_null())).collect()
}

fn free(heap: &Heap<FakePages>, cached: &LocalHeap<'_, FakePages>, blocks: Vec<*mut u8>) {
    blocks.into_iter().for_each(|block| heap.free_small(Some(cached), class(), block));
}

/// A thread that leaves a cache with some blocks; their number.
fn live_and_rest(heap: &Heap<FakePages>) -> usize {
    let cached = begin(heap);
    let blocks = allocate(heap, &cached, 50);
    free(heap, &cached, blocks);
    let left = cached.cache.blocks(class());
    assert!(left > 0);
    heap.park(&cached);
    left
}

#[test]
fn the_next_thread_has_what_the_last_one_left() {
    let heap = heap(&Options::new());
    let left = live_and_rest(&heap);
    let before = heap.stats();
    assert_eq!((before.threads, before.live), (0, 0));
    assert_eq!(before.cached as usize, left * shape(class()).bytes as usize);
    let next = begin(&heap);
    assert_eq!(next.cache.blocks(class()), left);
    // Neither the first malloc nor the first free may take the magazine for empty or full.
    let blocks = allocate(&heap, &next, left);
    assert_eq!(next.cache.blocks(class()), 0);
    free(&heap, &next, blocks);
    assert_eq!(next.cache.blocks(class()), left);
    let after = heap.stats();
    assert_eq!((after.refills, after.flushes, after.live), (before.refills, before.flushes, 0));
    heap.unregister(&next);
    assert_eq!((heap.stats().cached, heap.stats().slabs), (0, 0));
    release(&heap);
}

#[test]
fn a_turn_takes_what_nobody_has_adopted() {
    for due in [Due::Aged, Due::All] {
        let heap = heap(&Options::new());
        live_and_rest(&heap);
        assert_eq!(heap.depot().purge_signal.call().0, Some(PurgeRequest::Raised), "somebody is told to come by");
        heap.purge().epoch(due, || false);
        assert_eq!((heap.stats().cached, heap.stats().slabs), (0, 0));
        let (made, spare) = heap.depot().magazines.count();
        assert_eq!(made, spare, "every magazine is in the pool");
        // Its number is free again.
        let next = begin(&heap);
        assert_eq!((next.me.get(), next.cache.blocks(class())), (0, 0));
        heap.unregister(&next);
        release(&heap);
    }
}

#[test]
fn what_threads_left_is_used_before_new_memory() {
    let heap = heap(&Options::new());
    let (me, other) = (begin(&heap), begin(&heap));
    let own = allocate(&heap, &me, 1);
    let blocks = allocate(&heap, &other, GRANULE_BYTES / 640 / 2);
    free(&heap, &other, blocks);
    heap.park(&other);
    let before = heap.stats().committed;
    let slabs = heap.stats().slabs;
    let capacity: usize = slabs as usize * shape(class()).blocks as usize;
    let rest = allocate(&heap, &me, capacity - 1);
    assert_eq!((heap.stats().slabs, heap.stats().committed), (slabs, before));
    free(&heap, &me, own);
    free(&heap, &me, rest);
    heap.unregister(&me);
    release(&heap);
}

#[test]
fn cache_of_a_vanished_thread_comes_home_once() {
    let heap = heap(&Options::new());
    let cached = begin(&heap);
    assert_eq!(heap.registry().set_thread(cached.me, 7), 0);
    let blocks = allocate(&heap, &cached, 50);
    free(&heap, &cached, blocks);
    let number = cached.me.get();
    assert!(!heap.shared().adopt_ended(number, 6), "another thread has the number by now");
    assert_eq!((heap.stats().threads, heap.registry().thread_of(number)), (1, 7));
    assert!(heap.shared().adopt_ended(number, 7));
    assert!(!heap.shared().adopt_ended(number, 7), "it is nobody's");
    let stats = heap.stats();
    assert_eq!((stats.threads, stats.cached, stats.slabs, stats.live), (0, 0, 0, 0));
    // A fork must not find it half done.
    let next = begin(&heap);
    let _ = heap.registry().set_thread(next.me, 8);
    heap.depot().in_flight.begin_fork();
    assert!(!heap.shared().adopt_ended(next.me.get(), 8));
    heap.depot().in_flight.end_fork();
    heap.unregister(&next);
    release(&heap);
}

#[test]
fn under_pressure_nothing_rests() {
    let heap = heap(&Options { soft_limit: SoftLimit::Bytes(CHUNK_BYTES / 2), ..Options::new() });
    let large = heap.allocate_large(CHUNK_BYTES, 8, false);
    assert!(!large.is_null());
    live_and_rest(&heap);
    assert_eq!((heap.stats().cached, heap.stats().slabs), (0, 0));
    heap.free_large(large);
    release(&heap);
}

#[test]
fn more_threads_than_may_rest_give_all_back() {
    let heap = heap(&Options::new());
    let threads: Vec<_> = (0..PARKED_MAX + 2).map(|_| begin(&heap)).collect();
    for cached in &threads {
        let blocks = allocate(&heap, cached, 5);
        free(&heap, cached, blocks);
    }
    threads.iter().for_each(|cached| heap.park(cached));
    let rest = |cached: &&LocalHeap<'_, FakePages>| cached.cache.blocks(class()) > 0;
    assert_eq!((threads.iter().filter(rest).count(), heap.stats().threads), (PARKED_MAX, 0));
    // New threads have them all, each once.
    let next: Vec<_> = threads.iter().map(|_| begin(&heap)).collect();
    assert!(next.iter().enumerate().all(|(number, cached)| cached.me.get() == number));
    assert_eq!(next.iter().filter(rest).count(), PARKED_MAX);
    next.iter().for_each(|cached| heap.unregister(cached));
    assert_eq!(heap.stats().cached, 0);
    release(&heap);
}

#[test]
fn the_child_of_a_fork_has_what_rested() {
    let heap = heap(&Options::new());
    let (me, gone) = (begin(&heap), begin(&heap));
    let left = live_and_rest(&heap);
    let parked = 2;
    heap.note_fork(Some(me.me));
    assert_eq!(heap.stats().threads, 1);
    let next = begin(&heap);
    assert_eq!((next.me.get(), next.cache.blocks(class())), (parked, left), "not what {:?} had", gone.me);
    heap.unregister(&next);
    heap.unregister(&me);
    release(&heap);
}

#[test]
fn what_a_thread_had_in_hand_at_a_fork_is_not_lost_when_it_goes_on() {
    let heap = heap(&Options::new());
    let (me, gone) = (begin(&heap), begin(&heap));
    let blocks = allocate(&heap, &gone, 50);
    free(&heap, &gone, blocks);
    // A signal handler forks while its thread brings home what another one left, and returns in the child, too.
    heap.note_fork(Some(me.me));
    heap.unregister(&gone);
    let next = begin(&heap);
    assert_eq!(next.me, gone.me);
    let blocks = allocate(&heap, &next, 50);
    free(&heap, &next, blocks);
    let left = next.cache.blocks(class());
    let large = heap.allocate_large(CHUNK_BYTES, 8, false);
    assert!(left > 0 && next.cache.blocks(class()) == left, "it is the next thread's, and not lost");
    heap.free_large(large);
    assert_eq!(heap.stats().threads, 2);
    heap.unregister(&next);
    heap.unregister(&me);
    release(&heap);
}

#[test]
fn a_large_cache_does_not_rest() {
    let heap = heap(&Options::new());
    let cached = begin(&heap);
    for class in size_class::all() {
        let blocks: Vec<_> = (0..200).map(|_| heap.allocate_small(Some(&cached), class)).collect();
        blocks.into_iter().for_each(|block| heap.free_small(Some(&cached), class, block));
    }
    assert!(cached.cache.cached_bytes() > PARKED_BYTES_MAX);
    heap.park(&cached);
    assert_eq!((heap.stats().cached, heap.stats().slabs), (0, 0));
    release(&heap);
}

#[test]
fn a_thread_may_end_after_the_heap() {
    let heap = heap(&Options::new());
    let cached = begin(&heap);
    // SAFETY: the heap is this test's.
    unsafe { heap.release() };
    heap.park(&cached);
}

#[test]
fn what_rests_stays_where_a_forks_child_finds_it() {
    let heap = heap(&Options::new());
    live_and_rest(&heap);
    let cached = heap.stats().cached;
    heap.depot().in_flight.begin_fork();
    heap.purge().epoch(Due::All, || false);
    assert_eq!(heap.stats().cached, cached, "a walk had it in hand while a fork was under way");
    heap.depot().in_flight.end_fork();
    heap.purge().epoch(Due::All, || false);
    assert_eq!(heap.stats().cached, 0);
    release(&heap);
}
