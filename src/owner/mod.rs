//! Owners: which slabs a thread works on, and how other threads' frees reach it.
//!
//! ```text
//! # Role        `notify`: the stack by which anyone hands a slab to an owner; `number_set`: the numbers of
//!               owners without a thread; `owners`: what a thread has, and who has it next; `refill`, `dissolve`: blocks
//!               from slabs, and back
//! # Not here    magazines (see `thread_cache`)
//! ```

pub mod notify;
pub mod number_set;

#[cfg(not(loom))]
mod dissolve;
#[cfg(not(loom))]
mod owners;
#[cfg(not(loom))]
mod refill;
#[cfg(not(loom))]
pub use owners::{Adopted, OwnerIndex, Owners};
#[cfg(not(loom))]
pub use refill::Reclaim;
#[cfg(not(loom))]
pub(crate) use owners::CACHE_ALIGN;
#[cfg(not(loom))]
pub(crate) use refill::take_one;
