//! What is given back of a huge page is the kernel's again, and not only missing in the count of resident pages: told by
//! the flags of physical pages, which only root may read.
//!
//! Needs a process of its own, for the heap to be large and its pages to be read undisturbed. The global allocator is the
//! system's.

mod common;
mod process;
mod watched;

use common::Random;
use magalloc::Magalloc;
use process::{give, skip, take};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use watched::{end_on_panic, page_bytes, passes};

static MAGALLOC: Magalloc = Magalloc::new();

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
    magalloc::purge_all();
    let (left, in_part) = files.whole_and_in_part(from, end);
    println!("{whole} huge pages, of which {left} are left whole and {in_part} in part");
    assert!(in_part == 0, "{in_part} of {whole} huge pages are kept for parts of them");
    survivors.into_iter().for_each(|(block, size)| give(&MAGALLOC, block, size));
}

fn main() {
    process::main(
        &[("burst_in_huge_pages", burst_in_huge_pages)],
        &[("what_is_given_back_of_a_huge_page_is_free", || passes("burst_in_huge_pages"))],
    );
}
