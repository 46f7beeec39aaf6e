//! The end of a thread, through a pthread key: its destructor runs after the thread-local destructors of Rust and
//! C++, which the C library calls first.

use crate::sync::{AtomicU32, Ordering};
use crate::sys::EndOfThread;

/// A lazily made pthread key. No lock: two threads may both make one, and one of them is deleted again.
#[derive(Debug)]
pub struct ThreadEnd(
    /// The key + 1; 0 is none yet.
    AtomicU32,
);

/// Rounds of key destructors that are let pass, so that other keys' destructors, which may still free, come first. POSIX
/// promises 4 rounds; a thread whose first call comes in the second must still be in time.
const ROUNDS_LET_PASS: usize = 1;

impl ThreadEnd {
    /// No key yet.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    #[allow(clippy::unnecessary_cast, reason = "keys are signed on some systems")]
    fn made<E: EndOfThread>(&self) -> Option<libc::pthread_key_t> {
        // ordering: Relaxed; the key is a number, nothing else is published with it.
        let known = self.0.load(Ordering::Relaxed);
        if known != 0 {
            return Some((known - 1) as libc::pthread_key_t);
        }
        let mut key = 0;
        // SAFETY: `key` is valid; `destructor` may be called at the end of any thread with a value set.
        if unsafe { libc::pthread_key_create(&raw mut key, Some(destructor::<E>)) } != 0 {
            return None;
        }
        // ordering: Relaxed, as above.
        match self.0.compare_exchange(0, key as u32 + 1, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Some(key),
            Err(other) => {
                // SAFETY: our own key, which nobody has seen.
                unsafe { libc::pthread_key_delete(key) };
                Some((other - 1) as libc::pthread_key_t)
            }
        }
    }

    /// Makes the key, if there is none: before a program has taken all that there are.
    pub fn prepare<E: EndOfThread>(&self) {
        let _ = self.made::<E>();
    }

    /// Calls nothing any more: the destructor may lie in a library that is about to be unloaded.
    pub fn disarm(&self) {
        // ordering: Relaxed, as above.
        if let Some(key) = self.0.swap(0, Ordering::Relaxed).checked_sub(1) {
            // SAFETY: our own key, which nobody asks for from now on.
            unsafe { libc::pthread_key_delete(key as libc::pthread_key_t) };
        }
    }

    /// Calls `E::end_of_thread` at the end of the calling thread. `false`: not possible, no key could be had.
    #[must_use]
    pub fn arrange<E: EndOfThread>(&self) -> bool {
        self.made::<E>().is_some_and(|key| {
            // SAFETY: the key exists; the value is a count, not a pointer that anyone follows.
            unsafe { libc::pthread_setspecific(key, core::ptr::without_provenance(1)) == 0 }
        })
    }
}

/// The value counts the rounds.
extern "C" fn destructor<E: EndOfThread>(value: *mut libc::c_void) {
    let round = value.addr();
    // ordering: Relaxed, as in `made`. Without a key, the library is about to be unloaded: no more rounds.
    if round <= ROUNDS_LET_PASS
        && let Some(key) = E::key().0.load(Ordering::Relaxed).checked_sub(1)
    {
        // SAFETY: the key exists; the value is a count.
        if unsafe { libc::pthread_setspecific(key as libc::pthread_key_t, core::ptr::without_provenance(round + 1)) } == 0 {
            return;
        }
    }
    E::end_of_thread();
}
