//! Allocates and frees a block of 64 bytes, again and again: what `ci/instructions.sh` counts, and what `ci/asm.sh`
//! takes apart.
//!
//! ```text
//! pairs COUNT          the compiler knows the layout, as it does for a `Box`
//! pairs COUNT hidden   it does not, as for a slice: the size class is looked up
//! ```

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::hint::black_box;
use std::process::ExitCode;

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

const LAYOUT: Layout = Layout::new::<[u64; 8]>();

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let count: Option<u64> = arguments.next().and_then(|count| count.parse().ok());
    match (count, arguments.next().as_deref()) {
        (Some(count), None) => (0..count).for_each(|_| pair(LAYOUT)),
        (Some(count), Some("hidden")) => (0..count).for_each(|_| {
            let size = black_box(LAYOUT.size());
            // SAFETY: the layout of above, whose size the compiler does not know.
            pair(unsafe { Layout::from_size_align_unchecked(size, LAYOUT.align()) });
        }),
        _ => {
            eprintln!("usage: pairs COUNT [hidden]");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// One malloc and its free. The compiler may not remove them: it does not know what happens to the block between.
#[inline(always)]
fn pair(layout: Layout) {
    // SAFETY: the size is not zero.
    let block = black_box(unsafe { alloc(layout) });
    if block.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: allocated above with the same layout.
    unsafe { dealloc(block, layout) };
}
