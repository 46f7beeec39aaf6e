//! The only place that names `core::sync::atomic`, loom or crossbeam-utils.
//!
//! ```text
//! # Role        one set of names for three worlds: the machine's atomics, loom's models of them, and those of the
//!               contention count, which a test schedules
//! # Progress    how module heads speak of it: *wait-free* is what ends after so many steps, whatever others do; *lock-free*
//!               what only others' success can make begin again. A `fetch_or` or `fetch_and` whose result is used is
//!               lock-free: an x86 has one instruction for it only where the result is not, else it is a loop around a
//!               compare-and-exchange. `swap` and `fetch_add` are wait-free there. So are all of them on processors that
//!               have an instruction for each; on those that have none, each is such a loop.
//! # Not here    any protocol
//! ```

pub use core::sync::atomic::compiler_fence;
#[cfg(not(any(loom, magalloc_scheduled)))]
pub use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
#[cfg(not(loom))]
pub use core::sync::atomic::{Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{Ordering, fence};
#[cfg(loom)]
pub use model::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
#[cfg(magalloc_scheduled)]
pub use scheduled::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};

pub use crossbeam_utils::CachePadded;

/// A sequentially consistent fence between a read-modify-write, whatever its order, and a load: what the thread wrote by
/// the one comes before what it sees by the other. On an x86 the read-modify-write is such a fence, so only the compiler
/// need be told.
#[cfg(all(not(loom), any(target_arch = "x86_64", target_arch = "x86")))]
#[inline(always)]
pub fn fence_after_exchange() {
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// A sequentially consistent fence between a read-modify-write, whatever its order, and a load.
#[cfg(not(all(not(loom), any(target_arch = "x86_64", target_arch = "x86"))))]
#[inline(always)]
pub fn fence_after_exchange() {
    fence(Ordering::SeqCst);
}

#[cfg(loom)]
mod model;
pub mod planted;
#[cfg(magalloc_scheduled)]
pub mod scheduled;

/// Spread over all numbers, one that is the calling thread's: by where its stack lies. Few others have the same; it may
/// change. For where to begin, nothing else.
#[cfg(not(any(loom, magalloc_scheduled)))]
#[inline]
pub fn thread_hint() -> u32 {
    /// log2 of the bytes of a small stack.
    const STACK_SHIFT: u32 = 17;
    let here = 0_u8;
    spread(core::ptr::from_ref(&here).addr() >> STACK_SHIFT)
}
/// All threads of a model begin at the same place.
#[cfg(loom)]
pub fn thread_hint() -> u32 {
    0
}
/// By the number of the logical thread.
#[cfg(magalloc_scheduled)]
pub fn thread_hint() -> u32 {
    spread(scheduled::thread())
}

/// Numbers side by side are spread evenly (Fibonacci hashing).
#[cfg(not(loom))]
#[inline]
const fn spread(number: usize) -> u32 {
    (number as u32).wrapping_mul(0x9e37_79b9)
}

/// Makes a constructor `const` outside models; loom's atomics have no `const` constructor.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
        $(#[$meta])*
        #[cfg(not(loom))]
        $vis const fn $name($($arg: $ty),*) -> $ret $body

        $(#[$meta])*
        #[cfg(loom)]
        $vis fn $name($($arg: $ty),*) -> $ret $body
    };
}
pub(crate) use const_unless_loom;
