//! Two words of thread-local data that the fast path reads: valid from a thread's first instruction until its memory is
//! gone, without lazy initialisation, without a destructor, and without a call where the model allows that.
//!
//! ```text
//! # Models      a program's own thread-local data is at a fixed distance from the thread pointer. In a shared library
//!               the compiler's default is a call (`__tls_get_addr`) for each access; with the feature `initial-exec`
//!               the distance is read from a word that the loader has filled in, which works in programs and in
//!               libraries loaded at the program's start. "ELF Handling For Thread-Local Storage", U. Drepper, 2005
//! # Ports       nothing to do where the standard library's `thread_local!` is the compiler's own (not with MinGW, where it
//!               allocates: `windows::local_data`). The feature is for ELF, on processors that
//!               have the assembly (`sys::processor`); elsewhere it changes nothing.
//! ```
//!
//! `local_data!(Data { first: &INITIAL as Target, second: 0 })` defines `with`, which shows the calling thread's `Data` to a
//! function, and `first`, which reads the first word. `Data` is `repr(C)`, of two words with inner mutability, the first with
//! `get`; `Data::initial()` has the address of `INITIAL` and 0 in them.

#[cfg(all(feature = "initial-exec", any(target_arch = "x86_64", target_arch = "aarch64"), not(loom)))]
pub(crate) use super::processor::local_data;

#[cfg(all(windows, target_env = "gnu", not(target_abi = "llvm")))]
pub(crate) use super::port::local_data;

#[cfg(not(any(
    all(feature = "initial-exec", any(target_arch = "x86_64", target_arch = "aarch64")),
    all(windows, target_env = "gnu", not(target_abi = "llvm")),
    loom
)))]
macro_rules! local_data {
    ($Data:ident { $first:ident: &$initial:path as $Target:ty, $second:ident: 0 }) => {
        std::thread_local! {
            static LOCAL_DATA: $Data = const { $Data::initial() };
        }

        /// Shows the calling thread's data to `look`.
        #[inline(always)]
        pub(super) fn with<R>(look: impl FnOnce(&$Data) -> R) -> R {
            LOCAL_DATA.with(look)
        }

        /// The first word of the calling thread's data.
        #[inline(always)]
        pub(super) fn $first() -> *const $Target {
            with(|data| data.$first.get())
        }
    };
}
#[cfg(not(any(
    all(feature = "initial-exec", any(target_arch = "x86_64", target_arch = "aarch64")),
    all(windows, target_env = "gnu", not(target_abi = "llvm")),
    loom
)))]
pub(crate) use local_data;
