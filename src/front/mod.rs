//! The front door: the one static heap, each thread's place in it, and `GlobalAlloc`.
//!
//! ```text
//! # Role        the fast path of malloc and free; where it cannot serve, `thread` finds out why
//! # Not here    anything that a test would want to make twice
//! ```

mod builder;
mod by_address;
mod calls;
mod disabled;
mod global_alloc;
mod place;
mod process;
mod record;
mod start;
mod thread;
mod worker;

use crate::heap::{ClassStats, Heap, Stats};
use crate::size_class::CLASS_COUNT;
use crate::sys::platform::SystemPages;

pub use builder::Magalloc;

/// The heap of this process, or of this library's copy of the allocator.
static HEAP: Heap<SystemPages> = Heap::new(SystemPages);

/// What the allocator holds and has done, at this moment. Stops nobody; takes some milliseconds for each GiB of
/// small blocks.
pub fn stats() -> Stats {
    HEAP.stats()
}

/// What each size class holds at this moment, smallest first. Takes as long as `stats`.
pub fn class_stats() -> [ClassStats; CLASS_COUNT] {
    HEAP.class_stats()
}

/// Gives every block in this thread's cache back to its slab, and this thread's slabs to all threads: for a thread
/// that is about to be idle, such as a runtime's "thread parks" callback. The cache fills again when it is used.
pub fn flush_thread() {
    thread::flush();
}

/// Gives back to the kernel, at once and from any thread, every page that holds neither a live block nor one that
/// another thread has at hand (1 MiB and the first few blocks of each size class); where huge pages were asked for,
/// whole ones only. This thread's cache is emptied first, and what ended threads have left for the next ones.
pub fn purge_all() {
    thread::flush();
    HEAP.release_free();
    worker::attend();
}

/// May the preloaded library stay in the environment, for children to inherit?
#[doc(hidden)]
pub fn stays_in_environment() -> bool {
    HEAP.depot().settings.children()
}

/// Verifies the allocator's invariants, which hold while no thread is inside it. For tests.
///
/// # Panics
/// If one is broken.
#[doc(hidden)]
pub fn check() {
    HEAP.check();
}
