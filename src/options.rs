//! What a user may set, and where the running heap keeps it.
//!
//! ```text
//! # Role        `Options`: plain values, built in a `const`; `Settings`: the same, readable by every thread
//! # Progress    a setting is one word; a late change is seen late
//! ```

use crate::config::{CACHE_BYTES_MAX, DIRTY_BYTES_MAX, PURGE_DELAY_MS, SOFT_LIMIT_PERCENT};
use crate::sync::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

/// What happens to the memory at a normal end of the process: [`Magalloc::at_exit`](crate::Magalloc::at_exit).
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

/// Whether the heap's memory is backed by transparent huge pages: [`Magalloc::huge_pages`](crate::Magalloc::huge_pages).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Behind small blocks, and in what large ones grow by, from 8 MiB of the heap on, unless the system's policy is
    /// `never`; nowhere else, also if that is `always`. Not near the soft limit, nor with a hard one. They are split as
    /// parts of them are given back. The default.
    #[default]
    Auto,
    /// As the system's policy says: nothing is advised. The policy is read at the process's first call; `always` there is
    /// as `Always` here.
    System,
    /// Never: less memory where blocks are few and scattered.
    Never,
    /// Wherever the kernel can: fewer TLB misses, more memory. Each counts whole from its first block on, and is given
    /// back whole, but for what a hard limit needs.
    Always,
}

/// From how much memory on the allocator holds back: it then purges at once, and caches less. See
/// [`Magalloc::soft_limit`](crate::Magalloc::soft_limit).
///
/// The default is `CgroupPercent(85)`: in a container, what is free goes back before the kernel ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftLimit {
    /// There is none.
    None,
    /// That many bytes.
    Bytes(usize),
    /// That percentage of the memory limit of the control group that the process is in; none if it has no limit.
    CgroupPercent(u8),
}

impl SoftLimit {
    pub(crate) const DEFAULT: Self = Self::CgroupPercent(SOFT_LIMIT_PERCENT);
}

impl Default for SoftLimit {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What becomes of the free of an address that is not this allocator's, where no size is given (C's `free`):
/// [`Magalloc::foreign`](crate::Magalloc::foreign).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Foreign {
    /// One line on standard error, and abort. The default.
    #[default]
    Abort,
    /// The block is left as it is: for programs that mix allocators.
    Ignore,
}

/// Longest path in an option, in bytes.
pub(crate) const PATH_BYTES_MAX: usize = 511;

/// A path in an option; empty is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    bytes: [u8; PATH_BYTES_MAX],
    len: u16,
}

impl Path {
    /// No path.
    pub const NONE: Self = Self { bytes: [0; PATH_BYTES_MAX], len: 0 };

    /// The path of these bytes; `None` where it is too long or has a zero inside.
    pub const fn new(path: &[u8]) -> Option<Self> {
        if path.len() > PATH_BYTES_MAX {
            return None;
        }
        let mut copy = Self { len: path.len() as u16, ..Self::NONE };
        let mut index = 0;
        while index < path.len() {
            if path[index] == 0 {
                return None;
            }
            copy.bytes[index] = path[index];
            index += 1;
        }
        Some(copy)
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Is there a path?
    pub fn is_some(&self) -> bool {
        self.len > 0
    }
}

/// The path as text: not the room that it has.
impl core::fmt::Debug for Path {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut chunks = self.as_bytes().utf8_chunks();
        formatter.write_str("\"")?;
        chunks.try_for_each(|chunk| {
            core::fmt::Display::fmt(&chunk.valid().escape_debug(), formatter)?;
            if chunk.invalid().is_empty() { Ok(()) } else { formatter.write_str("\u{fffd}") }
        })?;
        formatter.write_str("\"")
    }
}

/// Parameters of the allocator. What a program brings along says paths by reference; what is read, and may come from the
/// environment, has them inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options<P = Path> {
    /// Whether variables of the environment may overrule the others.
    pub(crate) environment: bool,
    pub(crate) disable: bool,
    pub(crate) counting: bool,
    pub(crate) check_frees: bool,
    pub(crate) foreign: Foreign,
    pub(crate) children: bool,
    pub(crate) keep_deepbind: bool,
    pub(crate) stats_file: P,
    pub(crate) stats_on_sigterm: bool,
    /// Whether the C library's own blocks are from here: then nothing that lives can ever be unmapped.
    pub(crate) serves_c_library: bool,
    pub(crate) at_exit: AtExit,
    pub(crate) report_exit: bool,
    pub(crate) cache_bytes_max: usize,
    pub(crate) dirty_bytes_max: usize,
    pub(crate) purge_delay_ms: u32,
    pub(crate) background_thread: bool,
    pub(crate) extra_calls: bool,
    pub(crate) huge_pages: HugePages,
    pub(crate) soft_limit: SoftLimit,
    pub(crate) hard_limit: usize,
}

impl Options {
    /// How many options `Settings::for_each_difference` knows.
    #[cfg(not(loom))]
    pub const NAMED_MAX: usize = 12;

    /// The defaults.
    pub const fn new() -> Self {
        OptionsInCode::defaults().with_own_path()
    }
}

/// Options in a program's code.
pub type OptionsInCode = Options<&'static str>;

impl OptionsInCode {
    /// The same with the paths inside. One that is too long counts as none: the builder takes none such.
    pub(crate) const fn with_own_path(&self) -> Options {
        let stats_file = match Path::new(self.stats_file.as_bytes()) {
            Some(path) => path,
            None => Path::NONE,
        };
        Options {
            environment: self.environment,
            disable: self.disable,
            counting: self.counting,
            check_frees: self.check_frees,
            foreign: self.foreign,
            children: self.children,
            keep_deepbind: self.keep_deepbind,
            stats_file,
            stats_on_sigterm: self.stats_on_sigterm,
            serves_c_library: self.serves_c_library,
            at_exit: self.at_exit,
            report_exit: self.report_exit,
            cache_bytes_max: self.cache_bytes_max,
            dirty_bytes_max: self.dirty_bytes_max,
            purge_delay_ms: self.purge_delay_ms,
            background_thread: self.background_thread,
            extra_calls: self.extra_calls,
            huge_pages: self.huge_pages,
            soft_limit: self.soft_limit,
            hard_limit: self.hard_limit,
        }
    }

    /// The defaults.
    pub const fn defaults() -> Self {
        Self {
            environment: true,
            disable: false,
            counting: false,
            check_frees: false,
            foreign: Foreign::Abort,
            children: true,
            keep_deepbind: false,
            stats_file: "",
            stats_on_sigterm: false,
            serves_c_library: false,
            at_exit: AtExit::All,
            report_exit: false,
            cache_bytes_max: CACHE_BYTES_MAX,
            dirty_bytes_max: DIRTY_BYTES_MAX,
            purge_delay_ms: PURGE_DELAY_MS,
            background_thread: true,
            extra_calls: false,
            huge_pages: HugePages::Auto,
            soft_limit: SoftLimit::DEFAULT,
            hard_limit: usize::MAX,
        }
    }
}

impl Options {
    /// Bytes of the soft limit; `cgroup_limit` is asked only if need be.
    pub(crate) fn soft_limit_bytes(&self, cgroup_limit: impl FnOnce() -> Option<usize>) -> usize {
        match self.soft_limit {
            SoftLimit::None => usize::MAX,
            SoftLimit::Bytes(bytes) => bytes,
            SoftLimit::CgroupPercent(percent) => {
                cgroup_limit().map_or(usize::MAX, |bytes| bytes / 100 * usize::from(percent))
            }
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
        for (to, from) in self.stats_file.iter().zip(&options.stats_file.bytes) {
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
            .zip(options.stats_file.bytes)
            .all(|(held, told)| held.load(Ordering::Relaxed) == told);
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

    /// See `Magalloc::soft_limit`; `usize::MAX` is none.
    pub fn soft_limit(&self) -> usize {
        // ordering: Relaxed, an independent value.
        self.soft_limit.load(Ordering::Relaxed)
    }

    /// See `Magalloc::hard_limit`; `usize::MAX` is none.
    pub fn hard_limit(&self) -> usize {
        // ordering: Relaxed, an independent value.
        self.hard_limit.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn soft_limit_is_bytes_or_a_share_of_the_groups() {
        let bytes = |soft_limit, of_group| Options { soft_limit, ..Options::new() }.soft_limit_bytes(|| of_group);
        assert_eq!(bytes(SoftLimit::None, Some(1000)), usize::MAX);
        assert_eq!(bytes(SoftLimit::Bytes(7), Some(1000)), 7);
        assert_eq!(bytes(SoftLimit::CgroupPercent(50), Some(1000)), 500);
        assert_eq!(bytes(SoftLimit::CgroupPercent(50), None), usize::MAX);
        assert_eq!(bytes(SoftLimit::default(), Some(1000)), 850);
    }

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
