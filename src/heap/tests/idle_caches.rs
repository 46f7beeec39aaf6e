//! Tests: what threads have cached goes back when they idle, rest, end or are gone.

use super::purging::{DELAY_MS, allocate, free, heap, release, resident};
use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::options::Options;
use crate::purge::pace::Due;
use crate::size_class::{class_of, shape};
use crate::sys::fake::FakePages;
use crate::units::ClassIndex;

#[test]
fn idle_threads_keep_no_stash() {
    let heap = heap(Options { cache_bytes_max: 4 << 20, ..Options::new() });
    let (busy, idle) = (heap.register().expect("memory"), heap.register().expect("memory"));
    let class = class_of(64, 8).expect("a small size");
    for cached in [&busy, &idle] {
        let blocks: Vec<*mut u8> = (0..5000).map(|_| allocate(&heap, cached, class)).collect();
        blocks.into_iter().for_each(|block| free(&heap, cached, class, block));
    }
    let loaded = usize::from(shape(class).magazine_blocks);
    assert!(idle.cache.blocks(class) > 2 * loaded);
    heap.purge().epoch(Due::Aged, || false);
    let kept = busy.cache.blocks(class);
    let blocks: Vec<*mut u8> = (0..500).map(|_| allocate(&heap, &busy, class)).collect();
    heap.purge().epoch(Due::Aged, || false);
    assert!(idle.cache.blocks(class) <= loaded, "{}", idle.cache.blocks(class));
    blocks.into_iter().for_each(|block| free(&heap, &busy, class, block));
    assert!(busy.cache.blocks(class) > loaded, "{kept}");
    heap.check();
    // Their owner goes on, and finds the places empty.
    let blocks: Vec<*mut u8> = (0..5000).map(|_| allocate(&heap, &idle, class)).collect();
    blocks.into_iter().for_each(|block| free(&heap, &idle, class, block));
    heap.unregister(&busy);
    heap.unregister(&idle);
    let (made, spare) = heap.depot().magazines.count();
    assert_eq!(made, spare, "every magazine is in the pool");
    let stats = heap.stats();
    assert_eq!((stats.live, stats.cached), (0, 0));
    heap.check();
    release(&heap);
}

#[test]
fn stashes_stay_where_a_forks_child_finds_them() {
    let heap = heap(Options::new());
    let (me, other) = (heap.register().expect("memory"), heap.register().expect("memory"));
    let class = class_of(64, 8).expect("a small size");
    let blocks: Vec<*mut u8> = (0..5000).map(|_| allocate(&heap, &other, class)).collect();
    blocks.into_iter().for_each(|block| free(&heap, &other, class, block));
    let (stashed, loaded) = (other.cache.blocks(class), usize::from(shape(class).magazine_blocks));
    assert!(stashed > 2 * loaded);
    // A chain in a purge's hand would be lost in the child.
    heap.depot().in_flight.begin_fork();
    heap.purge().epoch(Due::All, || false);
    assert_eq!(other.cache.blocks(class), stashed);
    heap.depot().in_flight.end_fork();
    heap.purge().epoch(Due::All, || false);
    assert!(other.cache.blocks(class) <= loaded);
    heap.unregister(&me);
    heap.unregister(&other);
    heap.check();
    release(&heap);
}

#[test]
fn caches_of_gone_threads_are_adopted_but_for_what_is_in_doubt() {
    let heap = heap(Options::new());
    let (me, other, unlucky) = (heap.register(), heap.register(), heap.register());
    let (me, other, unlucky) = (me.expect("memory"), other.expect("memory"), unlucky.expect("memory"));
    let (small, medium) = (class_of(64, 8).expect("a small size"), class_of(1024, 8).expect("a small size"));
    for cached in [&other, &unlucky] {
        for class in [small, medium] {
            let blocks: Vec<*mut u8> = (0..500).map(|_| allocate(&heap, cached, class)).collect();
            blocks.into_iter().for_each(|block| free(&heap, cached, class, block));
        }
    }
    // What is stashed is not in doubt.
    let lost = usize::from(shape(medium).magazine_blocks) * 1024;
    assert!(unlucky.cache.blocks(medium) * 1024 > lost);
    unlucky.cache.vanish_amid(medium);
    heap.note_fork(Some(me.me));
    assert_eq!(heap.stats().threads, 1);
    // Not yet for the first few slabs.
    let mut blocks = vec![allocate(&heap, &me, small)];
    assert!(other.cache.blocks(medium) > 0);
    blocks.extend((0..5 * usize::from(shape(small).blocks)).map(|_| allocate(&heap, &me, small)));
    let stats = heap.stats();
    assert_eq!(stats.live as usize, 64 * blocks.len() + lost, "{stats:?}");
    assert_eq!(stats.cached as usize, me.cache.cached_bytes());
    blocks.into_iter().for_each(|block| free(&heap, &me, small, block));
    heap.unregister(&me);
    heap.check();
    release(&heap);
}

/// What the purging thread does while the program does `work` in each round: an epoch, if the purge signal is raised.
fn turns(heap: &Heap<FakePages>, count: usize, mut work: impl FnMut()) {
    for _ in 0..count {
        heap.depot().os.pages().pass_ms(DELAY_MS / 2);
        work();
        if heap.depot().purge_signal.call().0.is_some() {
            heap.purge().epoch(Due::Aged, || false);
        }
    }
}

/// Pages of which a thread has a single block each.
const PAGES: usize = 8_000;

/// Blocks of a page.
const PAGE_BLOCKS: usize = 64;

/// Frees `PAGES` blocks of a thread, after it found that its blocks meet few neighbours at home, and others have freed
/// these since. The thread allocates and frees `busy` blocks in each turn from then on. Returns the resident pages
/// before, and those after some turns.
fn resident_after_sparse(busy: usize) -> (usize, usize) {
    let heap = heap(Options::new());
    let (me, other) = (heap.register().expect("memory"), heap.register().expect("memory"));
    let class = class_of(64, 8).expect("a small size");
    let sorted = |mut blocks: Vec<*mut u8>| {
        blocks.sort_unstable();
        blocks
    };
    let take = |count: usize| (0..count).map(|_| allocate(&heap, &me, class)).collect::<Vec<_>>();
    let elsewhere = |blocks: Vec<*mut u8>| {
        blocks.into_iter().for_each(|block| free(&heap, &other, class, block));
        heap.flush(&other);
    };
    // 4 free blocks in each word, which this thread takes.
    let mut index = 0..;
    let (few, mut blocks): (Vec<_>, Vec<_>) = sorted(take(PAGES * PAGE_BLOCKS))
        .into_iter()
        .partition(|_| index.next().is_some_and(|index: usize| index.is_multiple_of(16) && index < 16 * 12_000));
    elsewhere(few);
    blocks.extend(take(12_000));
    let (mine, theirs): (Vec<_>, Vec<_>) = sorted(blocks).into_iter().partition(|block| block.addr() % 4096 == 0);
    assert_eq!(mine.len(), PAGES);
    elsewhere(theirs);
    turns(&heap, 10, || {});
    assert!(heap.depot().purge_signal.call().0.is_none(), "nothing is left to do");
    let before = resident(&heap);
    // As if at random: the numbers have no common divisor.
    (0..PAGES).for_each(|index| free(&heap, &me, class, mine[index * 1_009 % PAGES]));
    turns(&heap, 10, || take(busy).into_iter().for_each(|block| free(&heap, &me, class, block)));
    let after = resident(&heap);
    heap.check();
    heap.unregister(&me);
    heap.unregister(&other);
    release(&heap);
    (before, after)
}

#[test]
fn a_stash_without_order_goes_back_when_its_thread_idles_or_misses_seldom() {
    for busy in [0, 300] {
        let (before, after) = resident_after_sparse(busy);
        assert!(before >= PAGES && after <= PAGES / 20, "{before} pages, then {after}; {busy} blocks a turn");
    }
}

/// Allocates and frees `count` blocks, the latter without order.
fn without_order(heap: &Heap<FakePages>, cached: &LocalHeap<'_, FakePages>, class: ClassIndex, count: usize) {
    let blocks: Vec<*mut u8> = (0..count).map(|_| allocate(heap, cached, class)).collect();
    (0..count).for_each(|index| free(heap, cached, class, blocks[index * 1_009 % count]));
}

/// A thread whose blocks of 64 bytes meet few neighbours at home, and which has stashed them; the blocks that live there.
fn sparse(heap: &Heap<FakePages>) -> (LocalHeap<'_, FakePages>, ClassIndex, Vec<*mut u8>) {
    let cached = heap.register().expect("memory");
    let class = class_of(64, 8).expect("a small size");
    let mut blocks: Vec<*mut u8> = (0..100_000).map(|_| allocate(heap, &cached, class)).collect();
    blocks.sort_unstable();
    let mut index = 0..;
    let (live, others): (Vec<_>, Vec<_>) =
        blocks.into_iter().partition(|_| index.next().is_some_and(|index: usize| !index.is_multiple_of(16)));
    others.into_iter().for_each(|block| free(heap, &cached, class, block));
    (0..50).for_each(|_| without_order(heap, &cached, class, 3_000));
    assert!(cached.cache.blocks(class) > 2_000, "{} blocks", cached.cache.blocks(class));
    (cached, class, live)
}

#[test]
fn a_stashed_magazine_raises_the_alarm() {
    let heap = heap(Options::new());
    let (cached, class, live) = sparse(&heap);
    let flushes = cached.cache.counts().flushes;
    let _ = heap.depot().purge_signal.take();
    without_order(&heap, &cached, class, 3_000);
    assert_eq!(cached.cache.counts().flushes, flushes, "or that had raised it");
    assert!(heap.depot().purge_signal.call().0.is_some());
    live.into_iter().for_each(|block| free(&heap, &cached, class, block));
    heap.unregister(&cached);
    release(&heap);
}

#[test]
fn order_comes_back_when_neighbours_are_free_again() {
    let heap = heap(Options::new());
    let (cached, class, live) = sparse(&heap);
    live.into_iter().for_each(|block| free(&heap, &cached, class, block));
    turns(&heap, 4, || (0..20).for_each(|_| without_order(&heap, &cached, class, 3_000)));
    assert!(cached.cache.blocks(class) < 1_000, "dense: {}", cached.cache.blocks(class));
    heap.unregister(&cached);
    release(&heap);
}

#[test]
fn what_rests_amid_a_fork_goes_back_after_it() {
    let heap = heap(Options::new());
    let cached = heap.register().expect("memory");
    let class = class_of(640, 8).expect("a small size");
    let blocks: Vec<*mut u8> = (0..50).map(|_| allocate(&heap, &cached, class)).collect();
    blocks.into_iter().for_each(|block| free(&heap, &cached, class, block));
    turns(&heap, 10, || {});
    heap.park(&cached);
    heap.depot().in_flight.begin_fork();
    turns(&heap, 1, || {});
    assert!(heap.stats().cached > 0);
    heap.depot().in_flight.end_fork();
    turns(&heap, 4, || {});
    assert_eq!(heap.stats().cached, 0);
    assert!(heap.depot().purge_signal.call().0.is_none());
    release(&heap);
}
