//! What hides a value from the compiler on every processor that has assembly.

use core::arch::asm;

/// The same address, but in a register of its own.
#[inline(always)]
#[expect(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written through it there")]
pub fn without_index<T>(mut address: *const T) -> *const T {
    // SAFETY: no instruction; the value is only hidden from the optimiser.
    unsafe {
        asm!("/* {0} */", inout(reg) address, options(pure, nomem, nostack, preserves_flags));
    }
    address
}
