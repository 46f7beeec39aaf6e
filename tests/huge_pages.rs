//! Huge pages bring in no memory that is not counted, nor where little is written; what is given back of one is the
//! kernel's again, and not only missing in the count of resident pages: told by the flags of physical pages, which only
//! root may read.
//!
//! A scenario is a process, for the heap to be large and its pages to be read undisturbed. The global allocator is the
//! system's.

mod common;
mod process;
mod watched;

use common::Random;
use magalloc::{HugePages, Magalloc, purge_all, stats};
use process::{give, layout, skip, take};
use std::alloc::{GlobalAlloc, Layout};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use watched::{end_on_panic, page_bytes, passes, resident, resident_since};

static MAGALLOC: Magalloc = Magalloc::new();
static ALWAYS: Magalloc = Magalloc::new().huge_pages(HugePages::Always);
static LIMITED: Magalloc = Magalloc::new().huge_pages(HugePages::Always).hard_limit(HARD_LIMIT);

const MIB: usize = 1 << 20;
/// What the heap of `LIMITED` may hold, in bytes.
const HARD_LIMIT: usize = 16 * MIB;
/// Resident beside what a scenario counts, in bytes: metadata, and what the program itself touches.
const BESIDE: u64 = 2 * MIB as u64;

/// Bytes of the burst.
const BURST_BYTES: usize = 128 << 20;
/// Sizes of its blocks are below.
const SIZE_MAX: usize = 16_000;
/// One in so many blocks stays.
const SURVIVES_ONE_IN: usize = 10;

/// Bytes of the heap, the first, where no huge pages are asked for.
const SMALL_HEAP_BYTES: usize = 8 << 20;
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Entries of `/proc/self/pagemap`: the page is present; the number of its physical page.
const PRESENT: u64 = 1 << 63;
const PHYSICAL: u64 = (1 << 55) - 1;
/// A flag in `/proc/kpageflags`: part of a huge page.
const THP: u64 = 1 << 22;

/// What tells of physical pages.
struct PageFiles {
    pages: File,
    flags: File,
}

impl PageFiles {
    fn open() -> io::Result<Self> {
        Ok(Self { pages: File::open("/proc/self/pagemap")?, flags: File::open("/proc/kpageflags")? })
    }

    fn entries(file: &File, first: u64, count: usize) -> Vec<u64> {
        let mut bytes = vec![0; count * 8];
        file.read_exact_at(&mut bytes, first * 8).expect("a table of all pages");
        bytes.chunks_exact(8).map(|entry| u64::from_ne_bytes(entry.try_into().unwrap())).collect()
    }

    /// Of the huge pages in an address range: how many are whole, and how many are there in full for a part that is used.
    fn whole_and_in_part(&self, from: usize, end: usize) -> (usize, usize) {
        let pages = HUGE_PAGE_BYTES / page_bytes();
        let (mut whole, mut in_part) = (0, 0);
        for start in (from & !(HUGE_PAGE_BYTES - 1)..end).step_by(HUGE_PAGE_BYTES) {
            let entries = Self::entries(&self.pages, (start / page_bytes()) as u64, pages);
            let present: Vec<u64> = entries.into_iter().filter(|entry| entry & PRESENT != 0).collect();
            let is_huge = |entry: &u64| Self::entries(&self.flags, entry & PHYSICAL, 1)[0] & THP != 0;
            if present.iter().any(is_huge) {
                *(if present.len() == pages { &mut whole } else { &mut in_part }) += 1;
            }
        }
        (whole, in_part)
    }
}

fn burst_in_huge_pages() {
    end_on_panic();
    let files = match PageFiles::open() {
        Ok(files) => files,
        Err(error) => return skip(&format!("physical pages are not told: {error}")),
    };
    let mut random = Random::new();
    let mut blocks = Vec::new();
    let mut bytes = 0;
    while bytes < BURST_BYTES {
        let size = 1 + random.below(SIZE_MAX);
        bytes += size;
        blocks.push((take(&MAGALLOC, size), size));
    }
    // Behind what the system's policy is for.
    let from = blocks.iter().map(|(block, _)| block.addr()).min().expect("blocks") + SMALL_HEAP_BYTES;
    let end = blocks.iter().map(|(block, size)| block.addr() + size).max().expect("blocks");
    let (whole, in_part) = files.whole_and_in_part(from, end);
    assert_eq!(in_part, 0);
    if whole == 0 {
        return skip("the kernel has no huge pages, or does not tell");
    }
    let (survivors, others): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|_| random.below(SURVIVES_ONE_IN) == 0);
    others.into_iter().for_each(|(block, size)| give(&MAGALLOC, block, size));
    magalloc::flush_thread();
    purge_all();
    let (left, in_part) = files.whole_and_in_part(from, end);
    println!("{whole} huge pages, of which {left} are left whole and {in_part} in part");
    assert!(in_part == 0, "{in_part} of {whole} huge pages are kept for parts of them");
    survivors.into_iter().for_each(|(block, size)| give(&MAGALLOC, block, size));
}

/// A block in a huge page of its own, its beginning written.
fn apart(allocator: &Magalloc) -> *mut u8 {
    // SAFETY: the size is not 0.
    let block = unsafe { allocator.alloc(APART) };
    assert!(!block.is_null(), "{:?}", stats());
    // SAFETY: a block of that size.
    unsafe { block.write(1) };
    block
}

/// Two huge pages each, and few bytes.
const APART: Layout = match Layout::from_size_align(16 << 10, 2 * HUGE_PAGE_BYTES) {
    Ok(layout) => layout,
    Err(_) => panic!("a layout"),
};

fn give_apart(allocator: &Magalloc, blocks: Vec<*mut u8>) {
    // SAFETY: live blocks of that layout.
    blocks.into_iter().for_each(|block| unsafe { allocator.dealloc(block, APART) });
}

fn scattered_blocks_in_huge_pages() {
    end_on_panic();
    let before = resident();
    let blocks: Vec<*mut u8> = (0..100).map(|_| apart(&ALWAYS)).collect();
    let most = resident_since(before);
    println!("{most} bytes for {} blocks, {} are held", blocks.len(), stats().held);
    assert!(most <= stats().held + BESIDE, "{most} bytes are resident: {:?}", stats());
    give_apart(&ALWAYS, blocks);
    purge_all();
    assert!(resident_since(before) < 8 << 20, "{} bytes are resident: {:?}", resident_since(before), stats());
}

fn scattered_blocks_under_a_limit() {
    end_on_panic();
    let before = resident();
    let blocks: Vec<*mut u8> = (0..400).map(|_| apart(&LIMITED)).collect();
    let most = resident_since(before);
    println!("{most} bytes for {} blocks, {} are held", blocks.len(), stats().held);
    assert!(most <= HARD_LIMIT as u64 + BESIDE, "{most} bytes are resident: {:?}", stats());
    give_apart(&LIMITED, blocks);
}

/// Writes a byte in each `step` of the block, and checks that hardly more comes in than without huge pages.
fn write_sparsely(block: *mut u8, bytes: usize, step: usize) {
    let before = resident();
    for offset in (0..bytes).step_by(step) {
        // SAFETY: within the block.
        unsafe { block.add(offset).write(1) };
    }
    let (more, written) = (resident_since(before), (bytes / step * page_bytes()) as u64);
    assert!(more <= written + written / 5 + BESIDE, "{more} bytes for {written}: {:?}", stats());
}

/// Large blocks in a large heap, of which little is written.
fn sparse_blocks() {
    const BYTES: usize = 1 << 30;
    end_on_panic();
    let filler = take(&MAGALLOC, 16 * MIB);
    for _ in 0..20 {
        // SAFETY: the size is not 0.
        let zeroed = unsafe { MAGALLOC.alloc_zeroed(layout(BYTES)) };
        for block in [zeroed, take(&MAGALLOC, BYTES)] {
            write_sparsely(block, BYTES, HUGE_PAGE_BYTES);
            give(&MAGALLOC, block, BYTES);
        }
        purge_all();
    }
    // Blocks that grow, which huge pages are for; what comes in their place later has none of that.
    let grown = |_| {
        let block = take(&MAGALLOC, MIB);
        // SAFETY: a live block of that layout.
        let block = unsafe { MAGALLOC.realloc(block, layout(MIB), 8 * MIB) };
        assert!(!block.is_null());
        block
    };
    let blocks: Vec<*mut u8> = (0..40).map(grown).collect();
    blocks.into_iter().for_each(|block| give(&MAGALLOC, block, 8 * MIB));
    purge_all();
    let before = resident();
    let blocks: Vec<*mut u8> = (0..300).map(|_| take(&MAGALLOC, MIB)).collect();
    let (more, written) = (resident_since(before), (blocks.len() * page_bytes()) as u64);
    assert!(more <= written + written / 5 + BESIDE, "{more} bytes for {written}: {:?}", stats());
    blocks.into_iter().for_each(|block| give(&MAGALLOC, block, MIB));
    give(&MAGALLOC, filler, 16 * MIB);
}

fn main() {
    process::main(
        &[
            ("burst_in_huge_pages", burst_in_huge_pages),
            ("scattered_blocks_in_huge_pages", scattered_blocks_in_huge_pages),
            ("scattered_blocks_under_a_limit", scattered_blocks_under_a_limit),
            ("sparse_blocks", sparse_blocks),
        ],
        &[
            ("what_is_given_back_of_a_huge_page_is_free", || passes("burst_in_huge_pages")),
            ("what_huge_pages_bring_in_counts_and_goes_back", || passes("scattered_blocks_in_huge_pages")),
            ("what_huge_pages_bring_in_is_limited", || passes("scattered_blocks_under_a_limit")),
            ("large_blocks_take_what_is_written", || passes("sparse_blocks")),
        ],
    );
}
