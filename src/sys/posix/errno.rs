//! errno, which stays as the program left it.

use crate::sys::port::errno_location;

/// What the last call that failed says of it.
pub(in crate::sys) fn errno() -> libc::c_int {
    // SAFETY: the location is the calling thread's own and valid while the thread lives.
    unsafe { *errno_location() }
}

/// Keeps errno over calls whose failure is an answer, not an error of the program.
pub(in crate::sys) struct KeepErrno(libc::c_int);

impl KeepErrno {
    pub(in crate::sys) fn new() -> Self {
        Self(errno())
    }
}

impl Drop for KeepErrno {
    fn drop(&mut self) {
        // SAFETY: as in `new`; the value is dropped on the thread that made it.
        unsafe { *errno_location() = self.0 }
    }
}
