//! `dlopen` without `RTLD_DEEPBIND`: a library that is bound so has the C library's own free, and passes blocks of this
//! allocator to it. PHP loads its extensions so.
//!
//! ```text
//! # Role        takes the flag out and jumps to the next `dlopen`, which sees who called: paths are searched as that
//!               object has it (RUNPATH, `$ORIGIN`, namespaces)
//! # Symbols     in the shared library only, by an alias that it is linked with (see `build.rs`): a program that is linked
//!               statically has just one `dlopen`, and in an archive it would be this one, with none behind it. musl knows
//!               no such flag
//! ```

#![cfg(all(target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]

use core::ffi::{c_int, c_void};

// rustc tells the linker which symbols to export, by a list of patterns. This one lets `dlopen` through, which no Rust
// code defines, and does not match itself.
/// Nothing but its name.
#[unsafe(export_name = "dlope[n]")]
pub static LETS_DLOPEN_THROUGH: u8 = 0;

/// Where a call goes on.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Next {
    /// The next `dlopen`; null: there is none.
    function: *mut c_void,
    /// The flags for it.
    flags: usize,
}

/// Where a call with these flags goes on. Looked for each time: whoever loads a library waits for more than that.
extern "C" fn next(flags: c_int) -> Next {
    let deep = if allocator::keeps_deepbind() { 0 } else { libc::RTLD_DEEPBIND };
    // SAFETY: the name ends with a zero.
    let function = unsafe { libc::dlsym(libc::RTLD_NEXT, c"dlopen".as_ptr()) };
    Next { function, flags: (flags & !deep) as usize }
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.magalloc_dlopen,\"ax\",@progbits",
    ".globl magalloc_dlopen",
    ".hidden magalloc_dlopen",
    ".type magalloc_dlopen,@function",
    "magalloc_dlopen:",
    ".cfi_startproc",
    // Also makes the stack a multiple of 16.
    "push rdi",
    ".cfi_def_cfa_offset 16",
    "mov edi, esi",
    "call {next}",
    "pop rdi",
    ".cfi_def_cfa_offset 8",
    "mov esi, edx",
    "test rax, rax",
    "je 2f",
    // The caller's address is on top of the stack, as it was.
    "jmp rax",
    "2:",
    "ret",
    ".cfi_endproc",
    ".size magalloc_dlopen, . - magalloc_dlopen",
    ".popsection",
    next = sym next,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .text.magalloc_dlopen,\"ax\",%progbits",
    ".globl magalloc_dlopen",
    ".hidden magalloc_dlopen",
    ".type magalloc_dlopen,%function",
    "magalloc_dlopen:",
    ".cfi_startproc",
    "stp x0, x30, [sp, #-16]!",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset x30, -8",
    "mov w0, w1",
    "bl {next}",
    "mov x16, x0",
    // The caller's address is in x30, as it was.
    "ldp x0, x30, [sp], #16",
    ".cfi_def_cfa_offset 0",
    ".cfi_restore x30",
    "cbz x16, 2f",
    "br x16",
    "2:",
    "mov x0, #0",
    "ret",
    ".cfi_endproc",
    ".size magalloc_dlopen, . - magalloc_dlopen",
    ".popsection",
    next = sym next,
);
