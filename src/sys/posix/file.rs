//! A file to append to, and who this process is.

use super::cancel::NotCancelled;
use super::report::HeldPipeSignal;
use core::ffi::CStr;

/// Appends `bytes` to the file at `path`, made if need be, with one write. `false`: not all of them. Where it is a pipe that
/// nobody reads, neither waits for a reader nor ends the process by a signal.
#[must_use]
pub fn append(path: &CStr, bytes: &[u8]) -> bool {
    let _whole = NotCancelled::new();
    let mut pipe_signal = HeldPipeSignal::new();
    let flags =
        libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: the path ends with a zero.
    let file = unsafe { libc::open(path.as_ptr(), flags, 0o666 as libc::c_uint) };
    if file < 0 {
        return false;
    }
    // SAFETY: the bytes are valid for their length.
    let written = unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) };
    // SAFETY: our own descriptor.
    unsafe { libc::close(file) };
    let is_whole = usize::try_from(written) == Ok(bytes.len());
    if !is_whole {
        pipe_signal.discard();
    }
    is_whole
}

/// Number of this process.
pub fn process_id() -> u32 {
    // SAFETY: no conditions.
    unsafe { libc::getpid() }.cast_unsigned()
}

/// Number of the process that started this one.
pub fn parent_id() -> u32 {
    // SAFETY: no conditions.
    unsafe { libc::getppid() }.cast_unsigned()
}
