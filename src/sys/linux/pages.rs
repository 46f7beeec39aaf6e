//! Address space through mmap, mprotect, madvise and mremap. errno is left as it was found.

use crate::sys::Pages;
use core::ptr::NonNull;

/// The kernel's pages.
#[derive(Debug)]
pub struct SystemPages;

/// Keeps errno over calls whose failure is an answer, not an error of the program.
struct KeepErrno(libc::c_int);

impl KeepErrno {
    fn new() -> Self {
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

    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> bool {
        let _errno = KeepErrno::new();
        // DONTUNMAP (Linux 5.7) keeps `from` mapped: without it, another mmap could slip into the hole.
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let target = to.as_ptr().cast::<libc::c_void>();
        // SAFETY: the caller's promise: both ranges are committed, its own, and do not overlap.
        unsafe { libc::mremap(from.as_ptr().cast(), bytes, bytes, flags, target) == target }
    }

    unsafe fn renew(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let _errno = KeepErrno::new();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: MAP_FIXED replaces a range that the caller has to itself.
        unsafe { libc::mmap(start.as_ptr().cast(), bytes, access, flags, -1, 0) != libc::MAP_FAILED }
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) {
        let _errno = KeepErrno::new();
        // SAFETY: the caller's promise: a whole reservation that nobody uses.
        unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
    }
}
