//! Tests: huge pages come in where they are going to be filled, count as what they are, and are split when memory goes.

use super::purging::{DELAY_MS, allocate, free, heap, release, resident_bytes};
use crate::config::{GRANULE_BYTES, HUGE_PAGE_BYTES, HUGE_PAGES_FROM_BYTES};
use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::options::{HugePages, Options, SoftLimit};
use crate::purge::pace::Due;
use crate::size_class::{class_of, shape};
use crate::sys::HugePage;
use crate::sys::fake::FakePages;
use crate::units::ClassIndex;
use std::collections::BTreeSet;
use std::thread;

/// A heap whose kernel has huge pages, and a class of which some blocks fill a page.
fn heap_with_huge_pages(options: Options) -> (Box<Heap<FakePages>>, ClassIndex) {
    let heap = heap(options);
    heap.depot().os.pages().set_huge_pages(HugePage::Prompt);
    (heap, class_of(1024, 8).expect("a small size"))
}

/// Allocates blocks until the heap holds `bytes`.
fn fill(heap: &Heap<FakePages>, cached: &LocalHeap<'_, FakePages>, class: ClassIndex, bytes: usize) -> Vec<*mut u8> {
    let mut blocks = Vec::new();
    while heap.depot().budget.held() < bytes {
        blocks.push(allocate(heap, cached, class));
    }
    blocks
}

fn advised(heap: &Heap<FakePages>) -> BTreeSet<usize> {
    heap.depot().os.pages().huge_pages_advised()
}

fn begun(heap: &Heap<FakePages>) -> usize {
    heap.depot().os.pages().huge_pages_begun()
}

/// The huge page that has that address.
fn huge_page_at(address: usize) -> usize {
    address & !(HUGE_PAGE_BYTES - 1)
}

fn huge_page_of(block: *mut u8) -> usize {
    huge_page_at(block.addr())
}

/// Frees blocks, and has all that is free given back.
fn give_back<'b>(
    heap: &Heap<FakePages>,
    cached: &LocalHeap<'_, FakePages>,
    class: ClassIndex,
    blocks: impl Iterator<Item = &'b *mut u8>,
) {
    blocks.for_each(|&block| free(heap, cached, class, block));
    heap.flush(cached);
    heap.purge().epoch(Due::All, || false);
}

/// The accounts are what the maps say.
fn check_accounts(heap: &Heap<FakePages>) {
    let accounts = || (heap.depot().budget.held(), heap.depot().dirty_bytes());
    let before = accounts();
    heap.depot().recount();
    assert_eq!(before, accounts());
    heap.check();
}

#[test]
fn a_huge_page_comes_in_with_the_first_slab_in_it() {
    let (heap, class) = heap_with_huge_pages(Options::new());
    let cached = heap.register().expect("memory");
    let mut blocks = fill(&heap, &cached, class, HUGE_PAGES_FROM_BYTES - GRANULE_BYTES);
    assert_eq!((begun(&heap), advised(&heap).len()), (0, 0), "in a small heap");
    blocks.append(&mut fill(&heap, &cached, class, HUGE_PAGES_FROM_BYTES + HUGE_PAGE_BYTES / 2));
    assert_eq!(begun(&heap), 1);
    assert!(advised(&heap).is_empty(), "what comes in at once needs no advice that lasts");
    let page = huge_page_of(*blocks.last().expect("blocks"));
    // What no slab has of it is free and held, and it all is in memory.
    let stats = heap.stats();
    let in_page = blocks.iter().filter(|&&block| huge_page_of(block) == page).count();
    let in_slabs = in_page.next_multiple_of(shape(class).blocks as usize) * 1024;
    assert_eq!(stats.dirty as usize, HUGE_PAGE_BYTES - in_slabs);
    assert!(resident_bytes(&heap) >= blocks.len() * 1024 + stats.dirty as usize, "{stats:?}");
    assert!(stats.resident as usize >= resident_bytes(&heap), "{stats:?}");
    check_accounts(&heap);
    // The next slabs fill it, and then one more comes in.
    fill(&heap, &cached, class, HUGE_PAGES_FROM_BYTES + HUGE_PAGE_BYTES + GRANULE_BYTES);
    assert_eq!(begun(&heap), 2);
    check_accounts(&heap);
    release(&heap);
}

#[test]
fn what_nobody_takes_of_a_huge_page_goes_back_once_it_has_aged() {
    let (heap, class) = heap_with_huge_pages(Options::new());
    let cached = heap.register().expect("memory");
    let blocks = fill(&heap, &cached, class, HUGE_PAGES_FROM_BYTES + GRANULE_BYTES);
    assert!(heap.stats().dirty as usize > HUGE_PAGE_BYTES / 2);
    let live = blocks.len() * 1024;
    heap.purge().epoch(Due::Aged, || false);
    assert!(heap.stats().dirty as usize > HUGE_PAGE_BYTES / 2, "not at once");
    heap.depot().os.pages().pass_ms(DELAY_MS);
    heap.purge().epoch(Due::Aged, || false);
    let stats = heap.stats();
    assert_eq!(stats.dirty, 0);
    assert!(resident_bytes(&heap) < live + 4 * GRANULE_BYTES, "{} of {live}", resident_bytes(&heap));
    let split = heap.depot().os.pages().huge_pages_split();
    assert_eq!(split, BTreeSet::from([huge_page_of(*blocks.last().expect("blocks"))]));
    // A slab that takes some of it again finds it in use.
    fill(&heap, &cached, class, heap.depot().budget.held() + HUGE_PAGE_BYTES / 2);
    assert_eq!(begun(&heap), 1);
    check_accounts(&heap);
    release(&heap);
}

#[test]
fn huge_pages_are_not_begun_near_limits_nor_against_an_option() {
    let near = HUGE_PAGES_FROM_BYTES + HUGE_PAGE_BYTES;
    let bounded = [
        Options { hard_limit: near, ..Options::new() },
        Options { soft_limit: SoftLimit::Bytes(near), ..Options::new() },
        Options { dirty_bytes_max: HUGE_PAGE_BYTES - 1, ..Options::new() },
        Options { huge_pages: HugePages::System, ..Options::new() },
        Options { huge_pages: HugePages::Never, ..Options::new() },
    ];
    for (options, page_bytes) in
        bounded.map(|options| (options, 4 << 10)).into_iter().chain([(Options::new(), 16 << 10)])
    {
        let (heap, class) = heap_with_huge_pages(options);
        heap.depot().os.pages().set_page_bytes(page_bytes);
        let cached = heap.register().expect("memory");
        fill(&heap, &cached, class, near - GRANULE_BYTES);
        assert_eq!((begun(&heap), advised(&heap).len()), (0, 0), "{options:?}");
        release(&heap);
    }
}

#[test]
fn a_kernel_without_huge_pages_is_not_asked_for_each() {
    for has in [HugePage::None, HugePage::Late] {
        let (heap, class) = heap_with_huge_pages(Options::new());
        heap.depot().os.pages().set_huge_pages(has);
        let cached = heap.register().expect("memory");
        // Passed by between them: 4, 8, 16, 32, 64, 64.
        fill(&heap, &cached, class, HUGE_PAGES_FROM_BYTES + 199 * HUGE_PAGE_BYTES);
        assert_eq!(begun(&heap), 7, "{has:?}");
        // In time again: after what is left of the last pause, each is asked for.
        heap.depot().os.pages().set_huge_pages(HugePage::Prompt);
        let more = |pages| fill(&heap, &cached, class, heap.depot().budget.held() + pages * HUGE_PAGE_BYTES);
        more(64);
        let before = begun(&heap);
        more(10);
        assert_eq!(begun(&heap), before + 10, "{has:?}");
        check_accounts(&heap);
        release(&heap);
    }
}

#[test]
fn a_block_longer_than_a_slab_and_short_of_a_huge_page_brings_nothing_in() {
    let (heap, class) = heap_with_huge_pages(Options::new());
    let cached = heap.register().expect("memory");
    fill(&heap, &cached, class, HUGE_PAGES_FROM_BYTES);
    let before = resident_bytes(&heap);
    (0..100).for_each(|_| assert!(!heap.allocate_large(HUGE_PAGE_BYTES / 2, 8, true).is_null()));
    assert_eq!((resident_bytes(&heap), begun(&heap), advised(&heap).len()), (before, 0, 0));
    release(&heap);
}

/// A block that has grown in place by `more` bytes, the last block of a heap of `HUGE_PAGES_FROM_BYTES`.
fn grown(heap: &Heap<FakePages>, more: usize) -> *mut u8 {
    let block = heap.allocate_large(HUGE_PAGES_FROM_BYTES, 8, false);
    assert_eq!(heap.resize_large(block, HUGE_PAGES_FROM_BYTES + more, 8), block);
    block
}

/// The whole huge pages of an address range.
fn whole_huge_pages(from: usize, bytes: usize) -> BTreeSet<usize> {
    (from.next_multiple_of(HUGE_PAGE_BYTES)..huge_page_at(from + bytes)).step_by(HUGE_PAGE_BYTES).collect()
}

#[test]
fn new_long_blocks_are_not_advised() {
    let (heap, _) = heap_with_huge_pages(Options::new());
    heap.allocate_large(HUGE_PAGES_FROM_BYTES, 8, false);
    let before = resident_bytes(&heap);
    for round in 0..40 {
        let block = heap.allocate_large(5 * HUGE_PAGE_BYTES, 8, round % 2 == 0);
        assert!(!block.is_null());
    }
    assert_eq!((resident_bytes(&heap), begun(&heap), advised(&heap).len()), (before, 0, 0));
    release(&heap);
}

#[test]
fn advice_ends_with_its_block_and_its_huge_pages_are_split_when_a_part_goes() {
    let (heap, class) = heap_with_huge_pages(Options::new());
    // What is freed stays until it is asked for.
    heap.configure(&Options { purge_delay_ms: u32::MAX, ..Options::new() });
    let cached = heap.register().expect("memory");
    let bytes = 10 * HUGE_PAGE_BYTES + HUGE_PAGE_BYTES / 2;
    let block = grown(&heap, bytes);
    let inside = whole_huge_pages(block.addr() + HUGE_PAGES_FROM_BYTES, bytes);
    assert!(inside.len() >= 9);
    assert_eq!((advised(&heap), begun(&heap), heap.stats().dirty), (inside.clone(), 0, 0));
    // What a block loses is not advised any more, nor what is freed.
    assert_eq!(heap.resize_large(block, HUGE_PAGES_FROM_BYTES + bytes / 2, 8), block);
    assert_eq!(advised(&heap), whole_huge_pages(block.addr() + HUGE_PAGES_FROM_BYTES, bytes / 2));
    heap.free_large(block);
    assert!(advised(&heap).is_empty());
    // Small blocks take its place, and all but one page of one huge page stays in use.
    let mut blocks = Vec::new();
    while heap.depot().dirty_bytes() != 0 {
        blocks.push(allocate(&heap, &cached, class));
    }
    let page = *inside.first().expect("some");
    let hole = page + HUGE_PAGE_BYTES / 2;
    let goes = |block: &&*mut u8| (hole..hole + 4096).contains(&block.addr());
    give_back(&heap, &cached, class, blocks.iter().filter(goes));
    assert!(heap.stats().purges > 0);
    let split = heap.depot().os.pages().huge_pages_split();
    assert_eq!(split.intersection(&inside).copied().collect::<Vec<_>>(), [page]);
    give_back(&heap, &cached, class, blocks.iter().filter(|block| !goes(block)));
    check_accounts(&heap);
    release(&heap);
}

#[test]
fn what_a_block_grows_by_is_advised() {
    let (heap, _) = heap_with_huge_pages(Options::new());
    let mut block = heap.allocate_large(HUGE_PAGES_FROM_BYTES / 2, 8, false);
    // In place, as nothing is behind it.
    let (old, new) = (HUGE_PAGES_FROM_BYTES - GRANULE_BYTES, 2 * HUGE_PAGES_FROM_BYTES);
    for size in [old, new] {
        let grown = heap.resize_large(block, size, 8);
        assert_eq!(grown, block);
        block = grown;
    }
    let added = block.addr() + old..block.addr() + new;
    let whole = added.start.next_multiple_of(HUGE_PAGE_BYTES)..huge_page_at(added.end);
    assert_eq!(advised(&heap), whole.clone().step_by(HUGE_PAGE_BYTES).collect());
    assert_eq!(begun(&heap), 0);
    // By moving: what moves loses its advice, and only what it grows by is new.
    let obstacle = heap.allocate_large(GRANULE_BYTES, 8, false);
    let before = begun(&heap);
    let moved = heap.resize_large(block, 2 * new, 8);
    assert!(!moved.is_null() && moved != block);
    let added = moved.addr() + new..moved.addr() + 2 * new;
    let whole = added.start.next_multiple_of(HUGE_PAGE_BYTES)..huge_page_at(added.end);
    assert_eq!(advised(&heap), whole.step_by(HUGE_PAGE_BYTES).collect());
    assert_eq!(begun(&heap), before);
    [moved, obstacle].into_iter().for_each(|block| heap.free_large(block));
    check_accounts(&heap);
    release(&heap);
}

#[test]
fn threads_that_claim_from_one_huge_page_leave_right_accounts() {
    let (heap, class) = heap_with_huge_pages(Options::new());
    let first = heap.register().expect("memory");
    fill(&heap, &first, class, HUGE_PAGES_FROM_BYTES);
    let work = |thread: usize| {
        for round in 1..100 {
            let sizes = (1..12).map(|step| (thread + round * step) % 16 + 1);
            let blocks: Vec<*mut u8> =
                sizes.map(|granules| heap.allocate_large(granules * GRANULE_BYTES, 8, false)).collect();
            blocks.into_iter().for_each(|block| heap.free_large(block));
            if round % 8 == 0 {
                heap.purge().epoch(Due::All, || false);
            }
        }
    };
    // How often a huge page is begun depends on how the threads meet.
    for _ in 0..1000 {
        thread::scope(|scope| (0..4).for_each(|thread| _ = scope.spawn(move || work(thread))));
        if begun(&heap) > 50 {
            break;
        }
    }
    assert!(begun(&heap) > 50, "{}", begun(&heap));
    check_accounts(&heap);
    release(&heap);
}

#[test]
fn where_a_block_moved_away_no_advice_is_left() {
    let (heap, _) = heap_with_huge_pages(Options::new());
    let first = heap.allocate_large(16 * HUGE_PAGE_BYTES, 8, false);
    let block = heap.allocate_large(2 * HUGE_PAGE_BYTES, 8, false);
    assert_eq!(heap.resize_large(block, 5 * HUGE_PAGE_BYTES, 8), block);
    let obstacle = heap.allocate_large(GRANULE_BYTES, 8, false);
    assert!(advised(&heap).len() >= 2);
    let moved = heap.resize_large(block, 8 * HUGE_PAGE_BYTES, 8);
    assert!(!moved.is_null() && moved != block);
    let place = block.addr()..block.addr() + 5 * HUGE_PAGE_BYTES;
    assert_eq!(advised(&heap).range(place).count(), 0);
    // Where a part of a huge page went with it, or stays behind, the page was split.
    let edges = [block.addr(), block.addr() + 5 * HUGE_PAGE_BYTES - 1].map(huge_page_at);
    let edges = BTreeSet::from(edges);
    let split = heap.depot().os.pages().huge_pages_split();
    assert!(split.is_subset(&edges), "{split:?} {edges:?}");
    [moved, first, obstacle].into_iter().for_each(|block| heap.free_large(block));
    check_accounts(&heap);
    release(&heap);
}

/// 80 GB of address space: only heaps of that size have so many spans that the kernel's bound matters.
#[cfg(target_pointer_width = "64")]
#[test]
fn many_long_spans_leave_the_mappings_few() {
    let (heap, _) = heap_with_huge_pages(Options::new());
    // Nothing is touched. Each is a part of a huge page off the whole ones, so that a piece beside them is not advised.
    let mut refused = 0;
    for _ in 0..20_000 {
        let block = heap.allocate_large(crate::config::CHUNK_BYTES, 8, false);
        // At the end of a region, which another test's heap may have cut short, a block does not grow in place.
        refused += usize::from(heap.resize_large(block, crate::config::CHUNK_BYTES + 3 * HUGE_PAGE_BYTES, 8) != block);
    }
    assert!(refused < 20, "{refused}");
    let advised = advised(&heap);
    let ranges = advised.iter().filter(|&&page| !advised.contains(&(page - HUGE_PAGE_BYTES))).count();
    assert!((1_000..5_000).contains(&ranges), "{ranges}");
    release(&heap);
}

#[test]
fn a_slab_in_a_huge_page_gives_its_untouched_pages_back() {
    let (heap, class) = heap_with_huge_pages(Options::new());
    let cached = heap.register().expect("memory");
    fill(&heap, &cached, class, HUGE_PAGES_FROM_BYTES);
    while begun(&heap) == 0 || heap.depot().dirty_bytes() != 0 {
        allocate(&heap, &cached, class);
    }
    heap.flush(&cached);
    heap.purge().epoch(Due::All, || false);
    let (before, resident) = (begun(&heap), resident_bytes(&heap));
    // The first slab of the next huge page, of which a page is written.
    allocate(&heap, &cached, class_of(64, 8).expect("a small size"));
    assert_eq!(begun(&heap), before + 1);
    heap.flush(&cached);
    heap.purge().epoch(Due::All, || false);
    let more = resident_bytes(&heap).saturating_sub(resident);
    assert!(more <= 4096, "{more}");
    release(&heap);
}

#[test]
fn a_huge_page_that_goes_in_pieces_is_split_for_the_first() {
    let (heap, class) = heap_with_huge_pages(Options::new());
    let cached = heap.register().expect("memory");
    let blocks = fill(&heap, &cached, class, HUGE_PAGES_FROM_BYTES + 3 * HUGE_PAGE_BYTES);
    let page = huge_page_of(blocks[blocks.len() - 1]) - HUGE_PAGE_BYTES;
    let half = |from: usize| from..from + HUGE_PAGE_BYTES / 2;
    for piece in [half(page + HUGE_PAGE_BYTES / 2), half(page)] {
        give_back(&heap, &cached, class, blocks.iter().filter(|block| piece.contains(&block.addr())));
        assert!(heap.depot().os.pages().huge_pages_split().contains(&page));
    }
    check_accounts(&heap);
    release(&heap);
}

/// Options under which huge pages are kept whole, and heaps with them.
fn heaps_with_whole_huge_pages(hard_limit: usize) -> [Box<Heap<FakePages>>; 2] {
    let always = heap(Options { huge_pages: HugePages::Always, hard_limit, ..Options::new() });
    let system = heap(Options::new());
    system.depot().os.pages().set_huge_pages_unasked();
    system.configure(&Options { huge_pages: HugePages::System, hard_limit, ..Options::new() });
    [always, system]
}

#[test]
fn a_whole_huge_page_counts_from_its_first_block_and_goes_with_its_last() {
    for heap in heaps_with_whole_huge_pages(usize::MAX) {
        // One at the beginning of each, one at the end, and one over both ends of huge pages.
        let long = 2 * HUGE_PAGE_BYTES + 2 * GRANULE_BYTES;
        for (size, align, pages) in
            [(GRANULE_BYTES, 2 * HUGE_PAGE_BYTES, 1), (HUGE_PAGE_BYTES, 8, 1), (long, HUGE_PAGE_BYTES, 2)]
        {
            let blocks: Vec<*mut u8> = (0..10).map(|_| heap.allocate_large(size, align, false)).collect();
            let held = heap.depot().budget.held();
            assert!(held >= 10 * pages * HUGE_PAGE_BYTES, "{held} of blocks of {size}");
            assert_eq!(held % HUGE_PAGE_BYTES, 0, "blocks of {size}");
            // What the kernel makes of one write in each.
            for block in &blocks {
                for page in (huge_page_of(*block)..block.addr() + size).step_by(HUGE_PAGE_BYTES) {
                    // SAFETY: committed, and nothing else is in it.
                    let page = unsafe { std::slice::from_raw_parts_mut(block.with_addr(page), HUGE_PAGE_BYTES) };
                    page.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
                }
            }
            blocks.into_iter().for_each(|block| heap.free_large(block));
            heap.purge().epoch(Due::All, || false);
            assert_eq!((resident_bytes(&heap), heap.depot().budget.held(), heap.depot().dirty_bytes()), (0, 0, 0));
            check_accounts(&heap);
        }
        release(&heap);
    }
}

#[test]
fn a_hard_limit_binds_what_huge_pages_bring_in() {
    const LIMIT: usize = 8 * HUGE_PAGE_BYTES;
    for heap in heaps_with_whole_huge_pages(LIMIT) {
        let mut blocks = Vec::new();
        // One in each huge page, while these last; then in base pages, of which the last huge pages are made, too.
        for _ in 0..300 {
            let block = heap.allocate_large(GRANULE_BYTES, 2 * HUGE_PAGE_BYTES, false);
            assert!(!block.is_null());
            // SAFETY: a block of that size.
            unsafe { block.write_bytes(1, GRANULE_BYTES) };
            blocks.push(block);
            assert!(heap.depot().budget.held() <= LIMIT);
        }
        assert!(heap.depot().os.pages().huge_pages_split().len() > 1);
        blocks.into_iter().for_each(|block| heap.free_large(block));
        heap.purge().epoch(Due::All, || false);
        assert_eq!((resident_bytes(&heap), heap.depot().budget.held()), (0, 0));
        check_accounts(&heap);
        release(&heap);
    }
}

#[test]
fn a_huge_page_is_given_back_once_all_of_it_has_aged() {
    for heap in heaps_with_whole_huge_pages(usize::MAX) {
        let half = HUGE_PAGE_BYTES / 2;
        let parts = [(); 2].map(|()| heap.allocate_large(half, 8, false));
        heap.free_large(parts[0]);
        heap.purge().epoch(Due::Aged, || false);
        heap.purge().epoch(Due::Aged, || false);
        assert_eq!(heap.stats().purges, 0, "the other half is in use");
        heap.free_large(parts[1]);
        heap.purge().epoch(Due::Aged, || false);
        assert_eq!(heap.stats().purges, 0, "the other half has just been freed");
        heap.purge().epoch(Due::Aged, || false);
        assert_eq!((heap.stats().dirty, heap.depot().budget.held()), (0, 0), "all in one turn");
        release(&heap);
    }
}
