//! The platform: all that the rest of the crate uses of an operating system and its C library, on one page.
//!
//! ```text
//! # Role        `platform` lists what a port fills in, with what each item promises, and what happens where a port leaves
//!               it out. A port is a folder, as `linux`, with those items, named once, below; `docs/porting.md` goes
//!               through them for other systems
//! # Parts       `pages`: memory and the clock, a trait, which tests fake (`fake`); `calls`: what a port calls back;
//!               `posix`: what ports of POSIX systems share; `processor`: assembly; `local_data`: thread-local words; `digits`: numbers as text
//! # Invariants  P1: nothing here allocates, or takes a lock that a thread may hold while it calls malloc or free; `spawn`,
//!                   `join`, `around_forks` and `ThreadEnd::prepare` may, and are called where that is allowed
//!               P2: what the program sees of the C library stays as it was: errno, cancellation, signal masks
//!               P3: what a platform cannot do is data (`Capabilities`) or an answer (`false`, `None`), which every
//!                   caller takes; outside of this folder nothing asks which system, C library or processor it is
//! # Checked by  tests/tidy.rs (P3), tests/system_calls.rs (refusals), heap::tests::least_platform
//! ```

mod calls;
mod digits;
#[cfg(all(test, not(loom)))]
pub(crate) mod fake;
#[cfg(not(loom))]
mod local_data;
mod pages;
#[cfg(unix)]
mod posix;
pub mod processor;
#[cfg(not(target_os = "linux"))]
mod unknown_loader;

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
use freebsd as port;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as port;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as port;

#[cfg(all(windows, feature = "initial-exec"))]
compile_error!("the feature initial-exec of magalloc is for ELF");
#[cfg(not(any(target_os = "linux", target_os = "freebsd", windows)))]
compile_error!("magalloc has no port to this system; docs/porting.md says what one needs");

pub use calls::{AroundFork, EndOfThread, ProcessEnd, Termination, ThreadBody};
pub use digits::{decimal, hex};
#[cfg(not(loom))]
pub(crate) use local_data::local_data;
#[cfg(all(windows, not(loom)))]
pub use port::loader_called;
pub use pages::{Capabilities, HugeAdvice, HugePage, NotMapped, PageRun, Pages, Relocated, Renewed};

/// What a port fills in. "Else" says what happens where it answers no, or does nothing; without it, the item is needed.
pub mod platform {
    use super::port;
    #[cfg(doc)]
    use super::{Pages, ThreadBody};
    use crate::sync::AtomicU32;
    use core::ffi::CStr;

    // Memory: address space, pages, page size, huge pages, the memory limit; and the clock. See `Pages` and `Capabilities`.
    pub use port::SystemPages;
    const _: SystemPages = SystemPages;

    // The end of a thread. `arrange::<E>` has `E::end_of_thread` called at the end of the calling thread, after the
    // destructors of its thread-local data; `prepare` takes what that needs before the program has taken it all, `disarm`
    // calls nothing any more. Else (`false`): threads have no cache, each call is served by the depot.
    pub use port::ThreadEnd;

    // Some work without a signal handler amid it. Else (does it): one that ends its thread then keeps others waiting.
    pub use port::without_signals;

    // Numbers of threads, and whether one is there still: some end without a word. Else (`true`): what such a thread had in
    // its cache stays unused, and the purging thread stays for it. `is_as_known`: is the calling thread the one that the C
    // library takes it for? Not in a child of `vfork`; else (`true`): one that calls `exit` there unmaps its parent's heap.
    pub use port::{is_alive, is_as_known, thread_id};
    const _: fn(u32, u32) -> bool = is_alive;
    const _: fn() -> bool = is_as_known;
    const _: fn() -> u32 = thread_id;

    // A thread of the allocator's own, with all signals blocked. Else (`None`): threads of the program purge on their slow
    // paths; `join` is not called then.
    pub use port::{join, name_thread, spawn};
    const _: fn(usize) = join;
    const _: fn() = name_thread;

    // Sleep while a word has a value, at most so many milliseconds; wake one that sleeps on it. `wait` may end without
    // reason. Else (`wait` sleeps for the whole time, `wake` does nothing): purges are late by up to a second.
    pub use port::{wait, wake};
    const _: fn(&AtomicU32, u32, u64) = wait;
    const _: fn(&AtomicU32) = wake;

    // Wait for another thread of ours to get on, 10 ms at most, and give it the processor.
    pub use port::wait_briefly;
    const _: fn(fn() -> bool) = wait_briefly;

    // The beginning and the end of the process, or of the library that this is part of. `at_begin_and_end!(begin, end)` has
    // both called. From `end`, `arrange_release::<E>` calls `E::end_of_process` as late as can be. `Unloading` tells
    // `dlclose` from the end of the process; `other_threads` tells whether anybody else runs (`true`: perhaps). Else: nothing
    // is unmapped, and no statistics are written, at the end; an unloaded library leaks its heap.
    #[cfg(not(loom))]
    pub(crate) use port::at_begin_and_end;
    pub use port::{Unloading, arrange_release, flush_stdio, other_threads};
    const _: fn() = flush_stdio;

    // Forks. `around_forks::<F>` has `F` called around each. Else (`false`; right where there are no forks): a child cannot
    // use what its parent's other threads had. A `Wiped` value reads as zero in a child that no handler told of its birth;
    // else such a child takes its parent's threads for its own.
    pub use port::{Wiped, around_forks};
    const _: Wiped<u8> = Wiped::new(0);

    // Numbers of this process and its parent, and the program's path. Else (0, empty): records of statistics lack them. The
    // process's number is needed where there are forks.
    pub use port::{parent_id, process_id, program_path};
    const _: fn() -> u32 = parent_id;
    const _: fn() -> u32 = process_id;
    const _: fn(&mut [u8]) -> &[u8] = program_path;

    // A line on standard error; the same, and the end of the process, as broken memory shall end it. At any moment, also in
    // free, also where nobody reads.
    pub use port::{fatal, line};
    const _: fn(&[&[u8]]) -> ! = fatal;
    const _: fn(&[&[u8]]) = line;

    // Append to a file by one write. Else (`false`): a line says that it was not possible.
    pub use port::append;
    const _: fn(&CStr, &[u8]) -> bool = append;

    // A last deed before SIGTERM ends the process, and not any more. Else: records are written at a normal end only.
    #[cfg(not(loom))]
    pub use port::{after_all, before_termination};

    // The variables of the environment whose names begin with something, once there is one; none in a process with more
    // rights than its caller. Else (`true`, and none): options are what the program says.
    pub use port::{for_each_variable, has_environment};
    const _: fn() -> bool = has_environment;

    // Is code surely not the dynamic loader's? For the C library, whose loader calls malloc amid its own doings. Else
    // (`false`): the C library has no purging thread.
    pub use port::Loader;

    // The allocator that would serve without this one, for `MAGALLOC_DISABLE`. Else (`None`): it is ignored, with a line.
    #[cfg(not(loom))]
    pub use port::SystemMalloc;
}
