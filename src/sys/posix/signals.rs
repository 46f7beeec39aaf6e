//! No signal handler runs amid some work.

/// Does `work` with all signals blocked. (To block them fails for a wrong argument only.)
pub fn without_signals<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: all zeros is a valid signal set.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { core::mem::zeroed() };
    // SAFETY: `all` is valid.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: both sets are valid.
    let is_blocked = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) } == 0;
    let result = work();
    if is_blocked {
        // SAFETY: the mask that was set before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, core::ptr::null_mut()) };
    }
    result
}
