//! Forks: the C library calls functions before and after, as `pthread_atfork` says.

use super::cancel::NotCancelled;
use super::errno::KeepErrno;
use crate::sys::AroundFork;

/// Has `F` called around every fork from now on (not around `vfork`, `posix_spawn` or a bare `clone`). `false`: not
/// possible.
///
/// In a shared library the C library forgets the functions when the library is unloaded.
#[must_use]
pub fn around_forks<F: AroundFork>() -> bool {
    let _errno = KeepErrno::new();
    // SAFETY: the functions are safe to call in these places.
    unsafe { libc::pthread_atfork(Some(before::<F>), Some(in_parent::<F>), Some(in_child::<F>)) == 0 }
}

extern "C" fn before<F: AroundFork>() {
    F::before();
}

extern "C" fn in_parent<F: AroundFork>() {
    F::in_parent();
}

extern "C" fn in_child<F: AroundFork>() {
    F::in_child();
}

/// Times that `wait_briefly` looks again, and the pause between two looks, in microseconds: together some 10 ms.
const LOOKS: u32 = 200;
const PAUSE_MICROSECONDS: u32 = 50;

/// Waits until `is_over`, for 10 ms at most.
pub fn wait_briefly(is_over: impl Fn() -> bool) {
    if is_over() {
        return;
    }
    let (_errno, _whole) = (KeepErrno::new(), NotCancelled::new());
    for _ in 0..LOOKS {
        if is_over() {
            return;
        }
        // SAFETY: usleep has no conditions.
        unsafe { libc::usleep(PAUSE_MICROSECONDS) };
    }
}
