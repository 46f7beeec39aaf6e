//! Files of the kernel's to read from, without allocating.

use crate::sys::posix::cancel::NotCancelled;
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
