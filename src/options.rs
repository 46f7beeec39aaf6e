//! What a user may set, and where the running heap keeps it.
//!
//! ```text
//! # Role        `Options`: plain values, built in a `const`; `Settings`: the same, readable by every thread
//! # Progress    a setting is one word; a late change is seen late
//! ```

use crate::config::{CACHE_BYTES_MAX, DIRTY_BYTES_MAX};
use crate::sync::{AtomicU8, AtomicUsize, Ordering};

/// What happens to the memory at a normal end of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtExit {
    /// Everything is unmapped, where no other thread runs; else as `Unused`. The default.
    #[default]
    All,
    /// The pages of free memory are given back; what is live stays mapped.
    Unused,
    /// Nothing; the kernel takes the memory with the process.
    None,
}

/// Parameters of the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub(crate) at_exit: AtExit,
    pub(crate) report_exit: bool,
    pub(crate) cache_bytes_max: usize,
    pub(crate) dirty_bytes_max: usize,
}

impl Options {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            at_exit: AtExit::All,
            report_exit: false,
            cache_bytes_max: CACHE_BYTES_MAX,
            dirty_bytes_max: DIRTY_BYTES_MAX,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// The options of a heap.
#[derive(Debug)]
pub struct Settings {
    at_exit: AtomicU8,
    report_exit: AtomicU8,
    cache_bytes_max: AtomicUsize,
    dirty_bytes_max: AtomicUsize,
}

impl Settings {
    /// The defaults.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        let options = Options::new();
        Self {
            at_exit: AtomicU8::new(options.at_exit as u8),
            report_exit: AtomicU8::new(options.report_exit as u8),
            cache_bytes_max: AtomicUsize::new(options.cache_bytes_max),
            dirty_bytes_max: AtomicUsize::new(options.dirty_bytes_max),
        }
    }

    /// Takes over `options`.
    pub fn apply(&self, options: &Options) {
        // ordering: Relaxed, all of it: independent values.
        self.at_exit.store(options.at_exit as u8, Ordering::Relaxed);
        self.report_exit.store(u8::from(options.report_exit), Ordering::Relaxed);
        self.cache_bytes_max.store(options.cache_bytes_max, Ordering::Relaxed);
        self.dirty_bytes_max.store(options.dirty_bytes_max, Ordering::Relaxed);
    }

    /// See `Magalloc::at_exit`.
    pub fn at_exit(&self) -> AtExit {
        // ordering: Relaxed, an independent value.
        match self.at_exit.load(Ordering::Relaxed) {
            value if value == AtExit::All as u8 => AtExit::All,
            value if value == AtExit::Unused as u8 => AtExit::Unused,
            _ => AtExit::None,
        }
    }

    /// See `Magalloc::report_exit`.
    pub fn report_exit(&self) -> bool {
        // ordering: Relaxed, an independent value.
        self.report_exit.load(Ordering::Relaxed) != 0
    }

    /// See `Magalloc::cache_bytes_max`.
    pub fn cache_bytes_max(&self) -> usize {
        // ordering: Relaxed, an independent value.
        self.cache_bytes_max.load(Ordering::Relaxed)
    }

    /// See `Magalloc::dirty_bytes_max`.
    pub fn dirty_bytes_max(&self) -> usize {
        // ordering: Relaxed, an independent value.
        self.dirty_bytes_max.load(Ordering::Relaxed)
    }
}
