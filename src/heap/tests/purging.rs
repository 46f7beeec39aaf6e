//! Tests: what is free goes back to the kernel, in time, and nothing else does; with OS pages of every size.

use crate::config::{CHUNK_BYTES, CHUNK_GRANULES, GRANULE_BYTES, GROUP_CHUNKS, HUGE_PAGE_BYTES};
use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::options::{HugePages, Options};
use crate::pagemap::Region;
use crate::purge::pace::Due;
use crate::size_class::{all, class_of, shape};
use crate::sys::Pages;
use crate::sys::fake::FakePages;
use crate::units::{ClassIndex, GranuleIndex};
use std::collections::BTreeSet;

pub(super) const DELAY_MS: u64 = 1000;

pub(in crate::heap) fn heap(options: Options) -> Box<Heap<FakePages>> {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(&Options { purge_delay_ms: DELAY_MS as u32, ..options });
    heap
}

pub(in crate::heap) fn release(heap: &Heap<FakePages>) {
    // SAFETY: the heap is this test's, and its blocks are not used any more.
    let (mapped, unmapped) = unsafe { heap.release() };
    assert_eq!(mapped, unmapped);
}

pub(super) fn allocate(heap: &Heap<FakePages>, cached: &LocalHeap<'_, FakePages>, class: ClassIndex) -> *mut u8 {
    let popped = cached.pop(class);
    let block = if popped.is_null() { heap.allocate_small(Some(cached), class) } else { popped };
    assert!(!block.is_null());
    // SAFETY: the block has that many bytes.
    unsafe { block.write_bytes(block.addr() as u8 | 1, shape(class).bytes as usize) };
    block
}

pub(super) fn free(heap: &Heap<FakePages>, cached: &LocalHeap<'_, FakePages>, class: ClassIndex, block: *mut u8) {
    if !cached.push(class, block) {
        heap.free_small(Some(cached), class, block);
    }
}

fn verify(class: ClassIndex, block: *mut u8) {
    for offset in 0..shape(class).bytes as usize {
        // SAFETY: a live block of that many bytes.
        assert_eq!(unsafe { *block.add(offset) }, block.addr() as u8 | 1, "{block:p} + {offset}");
    }
}

/// Real pages that the blocks touch, if OS pages have `page` bytes.
fn pages(blocks: &[(ClassIndex, *mut u8)], page: usize) -> usize {
    let real = FakePages::new().page_bytes();
    let touched = blocks
        .iter()
        .flat_map(|&(class, block)| block.addr() / page..=(block.addr() + shape(class).bytes as usize - 1) / page);
    touched.collect::<BTreeSet<_>>().len() * (page / real)
}

/// Bytes of the heap that are in memory, as the kernel counts them.
pub(super) fn resident_bytes(heap: &Heap<FakePages>) -> usize {
    let of_chunk = |region: &Region, chunk| {
        heap.depot().os.pages().resident(region.address(GranuleIndex::new(chunk * CHUNK_GRANULES)), CHUNK_BYTES)
    };
    let of_region = |region: &Region| region.committed_chunks().map(|chunk| of_chunk(region, chunk)).sum::<usize>();
    heap.depot().regions.iter().map(of_region).sum()
}

pub(super) fn resident(heap: &Heap<FakePages>) -> usize {
    resident_bytes(heap) / heap.depot().os.page_bytes().min(4096)
}

#[test]
fn only_pages_with_a_live_block_stay() {
    for page in [4 << 10, 16 << 10, 64 << 10].into_iter().filter(|&page| page <= GRANULE_BYTES) {
        let heap = heap(Options::new());
        heap.depot().os.pages().set_page_bytes(page);
        let cached = heap.register().expect("memory");
        let mut live = Vec::new();
        for class in all() {
            let count = (4 * shape(class).granules as usize * GRANULE_BYTES) / shape(class).bytes as usize;
            let blocks: Vec<*mut u8> = (0..count).map(|_| allocate(&heap, &cached, class)).collect();
            for (index, block) in blocks.into_iter().enumerate() {
                // Single survivors, and a whole run.
                if index % 61 == 7 || index * 8 / count == 5 {
                    live.push((class, block));
                } else {
                    free(&heap, &cached, class, block);
                }
            }
        }
        heap.flush(&cached);
        heap.purge().epoch(Due::All, || false);
        let (kept, needed) = (resident(&heap), pages(&live, page));
        // The ends of slabs, which no block touches, go only with other pages of their slab: less than 1/16 of it. Of
        // the last slab of each class, some pages were never touched: up to so many.
        let untouched = 40.max(page >> 10);
        assert!(
            kept + untouched >= needed && kept <= needed + needed / 50 + 40,
            "{kept} pages for {needed} of {page} bytes"
        );
        live.iter().for_each(|&(class, block)| verify(class, block));
        heap.check();
        // Statistics know it without the kernel, but for pages whose blocks came to a cache and went again.
        let at_most = heap.stats().resident as usize / page.min(4096);
        assert!((kept..=kept + untouched).contains(&at_most), "{at_most} pages for {kept} of {page} bytes");
        // Nothing is left to do, and nothing is done.
        let purges = heap.stats().purges;
        heap.purge().epoch(Due::All, || false);
        heap.purge().epoch(Due::Aged, || false);
        assert_eq!(heap.stats().purges, purges);
        assert!(heap.depot().purge_signal.call().0.is_none());
        // All is used again, and freed again.
        for &(class, block) in &live {
            free(&heap, &cached, class, block);
        }
        let again: Vec<_> = all().flat_map(|class| [(class, allocate(&heap, &cached, class)); 1]).collect();
        for (class, block) in again {
            verify(class, block);
            free(&heap, &cached, class, block);
        }
        heap.flush(&cached);
        heap.purge().epoch(Due::All, || false);
        assert_eq!((resident(&heap), heap.stats().resident, heap.depot().budget.held()), (0, 0, 0));
        heap.check();
        release(&heap);
    }
}

/// Allocates and frees until nothing happens any more, so that ticks come by.
fn knock(heap: &Heap<FakePages>) {
    (0..1000).for_each(|_| heap.purge().tick());
}

#[test]
fn memory_goes_back_between_half_and_one_delay_after_it_became_free() {
    let heap = heap(Options::new());
    let cached = heap.register().expect("memory");
    let class = class_of(512, 8).expect("a small size");
    let blocks: Vec<*mut u8> = (0..40_000).map(|_| allocate(&heap, &cached, class)).collect();
    let large = heap.allocate_large(3 * CHUNK_BYTES, 8, false);
    // SAFETY: a block of that size.
    unsafe { large.write_bytes(1, 3 * CHUNK_BYTES) };
    blocks.iter().filter(|block| block.addr() % 8192 != 0).for_each(|&block| free(&heap, &cached, class, block));
    heap.free_large(large);
    heap.flush(&cached);
    let (before, needed) = (resident(&heap), blocks.len() / 16);
    knock(&heap);
    for _ in 0..9 {
        // Just before half a delay after the first look: nothing yet.
        heap.depot().os.pages().pass_ms(DELAY_MS / 20);
        knock(&heap);
        assert_eq!(resident(&heap), before);
    }
    for _ in 0..12 {
        heap.depot().os.pages().pass_ms(DELAY_MS / 20);
        knock(&heap);
        // The ticks of a turn are a millisecond apart.
        for _ in 0..20 {
            heap.depot().os.pages().pass_ms(1);
            knock(&heap);
        }
    }
    assert_eq!(resident(&heap), needed, "every second page has a live block");
    let stats = heap.stats();
    // One block of 512 bytes in each page that stays; the thread has given back what it cached.
    assert_eq!(stats.fragmentation(), Some(7.0 / 8.0), "{stats:?}");
    release(&heap);
}

#[test]
fn memory_in_use_now_and_then_is_not_given_back() {
    let heap = heap(Options::new());
    let cached = heap.register().expect("memory");
    let class = class_of(64, 8).expect("a small size");
    let work = || {
        let blocks: Vec<*mut u8> = (0..50_000).map(|_| allocate(&heap, &cached, class)).collect();
        let large = heap.allocate_large(CHUNK_BYTES, 8, false);
        heap.free_large(large);
        blocks.into_iter().for_each(|block| free(&heap, &cached, class, block));
    };
    work();
    for _ in 0..20 {
        heap.purge().epoch(Due::Aged, || false);
        work();
    }
    assert_eq!(heap.stats().purges, 0);
    release(&heap);
}

#[test]
fn huge_pages_that_were_asked_for_are_not_split() {
    let heap = heap(Options { huge_pages: HugePages::Always, ..Options::new() });
    let cached = heap.register().expect("memory");
    let class = class_of(1024, 8).expect("a small size");
    let whole = CHUNK_BYTES.max(HUGE_PAGE_BYTES);
    let blocks: Vec<*mut u8> = (0..3 * whole / 1024).map(|_| allocate(&heap, &cached, class)).collect();
    let kept = blocks.len() / 2;
    for (index, &block) in blocks.iter().enumerate() {
        if index != kept {
            free(&heap, &cached, class, block);
        }
    }
    heap.flush(&cached);
    heap.purge().epoch(Due::All, || false);
    assert_eq!((resident_bytes(&heap), heap.stats().resident as usize), (HUGE_PAGE_BYTES, HUGE_PAGE_BYTES));
    assert!(heap.depot().purge_signal.call().0.is_none());
    verify(class, blocks[kept]);
    release(&heap);
}

#[test]
fn a_kernel_that_refuses_is_not_asked_again_and_again() {
    use crate::sys::fake::Refuse;
    let heap = heap(Options::new());
    let cached = heap.register().expect("memory");
    let class = class_of(512, 8).expect("a small size");
    let blocks: Vec<*mut u8> = (0..20_000).map(|_| allocate(&heap, &cached, class)).collect();
    blocks.iter().filter(|block| block.addr() % 8192 != 0).for_each(|&block| free(&heap, &cached, class, block));
    heap.flush(&cached);
    let held = heap.depot().budget.held();
    heap.depot().os.pages().refuse(Refuse::From(1));
    heap.purge().epoch(Due::All, || false);
    assert!(heap.depot().os.pages().has_refused());
    assert!(heap.depot().purge_signal.call().0.is_none(), "nobody wakes for it");
    assert_eq!(heap.depot().budget.held(), held);
    heap.depot().os.pages().refuse(Refuse::None);
    heap.check();
    release(&heap);
}

#[test]
fn a_kernel_that_gives_back_one_range_at_a_time_is_asked_so() {
    use crate::sys::fake::Refuse;
    let heap = heap(Options { extra_calls: true, ..Options::new() });
    let cached = heap.register().expect("memory");
    let class = class_of(512, 8).expect("a small size");
    let blocks: Vec<*mut u8> = (0..40_000).map(|_| allocate(&heap, &cached, class)).collect();
    let (kept, freed): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|block| block.addr() % 8192 == 0);
    let (last, freed) = freed.split_last().expect("blocks");
    freed.iter().for_each(|&block| free(&heap, &cached, class, block));
    heap.flush(&cached);
    // The call for several ranges is the first one, and not asked for again.
    heap.depot().os.pages().refuse(Refuse::Call(1));
    heap.purge().epoch(Due::All, || false);
    assert!(heap.depot().os.pages().has_refused());
    assert!(resident(&heap) <= kept.len() + 1, "{} pages for {} blocks", resident(&heap), kept.len());
    assert!(heap.stats().purges as usize >= kept.len(), "a call for each second page");
    kept.iter().for_each(|&block| verify(class, block));
    free(&heap, &cached, class, *last);
    heap.check();
    release(&heap);
}

#[test]
fn pages_come_in_with_their_blocks_in_large_heaps_only() {
    let heap = heap(Options::new());
    let cached = heap.register().expect("memory");
    let [filler, untouched] = [4096, 1024].map(|bytes| class_of(bytes, 8).expect("a small size"));
    // What a refill makes resident, if nothing is written.
    let refill = || {
        let before = resident(&heap);
        let block = heap.allocate_small(Some(&cached), untouched);
        assert!(!block.is_null());
        let more = resident(&heap) - before;
        while !cached.pop(untouched).is_null() {}
        more
    };
    (0..12).for_each(|_| assert_eq!(refill(), 0));
    (0..10_000).for_each(|_| _ = allocate(&heap, &cached, filler));
    let more = refill();
    let region = heap.depot().regions.get(0).expect("a region");
    // SAFETY: the first granule, which is committed.
    let can = unsafe { heap.depot().os.pages().populate(region.address(GranuleIndex::new(0)), 4096) };
    assert!(if can { (2..=16).contains(&more) } else { more == 0 }, "{more} pages");
    release(&heap);
}

#[test]
fn both_halves_of_a_huge_page_go() {
    let heap = heap(Options { huge_pages: HugePages::Always, ..Options::new() });
    let half = HUGE_PAGE_BYTES / 2;
    for upwards in [true, false] {
        let mut parts = [heap.allocate_large(half, 8, false), heap.allocate_large(half, 8, false)];
        assert_eq!(parts[0].addr() + half, parts[1].addr());
        // SAFETY: blocks of that size.
        parts.iter().for_each(|part| unsafe { part.write_bytes(1, half) });
        if !upwards {
            parts.reverse();
        }
        heap.free_large(parts[0]);
        heap.purge().epoch(Due::All, || false);
        assert_eq!(resident_bytes(&heap), HUGE_PAGE_BYTES, "half of it is in use");
        heap.free_large(parts[1]);
        heap.purge().epoch(Due::All, || false);
        // One half may have been looked at before the other was free.
        heap.purge().epoch(Due::All, || false);
        assert_eq!((resident(&heap), heap.stats().dirty), (0, 0), "upwards: {upwards}");
    }
    release(&heap);
}

#[test]
fn a_slab_in_full_use_has_no_marks() {
    let heap = heap(Options::new());
    let cached = heap.register().expect("memory");
    let class = class_of(64, 8).expect("a small size");
    let blocks: Vec<*mut u8> = (0..GRANULE_BYTES / 64).map(|_| allocate(&heap, &cached, class)).collect();
    let (region, granule) = heap.depot().regions.find(blocks[0].addr()).expect("the block's");
    assert!(region.descriptor(granule).marks.is_clear());
    release(&heap);
}

#[test]
fn a_flush_notes_every_chunk_that_it_frees_in() {
    let heap = heap(Options::new());
    let cached = heap.register().expect("memory");
    let class = all().last().expect("a class");
    // More than one group of them.
    let chunks = GROUP_CHUNKS + 3;
    let mut one_of_each = std::collections::BTreeMap::new();
    while one_of_each.len() < chunks {
        let popped = cached.pop(class);
        let block = if popped.is_null() { heap.allocate_small(Some(&cached), class) } else { popped };
        let (_, granule) = heap.depot().regions.find(block.addr()).expect("a block");
        one_of_each.insert(granule.chunk(), block);
    }
    let region = heap.depot().regions.get(0).expect("the blocks'");
    for &chunk in one_of_each.keys() {
        let _ = region.group(chunk / GROUP_CHUNKS).unpurged.take(chunk % GROUP_CHUNKS);
    }
    // From the ends to the middle: now one group, now another.
    let blocks: Vec<_> = one_of_each.values().copied().collect();
    let ends: Vec<_> = (0..chunks).map(|at| blocks[if at % 2 == 0 { at / 2 } else { chunks - 1 - at / 2 }]).collect();
    cached.shared.flush(Some(cached.me), class, &ends);
    let is_noted =
        |chunk: &usize| region.group(chunk / GROUP_CHUNKS).unpurged.chunks() >> (chunk % GROUP_CHUNKS) & 1 != 0;
    assert!(one_of_each.keys().all(is_noted));
    release(&heap);
}

#[test]
fn chunks_whose_memory_was_refused_are_not_touched() {
    let heap = heap(Options::new());
    let kept = heap.allocate_large(CHUNK_BYTES, 16, false);
    heap.free_large(heap.allocate_large(CHUNK_BYTES, 16, false));
    // Begins in free dirty memory, and ends where nothing is mapped.
    heap.depot().os.pages().refuse(crate::sys::fake::Refuse::From(1));
    assert!(heap.allocate_large(16 * CHUNK_BYTES, 16, false).is_null());
    heap.depot().os.pages().refuse(crate::sys::fake::Refuse::None);
    heap.purge().epoch(Due::All, || false);
    assert_eq!(heap.stats().dirty, 0);
    heap.free_large(kept);
    heap.check();
    release(&heap);
}

#[cfg(target_pointer_width = "64")]
#[test]
fn what_lies_behind_a_strangers_memory_goes_back_too() {
    const MIB: usize = 1 << 20;
    for huge_pages in [HugePages::Never, HugePages::Always] {
        let heap = heap(Options { huge_pages, ..Options::new() });
        let low = heap.allocate_large(MIB, 16, false);
        // Leaves chunks before it that nobody has used: the heap may begin just before an address of that alignment.
        let [middle, high] = [0, 1].map(|_| heap.allocate_large(16 * MIB, 1 << 30, false));
        let (region, granule) = heap.depot().regions.find(high.addr()).expect("a block");
        heap.depot().os.pages().send_stranger(1);
        let beyond = heap.allocate_large(16 * MIB, 16, false);
        assert!(region.chunks() < granule.chunk(), "the region ends before: {} {granule:?}", region.chunks());
        // SAFETY: it has that many bytes.
        unsafe { high.write_bytes(1, 16 * MIB) };
        [low, middle, high, beyond].into_iter().for_each(|block| heap.free_large(block));
        heap.purge().epoch(Due::All, || false);
        assert_eq!(heap.stats().dirty, 0, "{huge_pages:?}");
        heap.check();
        heap.depot().os.pages().see_stranger_off();
        release(&heap);
    }
}
