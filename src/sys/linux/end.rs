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

use super::cancel::NotCancelled;
use crate::sync::{AtomicU8, Ordering};

/// What runs at the end of the process.
pub trait ProcessEnd {
    /// Called once, on the thread that ends the process.
    fn end_of_process();
}

/// From a function in `.fini_array`: calls `E::end_of_process` as late as the platform allows.
pub fn arrange_release<E: ProcessEnd>() {
    #[cfg(target_env = "gnu")]
    if in_main_program() {
        // SAFETY: registers a function of the main program, which is never unloaded.
        if unsafe { __cxa_atexit(last_handler::<E>, core::ptr::null_mut(), core::ptr::null_mut()) } == 0 {
            return;
        }
    }
    last_handler::<E>(core::ptr::null_mut());
}

/// Tells the unloading of the library that this code is part of from the end of the process.
#[derive(Debug)]
pub struct Unloading(AtomicU8);

/// Nobody would tell of the process's end.
const UNKNOWN: u8 = 0;
const LOADED: u8 = 1;
/// The process ends.
#[cfg(target_env = "gnu")]
const ENDING: u8 = 2;

impl Unloading {
    /// Not known until `begin`.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU8::new(UNKNOWN))
    }

    /// From a constructor: will know, if this is a library that can be unloaded.
    pub fn begin(&'static self) {
        #[cfg(target_env = "gnu")]
        if !in_main_program() {
            let this = core::ptr::from_ref(self).cast_mut().cast::<libc::c_void>();
            // SAFETY: `this` is static; as the handler's library it names none that the C library knows, so that `dlclose`
            // leaves the handler to `take`.
            if unsafe { __cxa_atexit(note_end, this, this) } == 0 {
                // ordering: Relaxed, here and below: the end of the process orders it.
                self.0.store(LOADED, Ordering::Relaxed);
            }
        }
    }

    /// From a function in `.fini_array`: is the library being unloaded? No thread can be in it, or come back to it, then.
    pub fn take(&'static self) -> bool {
        // ordering: Relaxed, as above.
        let is_unloading = self.0.load(Ordering::Relaxed) == LOADED;
        #[cfg(target_env = "gnu")]
        if is_unloading {
            // SAFETY: takes out, and runs, the one handler that `begin` has registered in that name.
            unsafe { __cxa_finalize(core::ptr::from_ref(self).cast_mut().cast()) };
        }
        is_unloading
    }
}

#[cfg(target_env = "gnu")]
extern "C" fn note_end(unloading: *mut libc::c_void) {
    // SAFETY: what `begin` has registered.
    let unloading = unsafe { &*unloading.cast_const().cast::<Unloading>() };
    // ordering: Relaxed, as above.
    unloading.0.store(ENDING, Ordering::Relaxed);
}

extern "C" fn last_handler<E: ProcessEnd>(_argument: *mut libc::c_void) {
    E::end_of_process();
}

#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
use libc::Elf64_Ehdr as ElfHeader;

#[cfg(all(target_env = "gnu", target_pointer_width = "32"))]
use libc::Elf32_Ehdr as ElfHeader;

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    fn __cxa_atexit(
        handler: extern "C" fn(*mut libc::c_void),
        argument: *mut libc::c_void,
        library: *mut libc::c_void,
    ) -> libc::c_int;

    fn __cxa_finalize(library: *mut libc::c_void);

    /// The ELF header of the object that this code is linked into; every linker defines it.
    static __ehdr_start: ElfHeader;
}

/// Is this code part of the main program, not of a shared library? The kernel tells every program where its own
/// program headers are.
#[cfg(target_env = "gnu")]
fn in_main_program() -> bool {
    // SAFETY: the linker places the symbol at this object's ELF header.
    let header = unsafe { &__ehdr_start };
    // SAFETY: getauxval has no conditions.
    let program_headers = unsafe { libc::getauxval(libc::AT_PHDR) };
    let own = core::ptr::from_ref(header).addr() + header.e_phoff as usize;
    own == program_headers as usize
}

/// Writes out all that stdio still has to write.
pub fn flush_stdio() {
    // SAFETY: null means all streams.
    unsafe { libc::fflush(core::ptr::null_mut()) };
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
