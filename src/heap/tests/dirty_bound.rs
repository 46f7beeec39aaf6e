//! Tests: how much free memory is kept beside what is in use.

use crate::config::GRANULE_BYTES;
use crate::heap::Heap;
use crate::options::Options;
use crate::purge::pace::Due;
use crate::sys::fake::FakePages;

const MIB: usize = 1 << 20;

fn heap(options: &Options) -> Box<Heap<FakePages>> {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(options);
    // It began at 1.
    heap.depot().os.pages().pass_ms(999);
    heap
}

fn release(heap: &Heap<FakePages>) {
    heap.check();
    // SAFETY: the heap is this test's, and its blocks are not used any more.
    let (mapped, unmapped) = unsafe { heap.release() };
    assert_eq!(mapped, unmapped);
}

fn take(heap: &Heap<FakePages>, bytes: usize) -> *mut u8 {
    let block = heap.allocate_large(bytes, 8, false);
    assert!(!block.is_null());
    block
}

fn dirty(heap: &Heap<FakePages>) -> usize {
    heap.depot().dirty_bytes()
}

/// Frees `blocks`. Returns the most that was dirty beyond half of what was in use then.
fn free_all(heap: &Heap<FakePages>, blocks: Vec<*mut u8>) -> usize {
    let beyond = |block| {
        heap.free_large(block);
        let in_use = heap.depot().budget.held() - dirty(heap);
        dirty(heap).saturating_sub(in_use / 2)
    };
    blocks.into_iter().map(beyond).max().unwrap_or(0)
}

#[test]
fn who_frees_nearly_everything_gives_nearly_everything_back_at_once() {
    let heap = heap(&Options::new());
    let kept = take(&heap, 2 * MIB);
    let blocks = (0..400).map(|_| take(&heap, MIB / 4)).collect();
    assert!(free_all(&heap, blocks) <= 4 * MIB);
    let purges = heap.stats().purges;
    assert!(purges <= 200, "each free gives back by itself: {purges} calls");
    heap.free_large(kept);
    release(&heap);
}

#[test]
fn a_low_bound_of_the_users_holds() {
    let heap = heap(&Options { dirty_bytes_max: MIB, ..Options::new() });
    free_all(&heap, (0..400).map(|_| take(&heap, MIB / 4)).collect());
    assert!(dirty(&heap) <= MIB);
    release(&heap);
}

#[test]
fn amid_a_fork_nothing_is_given_back_and_after_it_the_bound_holds() {
    let heap = heap(&Options { dirty_bytes_max: MIB, ..Options::new() });
    let (block, next) = (take(&heap, 100 * MIB), take(&heap, MIB / 4));
    heap.depot().in_flight.begin_fork();
    heap.free_large(block);
    assert_eq!((dirty(&heap), heap.stats().purges), (100 * MIB, 0), "the child would have lost what was claimed");
    heap.depot().in_flight.end_fork();
    heap.free_large(next);
    assert!(dirty(&heap) <= MIB && heap.depot().in_flight.is_empty());
    release(&heap);
}

#[test]
fn nothing_is_given_back_unasked_where_the_delay_never_ends() {
    let heap = heap(&Options { purge_delay_ms: u32::MAX, ..Options::new() });
    free_all(&heap, (0..400).map(|_| take(&heap, MIB / 4)).collect());
    assert_eq!((dirty(&heap), heap.stats().purges), (100 * MIB, 0));
    release(&heap);
}

/// Arrays that grow in turn leave holes, of which the next size does not fit into most.
#[test]
fn arrays_that_grow_in_lockstep_hold_little_more_than_they_use() {
    const ARRAYS: usize = 100;
    let heap = heap(&Options::new());
    let mut blocks: Vec<*mut u8> = (0..ARRAYS).map(|_| take(&heap, 3 * GRANULE_BYTES)).collect();
    let mut bytes = 0;
    for granules in 4..=40 {
        bytes = granules * GRANULE_BYTES;
        for block in &mut blocks {
            let grown = heap.resize_large(*block, bytes, 8);
            if grown.is_null() {
                let new = take(&heap, bytes);
                heap.free_large(*block);
                *block = new;
            } else {
                *block = grown;
            }
        }
    }
    let (live, peak) = (ARRAYS * bytes, heap.stats().held_peak as usize);
    assert!(peak <= live / 100 * 125, "{} MiB at the peak, {} live", peak / MIB, live / MIB);
    blocks.into_iter().for_each(|block| heap.free_large(block));
    release(&heap);
}

/// Lets `ms` pass, with an epoch each half second.
fn pass(heap: &Heap<FakePages>, ms: u64) {
    for _ in 0..ms / 100 {
        let pages = heap.depot().os.pages();
        pages.pass_ms(100);
        if heap.depot().os.now_ms().is_multiple_of(500) {
            heap.purge().epoch(Due::Aged, || false);
        }
    }
}

#[test]
fn a_buffer_that_comes_back_each_second_stays_warm_and_goes_at_last() {
    const BUFFER: usize = 16 * MIB;
    let heap = heap(&Options::new());
    let kept = take(&heap, MIB);
    let clean = |rounds| {
        let mut clean = 0;
        for _ in 0..rounds {
            let before = dirty(&heap);
            let buffer = take(&heap, BUFFER);
            clean += BUFFER - (before - dirty(&heap));
            heap.free_large(buffer);
            pass(&heap, 1_300);
        }
        clean
    };
    // The first ones show that it comes back.
    clean(4);
    let missed = clean(20);
    assert!(missed <= BUFFER / 2, "{} MiB of 320 were given back too early", missed / MIB);
    // When it does not come any more, its memory goes.
    pass(&heap, 5_000);
    assert!(dirty(&heap) < BUFFER);
    pass(&heap, 15_000);
    assert_eq!(dirty(&heap), 0);
    heap.free_large(kept);
    release(&heap);
}
