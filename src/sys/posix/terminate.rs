//! A last deed before SIGTERM ends the process.
//!
//! ```text
//! # Role        a handler that does something, and then lets the signal do what it would have done
//! # Safety      installed only where the signal has its default action, so that no handler of the program's, and no wish
//!               to ignore it, is lost; the program may put its own in its place at any time
//! # Progress    the deed is made of system calls and atomics: a handler may do no more. Where the signal comes to a second
//!               thread meanwhile, that one does nothing: the first is about to end the process
//! ```

use crate::sync::{AtomicU32, Ordering};
use crate::sys::Termination;

/// The process in which the handler has begun. A number, so that a process that shares this memory (after `vfork`), or has
/// a copy of it, is another.
static HANDLED_IN: AtomicU32 = AtomicU32::new(0);

/// Has SIGTERM call `T::before_termination` first, if its action is the default one.
pub fn before_termination<T: Termination>() {
    if is_action(libc::SIG_DFL) {
        set_action(handle::<T> as *const () as usize);
    }
}

/// Gives SIGTERM its default action back, if it would call `T::before_termination`: the code is about to be unloaded.
pub fn after_all<T: Termination>() {
    if is_action(handle::<T> as *const () as usize) {
        set_action(libc::SIG_DFL);
    }
}

/// Is that what SIGTERM does?
fn is_action(handler: usize) -> bool {
    // SAFETY: all zeros is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: asks only; `action` is valid.
    let is_known = unsafe { libc::sigaction(libc::SIGTERM, core::ptr::null(), &raw mut action) } == 0;
    is_known && action.sa_sigaction == handler
}

fn set_action(handler: usize) {
    // SAFETY: all zeros is a valid `sigaction`: no signal is blocked beside.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the default action, or a handler that does what a handler may.
    unsafe { libc::sigaction(libc::SIGTERM, &raw const action, core::ptr::null_mut()) };
}

extern "C" fn handle<T: Termination>(signal: libc::c_int) {
    let process = super::file::process_id();
    // ordering: Relaxed; who is first is all that counts.
    if HANDLED_IN.swap(process, Ordering::Relaxed) == process {
        return;
    }
    T::before_termination();
    set_action(libc::SIG_DFL);
    // SAFETY: all zeros is a valid signal set.
    let mut only: libc::sigset_t = unsafe { core::mem::zeroed() };
    // SAFETY: the set is valid.
    unsafe { libc::sigemptyset(&raw mut only) };
    // SAFETY: the set is valid, the signal is one.
    unsafe { libc::sigaddset(&raw mut only, signal) };
    // SAFETY: touches no memory; the signal is blocked, and so waits.
    unsafe { libc::raise(signal) };
    // It comes here: where the program waits with another mask (`sigsuspend`), it would not when the handler returns.
    // SAFETY: the set is valid; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, core::ptr::null_mut()) };
}
