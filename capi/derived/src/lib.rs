//! What is made of `malloc`, `realloc` and `free`: `reallocarray` and its like, and C++'s operators new and delete in all
//! forms, by their names in the Itanium C++ ABI (5.1.5).
//!
//! ```text
//! # Role        a crate and so an object file of its own. A program may bring some of these functions, or those that
//!               they are made of: operators are weak, and each function calls what it is made of by name, as the
//!               standards have it (C++: [new.delete]), so that a program's takes part
//! # Failure     new calls the new-handler as long as there is one, and then throws `std::bad_alloc`, by the functions
//!               of the C++ library that the program has; without such a library it ends the process with a line
//! # Unwinding   exceptions pass no Rust code: what calls the new-handler is assembly with unwind tables, the throw is its
//!               last jump, and the nothrow forms have a table of exceptions that says "catch all". "Itanium C++ ABI:
//!               Exception Handling"; the table's form is described by I. L. Taylor, ".gcc_except_table" (2011)
//! # Modules     array: the functions of C; forms: operators made of others; library: the functions of the C++
//!               library; sync: atomics; and for each processor, the operators that all others are made of
//! ```

#![no_std]

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod array;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod forms;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod library;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod sync;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use core::ffi::c_void;

unsafe extern "C" {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn malloc(size: usize) -> *mut c_void;
    fn realloc(block: *mut c_void, size: usize) -> *mut c_void;
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn aligned_alloc(align: usize, size: usize) -> *mut c_void;
    fn free(block: *mut c_void);
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
/// The table of exceptions of a function whose one call is between the labels `.Lcall_NAME` and `.Lcalled_NAME`, and
/// which catches all at `.Lcatch_NAME`. Types are told by nothing: a null type is any.
macro_rules! catch_all {
    ($name:ident) => {
        concat!(
            ".pushsection .gcc_except_table.",
            stringify!($name),
            ",\"a\",%progbits\n",
            ".p2align 2\n",
            ".Ltable_",
            stringify!($name),
            ":\n",
            // Landing pads count from the function's start; types are 4 bytes, indirect and relative.
            ".byte 0xff\n.byte 0x9b\n",
            ".uleb128 .Ltypes_",
            stringify!($name),
            " - 1f\n",
            "1:\n",
            // Call sites are uleb128. There is one, whose action is the first.
            ".byte 0x01\n",
            ".uleb128 3f - 2f\n",
            "2:\n",
            ".uleb128 .Lcall_",
            stringify!($name),
            " - .Lbegin_",
            stringify!($name),
            "\n",
            ".uleb128 .Lcalled_",
            stringify!($name),
            " - .Lcall_",
            stringify!($name),
            "\n",
            ".uleb128 .Lcatch_",
            stringify!($name),
            " - .Lbegin_",
            stringify!($name),
            "\n",
            ".uleb128 1\n",
            "3:\n",
            // The action: the first type before the end, and no further action.
            ".byte 1\n.byte 0\n",
            ".p2align 2\n",
            ".long 0\n",
            ".Ltypes_",
            stringify!($name),
            ":\n",
            ".popsection",
        )
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use catch_all;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
/// Where the throwing form returns to in a nothrow one: a symbol of this library, for `library::give_up`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! called {
    ($name:ident) => {
        concat!(
            ".globl magalloc_called_",
            stringify!($name),
            "\n",
            ".hidden magalloc_called_",
            stringify!($name),
            "\n",
            "magalloc_called_",
            stringify!($name),
            ":\n",
            ".Lcalled_",
            stringify!($name),
            ":",
        )
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use called;

/// A weak function in assembly. `sym` operands follow the instructions.
macro_rules! operator {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?; $($assembly:tt)*) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Called as C++ code does.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name($($argument: $type),*) $(-> $result)? {
            core::arch::naked_asm!(concat!(".weak ", stringify!($name)), $($assembly)*)
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use operator;
