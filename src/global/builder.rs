//! `Magalloc`: a place-holder for the process's one heap, and the options that it brings along.

use crate::options::{AtExit, Foreign, HugePages, OptionsInCode, Path, SoftLimit};

/// The allocator, to be a program's global one, and its options.
///
/// ```
/// use magalloc::Magalloc;
///
/// #[global_allocator]
/// static GLOBAL: Magalloc = Magalloc::new().purge_delay_ms(200);
/// # fn main() {}
/// ```
///
/// All values of this type share the process's one heap; the options of the one that serves the process's first call
/// hold, and one line on standard error names those of another one that do not. Alignments up to 1 GiB are served; a
/// request beyond, or one that finds no memory, gets null.
///
/// A value holds its options, less than 100 bytes, so that one line says both which allocator a program has and how it is
/// to be; on the heap's side there is one copy of those that hold. It is not `Copy`: a second value is one that comes too
/// late.
///
/// Beside `GlobalAlloc`, blocks can be had without a layout, as in C: [`allocate`](Self::allocate), [`free`](Self::free).
///
/// # Errors of the program
/// A free of what is no block of that layout ends the process with one line on standard error: at once for blocks of more
/// than 32 KiB, else when the block returns from the thread's cache to its slab. So does a second free of such a large
/// block.
///
/// A second free of a smaller block is **mostly silent**: the block is in the thread's cache twice, and the next two
/// requests of that size both get it. It is noticed only where both copies reach the slab before either is handed out; and
/// at once by [`free`](Self::free), which is told no layout, where nothing of that size was freed in between.
///
/// A signal handler must not allocate or free, unless it cannot have interrupted an allocation or a free of its thread:
/// a block that it keeps, or frees, may otherwise be handed out twice, or be lost.
#[derive(Debug)]
pub struct Magalloc {
    pub(super) options: OptionsInCode,
}

// Two cache lines at most, of which the fast path reads none.
const _: () = assert!(size_of::<Magalloc>() <= 96);

impl Default for Magalloc {
    fn default() -> Self {
        Self::new()
    }
}

impl Magalloc {
    /// With the default options.
    ///
    /// ```
    /// #[global_allocator]
    /// static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();
    /// # fn main() {}
    /// ```
    pub const fn new() -> Self {
        Self { options: OptionsInCode::defaults() }
    }

    /// Whether variables of the process's environment, `MAGALLOC_` and the name of an option, overrule what is said
    /// here; see [`OPTION_TABLE`](crate::OPTION_TABLE). Never in a process that has more rights than its caller. Default:
    /// yes.
    ///
    /// ```
    /// use magalloc::Magalloc;
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().environment(false);
    /// ```
    #[must_use]
    pub const fn environment(mut self, allowed: bool) -> Self {
        self.options.environment = allowed;
        self
    }

    /// A file to which a record of the statistics is appended at a normal end of the process. Default: none.
    ///
    /// ```
    /// use magalloc::Magalloc;
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().stats_file("/var/log/program.magalloc");
    /// ```
    ///
    /// # Panics
    /// If the path is longer than 511 bytes, or has a zero in it; in a constant, that is an error of the compiler's.
    #[must_use]
    pub const fn stats_file(mut self, path: &'static str) -> Self {
        assert!(Path::new(path.as_bytes()).is_some(), "no path for stats_file");
        self.options.stats_file = path;
        self
    }

    /// Whether SIGTERM, too, has the record of the statistics written to [`stats_file`](Self::stats_file), before it ends
    /// the process as ever. Only where the signal has its default action at the first allocation; a handler that the
    /// program sets later takes the place of this one. Default: no.
    ///
    /// ```
    /// use magalloc::Magalloc;
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().stats_file("/tmp/stats").stats_on_sigterm(true);
    /// ```
    #[must_use]
    pub const fn stats_on_sigterm(mut self, write: bool) -> Self {
        self.options.stats_on_sigterm = write;
        self
    }

    /// Whether every free is checked at once, from the start: see [`set_checking`](crate::set_checking), which does it at any
    /// time. Each call takes some 100 ns then. Default: no.
    ///
    /// ```
    /// use magalloc::Magalloc;
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().check_frees(cfg!(debug_assertions));
    /// ```
    #[must_use]
    pub const fn check_frees(mut self, check: bool) -> Self {
        self.options.check_frees = check;
        self
    }

    /// What becomes of the free of an address that is not this allocator's, in the calls that are not told a layout.
    /// Default: the process is aborted.
    ///
    /// ```
    /// use magalloc::{Foreign, Magalloc};
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().foreign(Foreign::Ignore);
    /// ```
    #[must_use]
    pub const fn foreign(mut self, foreign: Foreign) -> Self {
        self.options.foreign = foreign;
        self
    }

    /// For an interface that is the C library's `malloc`: live blocks are never unmapped.
    #[doc(hidden)]
    #[must_use]
    pub const fn serves_c_library(mut self) -> Self {
        self.options.serves_c_library = true;
        self
    }

    /// What happens to the memory at a normal end of the process. Default: everything is unmapped.
    ///
    /// ```
    /// use magalloc::{AtExit, Magalloc};
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().at_exit(AtExit::None);
    /// ```
    #[must_use]
    pub const fn at_exit(mut self, at_exit: AtExit) -> Self {
        self.options.at_exit = at_exit;
        self
    }

    /// Whether the end of the process writes one line to standard error: how many bytes were unmapped, and of how
    /// many. Default: no.
    ///
    /// ```
    /// use magalloc::Magalloc;
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().report_exit(true);
    /// ```
    #[must_use]
    pub const fn report_exit(mut self, report: bool) -> Self {
        self.options.report_exit = report;
        self
    }

    /// Bytes of free blocks that a thread's cache may hold, over all size classes, beside the first few blocks of
    /// each. In a small heap it is less: a quarter, or the thread's part of an eighth of what the heap holds, if that is
    /// more. All threads together have at most 32 MiB, or an eighth of the heap, beyond 128 KiB each. Default: 4 MiB.
    ///
    /// ```
    /// use magalloc::Magalloc;
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().cache_bytes_max(1 << 20);
    /// ```
    #[must_use]
    pub const fn cache_bytes_max(mut self, bytes: usize) -> Self {
        self.options.cache_bytes_max = bytes;
        self
    }

    /// Bytes of free spans whose pages are kept for reuse until the purge delay is over, at most; what is more is given
    /// back at once. Below that, what is in use and what is kept are together at most an eighth more than what was lately
    /// in use at most. In a program with one thread, nobody gives memory back while it sleeps, so half of what is in use is
    /// kept at most, or 4 MiB, or what the program evidently takes again. With a purge delay of `u32::MAX`, all up to this
    /// bound is kept. Default: 1 GiB (256 MiB where pointers have 32 bits).
    ///
    /// ```
    /// use magalloc::Magalloc;
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().dirty_bytes_max(64 << 20);
    /// ```
    #[must_use]
    pub const fn dirty_bytes_max(mut self, bytes: usize) -> Self {
        self.options.dirty_bytes_max = bytes;
        self
    }

    /// Milliseconds after which the pages of free memory are given back to the kernel: at least half of that after
    /// they became free (free spans beyond the bound of [`dirty_bytes_max`](Self::dirty_bytes_max) at once), at most all of
    /// it (longer only in heaps of many GiB, and up to 32 MiB that the program takes again and again, for some seconds).
    /// Less than 20 is as 20. Never, with `u32::MAX` and without [`background_thread`](Self::background_thread). Default:
    /// 1000.
    ///
    /// ```
    /// use magalloc::Magalloc;
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().purge_delay_ms(200);
    /// ```
    #[must_use]
    pub const fn purge_delay_ms(mut self, milliseconds: u32) -> Self {
        self.options.purge_delay_ms = milliseconds;
        self
    }

    /// Whether a thread of the allocator's own gives memory back, also while the program is idle. It is started when
    /// there is something to give back in a heap of more than 4 MiB and two threads of the program have allocated, and
    /// ends when nothing is left, or no second thread: an idle program does not have it, nor one with a single thread.
    /// Without it, threads that allocate and free give memory back on the way. It has the rights of the thread that
    /// happened to start it (see SECURITY.md in the repository). Default: yes.
    ///
    /// ```
    /// use magalloc::Magalloc;
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().background_thread(false);
    /// ```
    #[must_use]
    pub const fn background_thread(mut self, background_thread: bool) -> Self {
        self.options.background_thread = background_thread;
        self
    }

    /// Whether the kernel is asked in ways that a filter of system calls may take amiss. Without, the calls for memory are
    /// `mmap`, `munmap`, `mremap` and `madvise`, beside `futex` and `clock_gettime` (and, once a thread, `getpid`
    /// and `gettid`, if there may be a [`background_thread`](Self::background_thread)); with, also `process_madvise` (Linux
    /// 6.14), which gives many ranges back at once where `madvise` takes a call for each, and each call interrupts the
    /// processors that run the program. Default: no.
    #[must_use]
    pub const fn extra_calls(mut self, extra_calls: bool) -> Self {
        self.options.extra_calls = extra_calls;
        self
    }

    /// Whether the heap is backed by transparent huge pages. Default: [`HugePages::Auto`], in heaps from 8 MiB on.
    ///
    /// ```
    /// use magalloc::{HugePages, Magalloc};
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().huge_pages(HugePages::Never);
    /// ```
    #[must_use]
    pub const fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.options.huge_pages = huge_pages;
        self
    }

    /// From how much memory on free memory is given back the sooner, the more there is; what the program takes again within
    /// some tens of milliseconds stays. Caches share an eighth of it. Counted are the spans in
    /// use and the free ones not yet given back; the allocator's own data add some 2 %, and the process has other memory.
    /// A control group's limit is read once, at the process's first call. Default: 85 % of that, if the group has one.
    ///
    /// ```
    /// use magalloc::{Magalloc, SoftLimit};
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().soft_limit(SoftLimit::CgroupPercent(70));
    /// ```
    #[must_use]
    pub const fn soft_limit(mut self, limit: SoftLimit) -> Self {
        self.options.soft_limit = limit;
        self
    }

    /// Bytes of memory beyond which requests get null, counted as for [`soft_limit`](Self::soft_limit). As memory is freed,
    /// requests are served again. Default: no limit.
    ///
    /// ```
    /// use magalloc::Magalloc;
    ///
    /// static GLOBAL: Magalloc = Magalloc::new().hard_limit(1 << 30);
    /// ```
    #[must_use]
    pub const fn hard_limit(mut self, bytes: usize) -> Self {
        self.options.hard_limit = bytes;
        self
    }
}
