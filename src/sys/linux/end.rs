//! The end of the process: how to be last, and how to know that nobody else runs.
//!
//! # The order in which glibc ends a process that returns from `main` or calls `exit`
//! 1. the calling thread's thread-local destructors;
//! 2. handlers of `atexit` and C++ static destructors, last registered first;
//! 3. the handler registered before all others: `_dl_fini`, which runs the `.fini_array` of the program, then of
//!    its libraries;
//! 4. any handler registered meanwhile;
//! 5. stdio's flush; 6. `_exit`.
//!
//! So a function in `.fini_array` of the program that registers a handler gets it run in step 4, after every
//! library's destructors. Only stdio's flush is later; the handler does it itself (`fflush(NULL)`) so that nothing
//! is left to write when step 5 looks at buffers that may lie in our memory. musl ends in the same order but
//! accepts no handler in step 3; there the function does the work at once.
//!
//! A handler that the program registers from its own `.fini_array` runs after ours: it may allocate and free, but a
//! block from before is gone.
//!
//! In a shared library with a copy of the allocator of its own, `.fini_array` may run at `dlclose`, after which a
//! registered handler would be gone: there, too, the work is done at once. Which of the two it is matters where other
//! threads run: at the end of the process they may be in the library still, after `dlclose` they cannot. `Unloading` knows
//! by a handler that step 2 runs, and `dlclose` does not.

use super::c_library;
use crate::sync::{AtomicU8, Ordering};
use crate::sys::ProcessEnd;
use crate::sys::posix::cancel::NotCancelled;

/// From `$end` of `at_begin_and_end`: calls `E::end_of_process` as late as the platform allows.
pub fn arrange_release<E: ProcessEnd>() {
    if !c_library::call_last(last_handler::<E>) {
        last_handler::<E>(core::ptr::null_mut());
    }
}

/// Tells the unloading of the library that this code is part of from the end of the process.
#[derive(Debug)]
pub struct Unloading(AtomicU8);

/// Nobody would tell of the process's end.
const UNKNOWN: u8 = 0;
const LOADED: u8 = 1;
/// The process ends.
const ENDING: u8 = 2;

impl Unloading {
    /// Not known until `begin`.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU8::new(UNKNOWN))
    }

    /// From a constructor: will know, if this is a library that can be unloaded.
    pub fn begin(&'static self) {
        if c_library::call_at_end(note_end, core::ptr::from_ref(self).cast_mut().cast()) {
            // ordering: Relaxed, here and below: the end of the process orders it.
            self.0.store(LOADED, Ordering::Relaxed);
        }
    }

    /// From a function in `.fini_array`: is the library being unloaded? No thread can be in it, or come back to it, then.
    pub fn take(&'static self) -> bool {
        // ordering: Relaxed, as above.
        let is_unloading = self.0.load(Ordering::Relaxed) == LOADED;
        if is_unloading {
            c_library::take_back(core::ptr::from_ref(self).cast_mut().cast());
        }
        is_unloading
    }
}

extern "C" fn note_end(unloading: *mut libc::c_void) {
    // SAFETY: what `begin` has registered.
    let unloading = unsafe { &*unloading.cast_const().cast::<Unloading>() };
    // ordering: Relaxed, as above.
    unloading.0.store(ENDING, Ordering::Relaxed);
}

extern "C" fn last_handler<E: ProcessEnd>(_argument: *mut libc::c_void) {
    E::end_of_process();
}

/// Times that `other_threads` looks again while threads are still ending, and the pause between two looks, in
/// microseconds: together 10 ms. A joined thread is counted by the kernel for a moment after `pthread_join`.
const LOOKS: u32 = 100;
const PAUSE_MICROSECONDS: u32 = 100;

/// Does any other thread run in this process? `true` also where it cannot be known.
///
/// `registered` tells whether threads with a cache are left: those have not ended, so there is nothing to wait for.
pub fn other_threads(registered: impl Fn() -> bool) -> bool {
    let _whole = NotCancelled::new();
    for _ in 0..LOOKS {
        // SAFETY: all zeros is a valid `stat`.
        let mut stat: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: the path ends with a zero, `stat` is valid.
        if unsafe { libc::stat(c"/proc/self/task".as_ptr(), &raw mut stat) } != 0 {
            return true;
        }
        // A directory has two links and one for each folder in it: a thread each.
        if stat.st_nlink <= 3 {
            return false;
        }
        if registered() {
            return true;
        }
        // SAFETY: usleep has no conditions.
        unsafe { libc::usleep(PAUSE_MICROSECONDS) };
    }
    true
}
