//! What the program to start inherits of this process's signals: what this process inherited itself.
//!
//! ```text
//! # Role        `Inherited`: taken at the start, given to the program right before it is executed
//! # Why         Rust's runtime ignores SIGPIPE before `main`, and `Command` then sets it to its default and unblocks
//!               every signal; a program that was to ignore it, or a blocked signal, would be changed by the launcher
//! ```

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether SIGPIPE was ignored when this process began.
static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// The C runtime calls what stands in this section before `main`; `remember_pipe` needs nothing that is set up later.
#[used]
#[unsafe(link_section = ".init_array")]
static REMEMBER_PIPE: extern "C" fn() = remember_pipe;

extern "C" fn remember_pipe() {
    // ordering: Relaxed, there is one thread.
    PIPE_WAS_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

/// Which signals are blocked or ignored.
#[derive(Clone, Copy)]
pub(crate) struct Inherited {
    /// The blocked signals.
    pub(crate) mask: libc::sigset_t,
    is_pipe_ignored: bool,
    is_child_ignored: bool,
}

impl Inherited {
    /// What this process inherited. To be called before it changes anything.
    pub(crate) fn now() -> Self {
        Self {
            mask: mask(),
            // ordering: Relaxed, there is one thread.
            is_pipe_ignored: PIPE_WAS_IGNORED.load(Ordering::Relaxed),
            is_child_ignored: is_ignored(libc::SIGCHLD),
        }
    }

    /// Lets the program that `command` executes inherit the same.
    pub(crate) fn pass_on(self, command: &mut Command) {
        // SAFETY: between fork and exec, `restore` only makes calls that are safe in a signal handler.
        unsafe { command.pre_exec(move || self.restore()) };
    }

    fn restore(&self) -> io::Result<()> {
        let pipe = if self.is_pipe_ignored { libc::SIG_IGN } else { libc::SIG_DFL };
        set_disposition(libc::SIGPIPE, pipe)?;
        let child = if self.is_child_ignored { libc::SIG_IGN } else { libc::SIG_DFL };
        set_disposition(libc::SIGCHLD, child)?;
        set_mask(&self.mask)
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `old` has room for one; nothing is changed.
    if unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call succeeded, so it was written.
    unsafe { old.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Makes `signal` ignored (`SIG_IGN`) or have its default action (`SIG_DFL`).
pub(crate) fn set_disposition(signal: libc::c_int, disposition: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: both are dispositions without a handler.
    if unsafe { libc::signal(signal, disposition) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The blocked signals of this thread.
fn mask() -> libc::sigset_t {
    let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `mask` has room for one, which this makes the empty set, whatever the next call does.
    unsafe { libc::sigemptyset(mask.as_mut_ptr()) };
    // SAFETY: the same room; nothing is changed.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, ptr::null(), mask.as_mut_ptr()) };
    // SAFETY: `sigemptyset` has written it.
    unsafe { mask.assume_init() }
}

/// Blocks the signals of `mask` and no others.
pub(crate) fn set_mask(mask: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `mask` is a set; the old one is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, mask, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
