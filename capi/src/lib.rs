//! magalloc for C and C++ programs: the standard functions, those of glibc beside them, C++'s operators, and
//! `magalloc.h`.
//!
//! ```text
//! # Modules     standard: C, POSIX and BSD functions; introspection: glibc's figures and knobs; header: what include/magalloc.h declares; beginning: the library's constructor; deepbind: `dlopen`
//! # Blocks      8-byte alignment up to 8 bytes, 16 beyond. `free` finds the class by address: one byte read
//! # Errors      errno is ENOMEM or EINVAL where a function fails, and otherwise as before
//! # The end     nothing that lives is unmapped: the C library's own blocks are here, and are used to the very last
//! # Not here    the allocator; what is made of malloc, realloc and free (see the crate `derived`)
//! ```

#![cfg_attr(all(panic = "abort", any(target_arch = "x86_64", target_arch = "aarch64")), no_std)]

mod beginning;
mod deepbind;
mod header;
mod introspection;
mod standard;

use allocator::{AtExit, Magalloc};
// For its symbols.
extern crate magalloc_derived;

/// The process's allocator.
static ALLOCATOR: Magalloc = Magalloc::new().at_exit(AtExit::None).serves_c_library();

/// Sets errno.
fn set_errno(error: core::ffi::c_int) {
    // SAFETY: the calling thread's errno, always there.
    unsafe { *libc::__errno_location() = error };
}

/// There is no standard library to do it. Nothing here panics; what is compiled from the core of Rust might.
#[cfg(all(panic = "abort", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    const LINE: &[u8] = b"magalloc: internal error\n";
    // SAFETY: the line is valid for its length.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, LINE.as_ptr().cast(), LINE.len()) };
    // SAFETY: no conditions.
    unsafe { libc::abort() }
}

// The core of Rust is compiled for programs that unwind, and its tables name the function that would do it. Nothing
// unwinds through it here. Weak, for programs with another Rust library that has the real one.
#[cfg(all(panic = "abort", any(target_arch = "x86_64", target_arch = "aarch64")))]
core::arch::global_asm!(
    ".pushsection .text.rust_eh_personality,\"ax\",%progbits",
    ".weak rust_eh_personality",
    ".hidden rust_eh_personality",
    ".type rust_eh_personality,%function",
    "rust_eh_personality:",
    #[cfg(target_arch = "x86_64")]
    "ud2",
    #[cfg(target_arch = "aarch64")]
    "brk #1",
    ".size rust_eh_personality, . - rust_eh_personality",
    ".popsection",
);
