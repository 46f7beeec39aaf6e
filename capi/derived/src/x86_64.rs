//! The operators for x86-64: arguments come in rdi, rsi and rdx, results in rax; rbx and r14 are kept by calls.

use crate::library::{give_up, new_handler, thrower};
use crate::{aligned_alloc, malloc, operator};
use core::ffi::c_void;

operator! {
    /// operator new(size): attempts, and the new-handler between them.
    _Znwm(size: usize) -> *mut c_void;
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
    ".cfi_remember_state",
    "pop rbx",
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
    "test rax, rax",
    "je 6f",
    ".cfi_remember_state",
    "pop rbx",
    ".cfi_def_cfa_offset 8",
    ".cfi_restore rbx",
    "jmp rax",
    ".cfi_restore_state",
    "6:",
    "mov rdi, qword ptr [rsp + 8]",
    "call {give_up}",
    "pop rbx",
    ".cfi_def_cfa_offset 8",
    ".cfi_restore rbx",
    "ret",
    ".cfi_endproc",
    malloc = sym malloc,
    new_handler = sym new_handler,
    thrower = sym thrower,
    give_up = sym give_up,
}

operator! {
    /// operator new(size, align): the same with two registers.
    _ZnwmSt11align_val_t(size: usize, align: usize) -> *mut c_void;
    ".cfi_startproc",
    "push rbx",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbx, -16",
    "push r14",
    ".cfi_def_cfa_offset 24",
    ".cfi_offset r14, -24",
    // The stack is a multiple of 16 where a function is called.
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
    "test rax, rax",
    "je 6f",
    ".cfi_remember_state",
    "add rsp, 8",
    ".cfi_def_cfa_offset 24",
    "pop r14",
    ".cfi_def_cfa_offset 16",
    ".cfi_restore r14",
    "pop rbx",
    ".cfi_def_cfa_offset 8",
    ".cfi_restore rbx",
    "jmp rax",
    ".cfi_restore_state",
    "6:",
    "mov rdi, qword ptr [rsp + 24]",
    "call {give_up}",
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
    give_up = sym give_up,
}

/// A nothrow form: the throwing one in a `try`, whose `catch (...)` returns null.
macro_rules! nothrow {
    ($name:ident($($argument:ident),*) = $throwing:ident) => {
        operator! {
            /// operator new that returns null.
            $name($($argument: usize,)* nothrow: *const c_void) -> *mut c_void;
            concat!(".Lbegin_", stringify!($name), ":"),
            ".cfi_startproc",
            ".cfi_personality 0x9b, magalloc_cpp_personality",
            concat!(".cfi_lsda 0x1b, .Ltable_", stringify!($name)),
            "push rax",
            ".cfi_def_cfa_offset 16",
            concat!(".Lcall_", stringify!($name), ":"),
            "call {throwing}",
            called!($name),
            ".cfi_remember_state",
            "pop rcx",
            ".cfi_def_cfa_offset 8",
            "ret",
            ".cfi_restore_state",
            concat!(".Lcatch_", stringify!($name), ":"),
            "mov rdi, rax",
            "call qword ptr [rip + magalloc_cpp_begin_catch]",
            "call qword ptr [rip + magalloc_cpp_end_catch]",
            "xor eax, eax",
            "pop rcx",
            ".cfi_def_cfa_offset 8",
            "ret",
            ".cfi_endproc",
            catch_all!($name),
            throwing = sym $throwing,
        }
    };
}

pub(crate) use nothrow;

/// A form that is another one, with its arguments in place or put there by the macro `$move`.
macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $target:ident $(by $move:ident)?;)*) => {
        $(
            operator! {
                /// Another form of operator new or delete.
                $name($($argument: $type),*) $(-> $result)?;
                $($move!(),)?
                "jmp {target}",
                target = sym $target,
            }
        )*
    };
}
pub(crate) use forward;

/// Puts the third argument in the second's place.
macro_rules! third_as_second {
    () => {
        "mov rsi, rdx"
    };
}
pub(crate) use third_as_second;
