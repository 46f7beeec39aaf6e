//! The environment, read where it lies: nothing is allocated, nothing is locked.

use crate::sys::port::has_more_rights;
use core::ffi::{CStr, c_char};

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Is there an environment to read? Not before the C library has begun.
pub fn has_environment() -> bool {
    // SAFETY: a word of the C library's.
    !unsafe { environ }.is_null()
}

/// Calls `found` with the name, less `prefix`, and the value of every variable whose name begins with `prefix`. With
/// none in a process that has more rights than its caller.
///
/// The caller copies what it needs: a program may change its environment.
pub fn for_each_variable(prefix: &[u8], mut found: impl FnMut(&[u8], &[u8])) {
    if has_more_rights() || !has_environment() {
        return;
    }
    // SAFETY: a word of the C library's.
    let mut next = unsafe { environ };
    loop {
        // SAFETY: the list ends with null, and was not at its end.
        let variable = unsafe { *next };
        if variable.is_null() {
            return;
        }
        // SAFETY: each variable is a text that ends with a zero.
        let text = unsafe { CStr::from_ptr(variable) }.to_bytes();
        if let Some(rest) = text.strip_prefix(prefix)
            && let Some(end) = rest.iter().position(|&byte| byte == b'=')
        {
            found(&rest[..end], &rest[end + 1..]);
        }
        // SAFETY: not the end.
        next = unsafe { next.add(1) };
    }
}
