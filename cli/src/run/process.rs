//! A program that this process starts, stands in front of, and outlives.
//!
//! ```text
//! # Role        `run`: starts it, forwards signals to it, waits for its end
//! # Signals     blocked here from before the start on, and taken one by one, so that none is lost; the program has
//!               those blocked that were before. They stay blocked here to the end: `timeout` and service managers signal the
//!               group too, and that may come when the program has ended already
//! # Terminal    what the kernel sends (Ctrl-C, Ctrl-Z, hang-up) goes to the whole process group, thus to the program
//!               as well: only what a process sends to this one is forwarded
//! # Stops       when the program stops, this process stops, so that a shell sees it; to continue is forwarded
//! # Limit       a signal sent to the process group by a process reaches the program twice
//! ```

use std::io;
use std::mem::MaybeUninit;
use std::process::Command;
use std::ptr;
use std::time::{Duration, Instant};

use crate::inherited::{Inherited, set_disposition, set_mask};
use crate::run::ending::Ending;

/// Not taken: what this process does to itself, and what cannot be.
const NOT_TAKEN: [libc::c_int; 9] = [
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGKILL,
    libc::SIGSEGV,
    libc::SIGSTOP,
    libc::SIGSYS,
    libc::SIGTRAP,
];

/// A program that has ended.
pub(crate) struct Ended {
    /// Its process.
    pub(crate) pid: u32,
    /// How it ended.
    pub(crate) ending: Ending,
    /// How long it ran.
    pub(crate) wall: Duration,
    /// What the kernel counted.
    pub(crate) usage: libc::rusage,
}

/// Starts what `command` says, and waits for its end, with signals blocked from then on. Fails if it cannot be started.
pub(crate) fn run(mut command: Command, inherited: Inherited) -> io::Result<Ended> {
    let taken = taken();
    // Where it is ignored, the kernel keeps no status of children.
    set_disposition(libc::SIGCHLD, libc::SIG_DFL)?;
    set_mask(&taken)?;
    inherited.pass_on(&mut command);
    let begin = Instant::now();
    let child = command.spawn()?;
    // The signals stay blocked: what comes for the program too late shall not kill this process before it has told.
    let (ending, usage) = watch(child.id(), &taken)?;
    let wall = begin.elapsed();
    Ok(Ended { pid: child.id(), ending, wall, usage })
}

fn taken() -> libc::sigset_t {
    let mut taken = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `taken` has room for one set, which this fills.
    unsafe { libc::sigfillset(taken.as_mut_ptr()) };
    for signal in NOT_TAKEN {
        // SAFETY: the set was filled above, and these are signals.
        unsafe { libc::sigdelset(taken.as_mut_ptr(), signal) };
    }
    // SAFETY: `sigfillset` has written it.
    unsafe { taken.assume_init() }
}

/// Forwards signals until the program has ended.
fn watch(pid: u32, taken: &libc::sigset_t) -> io::Result<(Ending, libc::rusage)> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    loop {
        match take(taken) {
            Some(signal) if signal.si_signo == libc::SIGCHLD => {
                if let Some(end) = look(pid)? {
                    return Ok(end);
                }
            }
            Some(signal) if is_for_this_process(&signal) => forward(pid, &signal),
            _ => {}
        }
    }
}

/// The next of these signals; `None` if the wait was interrupted.
fn take(signals: &libc::sigset_t) -> Option<libc::siginfo_t> {
    let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
    // SAFETY: `signals` is a set, and `info` has room for one.
    let signal = unsafe { libc::sigwaitinfo(signals, info.as_mut_ptr()) };
    // SAFETY: there was a signal, so `info` was written.
    (signal > 0).then(|| unsafe { info.assume_init() })
}

/// Whether a process sent it, to this process; else the kernel did, to the group.
fn is_for_this_process(signal: &libc::siginfo_t) -> bool {
    [libc::SI_USER, libc::SI_QUEUE, libc::SI_TKILL].contains(&signal.si_code)
}

fn forward(pid: libc::pid_t, signal: &libc::siginfo_t) {
    // That it cannot be sent means that the program runs as another user now: nothing to be done.
    if signal.si_code == libc::SI_QUEUE {
        // SAFETY: a signal that came with a value has one.
        let value = unsafe { signal.si_value() };
        // SAFETY: touches no memory; the process was not waited for, so the number is still its own.
        unsafe { libc::sigqueue(pid, signal.si_signo, value) };
    } else {
        // SAFETY: likewise.
        unsafe { libc::kill(pid, signal.si_signo) };
    }
}

/// How the program ended, if it did; stops with it, if it stopped.
fn look(pid: libc::pid_t) -> io::Result<Option<(Ending, libc::rusage)>> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let mut status = 0;
    // SAFETY: both have room for what is written.
    let found = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG | libc::WUNTRACED, usage.as_mut_ptr()) };
    match found {
        // Some other child's signal, or one for two events.
        0 => return Ok(None),
        -1 => {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(None) } else { Err(error) };
        }
        _ => {}
    }
    if libc::WIFSTOPPED(status) {
        // SAFETY: touches no memory. This process goes on here when it is continued.
        unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
        return Ok(None);
    }
    // SAFETY: zeroed, which is a usage, and written by the kernel.
    Ok(Some((Ending::of(status), unsafe { usage.assume_init() })))
}

/// Gives `signal` its default action and sends it to this process; returns if that does not kill it.
pub(crate) fn kill_self(signal: libc::c_int) {
    let core = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    // The program has left its core, if it was to; this one would overwrite it.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, core);
    // SIGKILL has no other action, and that is an error here.
    let _ = set_disposition(signal, libc::SIG_DFL);
    let mut only = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `only` has room for one set, which this empties.
    unsafe { libc::sigemptyset(only.as_mut_ptr()) };
    // SAFETY: the set was emptied above.
    unsafe { libc::sigaddset(only.as_mut_ptr(), signal) };
    // SAFETY: touches no memory.
    unsafe { libc::kill(libc::getpid(), signal) };
    // SAFETY: a set; the old one is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, only.as_ptr(), ptr::null_mut()) };
}
