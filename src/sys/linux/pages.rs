//! Address space through mmap, mprotect, madvise and mremap. errno is left as it was found.

use crate::config::{GRANULE_BYTES, HUGE_PAGE_BYTES};
use crate::sys::{HugeAdvice, HugePage, PageRun, Pages, Relocated};
use core::ptr::NonNull;

/// The kernel's pages.
#[derive(Debug)]
pub struct SystemPages;

/// In the place of a pidfd: the calling process (Linux 6.14).
const PIDFD_SELF: libc::c_int = -10_000;

/// Microseconds of processor time that a huge page takes at most if it is there: as long as its base pages by a fault
/// each. To fill it with zeros takes a third.
const HUGE_PAGE_US_MAX: u64 = 800;

/// Keeps errno over calls whose failure is an answer, not an error of the program.
pub(super) struct KeepErrno(libc::c_int);

impl KeepErrno {
    pub(super) fn new() -> Self {
        // SAFETY: the location is the calling thread's own and valid while the thread lives.
        Self(unsafe { *libc::__errno_location() })
    }
}

impl Drop for KeepErrno {
    fn drop(&mut self) {
        // SAFETY: as in `new`; the value is dropped on the thread that made it.
        unsafe { *libc::__errno_location() = self.0 }
    }
}

// SAFETY: mmap hands out ranges nobody else has; anonymous private pages are zero when first touched and after
// MADV_DONTNEED.
unsafe impl Pages for SystemPages {
    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        let _errno = KeepErrno::new();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(core::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED { None } else { NonNull::new(start.cast()) }
    }

    fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        let _errno = KeepErrno::new();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(core::ptr::null_mut(), bytes, access, flags, -1, 0) };
        if start == libc::MAP_FAILED { None } else { NonNull::new(start.cast()) }
    }

    unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let _errno = KeepErrno::new();
        // SAFETY: the caller's promise: the range is reserved by us. More access harms nobody.
        unsafe { libc::mprotect(start.as_ptr().cast(), bytes, libc::PROT_READ | libc::PROT_WRITE) == 0 }
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
        let _errno = KeepErrno::new();
        // SAFETY: changes no contents. Linux 5.14; older kernels do not know the advice.
        let refused = unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) != 0 };
        // SAFETY: the calling thread's own errno.
        let error = unsafe { *libc::__errno_location() };
        // Other reasons, as a lack of memory, may be gone the next time.
        !(refused && [libc::EINVAL, libc::ENOSYS, libc::EPERM].contains(&error))
    }

    unsafe fn begin_huge_page(&self, start: NonNull<u8>, inside: NonNull<u8>) -> HugePage {
        let page = self.page_bytes();
        // In the other half, for what comes in may be larger than a page and no huge one.
        let far =
            if inside.addr().get() - start.addr().get() < HUGE_PAGE_BYTES / 2 { HUGE_PAGE_BYTES - page } else { 0 };
        // SAFETY: committed.
        unsafe { self.advise(start, HUGE_PAGE_BYTES, HugeAdvice::Always) };
        let before = thread_us();
        // SAFETY: the caller's own memory, and zero already. Volatile: it is written for its page fault.
        unsafe { inside.write_volatile(0) };
        let late = thread_us().saturating_sub(before) > HUGE_PAGE_US_MAX;
        // SAFETY: committed.
        unsafe { self.advise(start, HUGE_PAGE_BYTES, HugeAdvice::Never) };
        // SAFETY: within the range.
        let is_huge = unsafe { self.resident(start.add(far), page) } == page;
        match (is_huge, late) {
            (false, _) => HugePage::None,
            (true, false) => HugePage::Prompt,
            (true, true) => HugePage::Late,
        }
    }

    unsafe fn split_huge_page(&self, start: NonNull<u8>) {
        let _errno = KeepErrno::new();
        // SAFETY: changes no contents. Advice for a part of a huge page splits it (Linux 5.4), and not its mapping alone as
        // DONTNEED does.
        unsafe { libc::madvise(start.as_ptr().cast(), self.page_bytes(), libc::MADV_COLD) };
    }

    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocated {
        let _errno = KeepErrno::new();
        let mut outcome = Relocated::Moved;
        let mut done = 0;
        while done < bytes {
            // SAFETY: `done` is within the ranges.
            let (from_here, to_here) = unsafe { (from.add(done), to.add(done)) };
            let piece = one_mapping(from_here, bytes - done);
            // SAFETY: the caller's promise, for parts of the ranges.
            match unsafe { move_pages(from_here, to_here, piece) } {
                PagesMoved::Yes => {}
                PagesMoved::No => {
                    // SAFETY: both parts are readable and writable, and do not overlap.
                    unsafe { to_here.copy_from_nonoverlapping(from_here, piece) };
                    outcome = Relocated::Copied;
                }
                PagesMoved::TargetGone => {
                    // SAFETY: what was moved or copied so far goes back; both parts are readable and writable.
                    unsafe { from.copy_from_nonoverlapping(to, done) };
                    return Relocated::Lost;
                }
            }
            done += piece;
        }
        outcome
    }

    unsafe fn renew(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let _errno = KeepErrno::new();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: MAP_FIXED replaces a range that the caller has to itself.
        unsafe { libc::mmap(start.as_ptr().cast(), bytes, access, flags, -1, 0) != libc::MAP_FAILED }
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

    unsafe fn resident(&self, start: NonNull<u8>, bytes: usize) -> usize {
        let _errno = KeepErrno::new();
        let page = self.page_bytes();
        let mut present = [0u8; RESIDENT_PAGES];
        let mut total = 0;
        let mut done = 0;
        while done < bytes {
            let piece = (bytes - done).min(RESIDENT_PAGES * page);
            // SAFETY: `done` is within the range.
            let here = unsafe { start.add(done) };
            // SAFETY: a mapped range, and a byte for each of its pages.
            if unsafe { libc::mincore(here.as_ptr().cast(), piece, present.as_mut_ptr()) } != 0 {
                return bytes;
            }
            total += present[..piece / page].iter().filter(|&&page| page & 1 != 0).count() * page;
            done += piece;
        }
        total
    }

    fn page_bytes(&self) -> usize {
        // SAFETY: getauxval has no conditions.
        let bytes = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
        // No page size is told: any multiple of the true one would do.
        if bytes.is_power_of_two() { bytes.min(GRANULE_BYTES) } else { GRANULE_BYTES }
    }

    fn now_ms(&self) -> u64 {
        let _errno = KeepErrno::new();
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is valid. The coarse clock costs no system call; its step is at most 10 ms.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
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
        // SAFETY: the caller's promise: nobody uses it.
        if unsafe { libc::munmap(start.as_ptr().cast(), bytes) } != 0 {
            // The kernel has joined it with a neighbour, and a process may have no further mapping. At least the pages go.
            // SAFETY: as above.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_DONTNEED) };
        }
    }
}

/// Processor time of the calling thread, in microseconds.
fn thread_us() -> u64 {
    let _errno = KeepErrno::new();
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// Pages that `resident` asks about at once: a buffer of that many bytes on the stack.
const RESIDENT_PAGES: usize = 1024;

/// Bytes from `start` on, at most `most`, that lie in one kernel mapping; by bisection, at least a granule.
///
/// The kernel before 6.17 refuses to move more than one mapping, but unmaps the target first.
fn one_mapping(start: NonNull<u8>, most: usize) -> usize {
    if is_one_mapping(start, most) {
        return most;
    }
    let (mut within, mut beyond) = (GRANULE_BYTES, most);
    while beyond - within > GRANULE_BYTES {
        let middle = (within + (beyond - within) / 2).next_multiple_of(GRANULE_BYTES);
        if is_one_mapping(start, middle) {
            within = middle;
        } else {
            beyond = middle;
        }
    }
    within
}

/// Asks the kernel to lengthen the range in place, which it refuses: differently if the range has several mappings.
fn is_one_mapping(start: NonNull<u8>, bytes: usize) -> bool {
    let start = start.as_ptr().cast::<libc::c_void>();
    // SAFETY: without permission to move, and with the next page in use, nothing changes.
    if unsafe { libc::mremap(start, bytes, bytes + GRANULE_BYTES, 0) } == libc::MAP_FAILED {
        // SAFETY: the location is the calling thread's own.
        return unsafe { *libc::__errno_location() } != libc::EFAULT;
    }
    // At the very end of a reservation, and nothing behind: give back what was not meant to be had.
    // SAFETY: the part behind the range was mapped just now.
    unsafe { libc::mremap(start, bytes + GRANULE_BYTES, bytes, 0) };
    true
}

enum PagesMoved {
    Yes,
    /// Nothing has changed.
    No,
    /// The target may have been unmapped, and be somebody else's by now.
    TargetGone,
}

/// Moves the pages of one mapping.
///
/// # Safety
/// As for `Pages::relocate`.
unsafe fn move_pages(from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> PagesMoved {
    // DONTUNMAP (Linux 5.7) keeps `from` mapped: without it, another mmap could slip into the hole.
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    let target = to.as_ptr().cast::<libc::c_void>();
    // SAFETY: the caller's promise: both ranges are committed, its own, and do not overlap.
    if unsafe { libc::mremap(from.as_ptr().cast(), bytes, bytes, flags, target) } == target {
        return PagesMoved::Yes;
    }
    // SAFETY: the location is the calling thread's own.
    let error = unsafe { *libc::__errno_location() };
    if error == libc::EINVAL || error == libc::ENOSYS {
        // The kernel does not know the call: it looks at the flags before it does anything.
        return PagesMoved::No;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: takes a hole only, never what is mapped.
    if unsafe { libc::mmap(target, bytes, access, flags, -1, 0) } == target {
        return PagesMoved::No;
    }
    PagesMoved::TargetGone
}
