//! The program that runs: its path, and its rights.

/// Path of the program that runs, as far as it fits into `path`; empty where it is not known.
pub fn program_path(path: &mut [u8]) -> &[u8] {
    // SAFETY: the link's path ends with a zero, `path` is valid for its length.
    let len = unsafe { libc::readlink(c"/proc/self/exe".as_ptr(), path.as_mut_ptr().cast(), path.len()) };
    &path[..usize::try_from(len).unwrap_or(0)]
}

/// Has the process more rights than its caller (set-uid)?
pub fn has_more_rights() -> bool {
    // SAFETY: getauxval has no conditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Where the C library keeps errno.
pub fn errno_location() -> *mut libc::c_int {
    // SAFETY: no conditions.
    unsafe { libc::__errno_location() }
}
