//! Numbers of threads, and whether a thread is there still.

use crate::sys::posix::errno::{KeepErrno, errno};

/// Number of the calling thread.
pub fn thread_id() -> u32 {
    // SAFETY: no conditions. By number, because older C libraries have no function for it.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// Is the calling thread the one that the C library takes it for? Not in a child that shares its parent's memory, as that
/// of `vfork` does: what the C library knows of the thread there is what it knows of the parent's. Nor in a copy that the C
/// library did not make (a bare `clone`).
pub fn is_as_known() -> bool {
    let mut clock = 0;
    // SAFETY: pthread_self has no conditions.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: `clock` is valid. Asks the C library, not the kernel.
    if unsafe { libc::pthread_getcpuclockid(this, &raw mut clock) } != 0 {
        return true;
    }
    // As the kernel names the clocks of threads: the number's complement, and 3 bits for the kind.
    (!(clock >> 3)).cast_unsigned() == thread_id()
}

/// Is thread `thread` of this process, whose number is `process`, there? `true` also where the kernel does not tell, and
/// for the main thread until all others have ended. Linux knows no other way to learn of a thread that left by a system
/// call of its own.
pub fn is_alive(process: u32, thread: u32) -> bool {
    let _errno = KeepErrno::new();
    // SAFETY: no signal is sent.
    let found = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, 0) };
    found == 0 || errno() != libc::ESRCH
}
