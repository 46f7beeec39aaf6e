//! Forks: the C library calls a function in the child, before `fork` returns there.

/// Calls `handler` in every child that this process forks from now on (not after `vfork`, `posix_spawn` or a bare
/// `clone`). `false`: not possible.
///
/// In a shared library the C library forgets the handler when the library is unloaded.
#[must_use]
pub fn in_forked_child(handler: extern "C" fn()) -> bool {
    // SAFETY: the handler may run in the only thread of the child, and it takes no lock.
    unsafe { libc::pthread_atfork(None, None, Some(handler)) == 0 }
}
