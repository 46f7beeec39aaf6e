//! Forks: the C library calls functions before and after, as `pthread_atfork` says.

use super::cancel::NotCancelled;
use super::pages::KeepErrno;

/// What to call around a fork.
#[derive(Clone, Copy, Debug)]
pub struct AroundFork {
    /// In the forking thread, before.
    pub before: extern "C" fn(),
    /// In the same thread, afterwards, also if the fork failed.
    pub parent: extern "C" fn(),
    /// In the only thread of the child, before `fork` returns there. It may take no lock.
    pub child: extern "C" fn(),
}

/// Has the functions called around every fork from now on (not around `vfork`, `posix_spawn` or a bare `clone`).
/// `false`: not possible.
///
/// In a shared library the C library forgets the functions when the library is unloaded.
#[must_use]
pub fn around_forks(calls: AroundFork) -> bool {
    let _errno = KeepErrno::new();
    // SAFETY: the functions are safe to call in these places.
    unsafe { libc::pthread_atfork(Some(calls.before), Some(calls.parent), Some(calls.child)) == 0 }
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
