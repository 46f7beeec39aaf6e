//! Tests: many threads, each of them busy once, keep little of what they used.

use super::purging::{allocate, free};
use crate::config::{CACHE_BYTES_SURE, CACHES_BYTES_MAX, PARKED_BYTES_ALL};
use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::options::Options;
use crate::purge::pace::Due;
use crate::size_class::{self, shape};
use crate::sys::fake::FakePages;

const THREADS: usize = 100;

fn heap() -> Box<Heap<FakePages>> {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(&Options::new());
    heap
}

fn release(heap: &Heap<FakePages>) {
    heap.check();
    // SAFETY: the heap is this test's, and its blocks are not used any more.
    let (mapped, unmapped) = unsafe { heap.release() };
    assert_eq!(mapped, unmapped);
}

/// Takes and frees some MiB of blocks of up to 4 KiB, so often that the cache grows.
fn be_busy(heap: &Heap<FakePages>, cached: &LocalHeap<'_, FakePages>) {
    for class in size_class::all().filter(|&class| shape(class).bytes <= 4096) {
        for _ in 0..8 {
            let blocks: Vec<*mut u8> = (0..200).map(|_| allocate(heap, cached, class)).collect();
            blocks.into_iter().for_each(|block| free(heap, cached, class, block));
        }
    }
}

/// All credit is there again.
fn expect_no_credit_taken(heap: &Heap<FakePages>) {
    assert!(heap.depot().credit.take(CACHES_BYTES_MAX, CACHES_BYTES_MAX));
}

#[test]
fn the_caches_of_many_threads_hold_no_more_than_those_of_some() {
    let heap = heap();
    let threads: Vec<_> = (0..THREADS).map(|_| heap.register().expect("memory")).collect();
    threads.iter().for_each(|cached| be_busy(&heap, cached));
    let (cached, held) = (heap.stats().cached as usize, heap.stats().held as usize);
    // Some classes are larger at first than what is sure.
    let most = CACHES_BYTES_MAX + THREADS * 2 * CACHE_BYTES_SURE;
    assert!(cached <= most, "{cached} bytes cached");
    assert!(held <= 2 * most, "{held} bytes held, {cached} cached");
    threads.iter().for_each(|cached| heap.unregister(cached));
    assert_eq!(heap.stats().cached, 0);
    expect_no_credit_taken(&heap);
    release(&heap);
}

#[test]
fn slabs_that_idle_threads_keep_are_used_before_new_memory() {
    const KEEPERS: usize = 16;
    let heap = heap();
    let class = size_class::class_of(64, 8).expect("a small size");
    let take = |cached: &LocalHeap<'_, FakePages>, count: usize| -> Vec<*mut u8> {
        (0..count).map(|_| allocate(&heap, cached, class)).collect()
    };
    let keepers: Vec<_> = (0..KEEPERS).map(|_| heap.register().expect("memory")).collect();
    let mut live: Vec<_> = keepers.iter().map(|keeper| take(keeper, 17)).collect();
    let worker = heap.register().expect("memory");
    let (slabs, free_blocks) = (heap.stats().slabs, heap.stats().free_blocks as usize);
    assert!(free_blocks >= 64 * KEEPERS, "{free_blocks} are free in kept slabs");
    // While they are busy, nobody takes them.
    let busy = take(&worker, 1);
    assert_eq!(heap.stats().slabs, slabs + 1);
    heap.depot().os.pages().pass_ms(100);
    live.push(take(&worker, free_blocks));
    let (grown, without) = (heap.stats().slabs - slabs, free_blocks / usize::from(shape(class).blocks));
    assert!(grown as usize <= without / 2, "{grown} new slabs, though {free_blocks} blocks were free");
    // What they kept is not theirs any more, and they go on.
    live.extend(keepers.iter().map(|keeper| take(keeper, 17)));
    heap.check();
    live.into_iter().flatten().chain(busy).for_each(|block| free(&heap, &worker, class, block));
    keepers.iter().chain([&worker]).for_each(|cached| heap.unregister(cached));
    assert_eq!((heap.stats().live, heap.stats().slabs), (0, 0));
    release(&heap);
}

#[test]
fn a_thread_keeps_the_slab_of_its_first_miss() {
    let heap = heap();
    let class = size_class::class_of(64, 8).expect("a small size");
    heap.depot().os.pages().pass_ms(1000);
    let threads: Vec<_> = (0..8).map(|_| heap.register().expect("memory")).collect();
    let blocks: Vec<_> = threads.iter().map(|cached| allocate(&heap, cached, class)).collect();
    assert_eq!(heap.stats().slabs as usize, threads.len(), "nobody took another one's for idle");
    blocks.into_iter().zip(&threads).for_each(|(block, cached)| free(&heap, cached, class, block));
    threads.iter().for_each(|cached| heap.unregister(cached));
    release(&heap);
}

#[test]
fn few_threads_have_what_they_want() {
    let heap = heap();
    let threads: Vec<_> = (0..8).map(|_| heap.register().expect("memory")).collect();
    threads.iter().for_each(|cached| be_busy(&heap, cached));
    let least = threads.iter().map(|cached| cached.cache.cached_bytes()).min();
    assert!(least >= Some(512 << 10), "{least:?} bytes cached");
    threads.iter().for_each(|cached| heap.unregister(cached));
    expect_no_credit_taken(&heap);
    release(&heap);
}

#[test]
fn what_many_ended_threads_leave_is_bounded() {
    const BLOCKS: usize = 40;
    let heap = heap();
    let class = size_class::class_of(4096, 8).expect("a small size");
    let threads: Vec<_> = (0..64).map(|_| heap.register().expect("memory")).collect();
    for cached in &threads {
        // All misses at once, so that the magazine grows.
        for _ in 0..8 {
            let blocks: Vec<*mut u8> = (0..BLOCKS).map(|_| allocate(&heap, cached, class)).collect();
            blocks.into_iter().for_each(|block| free(&heap, cached, class, block));
        }
    }
    let before = heap.stats().cached as usize;
    assert!(before > 2 * PARKED_BYTES_ALL, "{before}");
    threads.iter().for_each(|cached| heap.park(cached));
    let parked = heap.stats().cached as usize;
    assert!((PARKED_BYTES_ALL / 4..=PARKED_BYTES_ALL).contains(&parked), "{parked} bytes rest, of {before}");
    heap.purge().epoch(Due::Aged, || false);
    assert_eq!(heap.stats().cached, 0);
    expect_no_credit_taken(&heap);
    release(&heap);
}
