//! Files to read from and to append to, and who this process is.

use super::cancel::NotCancelled;
use super::report::HeldPipeSignal;
use core::ffi::CStr;

/// A file, open for reading.
pub(super) struct File(core::ffi::c_int);

impl File {
    pub(super) fn open(path: &CStr) -> Option<Self> {
        // SAFETY: the path ends with a zero.
        let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        (file >= 0).then_some(Self(file))
    }

    /// Bytes that were read to the beginning of `to`; 0 at the end, or where nothing can be read.
    pub(super) fn read(&self, to: &mut [u8]) -> usize {
        // SAFETY: `to` is valid for its length.
        let count = unsafe { libc::read(self.0, to.as_mut_ptr().cast(), to.len()) };
        usize::try_from(count).unwrap_or(0)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: our own descriptor.
        unsafe { libc::close(self.0) };
    }
}

/// Reads the beginning of the file at `path` into `bytes`; says how much of them it fills, nothing where it cannot be read.
pub(super) fn beginning(path: &CStr, bytes: &mut [u8]) -> usize {
    let _whole = NotCancelled::new();
    let Some(file) = File::open(path) else { return 0 };
    let mut len = 0;
    while len < bytes.len() {
        match file.read(&mut bytes[len..]) {
            0 => break,
            more => len += more,
        }
    }
    len
}

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

/// Path of the program that runs, as far as it fits into `path`; empty where it is not known.
pub fn program_path(path: &mut [u8]) -> &[u8] {
    // SAFETY: the link's path ends with a zero, `path` is valid for its length.
    let len = unsafe { libc::readlink(c"/proc/self/exe".as_ptr(), path.as_mut_ptr().cast(), path.len()) };
    &path[..usize::try_from(len).unwrap_or(0)]
}
