//! The operators for aarch64: arguments come in x0, x1 and x2, results in x0; x19 and x20 are kept by calls.

use crate::library::{give_up, new_handler, thrower};
use crate::{aligned_alloc, malloc, operator};
use core::ffi::c_void;

/// operator new: attempts, and the new-handler between them. `$keep` sets the arguments aside, `$attempt` puts them in
/// place for `$function`.
macro_rules! new {
    ($name:ident($($argument:ident),*) = $keep:literal, $attempt:literal, $function:ident) => {
        operator! {
            /// operator new that throws.
            $name($($argument: usize),*) -> *mut c_void;
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
            "cbz x0, 6f",
            "mov x16, x0",
            ".cfi_remember_state",
            "ldp x19, x20, [sp, #16]",
            "ldp x29, x30, [sp], #32",
            ".cfi_def_cfa_offset 0",
            ".cfi_restore x19",
            ".cfi_restore x20",
            ".cfi_restore x29",
            ".cfi_restore x30",
            "br x16",
            ".cfi_restore_state",
            "6:",
            "ldr x0, [sp, #8]",
            "bl {give_up}",
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
            give_up = sym give_up,
        }
    };
}

new! { _Znwm(size) = "mov x19, x0", "mov x0, x19", malloc }
new! { _ZnwmSt11align_val_t(size, align) = "mov x19, x0\nmov x20, x1", "mov x0, x20\nmov x1, x19", aligned_alloc }

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
            "stp x29, x30, [sp, #-16]!",
            ".cfi_def_cfa_offset 16",
            ".cfi_offset x29, -16",
            ".cfi_offset x30, -8",
            concat!(".Lcall_", stringify!($name), ":"),
            "bl {throwing}",
            called!($name),
            "ldp x29, x30, [sp], #16",
            ".cfi_remember_state",
            ".cfi_def_cfa_offset 0",
            ".cfi_restore x29",
            ".cfi_restore x30",
            "ret",
            ".cfi_restore_state",
            concat!(".Lcatch_", stringify!($name), ":"),
            "adrp x8, magalloc_cpp_begin_catch",
            "ldr x8, [x8, :lo12:magalloc_cpp_begin_catch]",
            "blr x8",
            "adrp x8, magalloc_cpp_end_catch",
            "ldr x8, [x8, :lo12:magalloc_cpp_end_catch]",
            "blr x8",
            "mov x0, #0",
            "ldp x29, x30, [sp], #16",
            ".cfi_def_cfa_offset 0",
            ".cfi_restore x29",
            ".cfi_restore x30",
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
                "b {target}",
                target = sym $target,
            }
        )*
    };
}
pub(crate) use forward;

/// Puts the third argument in the second's place.
macro_rules! third_as_second {
    () => {
        "mov x1, x2"
    };
}
pub(crate) use third_as_second;
