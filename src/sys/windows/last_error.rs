//! The thread's last error, which stays as the program left it.

use windows_sys::Win32::Foundation::{GetLastError, SetLastError, WIN32_ERROR};

/// Keeps it over calls whose failure is an answer, not an error of the program.
pub(super) struct KeepLastError(WIN32_ERROR);

impl KeepLastError {
    pub(super) fn new() -> Self {
        // SAFETY: no conditions; a word of the thread's.
        Self(unsafe { GetLastError() })
    }
}

impl Drop for KeepLastError {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { SetLastError(self.0) };
    }
}
