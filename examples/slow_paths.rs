//! Blocks of 64 bytes on the slow paths, the same in every run: what `ci/instructions.sh` counts beside `pairs`.
//!
//! ```text
//! slow_paths COUNT cached     malloc of 60 blocks and their free: the fast paths alone, for comparison
//! slow_paths COUNT stash      malloc of 378 blocks and their free: each magazine of them is stashed and comes back
//! slow_paths COUNT neighbours malloc of 25,200 blocks, which slabs fill, and their free in the same order
//! slow_paths COUNT scattered  the same, freed in an order in which no two neighbours follow each other
//! ```
//!
//! COUNT is how often. Every malloc and free goes through the same two calls, so differences of runs are the slow paths'.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::hint::black_box;
use std::process::ExitCode;

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

const LAYOUT: Layout = Layout::new::<[u64; 8]>();
/// Less than a magazine that has grown.
const CACHED: usize = 60;
/// Three magazines: as many as a thread stashes unasked.
const STASHED: usize = 3 * 126;
/// Far more than a thread caches of the class: 200 magazines.
const FAR_MORE: usize = 200 * 126;
/// From one block to the next of the scattered order: prime to their number, and no two of 126 in a row share a bitmap word.
const STEP: usize = 7937;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let count: Option<usize> = arguments.next().and_then(|count| count.parse().ok());
    let case = arguments.next();
    let (blocks, step) = match case.as_deref() {
        Some("cached") => (CACHED, 1),
        Some("stash") => (STASHED, 1),
        Some("neighbours") => (FAR_MORE, 1),
        Some("scattered") => (FAR_MORE, STEP),
        _ => return usage(),
    };
    let Some(count) = count else { return usage() };
    let order: Vec<usize> = (0..blocks).map(|index| index * step % blocks).collect();
    let mut held = vec![std::ptr::null_mut(); blocks];
    for _ in 0..count {
        held.iter_mut().for_each(|block| *block = allocate());
        order.iter().for_each(|&index| free(held[index]));
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: slow_paths COUNT cached|stash|neighbours|scattered");
    ExitCode::FAILURE
}

#[inline(always)]
fn allocate() -> *mut u8 {
    // SAFETY: the size is not zero.
    let block = black_box(unsafe { alloc(LAYOUT) });
    if block.is_null() {
        handle_alloc_error(LAYOUT);
    }
    block
}

#[inline(always)]
fn free(block: *mut u8) {
    // SAFETY: the caller had it from `allocate`, and frees it once.
    unsafe { dealloc(black_box(block), LAYOUT) };
}
