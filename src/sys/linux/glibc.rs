//! What glibc can do at the end of a process, and musl cannot (see `end`).

use core::ffi::{c_int, c_void};

#[cfg(target_pointer_width = "32")]
use libc::Elf32_Ehdr as ElfHeader;
#[cfg(target_pointer_width = "64")]
use libc::Elf64_Ehdr as ElfHeader;

unsafe extern "C" {
    fn __cxa_atexit(handler: extern "C" fn(*mut c_void), argument: *mut c_void, library: *mut c_void) -> c_int;

    fn __cxa_finalize(library: *mut c_void);

    /// The ELF header of the object that this code is linked into; every linker defines it.
    static __ehdr_start: ElfHeader;
}

/// From a function in `.fini_array`: calls `handler` after those of all libraries. `false`: not possible, because this is
/// not the program, which is never unloaded.
#[must_use]
pub(super) fn call_last(handler: extern "C" fn(*mut c_void)) -> bool {
    let none = core::ptr::null_mut();
    // SAFETY: registers a function of the main program.
    in_main_program() && unsafe { __cxa_atexit(handler, none, none) } == 0
}

/// Calls `handler` when the process ends, but not when the library that this is part of is unloaded. `false`: not possible,
/// or this is the program.
#[must_use]
pub(super) fn call_at_end(handler: extern "C" fn(*mut c_void), argument: *mut c_void) -> bool {
    // SAFETY: the argument is static; as the handler's library it names none that the C library knows, so that `dlclose`
    // leaves the handler to `take_back`.
    !in_main_program() && unsafe { __cxa_atexit(handler, argument, argument) } == 0
}

/// Takes the handler out that `call_at_end` has registered with that argument, and runs it.
pub(super) fn take_back(argument: *mut c_void) {
    // SAFETY: runs that one handler.
    unsafe { __cxa_finalize(argument) };
}

/// Is this code part of the main program, not of a shared library? The kernel tells every program where its own
/// program headers are.
fn in_main_program() -> bool {
    // SAFETY: the linker places the symbol at this object's ELF header.
    let header = unsafe { &__ehdr_start };
    // SAFETY: getauxval has no conditions.
    let program_headers = unsafe { libc::getauxval(libc::AT_PHDR) };
    let own = core::ptr::from_ref(header).addr() + header.e_phoff as usize;
    own == program_headers as usize
}
