//! The environment: a copy of it in the process's own heap, which is not ours, so malloc is not called.
//!
//! `GetEnvironmentVariableW` would need no copy, but the names beforehand: one that is misspelt could not be told of.

use super::last_error::KeepLastError;
use super::text::to_utf8;
use windows_sys::Win32::System::Environment::{FreeEnvironmentStringsW, GetEnvironmentStringsW};

/// Bytes of a variable that are looked at: of ours, a path takes the most.
const VARIABLE_BYTES_MAX: usize = 2048;

/// Is there an environment to read? From the first instruction on.
pub fn has_environment() -> bool {
    true
}

/// Calls `found` with the name, less `prefix`, and the value of every variable whose name begins with `prefix`. A process
/// with more rights than its caller has its environment from whoever gave it these.
pub fn for_each_variable(prefix: &[u8], mut found: impl FnMut(&[u8], &[u8])) {
    let _error = KeepLastError::new();
    // SAFETY: no conditions.
    let strings = unsafe { GetEnvironmentStringsW() };
    if strings.is_null() {
        return;
    }
    let mut next = strings.cast_const();
    loop {
        // SAFETY: texts that each end with a zero, the last one empty; `next` is at the beginning of one.
        let len = (0..).take_while(|&index| unsafe { *next.add(index) } != 0).count();
        if len == 0 {
            break;
        }
        // SAFETY: so many units before the zero.
        let variable = unsafe { core::slice::from_raw_parts(next, len) };
        let mut text = [0; VARIABLE_BYTES_MAX];
        if variable.iter().zip(prefix).filter(|(unit, byte)| **unit == u16::from(**byte)).count() == prefix.len()
            && let Some(rest) = to_utf8(variable.iter().copied(), &mut text).strip_prefix(prefix)
            && let Some(end) = rest.iter().position(|&byte| byte == b'=')
        {
            found(&rest[..end], &rest[end + 1..]);
        }
        // SAFETY: the zero is within.
        next = unsafe { next.add(len + 1) };
    }
    // SAFETY: what was given above, not used any more.
    unsafe { FreeEnvironmentStringsW(strings) };
}
