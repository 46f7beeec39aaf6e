//! Address space through mmap(2), with MAP_EXCL. errno is left as it was found.

use crate::config::GRANULE_BYTES;
use crate::sys::posix::errno::{KeepErrno, errno};
use crate::sys::posix::mapping::{READ_WRITE, map_anywhere};
use crate::sys::{Capabilities, NotMapped, Pages};
use core::ptr::NonNull;

/// The kernel's pages.
#[derive(Debug)]
pub struct SystemPages;

const CAPABILITIES: Capabilities = Capabilities {
    holds_places: false,
    moves_pages: false,
    resizes_mappings: false,
    populates: false,
    purges_runs: false,
    has_huge_pages: false,
    // One mmap replaces the range while the map is locked: a fault meanwhile waits.
    purges_under_readers: true,
    // Not measured.
    purge_us_per_mib: 0,
};

/// The lowest address that is worth trying: 4 GiB, or 1 MiB.
const LOWEST: usize = if usize::BITS == 64 { 1_usize.wrapping_shl(32) } else { 1 << 20 };

/// How new memory is mapped: the process's own, and zero.
pub(in crate::sys) const NEW: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANON;

/// Unmaps a range.
///
/// # Safety
/// The caller has mapped it, and nobody uses it.
unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
}

/// Has the kernel wipe pages in children: minherit(2).
///
/// # Safety
/// The pages are the caller's, and zero is valid there.
pub(in crate::sys) unsafe fn wipe_in_children(start: *mut libc::c_void, bytes: usize) {
    // SAFETY: the caller's promise. Contents stay in this process.
    unsafe { libc::minherit(start, bytes, libc::INHERIT_ZERO) };
}

/// The time of a clock.
fn time(clock: libc::clockid_t) -> (u64, u64) {
    let _errno = KeepErrno::new();
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    (now.tv_sec as u64, now.tv_nsec as u64)
}

// SAFETY: mmap hands out ranges nobody else has, and replaces what the caller has; anonymous private pages are zero when
// first touched.
unsafe impl Pages for SystemPages {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn hold(&self, bytes: usize) -> Option<NonNull<u8>> {
        let _errno = KeepErrno::new();
        map_anywhere(bytes, libc::PROT_NONE)
    }

    fn maps_upwards(&self) -> bool {
        true
    }

    fn lowest(&self) -> usize {
        LOWEST
    }

    fn commit(&self, start: NonNull<u8>, bytes: usize) -> Result<(), NotMapped> {
        let _errno = KeepErrno::new();
        let place = start.as_ptr().cast::<libc::c_void>();
        // SAFETY: with MAP_EXCL, takes a hole only, never what is mapped.
        let mapped = unsafe { libc::mmap(place, bytes, READ_WRITE, NEW | libc::MAP_FIXED | libc::MAP_EXCL, -1, 0) };
        if mapped == place {
            return Ok(());
        }
        // ENOMEM says that something is there, and that there is no memory. Where as much can be had elsewhere, there is.
        if errno() == libc::ENOMEM
            && let Some(elsewhere) = map_anywhere(bytes, READ_WRITE)
        {
            // SAFETY: mapped just now.
            unsafe { unmap(elsewhere, bytes) };
            return Err(NotMapped::Taken);
        }
        Err(NotMapped::Refused)
    }

    fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        let _errno = KeepErrno::new();
        map_anywhere(bytes, READ_WRITE)
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let _errno = KeepErrno::new();
        let place = start.as_ptr().cast::<libc::c_void>();
        // madvise(2): MADV_FREE may keep the contents, and MADV_DONTNEED does, so the range is mapped anew.
        // SAFETY: the caller has the range to itself, so no contents are lost that anyone wants.
        unsafe { libc::mmap(place, bytes, READ_WRITE, NEW | libc::MAP_FIXED, -1, 0) == place }
    }

    fn page_bytes(&self) -> usize {
        // SAFETY: sysconf has no conditions.
        let bytes = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
        if bytes.is_power_of_two() { bytes.min(GRANULE_BYTES) } else { GRANULE_BYTES }
    }

    fn thread_us(&self) -> u64 {
        let (seconds, nanoseconds) = time(libc::CLOCK_THREAD_CPUTIME_ID);
        seconds * 1_000_000 + nanoseconds / 1000
    }

    fn now_ms(&self) -> u64 {
        let (seconds, nanoseconds) = time(libc::CLOCK_MONOTONIC_FAST);
        seconds * 1000 + nanoseconds / 1_000_000
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) {
        let _errno = KeepErrno::new();
        // SAFETY: the same promise.
        unsafe { unmap(start, bytes) };
    }
}
