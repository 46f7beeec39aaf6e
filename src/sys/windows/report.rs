//! Lines on standard error, without formatting or allocating.

use super::last_error::KeepLastError;
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Storage::FileSystem::WriteFile;
use windows_sys::Win32::System::Console::{GetStdHandle, STD_ERROR_HANDLE};

/// Bytes of a line that are written by one call; a longer one takes several, and may mix with others'.
const LINE_BYTES: usize = 1024;

/// Writes `parts` to standard error, followed by a line end. Where there is none, or nobody reads, nothing happens.
pub fn line(parts: &[&[u8]]) {
    let _error = KeepLastError::new();
    // SAFETY: no conditions.
    let file = unsafe { GetStdHandle(STD_ERROR_HANDLE) };
    let (mut text, mut len) = ([0; LINE_BYTES], 0);
    for &byte in parts.iter().copied().chain([&b"\n"[..]]).flatten() {
        if len == text.len() {
            if !write(file, &text) {
                return;
            }
            len = 0;
        }
        text[len] = byte;
        len += 1;
    }
    write(file, &text[..len]);
}

/// Writes all of `bytes`; `false`: not all of them.
pub(super) fn write(file: HANDLE, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let (mut written, most) = (0, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        // SAFETY: the bytes are valid for their length, and `written` is valid; a handle that is none is refused.
        let done = unsafe { WriteFile(file, bytes.as_ptr(), most, &raw mut written, core::ptr::null_mut()) };
        if done == 0 || written == 0 {
            return false;
        }
        bytes = bytes.get(written as usize..).unwrap_or(&[]);
    }
    true
}

/// Writes `parts` and ends the process at once: the program has broken the rules of memory and cannot be trusted to go on.
#[cold]
pub fn fatal(parts: &[&[u8]]) -> ! {
    line(parts);
    // `__fastfail`: no handler of the program's, and no callback of the loader's, runs.
    std::process::abort()
}
