//! Numbers of threads, and the word that a thread sleeps on.

use crate::sync::AtomicU32;
use crate::sys::posix::errno::{KeepErrno, errno};

/// Number of the calling thread: thr_self(2).
pub fn thread_id() -> u32 {
    let mut id = 0;
    // SAFETY: `id` is valid.
    unsafe { libc::thr_self(&raw mut id) };
    id as u32
}

/// Is thread `thread` of this process, whose number is `process`, there: thr_kill2(2), without a signal? `true` also where
/// the kernel does not tell.
pub fn is_alive(process: u32, thread: u32) -> bool {
    let _errno = KeepErrno::new();
    // SAFETY: no signal is sent.
    let found = unsafe { libc::thr_kill2(process.cast_signed(), thread.into(), 0) };
    found == 0 || errno() != libc::ESRCH
}

/// Is the calling thread the one that the C library takes it for? Not in a child that shares its parent's memory.
pub fn is_as_known() -> bool {
    // SAFETY: no conditions. Asks the C library, not the kernel.
    unsafe { libc::pthread_getthreadid_np() }.cast_unsigned() == thread_id()
}

/// Names the calling thread, for `ps` and debuggers.
pub fn name_thread() {
    // SAFETY: the calling thread's own handle, and a text that ends with a zero.
    unsafe { libc::pthread_set_name_np(libc::pthread_self(), c"magalloc".as_ptr()) };
}

/// Sleeps while `word` is `value`, at most `milliseconds`: _umtx_op(2). May wake without reason.
pub fn wait(word: &AtomicU32, value: u32, milliseconds: u64) {
    let _errno = KeepErrno::new();
    let mut timeout = libc::timespec {
        tv_sec: (milliseconds / 1000) as _,
        tv_nsec: (milliseconds % 1000 * 1_000_000) as _,
    };
    let object = core::ptr::from_ref(word).cast_mut().cast();
    let null = core::ptr::null_mut();
    // SAFETY: the word and the timeout are valid for the call; without a size, it is a `timespec`, and relative.
    unsafe {
        libc::_umtx_op(object, libc::UMTX_OP_WAIT_UINT_PRIVATE, value.into(), null, (&raw mut timeout).cast());
    }
}

/// Wakes who sleeps on `word`.
pub fn wake(word: &AtomicU32) {
    let _errno = KeepErrno::new();
    let object = core::ptr::from_ref(word).cast_mut().cast();
    let null = core::ptr::null_mut();
    // SAFETY: the word is valid for the call.
    unsafe { libc::_umtx_op(object, libc::UMTX_OP_WAKE_PRIVATE, 1, null, null) };
}
