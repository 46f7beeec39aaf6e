//! New memory by mmap, as the port's `NEW` says.

use crate::sys::port::NEW;
use core::ptr::NonNull;

pub(in crate::sys) const READ_WRITE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;

/// A new mapping at a place of the kernel's choice. `None`: refused; errno says why.
pub(in crate::sys) fn map_anywhere(bytes: usize, access: libc::c_int) -> Option<NonNull<u8>> {
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
    let start = unsafe { libc::mmap(core::ptr::null_mut(), bytes, access, NEW, -1, 0) };
    if start == libc::MAP_FAILED { None } else { NonNull::new(start.cast()) }
}
