//! Tests: looking for memory costs the same, however many threads there are and however large the heap is or was.

use super::Heap;
use super::purging::{allocate, free, heap, release};
use crate::options::Options;
use crate::size_class::{class_of, shape};
use crate::summary::steps::steps_of;
use crate::sys::fake::FakePages;
use crate::thread_cache::Cached;

/// Slabs that a measured thread fills.
const SLABS: usize = 200;

/// How many owners and chunk groups a thread looks at that allocates blocks of many new slabs, and frees them.
fn steps_of_slabs(heap: &Heap<FakePages>, cached: &Cached<'_, FakePages>) -> u64 {
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
        // Those that were notified are found once.
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
    // All of a slab, by owners of low, middle and high numbers.
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
