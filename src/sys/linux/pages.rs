//! Address space through mmap, madvise and mremap. errno is left as it was found.

use super::moving;
use crate::config::{GRANULE_BYTES, HUGE_PAGE_BYTES};
use crate::sys::posix::errno::{KeepErrno, errno};
use crate::sys::posix::mapping::{READ_WRITE, map_anywhere};
use crate::sys::{Capabilities, HugeAdvice, HugePage, NotMapped, PageRun, Pages, Relocated, Renewed};
use core::ptr::NonNull;

/// The kernel's pages.
#[derive(Debug)]
pub struct SystemPages;

/// What older kernels do not know they refuse, and callers remember that.
const CAPABILITIES: Capabilities = Capabilities {
    holds_places: false,
    moves_pages: true,
    resizes_mappings: true,
    populates: true,
    purges_runs: true,
    has_huge_pages: true,
    // `MADV_DONTNEED` drops pages; the mapping stays.
    purges_under_readers: true,
    // All of a MiB takes 25 to 48; huge pages less.
    purge_us_per_mib: 16,
};

/// In the place of a pidfd: the calling process (Linux 6.14).
const PIDFD_SELF: libc::c_int = -10_000;

/// Microseconds of processor time that a huge page takes at most if it is there: as long as its base pages by a fault
/// each. To fill it with zeros takes a third, and base pages by one call two thirds.
const HUGE_PAGE_US_MAX: u64 = 800;

/// The lowest address that is worth trying. 4 GiB: what must lie lower (programs at fixed places, MAP_32BIT) is left alone;
/// or the least that the kernel lets a process map, 64 KiB on all processors, and some more.
const LOWEST: usize = if usize::BITS == 64 { 1_usize.wrapping_shl(32) } else { 1 << 20 };

// SAFETY: mmap hands out ranges nobody else has; anonymous private pages are zero when first touched and after
// MADV_DONTNEED.
unsafe impl Pages for SystemPages {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn hold(&self, bytes: usize) -> Option<NonNull<u8>> {
        let _errno = KeepErrno::new();
        map_anywhere(bytes, libc::PROT_NONE)
    }

    fn maps_upwards(&self) -> bool {
        let _errno = KeepErrno::new();
        let Some(first) = map_anywhere(GRANULE_BYTES, libc::PROT_NONE) else { return false };
        let second = map_anywhere(GRANULE_BYTES, libc::PROT_NONE);
        for start in [Some(first), second].into_iter().flatten() {
            // SAFETY: mapped just now.
            unsafe { unmap(start, GRANULE_BYTES) };
        }
        second.is_some_and(|second| second > first)
    }

    fn lowest(&self) -> usize {
        LOWEST
    }

    fn commit(&self, start: NonNull<u8>, bytes: usize) -> Result<(), NotMapped> {
        let _errno = KeepErrno::new();
        let flags = NEW | libc::MAP_FIXED_NOREPLACE;
        let place = start.as_ptr().cast::<libc::c_void>();
        // SAFETY: takes a hole only, never what is mapped; before Linux 4.17 the place is a wish.
        let mapped = unsafe { libc::mmap(place, bytes, READ_WRITE, flags, -1, 0) };
        if mapped == place {
            return Ok(());
        }
        if mapped == libc::MAP_FAILED {
            let error = errno();
            return Err(if error == libc::EEXIST { NotMapped::Taken } else { NotMapped::Refused });
        }
        if let Some(elsewhere) = NonNull::new(mapped.cast()) {
            // SAFETY: mapped just now.
            unsafe { unmap(elsewhere, bytes) };
        }
        Err(NotMapped::Taken)
    }

    fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        let _errno = KeepErrno::new();
        map_anywhere(bytes, READ_WRITE)
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let _errno = KeepErrno::new();
        // SAFETY: the caller's promise: it has the range to itself, so no contents are lost that anyone wants.
        unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_DONTNEED) == 0 }
    }

    unsafe fn purge_runs(&self, runs: &[PageRun]) -> bool {
        let _errno = KeepErrno::new();
        const { assert!(size_of::<PageRun>() == size_of::<libc::iovec>()) };
        let bytes: usize = runs.iter().map(|run| run.bytes).sum();
        let (first, count) = (runs.as_ptr().cast::<libc::iovec>(), runs.len());
        // SAFETY: a `PageRun` is an `iovec`. The caller's promise: it has the ranges to itself, so no contents are lost that
        // anyone wants. Older kernels know no such process, or not the call.
        let advised =
            unsafe { libc::syscall(libc::SYS_process_madvise, PIDFD_SELF, first, count, libc::MADV_DONTNEED, 0) };
        usize::try_from(advised) == Ok(bytes)
    }

    unsafe fn populate(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the same promise.
        let error = unsafe { populate(start, bytes) };
        // Other reasons, as a lack of memory, may be gone the next time.
        !error.is_some_and(|error| UNKNOWN.contains(&error))
    }

    unsafe fn begin_huge_page(&self, start: NonNull<u8>) -> HugePage {
        // SAFETY: committed.
        unsafe { self.advise(start, HUGE_PAGE_BYTES, HugeAdvice::Always) };
        let before = thread_us();
        // SAFETY: committed.
        let error = unsafe { populate(start, HUGE_PAGE_BYTES) };
        let late = thread_us().saturating_sub(before) > HUGE_PAGE_US_MAX;
        // SAFETY: committed.
        unsafe { self.advise(start, HUGE_PAGE_BYTES, HugeAdvice::Never) };
        match error {
            Some(error) if UNKNOWN.contains(&error) => HugePage::None,
            None if !late => HugePage::Prompt,
            None | Some(_) => HugePage::Late,
        }
    }

    unsafe fn split_huge_page(&self, start: NonNull<u8>) {
        let _errno = KeepErrno::new();
        // SAFETY: changes no contents. Advice for a part of a huge page splits it (Linux 5.4), and not its mapping alone as
        // DONTNEED does.
        unsafe { libc::madvise(start.as_ptr().cast(), self.page_bytes(), libc::MADV_COLD) };
    }

    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocated {
        // SAFETY: the same promise.
        unsafe { moving::relocate(from, to, bytes) }
    }

    unsafe fn renew(&self, start: NonNull<u8>, bytes: usize) -> Renewed {
        // SAFETY: the same promise.
        unsafe { moving::renew(start, bytes) }
    }

    unsafe fn advise(&self, start: NonNull<u8>, bytes: usize, advice: HugeAdvice) {
        let _errno = KeepErrno::new();
        let advice = match advice {
            HugeAdvice::Never => libc::MADV_NOHUGEPAGE,
            HugeAdvice::Always => libc::MADV_HUGEPAGE,
        };
        // SAFETY: changes no contents.
        unsafe { libc::madvise(start.as_ptr().cast(), bytes, advice) };
    }

    fn page_bytes(&self) -> usize {
        // SAFETY: getauxval has no conditions.
        let bytes = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
        // No page size is told: any multiple of the true one would do.
        if bytes.is_power_of_two() { bytes.min(GRANULE_BYTES) } else { GRANULE_BYTES }
    }

    fn thread_us(&self) -> u64 {
        thread_us()
    }

    fn now_ms(&self) -> u64 {
        let _errno = KeepErrno::new();
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is valid. The coarse clock costs no system call; its step is at most 10 ms.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
    }

    fn has_huge_pages_unasked(&self) -> bool {
        let _errno = KeepErrno::new();
        let mut policy = [0; 64];
        let len = super::read::beginning(c"/sys/kernel/mm/transparent_hugepage/enabled", &mut policy);
        // The one that holds is in brackets.
        policy[..len].starts_with(b"[always]")
    }

    fn memory_limit(&self) -> Option<usize> {
        let _errno = KeepErrno::new();
        super::cgroup::memory_limit()
    }

    unsafe fn remap(&self, start: NonNull<u8>, bytes: usize, new_bytes: usize) -> Option<NonNull<u8>> {
        let _errno = KeepErrno::new();
        // SAFETY: the caller's promise. The kernel chooses a place where nothing is, if any.
        let moved = unsafe { libc::mremap(start.as_ptr().cast(), bytes, new_bytes, libc::MREMAP_MAYMOVE) };
        if moved == libc::MAP_FAILED { None } else { NonNull::new(moved.cast()) }
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) {
        let _errno = KeepErrno::new();
        // SAFETY: the same promise.
        unsafe { unmap(start, bytes) };
    }
}

/// How new memory is mapped: the process's own, zero, and charged page by page as it is used.
pub(in crate::sys) const NEW: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// Unmaps a range.
///
/// # Safety
/// The caller has mapped it, and nobody uses it.
unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise.
    if unsafe { libc::munmap(start.as_ptr().cast(), bytes) } != 0 {
        // It is the middle of a mapping, and a process may have no further one. At least the pages go.
        // SAFETY: as above.
        unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_DONTNEED) };
    }
}

/// Has the kernel (Linux 4.14) wipe pages in children that have memory of their own.
///
/// # Safety
/// The pages are the caller's, and zero is valid there.
pub(in crate::sys) unsafe fn wipe_in_children(start: *mut libc::c_void, bytes: usize) {
    // SAFETY: the caller's promise. Contents stay in this process.
    unsafe { libc::madvise(start, bytes, libc::MADV_WIPEONFORK) };
}

/// Processor time of the calling thread, in microseconds. A system call, as the kernel's own page does not tell it, but one
/// that filters let through: other clocks need it, where that page is not to be had.
fn thread_us() -> u64 {
    let _errno = KeepErrno::new();
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// What the kernel says of a call that it does not know, or that a filter keeps from it.
const UNKNOWN: [libc::c_int; 3] = [libc::EINVAL, libc::ENOSYS, libc::EPERM];

/// Brings pages in as their first writes would (Linux 5.14). The error, if there is one; some of them may have come in.
///
/// # Safety
/// The range is committed.
unsafe fn populate(start: NonNull<u8>, bytes: usize) -> Option<libc::c_int> {
    let _errno = KeepErrno::new();
    // SAFETY: changes no contents.
    let refused = unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) != 0 };
    refused.then(errno)
}
