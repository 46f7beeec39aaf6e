//! Functions of C that are a call of `realloc` or `free`.

use crate::{free, realloc};
use core::ffi::c_void;

/// POSIX: `realloc` to `count` times `size` bytes.
///
/// # Safety
/// As `realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(block: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the caller's promise.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => {
            // SAFETY: the calling thread's errno, always there.
            unsafe { *libc::__errno_location() = libc::ENOMEM };
            core::ptr::null_mut()
        }
    }
}

/// BSD: `realloc`, and the block is freed where that fails.
///
/// # Safety
/// As `realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocf(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise.
    let new = unsafe { realloc(block, size) };
    if new.is_null() && size != 0 {
        // SAFETY: the block is as before.
        unsafe { free(block) };
    }
    new
}

/// C: `free` of a block of that size. (A block may have a larger class than its size, so the address tells.)
///
/// # Safety
/// As `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, _size: usize) {
    // SAFETY: the caller's promise.
    unsafe { free(block) };
}

/// C: `free` of a block of that size and alignment.
///
/// # Safety
/// As `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: the caller's promise.
    unsafe { free(block) };
}

/// Old: `free`.
///
/// # Safety
/// As `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cfree(block: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { free(block) };
}
