//! The beginning and the end of the program, or of the library that this is part of, by a callback of the loader's.
//!
//! # The order in which Windows ends a process
//! 1. a program that returns from `main`: the C library's handlers and destructors (`std::process::exit` does without);
//! 2. `ExitProcess` ends all other threads, at any instruction;
//! 3. the loader calls each library, the one that was loaded last first, and then the program; of each, its callbacks in
//!    the order of their sections' names, with the standard library's destructors before ours.
//!
//! So in a program ours comes last, with nobody else left: nobody looks at a block any more. In a library it does not: what
//! it has given others may be read still. When a library is unloaded, threads are there, but not in it.

use crate::sync::{AtomicU8, Ordering};
use crate::sys::ProcessEnd;
use core::ffi::c_void;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetModuleHandleW, GetProcAddress};
use windows_sys::Win32::System::SystemServices::{DLL_PROCESS_ATTACH, DLL_PROCESS_DETACH};

/// What ends, as the loader has told.
static ENDING: AtomicU8 = AtomicU8::new(NOTHING);
const NOTHING: u8 = 0;
/// The process, and this is the program.
const PROGRAM: u8 = 1;
/// The process, and this is a library.
const PROCESS: u8 = 2;
/// This library alone.
const LIBRARY: u8 = 3;

/// Has the loader call `$begin` when the program, or the library that this is linked into, begins, and `$end` when it
/// ends. Both are functions without arguments.
#[cfg(not(loom))]
macro_rules! at_begin_and_end {
    ($begin:path, $end:path) => {
        unsafe extern "system" fn at_begin_and_end(
            module: *mut core::ffi::c_void,
            reason: u32,
            _reserved: *mut core::ffi::c_void,
        ) {
            $crate::sys::loader_called(module, reason, $begin, $end);
        }

        #[used]
        #[unsafe(link_section = ".CRT$XLY")]
        static AT_BEGIN_AND_END: unsafe extern "system" fn(*mut core::ffi::c_void, u32, *mut core::ffi::c_void) =
            at_begin_and_end;
    };
}
#[cfg(not(loom))]
pub(crate) use at_begin_and_end;

/// From the callback that `at_begin_and_end!` makes.
#[cfg(not(loom))]
pub fn loader_called(module: *mut c_void, reason: u32, begin: fn(), end: fn()) {
    if reason == DLL_PROCESS_ATTACH {
        begin();
    } else if reason == DLL_PROCESS_DETACH {
        // SAFETY: no conditions; without a name, it is the program's.
        let is_program = module == unsafe { GetModuleHandleW(core::ptr::null()) };
        let ending = if is_program {
            PROGRAM
        } else if process_ends() {
            PROCESS
        } else {
            LIBRARY
        };
        // ordering: Relaxed, here and below: this thread alone reads it.
        ENDING.store(ending, Ordering::Relaxed);
        end();
    }
}

/// Does the process end, and not this library alone? `DllMain` is told, callbacks are not. `true` also where it is not known.
#[cfg(not(loom))]
fn process_ends() -> bool {
    // SAFETY: the name ends with a zero. That library is always there.
    let library = unsafe { GetModuleHandleA(c"ntdll.dll".as_ptr().cast()) };
    // SAFETY: likewise.
    let Some(function) = (unsafe { GetProcAddress(library, c"RtlDllShutdownInProgress".as_ptr().cast()) }) else {
        return true;
    };
    // SAFETY: no conditions. Its answer is a byte.
    unsafe { function() as u8 != 0 }
}

/// From `$end` of `at_begin_and_end`: calls `E::end_of_process` at once.
pub fn arrange_release<E: ProcessEnd>() {
    E::end_of_process();
}

/// Tells the unloading of the library that this code is part of from the end of the process.
#[derive(Debug)]
pub struct Unloading(());

impl Unloading {
    /// The loader tells.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(())
    }

    /// Nothing to do.
    pub fn begin(&'static self) {}

    /// Is the library being unloaded? No thread can be in it, or come back to it, then: that which purges holds it.
    pub fn take(&'static self) -> bool {
        // ordering: Relaxed, see above.
        ENDING.load(Ordering::Relaxed) == LIBRARY
    }
}

/// Does any other thread run in this process, or code that may look at a block? At its end, the others are dead.
pub fn other_threads(_registered: impl Fn() -> bool) -> bool {
    // ordering: Relaxed, see above.
    ENDING.load(Ordering::Relaxed) != PROGRAM
}

/// The C library has written what it had before the loader comes here.
pub fn flush_stdio() {}
