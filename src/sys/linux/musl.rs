//! What glibc can do at the end of a process, and musl, or another C library, cannot (see `end`).

use core::ffi::c_void;

/// No handler is accepted so late.
#[must_use]
pub(super) fn call_last(_handler: extern "C" fn(*mut c_void)) -> bool {
    false
}

/// No library is ever unloaded: `dlclose` does nothing.
#[must_use]
pub(super) fn call_at_end(_handler: extern "C" fn(*mut c_void), _argument: *mut c_void) -> bool {
    false
}

/// There is none.
pub(super) fn take_back(_argument: *mut c_void) {}
