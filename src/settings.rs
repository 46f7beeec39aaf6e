//! Where the running heap keeps what a user has set: readable by every thread, changed while the program runs.
//!
//! ```text
//! # Progress    a setting is one word; a late change is seen late
//! ```

use crate::options::{AtExit, Foreign, HugePages, Options, PATH_BYTES_MAX};
use crate::sync::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

/// The options of a heap.
#[derive(Debug)]
pub struct Settings {
    foreign: AtomicU8,
    check_frees: AtomicU8,
    children: AtomicU8,
    keep_deepbind: AtomicU8,
    serves_c_library: AtomicU8,
    stats_file: [AtomicU8; PATH_BYTES_MAX + 1],
    at_exit: AtomicU8,
    report_exit: AtomicU8,
    background_thread: AtomicU8,
    huge_pages: AtomicU8,
    whole_huge_pages: AtomicU8,
    purge_delay_ms: AtomicU32,
    cache_bytes_max: AtomicUsize,
    dirty_bytes_max: AtomicUsize,
    soft_limit: AtomicUsize,
    hard_limit: AtomicUsize,
}

impl Settings {
    /// The defaults.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        let options = Options::new();
        Self {
            foreign: AtomicU8::new(options.foreign as u8),
            check_frees: AtomicU8::new(options.check_frees as u8),
            children: AtomicU8::new(options.children as u8),
            keep_deepbind: AtomicU8::new(options.keep_deepbind as u8),
            serves_c_library: AtomicU8::new(options.serves_c_library as u8),
            stats_file: [const { AtomicU8::new(0) }; PATH_BYTES_MAX + 1],
            at_exit: AtomicU8::new(options.at_exit as u8),
            report_exit: AtomicU8::new(options.report_exit as u8),
            background_thread: AtomicU8::new(options.background_thread as u8),
            huge_pages: AtomicU8::new(options.huge_pages as u8),
            whole_huge_pages: AtomicU8::new(0),
            purge_delay_ms: AtomicU32::new(options.purge_delay_ms),
            cache_bytes_max: AtomicUsize::new(options.cache_bytes_max),
            dirty_bytes_max: AtomicUsize::new(options.dirty_bytes_max),
            soft_limit: AtomicUsize::new(usize::MAX),
            hard_limit: AtomicUsize::new(options.hard_limit),
        }
    }

    /// Takes over `options` but for the modes, with a soft limit of `soft_limit` bytes; `whole_huge_pages`: see
    /// `keeps_huge_pages_whole`.
    pub fn apply(&self, options: &Options, soft_limit: usize, whole_huge_pages: bool) {
        // Zeros and all: a longer path may have held before.
        for (to, from) in self.stats_file.iter().zip(options.stats_file.with_zeros()) {
            // ordering: Relaxed; read at the end of the process. The last one stays zero.
            to.store(*from, Ordering::Relaxed);
        }
        // ordering: Relaxed, all of it: independent values.
        self.foreign.store(options.foreign as u8, Ordering::Relaxed);
        self.check_frees.store(u8::from(options.check_frees), Ordering::Relaxed);
        self.children.store(u8::from(options.children), Ordering::Relaxed);
        self.keep_deepbind.store(u8::from(options.keep_deepbind), Ordering::Relaxed);
        self.serves_c_library.store(u8::from(options.serves_c_library), Ordering::Relaxed);
        self.at_exit.store(options.at_exit as u8, Ordering::Relaxed);
        self.report_exit.store(u8::from(options.report_exit), Ordering::Relaxed);
        self.background_thread.store(u8::from(options.background_thread), Ordering::Relaxed);
        self.huge_pages.store(options.huge_pages as u8, Ordering::Relaxed);
        self.whole_huge_pages.store(u8::from(whole_huge_pages), Ordering::Relaxed);
        self.purge_delay_ms.store(options.purge_delay_ms, Ordering::Relaxed);
        self.cache_bytes_max.store(options.cache_bytes_max, Ordering::Relaxed);
        // ordering: Relaxed, likewise.
        self.dirty_bytes_max.store(options.dirty_bytes_max, Ordering::Relaxed);
        self.soft_limit.store(soft_limit, Ordering::Relaxed);
        self.hard_limit.store(options.hard_limit, Ordering::Relaxed);
    }

    /// Calls `found` with a space and the name of each option that a user sets in the code and that is not what holds;
    /// `soft_limit` is that of `options` in bytes.
    #[cfg(not(loom))]
    pub fn for_each_difference(&self, options: &Options, soft_limit: usize, mut found: impl FnMut(&'static [u8])) {
        // ordering: Relaxed, see `apply`. What lies behind the path is zero on both sides.
        let path = self
            .stats_file
            .iter()
            .zip(options.stats_file.with_zeros())
            .all(|(held, told)| held.load(Ordering::Relaxed) == *told);
        let named: [(&[u8], bool); Options::NAMED_MAX] = [
            (b" foreign", self.foreign() == options.foreign),
            (b" check_frees", self.check_frees() == options.check_frees),
            (b" stats_file", path),
            (b" at_exit", self.at_exit() == options.at_exit),
            (b" report_exit", self.report_exit() == options.report_exit),
            (b" cache_bytes_max", self.cache_bytes_max() == options.cache_bytes_max),
            (b" dirty_bytes_max", self.dirty_bytes_max() == options.dirty_bytes_max),
            (b" purge_delay_ms", self.purge_delay_ms() == options.purge_delay_ms),
            (b" background_thread", self.background_thread() == options.background_thread),
            (b" huge_pages", self.huge_pages() == options.huge_pages),
            (b" soft_limit", self.soft_limit() == soft_limit),
            (b" hard_limit", self.hard_limit() == options.hard_limit),
        ];
        named.iter().filter(|(_, same)| !same).for_each(|(name, _)| found(name));
    }

    /// See `Magalloc::foreign`.
    pub fn foreign(&self) -> Foreign {
        // ordering: Relaxed, an independent value.
        match self.foreign.load(Ordering::Relaxed) {
            value if value == Foreign::Ignore as u8 => Foreign::Ignore,
            _ => Foreign::Abort,
        }
    }

    /// See `Magalloc::check_frees`: what was asked for at the start.
    fn check_frees(&self) -> bool {
        // ordering: Relaxed, an independent value.
        self.check_frees.load(Ordering::Relaxed) != 0
    }

    /// Does the preloaded library stay in the environment of the processes that this one starts?
    pub fn children(&self) -> bool {
        // ordering: Relaxed, an independent value.
        self.children.load(Ordering::Relaxed) != 0
    }

    /// Does a preloaded library let `RTLD_DEEPBIND` be?
    pub fn keeps_deepbind(&self) -> bool {
        // ordering: Relaxed, an independent value.
        self.keep_deepbind.load(Ordering::Relaxed) != 0
    }

    /// Are the C library's own blocks from here?
    pub fn serves_c_library(&self) -> bool {
        // ordering: Relaxed, an independent value.
        self.serves_c_library.load(Ordering::Relaxed) != 0
    }

    /// See `Magalloc::stats_file`: the path and a zero behind it; empty is none.
    pub fn stats_file(&self) -> [u8; PATH_BYTES_MAX + 1] {
        // ordering: Relaxed, see `apply`.
        core::array::from_fn(|index| self.stats_file[index].load(Ordering::Relaxed))
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

    /// See `Magalloc::huge_pages`.
    pub fn huge_pages(&self) -> HugePages {
        // ordering: Relaxed, an independent value.
        match self.huge_pages.load(Ordering::Relaxed) {
            value if value == HugePages::Never as u8 => HugePages::Never,
            value if value == HugePages::Always as u8 => HugePages::Always,
            value if value == HugePages::System as u8 => HugePages::System,
            _ => HugePages::Auto,
        }
    }

    /// Does the kernel back all memory by huge pages? Then each counts from its first span on, and is given back whole.
    pub fn keeps_huge_pages_whole(&self) -> bool {
        // ordering: Relaxed, an independent value.
        self.whole_huge_pages.load(Ordering::Relaxed) != 0
    }

    /// See `Magalloc::report_exit`.
    pub fn report_exit(&self) -> bool {
        // ordering: Relaxed, an independent value.
        self.report_exit.load(Ordering::Relaxed) != 0
    }

    /// See `Magalloc::background_thread`.
    pub fn background_thread(&self) -> bool {
        // ordering: Relaxed, an independent value.
        self.background_thread.load(Ordering::Relaxed) != 0
    }

    /// See `Magalloc::purge_delay_ms`.
    pub fn purge_delay_ms(&self) -> u32 {
        // ordering: Relaxed, an independent value.
        self.purge_delay_ms.load(Ordering::Relaxed)
    }

    /// Sets it while the heap is in use.
    pub fn set_purge_delay_ms(&self, value: u32) {
        // ordering: Relaxed, an independent value.
        self.purge_delay_ms.store(value, Ordering::Relaxed);
    }

    /// See `Magalloc::cache_bytes_max`.
    pub fn cache_bytes_max(&self) -> usize {
        // ordering: Relaxed, an independent value.
        self.cache_bytes_max.load(Ordering::Relaxed)
    }

    /// Sets it while the heap is in use.
    pub fn set_cache_bytes_max(&self, value: usize) {
        // ordering: Relaxed, an independent value.
        self.cache_bytes_max.store(value, Ordering::Relaxed);
    }

    /// See `Magalloc::dirty_bytes_max`.
    pub fn dirty_bytes_max(&self) -> usize {
        // ordering: Relaxed, an independent value.
        self.dirty_bytes_max.load(Ordering::Relaxed)
    }

    /// Sets it while the heap is in use.
    pub fn set_dirty_bytes_max(&self, value: usize) {
        // ordering: Relaxed, an independent value.
        self.dirty_bytes_max.store(value, Ordering::Relaxed);
    }

    /// See `Magalloc::soft_limit`; `usize::MAX` is none.
    pub fn soft_limit(&self) -> usize {
        // ordering: Relaxed, an independent value.
        self.soft_limit.load(Ordering::Relaxed)
    }

    /// Sets it while the heap is in use.
    pub fn set_soft_limit(&self, value: usize) {
        // ordering: Relaxed, an independent value.
        self.soft_limit.store(value, Ordering::Relaxed);
    }

    /// See `Magalloc::hard_limit`; `usize::MAX` is none.
    pub fn hard_limit(&self) -> usize {
        // ordering: Relaxed, an independent value.
        self.hard_limit.load(Ordering::Relaxed)
    }

    /// Sets it while the heap is in use.
    pub fn set_hard_limit(&self, value: usize) {
        // ordering: Relaxed, an independent value.
        self.hard_limit.store(value, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::options::Path;

    #[test]
    fn a_shorter_path_takes_the_place_of_a_longer_one() {
        let settings = Settings::new();
        for path in ["/a/longer/path", "/short", ""] {
            let options = Options { stats_file: Path::new(path.as_bytes()).unwrap(), ..Options::new() };
            settings.apply(&options, usize::MAX, false);
            let held = settings.stats_file();
            assert_eq!(core::ffi::CStr::from_bytes_until_nul(&held).unwrap().to_bytes(), path.as_bytes());
        }
    }
}
