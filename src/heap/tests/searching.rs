//! Tests: looking for memory costs the same, however many threads there are and however large the heap is or was.

use super::purging::{allocate, free, heap, release};
use crate::config::CHUNK_BYTES;
use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::options::Options;
use crate::purge::pace::Due;
use crate::size_class::{class_of, shape};
use crate::summary::steps::steps_of;
use crate::sys::fake::FakePages;

/// Slabs that a measured thread fills.
const SLABS: usize = 200;

/// How many local heaps and chunk groups a thread looks at that allocates blocks of many new slabs, and frees them.
fn steps_of_slabs(heap: &Heap<FakePages>, cached: &LocalHeap<'_, FakePages>) -> u64 {
    let class = class_of(1000, 8).expect("a small size");
    let blocks = SLABS * shape(class).blocks as usize;
    steps_of(|| {
        let blocks: Vec<_> = (0..blocks).map(|_| allocate(heap, cached, class)).collect();
        blocks.into_iter().for_each(|block| free(heap, cached, class, block));
        heap.flush(cached);
    })
}

#[test]
fn a_new_slab_costs_the_same_with_many_threads() {
    let steps_beside = |others: usize| {
        let heap = heap(Options::new());
        let cached = heap.register().expect("memory");
        let others: Vec<_> = (0..others).map(|_| heap.register().expect("memory")).collect();
        let class = class_of(100, 8).expect("a small size");
        // Each has a slab, and one in ten gets blocks of it back from another thread.
        for (number, other) in others.iter().enumerate() {
            let block = allocate(&heap, other, class);
            let freer = if number % 10 == 0 { &cached } else { other };
            free(&heap, freer, class, block);
        }
        heap.flush(&cached);
        // Those with slabs in their remote-free queues are found once.
        steps_of_slabs(&heap, &cached);
        let steps = steps_of_slabs(&heap, &cached);
        others.iter().for_each(|other| heap.unregister(other));
        heap.unregister(&cached);
        release(&heap);
        steps
    };
    let (alone, beside_many) = (steps_beside(0), steps_beside(2000));
    assert!(beside_many <= alone + alone / 2, "{alone} steps alone, {beside_many} beside 2,000 threads");
}

#[test]
fn what_idle_threads_were_notified_of_is_found() {
    let heap = heap(Options::new());
    let others: Vec<_> = (0..300).map(|_| heap.register().expect("memory")).collect();
    let cached = heap.register().expect("memory");
    let class = class_of(1000, 8).expect("a small size");
    let slabs = |count: usize| count * shape(class).blocks as usize;
    // All of a slab, by local heaps of low, middle and high numbers.
    let mut blocks = Vec::new();
    for other in [&others[0], &others[150], &others[299]] {
        blocks.extend((0..slabs(4)).map(|_| allocate(&heap, other, class)));
    }
    let held = heap.stats().held;
    blocks.into_iter().for_each(|block| free(&heap, &cached, class, block));
    heap.flush(&cached);
    let again: Vec<_> = (0..slabs(9)).map(|_| allocate(&heap, &cached, class)).collect();
    assert!(heap.stats().held <= held, "blocks of idle threads' slabs are used before new memory");
    again.into_iter().for_each(|block| free(&heap, &cached, class, block));
    others.iter().for_each(|other| heap.unregister(other));
    heap.unregister(&cached);
    heap.check();
    release(&heap);
}

/// Steps of a thread that uses slabs and large blocks in a heap that has `bytes` in blocks beside, which are freed before
/// if so wanted. Nobody touches them.
fn steps_in_heap(bytes: usize, freed: bool) -> u64 {
    let heap = heap(Options::new());
    let cached = heap.register().expect("memory");
    let blocks: Vec<_> = (0..bytes / BESIDE).map(|_| heap.allocate_large(BESIDE, 8, false)).collect();
    assert!(blocks.iter().all(|block| !block.is_null()));
    if freed {
        blocks.iter().for_each(|&block| heap.free_large(block));
        heap.purge().epoch(Due::All, || false);
    }
    let work = || {
        steps_of_slabs(&heap, &cached);
        steps_of(|| {
            for size in [100 << 10, 1 << 20, 5 << 20] {
                let block = heap.allocate_large(size, 8, false);
                heap.free_large(block);
            }
            heap.purge().raise_if_unpurged();
        })
    };
    // What is not there any more is looked for once.
    work();
    let steps = steps_of_slabs(&heap, &cached) + work();
    heap.unregister(&cached);
    heap.check();
    release(&heap);
    steps
}

/// Bytes of a large block beside.
const BESIDE: usize = 64 << 20;
const GIB: usize = 1 << 30;

#[test]
fn a_new_slab_costs_the_same_in_a_large_heap() {
    let (small, large) = (steps_in_heap(GIB, false), steps_in_heap(32 * GIB, false));
    assert!(large <= small + small / 2, "{small} steps beside 1 GiB, {large} beside 32 GiB");
}

#[test]
fn a_new_slab_costs_the_same_in_a_heap_that_was_large() {
    let (small, large) = (steps_in_heap(GIB, true), steps_in_heap(32 * GIB, true));
    assert!(large <= small + small / 2, "{small} steps after 1 GiB, {large} after 32 GiB");
}

#[test]
fn what_is_in_high_groups_is_found_there() {
    let heap = heap(Options::new());
    let cached = heap.register().expect("memory");
    let below: Vec<_> = (0..50).map(|_| heap.allocate_large(BESIDE, 8, false)).collect();
    let class = class_of(1000, 8).expect("a small size");
    let blocks: Vec<_> = (0..100 * shape(class).blocks as usize).map(|_| allocate(&heap, &cached, class)).collect();
    let held = heap.stats().held;
    assert!(blocks.iter().all(|block| block > &below[49]), "in a group of their own");
    // Partial slabs, a free run, and chunks to purge.
    let (kept, freed): (Vec<_>, Vec<_>) = blocks.into_iter().enumerate().partition(|(index, _)| index % 8 == 0);
    let count = freed.len();
    freed.into_iter().for_each(|(_, block)| free(&heap, &cached, class, block));
    heap.flush(&cached);
    let again: Vec<_> = (0..count).map(|_| allocate(&heap, &cached, class)).collect();
    assert!(heap.stats().held <= held, "partial slabs are used before new memory");
    again
        .into_iter()
        .chain(kept.into_iter().map(|(_, block)| block))
        .for_each(|block| free(&heap, &cached, class, block));
    heap.flush(&cached);
    let run = heap.allocate_large(1 << 20, 8, false);
    assert!(heap.stats().held <= held, "their granules are used before new ones");
    heap.free_large(run);
    heap.purge().epoch(Due::All, || false);
    assert_eq!(heap.stats().dirty, 0);
    below.into_iter().for_each(|block| heap.free_large(block));
    heap.unregister(&cached);
    heap.check();
    release(&heap);
}

#[test]
fn a_long_span_goes_back_in_few_calls() {
    for options in [Options::new(), Options { dirty_bytes_max: 8 << 20, ..Options::new() }] {
        let heap = heap(options);
        let size = 12 * BESIDE;
        let block = heap.allocate_large(size, 8, false);
        let purges = heap.stats().purges;
        heap.free_large(block);
        heap.purge().epoch(Due::All, || false);
        let stats = heap.stats();
        assert_eq!(stats.dirty, 0);
        // For each 64 chunks, one for their memory, and two for their metadata.
        let calls = (stats.purges - purges) as usize;
        assert!(calls <= 3 * (size / (64 * CHUNK_BYTES) + 1), "{calls} calls for {size} bytes");
        heap.check();
        release(&heap);
    }
}

#[test]
fn a_long_span_ages_before_it_goes_back() {
    let heap = heap(Options::new());
    // The bound is a share of what is in use.
    let beside = heap.allocate_large(15 * BESIDE, 8, false);
    let block = heap.allocate_large(BESIDE, 8, false);
    heap.free_large(block);
    heap.purge().epoch(Due::Aged, || false);
    assert_eq!(heap.stats().dirty, BESIDE as u64, "what became free in this turn stays");
    heap.purge().epoch(Due::Aged, || false);
    assert_eq!(heap.stats().dirty, 0);
    heap.free_large(beside);
    release(&heap);
}
