//! C++'s operators new and delete, all forms, by their names in the Itanium C++ ABI (5.1.5), on `malloc` and `free`.
//!
//! ```text
//! # Role        a crate and so an object file of its own: a C++ program with operators of its own can link the archive
//! # Failure     new calls the new-handler as long as there is one, and then throws `std::bad_alloc`, by the functions
//!               of the C++ library that the program has; without such a library it ends the process with a line
//! # Unwinding   exceptions pass no Rust code: what calls the new-handler is assembly with unwind tables, and the throw
//!               is its last jump
//! # nothrow     a new-handler may throw. The C++ library's own operator, the next by that name, knows how to catch: it
//!               calls the throwing one, which is here
//! ```

#![no_std]
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]

use core::ffi::{CStr, c_void};

unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
    fn aligned_alloc(align: usize, size: usize) -> *mut c_void;
    fn free(block: *mut c_void);
}

/// Libraries that may be loaded where only a plugin can see them.
const LIBRARIES: [&CStr; 3] = [c"libstdc++.so.6", c"libc++abi.so.1", c"libc++.so.1"];

/// A function of the C++ library, or null.
fn of_cpp_library(name: &CStr) -> *mut c_void {
    // SAFETY: the name ends with a zero.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if !found.is_null() {
        return found;
    }
    for library in LIBRARIES {
        // SAFETY: the name ends with a zero; nothing is loaded.
        let library = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if !library.is_null() {
            // SAFETY: a handle, and a name that ends with a zero.
            let found = unsafe { libc::dlsym(library, name.as_ptr()) };
            // SAFETY: the handle of above; the library stays where it is for whoever loaded it.
            unsafe { libc::dlclose(library) };
            if !found.is_null() {
                return found;
            }
        }
    }
    core::ptr::null_mut()
}

macro_rules! weak {
    ($name:literal) => {{
        let address: *mut c_void;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: reads an address that the linker or the loader has filled in.
        unsafe {
            core::arch::asm!(
                concat!(".weak ", $name),
                concat!("mov {0}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                out(reg) address,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: likewise.
        unsafe {
            core::arch::asm!(
                concat!(".weak ", $name),
                concat!("adrp {0}, :got:", $name),
                concat!("ldr {0}, [{0}, :got_lo12:", $name, "]"),
                out(reg) address,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        address
    }};
}

/// The new-handler, or null.
extern "C" fn new_handler() -> *mut c_void {
    let mut get = weak!("_ZSt15get_new_handlerv");
    if get.is_null() {
        get = of_cpp_library(c"_ZSt15get_new_handlerv");
    }
    if get.is_null() {
        return get;
    }
    // SAFETY: `std::get_new_handler()`, which returns a pointer and does not throw.
    let get = unsafe { core::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *mut c_void>(get) };
    // SAFETY: no conditions.
    unsafe { get() }
}

/// The function that throws `std::bad_alloc`. Does not return if there is none.
extern "C" fn thrower() -> *mut c_void {
    let mut throw = weak!("_ZSt17__throw_bad_allocv");
    if throw.is_null() {
        throw = of_cpp_library(c"_ZSt17__throw_bad_allocv");
    }
    if throw.is_null() {
        const LINE: &[u8] = b"magalloc: operator new: out of memory, and no C++ library to throw std::bad_alloc\n";
        // SAFETY: the line is valid for its length.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, LINE.as_ptr().cast(), LINE.len()) };
        // SAFETY: no conditions.
        unsafe { libc::abort() };
    }
    throw
}

/// new: attempts, and handlers between them. Saves the size in a register that calls keep.
#[cfg(target_arch = "x86_64")]
macro_rules! new {
    ($($name:ident)*) => {
        $(
            /// C++: operator new, which throws.
            ///
            /// # Safety
            /// Called from C++ code.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name(size: usize) -> *mut c_void {
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "push rbx",
                    ".cfi_def_cfa_offset 16",
                    ".cfi_offset rbx, -16",
                    "mov rbx, rdi",
                    "2:",
                    "mov rdi, rbx",
                    "call {malloc}",
                    "test rax, rax",
                    "je 3f",
                    "pop rbx",
                    ".cfi_remember_state",
                    ".cfi_def_cfa_offset 8",
                    ".cfi_restore rbx",
                    "ret",
                    ".cfi_restore_state",
                    "3:",
                    "call {new_handler}",
                    "test rax, rax",
                    "je 4f",
                    "call rax",
                    "jmp 2b",
                    "4:",
                    "call {thrower}",
                    "pop rbx",
                    ".cfi_def_cfa_offset 8",
                    ".cfi_restore rbx",
                    "jmp rax",
                    ".cfi_endproc",
                    malloc = sym malloc,
                    new_handler = sym new_handler,
                    thrower = sym thrower,
                )
            }
        )*
    };
}

/// new at an alignment: the same with two registers.
#[cfg(target_arch = "x86_64")]
macro_rules! new_aligned {
    ($($name:ident)*) => {
        $(
            /// C++: operator new at an alignment, which throws.
            ///
            /// # Safety
            /// Called from C++ code.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name(size: usize, align: usize) -> *mut c_void {
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "push rbx",
                    ".cfi_def_cfa_offset 16",
                    ".cfi_offset rbx, -16",
                    "push r14",
                    ".cfi_def_cfa_offset 24",
                    ".cfi_offset r14, -24",
                    "sub rsp, 8",
                    ".cfi_def_cfa_offset 32",
                    "mov rbx, rdi",
                    "mov r14, rsi",
                    "2:",
                    "mov rdi, r14",
                    "mov rsi, rbx",
                    "call {aligned_alloc}",
                    "test rax, rax",
                    "jne 5f",
                    "call {new_handler}",
                    "test rax, rax",
                    "je 4f",
                    "call rax",
                    "jmp 2b",
                    "4:",
                    "call {thrower}",
                    "add rsp, 8",
                    ".cfi_remember_state",
                    ".cfi_def_cfa_offset 24",
                    "pop r14",
                    ".cfi_def_cfa_offset 16",
                    ".cfi_restore r14",
                    "pop rbx",
                    ".cfi_def_cfa_offset 8",
                    ".cfi_restore rbx",
                    "jmp rax",
                    ".cfi_restore_state",
                    "5:",
                    "add rsp, 8",
                    ".cfi_def_cfa_offset 24",
                    "pop r14",
                    ".cfi_def_cfa_offset 16",
                    ".cfi_restore r14",
                    "pop rbx",
                    ".cfi_def_cfa_offset 8",
                    ".cfi_restore rbx",
                    "ret",
                    ".cfi_endproc",
                    aligned_alloc = sym aligned_alloc,
                    new_handler = sym new_handler,
                    thrower = sym thrower,
                )
            }
        )*
    };
}

/// new: attempts, and handlers between them. `$keep` sets the arguments aside in registers that calls keep, `$attempt`
/// makes of them those of `$function`.
#[cfg(target_arch = "aarch64")]
macro_rules! new_of {
    ($keep:literal, $attempt:literal, $function:ident, ($($argument:ident),*), $($name:ident)*) => {
        $(
            /// C++: operator new, which throws.
            ///
            /// # Safety
            /// Called from C++ code.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($($argument: usize),*) -> *mut c_void {
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "stp x29, x30, [sp, #-32]!",
                    ".cfi_def_cfa_offset 32",
                    ".cfi_offset x29, -32",
                    ".cfi_offset x30, -24",
                    "stp x19, x20, [sp, #16]",
                    ".cfi_offset x19, -16",
                    ".cfi_offset x20, -8",
                    $keep,
                    "2:",
                    $attempt,
                    "bl {function}",
                    "cbnz x0, 5f",
                    "bl {new_handler}",
                    "cbz x0, 4f",
                    "blr x0",
                    "b 2b",
                    "4:",
                    "bl {thrower}",
                    "mov x16, x0",
                    "ldp x19, x20, [sp, #16]",
                    "ldp x29, x30, [sp], #32",
                    ".cfi_remember_state",
                    ".cfi_def_cfa_offset 0",
                    ".cfi_restore x19",
                    ".cfi_restore x20",
                    ".cfi_restore x29",
                    ".cfi_restore x30",
                    "br x16",
                    ".cfi_restore_state",
                    "5:",
                    "ldp x19, x20, [sp, #16]",
                    "ldp x29, x30, [sp], #32",
                    ".cfi_def_cfa_offset 0",
                    ".cfi_restore x19",
                    ".cfi_restore x20",
                    ".cfi_restore x29",
                    ".cfi_restore x30",
                    "ret",
                    ".cfi_endproc",
                    function = sym $function,
                    new_handler = sym new_handler,
                    thrower = sym thrower,
                )
            }
        )*
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! new {
    ($($name:ident)*) => { new_of! { "mov x19, x0", "mov x0, x19", malloc, (size), $($name)* } };
}

#[cfg(target_arch = "aarch64")]
macro_rules! new_aligned {
    ($($name:ident)*) => { new_of! { "mov x19, x0; mov x20, x1", "mov x0, x20; mov x1, x19", aligned_alloc, (size, align), $($name)* } };
}

new! { _Znwm _Znam }
new_aligned! { _ZnwmSt11align_val_t _ZnamSt11align_val_t }

/// Where a nothrow operator goes that found no memory: the next one of its name, if there is one.
macro_rules! new_nothrow {
    ($($name:ident $($align:ident)?;)*) => {
        $(
            /// C++: operator new, which returns null instead of throwing.
            ///
            /// # Safety
            /// Called from C++ code.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(size: usize, $($align: usize,)? nothrow: *const c_void) -> *mut c_void {
                // SAFETY: no conditions.
                let block = unsafe { new_nothrow!(@attempt size $(, $align)?) };
                if !block.is_null() {
                    return block;
                }
                let name = concat!(stringify!($name), "\0");
                // SAFETY: the name ends with a zero.
                let next = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast()) };
                if next.is_null() {
                    return next;
                }
                type Next = unsafe extern "C" fn(usize, $(new_nothrow!(@usize $align),)? *const c_void) -> *mut c_void;
                // SAFETY: an operator of this type, which does not throw.
                let next = unsafe { core::mem::transmute::<*mut c_void, Next>(next) };
                // SAFETY: the caller's promise.
                unsafe { next(size, $($align,)? nothrow) }
            }
        )*
    };
    (@usize $align:ident) => { usize };
    (@attempt $size:ident) => { malloc($size) };
    (@attempt $size:ident, $align:ident) => { aligned_alloc($align, $size) };
}

new_nothrow! {
    _ZnwmRKSt9nothrow_t;
    _ZnamRKSt9nothrow_t;
    _ZnwmSt11align_val_tRKSt9nothrow_t align;
    _ZnamSt11align_val_tRKSt9nothrow_t align;
}

/// delete: `free`, whose argument is in place.
macro_rules! delete {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            /// C++: operator delete.
            ///
            /// # Safety
            /// The block is live, or null.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(block: *mut c_void, $($argument: $type),*) {
                #[cfg(target_arch = "x86_64")]
                core::arch::naked_asm!("jmp {free}", free = sym free);
                #[cfg(target_arch = "aarch64")]
                core::arch::naked_asm!("b {free}", free = sym free);
            }
        )*
    };
}

delete! {
    _ZdlPv();
    _ZdaPv();
    _ZdlPvm(size: usize);
    _ZdaPvm(size: usize);
    _ZdlPvRKSt9nothrow_t(nothrow: *const c_void);
    _ZdaPvRKSt9nothrow_t(nothrow: *const c_void);
    _ZdlPvSt11align_val_t(align: usize);
    _ZdaPvSt11align_val_t(align: usize);
    _ZdlPvmSt11align_val_t(size: usize, align: usize);
    _ZdaPvmSt11align_val_t(size: usize, align: usize);
    _ZdlPvSt11align_val_tRKSt9nothrow_t(align: usize, nothrow: *const c_void);
    _ZdaPvSt11align_val_tRKSt9nothrow_t(align: usize, nothrow: *const c_void);
}
