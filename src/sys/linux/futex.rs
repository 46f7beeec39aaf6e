//! The word that a thread of the allocator's own sleeps on, and the thread's name.

use crate::sync::AtomicU32;
use crate::sys::posix::errno::KeepErrno;

/// Names the calling thread, for `ps` and debuggers.
pub fn name_thread() {
    // SAFETY: a text that ends with a zero, of at most 15 letters.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"magalloc".as_ptr()) };
}

/// Sleeps while `word` is `value`, at most `milliseconds`. May wake without reason.
pub fn wait(word: &AtomicU32, value: u32, milliseconds: u64) {
    let _errno = KeepErrno::new();
    let timeout = libc::timespec {
        tv_sec: (milliseconds / 1000) as _,
        tv_nsec: (milliseconds % 1000 * 1_000_000) as _,
    };
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is valid for the call, the timeout too.
    unsafe { libc::syscall(libc::SYS_futex, core::ptr::from_ref(word), operation, value, &raw const timeout) };
}

/// Wakes who sleeps on `word`.
pub fn wake(word: &AtomicU32) {
    let _errno = KeepErrno::new();
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is valid for the call.
    unsafe { libc::syscall(libc::SYS_futex, core::ptr::from_ref(word), operation, 1) };
}
