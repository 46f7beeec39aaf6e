//! Lines on standard error, without formatting or allocating.

use super::cancel::NotCancelled;
use super::errno::{KeepErrno, errno};

/// Parts that a line has at most, its end included. More are left out.
const PARTS_MAX: usize = 16;

/// Writes `parts` to standard error, followed by a line end, by one call: what several processes write to one pipe or file
/// does not mix. Nothing that becomes of it ends the process: a pipe that nobody reads raises no signal.
pub fn line(parts: &[&[u8]]) {
    let _errno = KeepErrno::new();
    let _whole = NotCancelled::new();
    let mut pipe_signal = HeldPipeSignal::new();
    debug_assert!(parts.len() < PARTS_MAX);
    let mut pieces = [libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 }; PARTS_MAX];
    let mut count = 0;
    for (piece, part) in pieces.iter_mut().zip(parts.iter().take(PARTS_MAX - 1).chain(&[&b"\n"[..]])) {
        *piece = libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() };
        count += 1;
    }
    let mut left = &mut pieces[..count];
    while !left.is_empty() {
        // SAFETY: each piece is a slice of the caller's, or what is left of one.
        let written = unsafe { libc::writev(libc::STDERR_FILENO, left.as_ptr(), left.len() as libc::c_int) };
        match usize::try_from(written) {
            Ok(bytes) if bytes > 0 => left = behind(left, bytes),
            // A signal handler of the program's came while the pipe was full.
            Err(_) if errno() == libc::EINTR => {}
            // Nobody can be told that standard error cannot be written.
            _ => return pipe_signal.discard(),
        }
    }
}

/// What is left of `pieces` behind the first `bytes`.
fn behind(pieces: &mut [libc::iovec], mut bytes: usize) -> &mut [libc::iovec] {
    let whole = pieces.iter().take_while(|piece| {
        let is_whole = piece.iov_len <= bytes;
        bytes -= if is_whole { piece.iov_len } else { 0 };
        is_whole
    });
    let whole = whole.count();
    let left = &mut pieces[whole..];
    if let Some(first) = left.first_mut() {
        first.iov_base = first.iov_base.wrapping_byte_add(bytes);
        first.iov_len -= bytes;
    }
    left
}

/// Holds SIGPIPE back from the calling thread while it lives. The kernel raises it on the thread that writes.
pub(in crate::sys) struct HeldPipeSignal {
    /// The thread's signal mask of before.
    before: libc::sigset_t,
    /// Whether the program holds it back itself and has one pending, which stays.
    was_pending: bool,
}

impl HeldPipeSignal {
    pub(in crate::sys) fn new() -> Self {
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
    pub(in crate::sys) fn discard(&mut self) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_line_begins_behind_what_was_written() {
        let text = *b"one, two, three";
        for bytes in 0..=text.len() {
            let mut pieces = [0..3, 3..3, 3..9, 9..15].map(|part: core::ops::Range<usize>| libc::iovec {
                iov_base: text[part.clone()].as_ptr().cast_mut().cast(),
                iov_len: part.len(),
            });
            let left: Vec<u8> = behind(&mut pieces, bytes)
                .iter()
                // SAFETY: a piece of `text`.
                .flat_map(|piece| unsafe { core::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len) })
                .copied()
                .collect();
            assert_eq!(left, text[bytes..], "{bytes}");
        }
    }
}
