//! What a user may set: plain values, built in a `const`. Where the running heap keeps them is `settings`.

use crate::config::{CACHE_BYTES_MAX, DIRTY_BYTES_MAX, PURGE_DELAY_MS, SOFT_LIMIT_PERCENT};

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

    /// Its bytes, and zeros behind them.
    pub const fn with_zeros(&self) -> &[u8; PATH_BYTES_MAX] {
        &self.bytes
    }

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
}
