//! Processors without assembly of their own, and Miri.

#[cfg(unix)]
use core::ffi::c_void;

/// The address.
#[inline(always)]
pub fn without_index<T>(address: *const T) -> *const T {
    address
}

/// Calls `work` on the caller's stack.
///
/// # Safety
/// None here; see the other processors.
#[cfg(unix)]
pub unsafe fn call_on(_stack: *mut c_void, work: extern "C" fn(*mut c_void), argument: *mut c_void) {
    work(argument);
}
