//! Tests: near the soft limit memory goes back in steps, and the control group's limit sets one.

use crate::heap::Heap;
use crate::options::{Options, SoftLimit};
use crate::sys::fake::FakePages;

const MIB: usize = 1 << 20;
const LIMIT: usize = 100 * MIB;

fn release(heap: &Heap<FakePages>) {
    heap.check();
    // SAFETY: the heap is this test's, and its blocks are not used any more.
    let (mapped, unmapped) = unsafe { heap.release() };
    assert_eq!(mapped, unmapped);
}

fn heap(soft_limit: SoftLimit) -> Box<Heap<FakePages>> {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(&Options { soft_limit, ..Options::new() });
    heap
}

fn take(heap: &Heap<FakePages>, bytes: usize) -> *mut u8 {
    let block = heap.allocate_large(bytes, 8, false);
    assert!(!block.is_null());
    block
}

#[test]
fn the_control_groups_limit_counts_by_default() {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.depot().os.pages().set_memory_limit(LIMIT);
    heap.configure(&Options::new());
    let below = take(&heap, LIMIT / 100 * 80);
    assert!(!heap.depot().is_pressed());
    let above = take(&heap, LIMIT / 100 * 10);
    assert!(heap.depot().is_pressed());
    [below, above].into_iter().for_each(|block| heap.free_large(block));
    release(&heap);
}

#[test]
fn a_group_without_a_limit_sets_none() {
    let heap = heap(SoftLimit::default());
    let block = take(&heap, LIMIT);
    assert!(!heap.depot().is_pressed());
    heap.free_large(block);
    release(&heap);
}

#[test]
fn files_are_read_once_if_the_environment_says_nothing_of_the_limit() {
    let (before, after) = (Options::new(), Options { report_exit: true, ..Options::new() });
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.depot().os.pages().set_memory_limit(LIMIT);
    heap.configure(&before);
    heap.depot().os.pages().set_memory_limit(2 * LIMIT);
    heap.reconfigure(&before, &after);
    assert_eq!(heap.depot().settings.soft_limit(), LIMIT / 100 * 85);
    heap.reconfigure(&before, &Options { soft_limit: SoftLimit::CgroupPercent(50), ..after });
    assert_eq!(heap.depot().settings.soft_limit(), LIMIT);
    assert!(heap.depot().settings.report_exit());
}

/// Calls of the kernel to give memory back while 1000 blocks are taken and freed in turn, with `in_use` bytes in use.
fn purges_of_pairs(in_use: usize) -> u64 {
    let heap = heap(SoftLimit::Bytes(LIMIT));
    let block = take(&heap, in_use);
    let before = heap.stats().purges;
    (0..1000).for_each(|_| heap.free_large(take(&heap, MIB / 16)));
    let purges = heap.stats().purges - before;
    heap.free_large(block);
    release(&heap);
    purges
}

#[test]
fn a_byte_more_than_the_limit_changes_little() {
    for in_use in [LIMIT / 2, LIMIT - MIB, LIMIT, LIMIT + MIB, 2 * LIMIT] {
        assert_eq!(purges_of_pairs(in_use), 0, "{in_use} bytes in use");
    }
}

#[test]
fn what_exceeds_the_limit_goes_back_in_steps() {
    let heap = heap(SoftLimit::Bytes(LIMIT));
    let kept = take(&heap, LIMIT);
    let blocks: Vec<*mut u8> = (0..1024).map(|_| take(&heap, MIB / 16)).collect();
    let before = heap.stats().purges;
    for block in blocks {
        heap.free_large(block);
        assert!(heap.depot().dirty_bytes() <= 2 * MIB);
    }
    let purges = heap.stats().purges - before;
    assert!((30..=130).contains(&purges), "64 MiB in {purges} calls");
    heap.free_large(kept);
    release(&heap);
}
