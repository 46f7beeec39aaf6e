//! Assembly: what the compiler cannot be told otherwise. A file for each processor that has some; any other goes without.
//!
//! ```text
//! # Items       `without_index`: keeps the compiler from folding an array index into an access. A malloc loads the top
//!               that the last free stored. Processors with memory renaming (Intel since 2021) forward a store to a load
//!               at no cost, but only if the address has no index register: 0.7 ns instead of 4.3 ns for a pair
//!               `call_on`: calls a function on another stack, for `posix`; other processors call it on the caller's
//!               `local_data!`: thread-local data by the initial-exec model; other processors use the standard library's
//! ```

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod aarch64;
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
mod other;
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod without_index;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86_64;

#[cfg(all(target_arch = "aarch64", not(miri)))]
use aarch64 as this;
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
use other as this;
#[cfg(all(target_arch = "x86_64", not(miri)))]
use x86_64 as this;

#[cfg(unix)]
pub use this::call_on;
pub use this::without_index;

#[cfg(all(feature = "initial-exec", any(target_arch = "x86_64", target_arch = "aarch64"), not(loom)))]
pub(crate) use this::local_data;

/// The symbol of the thread-local data, different in every version of this crate.
#[cfg(all(feature = "initial-exec", any(target_arch = "x86_64", target_arch = "aarch64"), not(loom)))]
macro_rules! local_symbol {
    () => {
        concat!("magalloc.place.", env!("CARGO_PKG_VERSION"))
    };
}
#[cfg(all(feature = "initial-exec", any(target_arch = "x86_64", target_arch = "aarch64"), not(loom)))]
pub(crate) use local_symbol;

/// What every thread's data is at first: an address, and zero. For ELF.
#[cfg(all(feature = "initial-exec", any(target_arch = "x86_64", target_arch = "aarch64"), not(loom)))]
macro_rules! local_section {
    ($initial:path) => {
        core::arch::global_asm!(
            ".pushsection .tdata,\"awT\",%progbits",
            ".balign 16",
            concat!(".globl ", $crate::sys::processor::local_symbol!()),
            concat!(".hidden ", $crate::sys::processor::local_symbol!()),
            concat!(".type ", $crate::sys::processor::local_symbol!(), ",%object"),
            concat!($crate::sys::processor::local_symbol!(), ":"),
            ".quad {initial}",
            ".quad 0",
            concat!(".size ", $crate::sys::processor::local_symbol!(), ",16"),
            ".popsection",
            initial = sym $initial,
        );
    };
}
#[cfg(all(feature = "initial-exec", any(target_arch = "x86_64", target_arch = "aarch64"), not(loom)))]
pub(crate) use local_section;
