//! magalloc: a thread-caching, lock-free memory allocator.
//!
//! ```
//! #[global_allocator]
//! static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();
//! # fn main() {}
//! ```
//!
//! Each thread keeps small arrays of free blocks, one per size class. They refill from, and dissolve into, the
//! bitmaps of slabs, which a depot shared by all threads cuts out of chunks of one large reservation. No lock is
//! taken anywhere, nothing is written into free memory, and at the end of the process everything is unmapped, if no
//! other thread runs. `ARCHITECTURE.md` in the repository walks through it.

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
modelled! { units sync }
mod sys;
modelled! { size_class }

#[cfg(not(loom))]
mod options;

#[cfg(not(loom))]
mod environment;
#[cfg(not(loom))]
mod os;
modelled! { meta summary slab chunk_group }

#[cfg(not(loom))]
mod granule_map;
modelled! { depot owner }

#[cfg(not(loom))]
mod thread_cache;

#[cfg(not(loom))]
mod purge;

#[cfg(not(loom))]
mod heap;

#[cfg(not(loom))]
mod front;

#[cfg(not(loom))]
pub use environment::{OPTION_TABLE, OptionError, OptionInfo, check_option};
#[cfg(not(loom))]
pub use front::{Magalloc, check, class_stats, flush_thread, purge_all, stats, stays_in_environment};
#[cfg(not(loom))]
pub use heap::{ClassStats, Stats};
#[cfg(not(loom))]
pub use options::{AtExit, Foreign, HugePages, SoftLimit};
