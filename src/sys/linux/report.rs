//! Lines on standard error, without formatting or allocating.

use super::cancel::NotCancelled;
use super::pages::KeepErrno;

/// Writes `parts` to standard error, followed by a line end. Nothing that becomes of it ends the process: a pipe that
/// nobody reads raises no signal.
pub fn line(parts: &[&[u8]]) {
    let _errno = KeepErrno::new();
    let _whole = NotCancelled::new();
    let mut pipe_signal = HeldPipeSignal::new();
    for part in parts.iter().chain(&[&b"\n"[..]]) {
        let mut rest: &[u8] = part;
        while !rest.is_empty() {
            // SAFETY: the slice is valid for its length.
            let written = unsafe { libc::write(libc::STDERR_FILENO, rest.as_ptr().cast(), rest.len()) };
            match usize::try_from(written) {
                Ok(count) if count > 0 => rest = &rest[count..],
                // Nobody can be told that standard error cannot be written.
                _ => return pipe_signal.discard(),
            }
        }
    }
}

/// Holds SIGPIPE back from the calling thread while it lives. The kernel raises it on the thread that writes.
pub(super) struct HeldPipeSignal {
    /// The thread's signal mask of before.
    before: libc::sigset_t,
    /// Whether the program holds it back itself and has one pending, which stays.
    was_pending: bool,
}

impl HeldPipeSignal {
    pub(super) fn new() -> Self {
        // SAFETY: all zeros is a valid signal set.
        let mut before: libc::sigset_t = unsafe { core::mem::zeroed() };
        let only = Self::signal();
        // SAFETY: both sets are valid.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const only, &raw mut before) };
        // SAFETY: likewise.
        let was_held = unsafe { libc::sigismember(&raw const before, libc::SIGPIPE) } == 1;
        Self { before, was_pending: was_held && Self::is_pending() }
    }

    /// The set of that signal alone.
    fn signal() -> libc::sigset_t {
        // SAFETY: all zeros is a valid signal set, and an empty one.
        let mut set: libc::sigset_t = unsafe { core::mem::zeroed() };
        // SAFETY: the set is valid.
        unsafe { libc::sigaddset(&raw mut set, libc::SIGPIPE) };
        set
    }

    fn is_pending() -> bool {
        // SAFETY: all zeros is a valid signal set.
        let mut pending: libc::sigset_t = unsafe { core::mem::zeroed() };
        // SAFETY: the set is valid.
        unsafe { libc::sigpending(&raw mut pending) };
        // SAFETY: likewise.
        unsafe { libc::sigismember(&raw const pending, libc::SIGPIPE) == 1 }
    }

    /// After a failed write: takes the signal that it raised, if it did.
    pub(super) fn discard(&mut self) {
        if self.was_pending || !Self::is_pending() {
            return;
        }
        let only = Self::signal();
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: all of it is valid; what the signal was raised for is not asked.
        unsafe { libc::sigtimedwait(&raw const only, core::ptr::null_mut(), &raw const at_once) };
    }
}

impl Drop for HeldPipeSignal {
    fn drop(&mut self) {
        // SAFETY: the mask of before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, core::ptr::null_mut()) };
    }
}

/// Writes `parts` and aborts: the program has broken the rules of memory and cannot be trusted to go on.
#[cold]
pub fn fatal(parts: &[&[u8]]) -> ! {
    line(parts);
    // SAFETY: abort has no conditions.
    unsafe { libc::abort() }
}

/// Longest text of a number: 20 decimal digits, or "0x" and 16 hexadecimal ones.
const DIGITS_MAX: usize = 20;

/// A number as text, without allocating.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    text: [u8; DIGITS_MAX],
    start: usize,
}

impl core::ops::Deref for Digits {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

fn digits(mut value: usize, base: usize, prefix: &[u8]) -> Digits {
    let mut digits = Digits { text: [b'0'; DIGITS_MAX], start: DIGITS_MAX };
    loop {
        digits.start -= 1;
        digits.text[digits.start] = b"0123456789abcdef"[value % base];
        value /= base;
        if value == 0 {
            break;
        }
    }
    let number = digits.start;
    digits.start -= prefix.len();
    digits.text[digits.start..number].copy_from_slice(prefix);
    digits
}

/// `value` in hexadecimal, with "0x".
pub fn hex(value: usize) -> Digits {
    digits(value, 16, b"0x")
}

/// `value` in decimal.
pub fn decimal(value: usize) -> Digits {
    digits(value, 10, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        assert_eq!(&*hex(0), b"0x0");
        assert_eq!(&*hex(usize::MAX), format!("{:#x}", usize::MAX).as_bytes());
        assert_eq!(&*decimal(usize::MAX), usize::MAX.to_string().as_bytes());
        assert_eq!(&*decimal(1050), b"1050");
    }
}
