//! Owners: which slabs a thread works on, and how other threads' frees reach it.
//!
//! ```text
//! # Role        `notify`: the stack by which anyone hands a slab to an owner; `number_set`: the numbers of
//!               owners without a thread; `Owners`: refill and dissolve
//! # Not here    magazines (see `thread_cache`)
//! ```

pub mod notify;
pub mod number_set;

#[cfg(not(loom))]
mod dissolve;
#[cfg(not(loom))]
mod refill;
#[cfg(not(loom))]
pub use refill::{Adopted, OwnerIndex, Owners, Reclaim};
#[cfg(not(loom))]
pub(crate) use refill::{CACHE_ALIGN, take_one};
