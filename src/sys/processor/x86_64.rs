//! x86-64.

pub use super::without_index::without_index;
#[cfg(unix)]
use core::arch::asm;
#[cfg(unix)]
use core::ffi::c_void;

/// Calls `work` with the stack that ends at `stack`.
///
/// # Safety
/// `stack` is aligned to 16 bytes, and there is room below it that nobody else uses. No signal handler runs meanwhile.
#[cfg(unix)]
pub unsafe fn call_on(stack: *mut c_void, work: extern "C" fn(*mut c_void), argument: *mut c_void) {
    // SAFETY: the caller's promise. The stack pointer is kept in a register that calls preserve.
    unsafe {
        asm!(
            "mov r12, rsp",
            "mov rsp, {stack}",
            "call {work}",
            "mov rsp, r12",
            stack = in(reg) stack,
            work = in(reg) work,
            in("rdi") argument,
            out("r12") _,
            clobber_abi("C"),
        );
    }
}

/// See `sys::local_data`.
#[cfg(all(feature = "initial-exec", not(loom)))]
macro_rules! local_data {
    ($Data:ident { $first:ident: &$initial:path as $Target:ty, $second:ident: 0 }) => {
        $crate::sys::processor::local_section!($initial);

        const _: () = assert!(size_of::<$Data>() == 16 && core::mem::offset_of!($Data, $first) == 0);
        const _: $Data = $Data::initial();

        /// Shows the calling thread's data to `look`.
        #[inline(always)]
        pub(super) fn with<R>(look: impl FnOnce(&$Data) -> R) -> R {
            let data: *const $Data;
            // SAFETY: reads the thread pointer and the distance of the data from it.
            unsafe {
                core::arch::asm!(
                    "mov {data}, qword ptr fs:[0]",
                    concat!("add {data}, qword ptr [rip + ", $crate::sys::processor::local_symbol!(), "@GOTTPOFF]"),
                    data = out(reg) data,
                    options(pure, readonly, nostack),
                );
            }
            // SAFETY: the thread's own, valid until the thread's memory is gone; all of it is cells.
            look(unsafe { &*data })
        }

        /// The first word of the calling thread's data.
        #[inline(always)]
        pub(super) fn $first() -> *const $Target {
            let first: *const $Target;
            // SAFETY: reads the distance of the data from the thread pointer, and its first word.
            unsafe {
                core::arch::asm!(
                    concat!("mov {first}, qword ptr [rip + ", $crate::sys::processor::local_symbol!(), "@GOTTPOFF]"),
                    "mov {first}, qword ptr fs:[{first}]",
                    first = out(reg) first,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            first
        }
    };
}
#[cfg(all(feature = "initial-exec", not(loom)))]
pub(crate) use local_data;
