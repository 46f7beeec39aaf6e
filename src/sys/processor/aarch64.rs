//! aarch64.

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
            "mov x20, sp",
            "mov sp, {stack}",
            "blr {work}",
            "mov sp, x20",
            stack = in(reg) stack,
            work = in(reg) work,
            in("x0") argument,
            out("x20") _,
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
                    concat!("adrp {distance}, :gottprel:", $crate::sys::processor::local_symbol!()),
                    concat!("ldr {distance}, [{distance}, #:gottprel_lo12:", $crate::sys::processor::local_symbol!(), "]"),
                    "mrs {data}, tpidr_el0",
                    "add {data}, {data}, {distance}",
                    data = out(reg) data,
                    distance = out(reg) _,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            // SAFETY: the thread's own, valid until the thread's memory is gone; all of it is cells.
            look(unsafe { &*data })
        }

        /// The first word of the calling thread's data.
        #[inline(always)]
        pub(super) fn $first() -> *const $Target {
            with(|data| data.$first.get())
        }
    };
}
#[cfg(all(feature = "initial-exec", not(loom)))]
pub(crate) use local_data;
