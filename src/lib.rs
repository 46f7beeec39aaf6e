//! magalloc: a thread-caching, lock-free memory allocator.
//!
//! ```
//! #[global_allocator]
//! static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();
//!
//! fn main() {
//!     let text = String::from("allocated by magalloc");
//!     assert!(magalloc::stats().live > 0 || magalloc::stats().disabled, "{text}");
//! }
//! ```
//!
//! Each thread keeps small arrays of free blocks, one per size class. They refill from, and flush into, the
//! bitmaps of slabs, which a depot shared by all threads cuts out of chunks of one large region. No lock is
//! taken anywhere, nothing is written into free memory, and at the end of the process everything is unmapped, if no
//! other thread runs. `ARCHITECTURE.md` in the repository walks through it.
//!
//! # Options
//! [`Magalloc`] has a `const` method for each: how long free memory waits before it goes back to the kernel
//! ([`purge_delay_ms`](Magalloc::purge_delay_ms)), limits ([`soft_limit`](Magalloc::soft_limit),
//! [`hard_limit`](Magalloc::hard_limit)), the size of caches ([`cache_bytes_max`](Magalloc::cache_bytes_max)), huge pages
//! ([`huge_pages`](Magalloc::huge_pages)), what happens at exit ([`at_exit`](Magalloc::at_exit)), and others.
//!
//! ```
//! use magalloc::{Magalloc, SoftLimit};
//!
//! #[global_allocator]
//! static GLOBAL: Magalloc = Magalloc::new().purge_delay_ms(200).soft_limit(SoftLimit::CgroupPercent(80));
//! # fn main() {}
//! ```
//!
//! # The environment
//! A variable named `MAGALLOC_` and the option's name in capitals overrules the program, unless
//! [`environment(false)`](Magalloc::environment) forbids it: `MAGALLOC_PURGE_DELAY_MS=200`, `MAGALLOC_HARD_LIMIT=1G`.
//! [`OPTION_TABLE`] lists all of them, with values and defaults. `MAGALLOC_REPORT_EXIT=1` shows at the end of a program
//! whether this allocator is there; with `MAGALLOC_DISABLE=1` the system's allocator serves the same program, to compare.
//! Variables are read once, at the first allocation. A program with more rights than its caller (set-uid) ignores them.
//!
//! # Statistics
//! [`stats`] says what the allocator holds and has done, [`class_stats`] the same by size class; neither stops a thread.
//! With [`stats_file`](Magalloc::stats_file) a record is appended to a file at the end of the process, and with
//! [`stats_on_sigterm`](Magalloc::stats_on_sigterm) also before SIGTERM ends it.
//!
//! # Giving memory back
//! It happens by itself, about a second after memory became free. [`purge_all`] does it at once; [`flush_thread`] empties
//! the calling thread's cache.
//!
//! # Arenas and pools
//! [`Arena`] gives memory out that is taken back all at once, [`SharedArena`] does so for many threads, and [`Pool`] has
//! objects of one type, under handles or in boxes. They stand on the same heap. `docs/which-allocator.md` in the repository
//! says which is for what.
//!
//! # Platforms
//! Linux with glibc or musl, from Rust 1.95 on. x86-64 is tested with every change, x86-64 with musl and i686 by fewer
//! tests; aarch64 was tried by hand. Windows on x86-64, with MinGW, is tested under wine, and was not run on Windows itself.
//! FreeBSD compiles and was never run; other systems are a compile error. A program for those, too, writes both the
//! dependency (`[target.'cfg(target_os = "linux")'.dependencies]`) and the static (`#[cfg(target_os = "linux")]`) for Linux
//! only. Programs in C and C++ use the library of the package `magalloc-capi`.
//!
//! # Features
//! - `initial-exec`: thread-local data by the initial-exec model, and no std. For libraries that are loaded at a program's
//!   start, such as a preloaded `malloc`; not for programs.
//! - `allocator-api2-02`, `allocator-api2-04`: the trait `Allocator` of the crate allocator-api2, by its version, for
//!   [`Magalloc`] and for borrowed [`Arena`]s, [`SharedArena`]s and [`Scope`]s.

#![cfg_attr(loom, allow(dead_code, unused_imports))]
// More than the core of the standard library is needed for its thread-local storage only, and for tests.
#![cfg_attr(
    all(feature = "initial-exec", any(target_arch = "x86_64", target_arch = "aarch64"), not(any(test, loom))),
    no_std
)]

/// Modules that a model in `loom_tests` uses from outside.
macro_rules! modelled {
    ($($module:ident)*) => {
        $(
            #[cfg(loom)]
            pub mod $module;
            #[cfg(not(loom))]
            mod $module;
        )*
    };
}

// The modules, lowest layer first; a file uses only what stands above it in this list.
mod config;
modelled! { units sync sys size_class }

#[cfg(not(loom))]
mod options;

#[cfg(not(loom))]
mod settings;

#[cfg(not(loom))]
mod count;
#[cfg(not(loom))]
mod environment;
#[cfg(not(loom))]
mod os;
modelled! { metadata summary slab chunk purge }

#[cfg(not(loom))]
mod pagemap;
modelled! { depot local }

#[cfg(not(loom))]
mod heap;

#[cfg(not(loom))]
mod mode;

#[cfg(not(loom))]
mod global;

#[cfg(not(loom))]
mod source;
modelled! { arena }

#[cfg(not(loom))]
mod pool;

#[cfg(all(not(loom), any(feature = "allocator-api2-02", feature = "allocator-api2-04")))]
mod allocator_api;

#[cfg(not(loom))]
pub use arena::{Arena, ArenaBox, Mark, Scope, SharedArena, StaleMark};
#[cfg(not(loom))]
pub use environment::{OPTION_TABLE, OptionError, OptionInfo, check_option};
#[cfg(not(loom))]
pub use global::{
    Magalloc, call_counts, census, check, class_stats, flush_thread, keeps_deepbind, option, purge_all, set_checking,
    set_counting, set_option, stats, stays_in_environment,
};
#[cfg(not(loom))]
pub use heap::{Bytes, ClassStats, Figure, Stats, Unit};
#[cfg(not(loom))]
pub use mode::CallCounts;
#[cfg(not(loom))]
pub use options::{AtExit, Foreign, HugePages, SoftLimit};
#[cfg(not(loom))]
pub use pool::{Handle, Iter, IterMut, Pool, PoolBox};
#[cfg(not(loom))]
pub use source::AllocError;

/// The examples of the page, which are tests. They need the features, so only then.
#[cfg(all(doctest, feature = "allocator-api2-02", feature = "allocator-api2-04"))]
#[doc = include_str!("../docs/which-allocator.md")]
struct WhichAllocator;
