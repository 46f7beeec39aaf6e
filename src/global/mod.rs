//! The front door: the one static heap, each thread's place in it, and `GlobalAlloc`.
//!
//! ```text
//! # Role        the fast path of malloc and free; where it cannot serve, `thread` finds out why
//! # Not here    anything that a test would want to make twice
//! ```

mod builder;
mod census;
mod control;
mod exit;
mod global_alloc;
mod init;
mod paths;
mod stats_record;
mod thread;
mod tls;
mod unsized_free;
mod worker;

use crate::heap::{ClassStats, Heap, Stats};
use crate::mode::{CallCounts, Counters, Mode, SecondPath};
use crate::size_class::CLASS_COUNT;
use crate::sys::platform::SystemPages;

pub use builder::Magalloc;
pub use control::{option, set_option};

/// The heap of this process, or of this library's copy of the allocator.
static HEAP: Heap<SystemPages> = Heap::new(SystemPages);

/// What the mode `Counting` has counted.
static COUNTERS: Counters = Counters::new();

/// What slow calls do.
#[inline]
fn second_path() -> SecondPath<'static, SystemPages> {
    SecondPath::new(&HEAP, &COUNTERS)
}

/// By what the crate's own users of the heap allocate: its options hold only where no other `Magalloc` was first, and where
/// one was, it has none that could be ignored (see `init`).
pub(crate) static OWN: Magalloc = Magalloc::new();

/// What the allocator holds and has done, at this moment: as slow paths have counted it. Stops nobody, and costs the same
/// whatever the heap holds: about a microsecond for each thread that has a cache, or had one while others did.
///
/// ```
/// # #[global_allocator]
/// # static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();
/// # fn main() {
/// let before = magalloc::stats().live;
/// let block = vec![1_u8; 1 << 20];
/// assert!(magalloc::stats().live >= before + (1 << 20) || magalloc::stats().disabled);
/// # drop(block);
/// # }
/// ```
///
/// See also [`class_stats`], and [`census`].
pub fn stats() -> Stats {
    Stats { disabled: second_path().mode() == Mode::System, ..HEAP.stats() }
}

/// The figures of [`stats`], found by a walk over all slabs and spans: to check what was counted, in a test or after a
/// fork. Stops nobody; takes some milliseconds for each GiB of small blocks.
///
/// ```
/// let blocks: Vec<Box<u64>> = (0..1000).map(Box::new).collect();
/// assert_eq!(magalloc::census().large_blocks, magalloc::stats().large_blocks);
/// # drop(blocks);
/// ```
pub fn census() -> Stats {
    Stats { disabled: second_path().mode() == Mode::System, ..HEAP.census() }
}

/// What each size class holds at this moment, smallest first. Takes as long as [`stats`].
///
/// ```
/// for class in magalloc::class_stats().iter().filter(|class| class.live() > 0) {
///     println!("{:>8} blocks of {} bytes", class.live(), class.block_bytes);
/// }
/// ```
pub fn class_stats() -> [ClassStats; CLASS_COUNT] {
    HEAP.class_stats()
}

/// Turns the counting of all allocations and frees, in all threads, on or off; [`call_counts`] has the counts. While it is
/// on, each call takes some 10 ns longer; while it is off, nothing. When this returns, each thread's next call is counted, or
/// not any more. `false`: nothing was changed, as it was so already, as another mode is on or being turned on just now, as the
/// process is about to end, as the allocator is disabled, or, in a program with other threads, as it has
/// [`background_thread(false)`](Magalloc::background_thread): then nobody knows which of them are still there.
///
/// ```
/// # #[global_allocator]
/// # static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();
/// # fn main() {
/// let is_on = magalloc::set_counting(true);
/// drop(vec![0_u8; 100]);
/// magalloc::set_counting(false);
/// let of_class = magalloc::call_counts().into_iter().find(|class| class.block_bytes >= 100);
/// assert!(!is_on || of_class.is_some_and(|class| class.allocated >= 1 && class.freed >= 1));
/// # }
/// ```
pub fn set_counting(on: bool) -> bool {
    turn(Mode::Counting, on)
}

fn turn(mode: Mode, on: bool) -> bool {
    let path = second_path();
    match path.mode() {
        // Not before the options that hold are known, which may turn one on. A child that nobody told of its birth may have
        // its parent's threads for its own.
        Mode::Off if on => init::is_final() && census::was_told() && thread::turn_on(mode, Mode::Off),
        now if now == mode && !on => path.turn_off(mode),
        _ => false,
    }
}

/// Turns the checking of every free, in all threads, on or off: a block that is freed twice, or with a layout of another
/// size class, or what is no block at all, then ends the process at once with one line, as
/// [`check_frees`](Magalloc::check_frees) has it from the start. While it is on, no thread caches anything, and each call
/// takes some 100 ns; while it is off, it costs nothing. `false`: nothing was changed, as for [`set_counting`]; also while
/// that is on.
///
/// ```
/// # #[global_allocator]
/// # static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();
/// # fn main() {
/// let is_on = magalloc::set_checking(true);
/// let text = String::from("its free is checked");
/// drop(text);
/// assert_eq!(magalloc::set_checking(false), is_on);
/// # }
/// ```
pub fn set_checking(on: bool) -> bool {
    turn(Mode::Checking, on)
}

/// What was counted while [`set_counting`] was on: by size class, smallest first, and of large blocks, last. A `realloc`
/// that leaves a block where it is counts as neither.
///
/// ```
/// for class in magalloc::call_counts().iter().filter(|class| class.allocated > 0) {
///     println!("{:>8} bytes: {} allocated, {} freed", class.block_bytes, class.allocated, class.freed);
/// }
/// ```
pub fn call_counts() -> [CallCounts; CLASS_COUNT + 1] {
    COUNTERS.read()
}

/// Gives every block in this thread's cache back to its slab, and this thread's slabs to all threads: for a thread
/// that is about to be idle, such as a runtime's "thread parks" callback. The cache fills again when it is used.
///
/// ```
/// let worker = std::thread::spawn(|| {
///     let result: u32 = vec![1, 2, 3].into_iter().sum();
///     // This thread has nothing to do for a while.
///     magalloc::flush_thread();
///     result
/// });
/// assert_eq!(worker.join().unwrap(), 6);
/// ```
pub fn flush_thread() {
    thread::flush();
}

/// Gives the pages of free memory back to the kernel, at once and from any thread, whatever the purge delay. This
/// thread's cache is emptied first, and what ended threads have left for the next ones.
///
/// What stays resident:
/// - pages in which a live block lies;
/// - blocks that other threads have at hand: at most 1 MiB each, and the first few blocks of each size class
///   ([`flush_thread`], called by them, empties those caches, too);
/// - the allocator's own data: some 0.2 MB, what describes the chunks in use, and the arrays that caches have used,
///   which stay for the next ones. These are 1 KiB each, and after a busy time some 0.4 MB for one thread, 1 MB for nine;
/// - with [`HugePages::Always`](crate::HugePages::Always), the huge pages of which any part is in use.
///
/// ```
/// # #[global_allocator]
/// # static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();
/// # fn main() {
/// drop(vec![1_u8; 50 << 20]);
/// magalloc::purge_all();
/// assert!(magalloc::stats().resident < 10 << 20);
/// # }
/// ```
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

/// May a library be bound to the C library's own free? Not unless the user says so, or that is what serves.
#[doc(hidden)]
pub fn keeps_deepbind() -> bool {
    HEAP.depot().settings.keeps_deepbind() || second_path().mode() == Mode::System
}

/// Verifies the allocator's invariants, which hold while no thread is inside it. For tests.
///
/// # Panics
/// If one is broken.
#[doc(hidden)]
pub fn check() {
    HEAP.check();
}
