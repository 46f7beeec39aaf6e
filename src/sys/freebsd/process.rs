//! The program that runs: its path, its rights, its errno.

/// Path of the program that runs, as far as it fits into `path`; empty where it is not known: sysctl(3), KERN_PROC_PATHNAME.
pub fn program_path(path: &mut [u8]) -> &[u8] {
    let name = [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PATHNAME, -1];
    let mut len = path.len();
    // SAFETY: the name has that many parts, `path` is valid for its length, and nothing is set.
    let failed = unsafe {
        libc::sysctl(name.as_ptr(), name.len() as _, path.as_mut_ptr().cast(), &raw mut len, core::ptr::null(), 0)
    };
    // The length counts the zero at the end.
    path.get(..len.saturating_sub(1)).filter(|_| failed == 0).unwrap_or(&[])
}

/// Has the process more rights than its caller: issetugid(2)?
pub fn has_more_rights() -> bool {
    // SAFETY: no conditions.
    unsafe { libc::issetugid() != 0 }
}

/// Where the C library keeps errno.
pub fn errno_location() -> *mut libc::c_int {
    // SAFETY: no conditions.
    unsafe { libc::__error() }
}
