//! A thread's part of the heap: a cache of free blocks for each size class, and the slabs that it fills from.
//!
//! ```text
//! # Role        `cache`: the fast path, and what a thread caches; `miss`: its slow path; `fill`: blocks from slabs to a
//!               magazine; `flush`: blocks home to their slabs; `stash`: full magazines behind the loaded one; `sizing`: how
//!               much a thread may cache; `registry`: all local heaps, and which thread has which; `kept`: slabs
//!               that a local heap keeps; `remote_free`: how slabs
//!               reach the local heap that fills from them; `steal`: what other threads may take of a local heap;
//!               `index_set`: sets of local heaps; `switch`, `modes`: how all threads are sent to
//!               their slow paths
//! # Types       `LocalHeap`: the calling thread's handle. `Shared`: what all local heaps share, and what anyone may do.
//! # Remote free a block that another thread has allocated goes to the freeing thread's magazine like any other. A flush
//!               brings it home to the bitmap of its slab. If it is the first free block there, the slab goes to the
//!               remote-free queue of the local heap that filled from it last, or, without one, to the depot.
//! # Not here    where slabs come from (see `depot`)
//! ```

pub mod index_set;
pub mod kept;
pub mod remote_free;
pub mod stash;
pub mod switch;

#[cfg(not(loom))]
mod cache;
#[cfg(not(loom))]
mod fill;
#[cfg(not(loom))]
mod flush;
#[cfg(not(loom))]
mod miss;
#[cfg(not(loom))]
mod modes;
#[cfg(not(loom))]
mod registry;
#[cfg(not(loom))]
mod sizing;
#[cfg(not(loom))]
mod steal;

#[cfg(not(loom))]
pub use cache::{LocalHeap, NO_CACHE, ThreadCache, Tops};
#[cfg(not(loom))]
pub use registry::{Adopted, LocalIndex, ThreadRegistry};

/// What all local heaps share: for the slow paths of any thread, with or without a local heap.
#[cfg(not(loom))]
pub struct Shared<'h, P> {
    /// Where slabs and magazines come from.
    pub depot: &'h crate::depot::Depot<P>,
    /// All local heaps.
    pub registry: &'h ThreadRegistry,
}

#[cfg(not(loom))]
impl<P> Clone for Shared<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

#[cfg(not(loom))]
impl<P> Copy for Shared<'_, P> {}
