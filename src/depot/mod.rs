//! The depot: everything that threads share.
//!
//! ```text
//! # Role        spans from chunks, slabs from spans, partial slabs, spare magazines
//! # Layers      spare -> magazines -> spans -> slabs
//! # Not here    which thread has what (see `owner`, `thread_cache`)
//! ```

pub mod spare;

#[cfg(not(loom))]
pub mod magazines;
#[cfg(not(loom))]
pub mod slabs;
#[cfg(not(loom))]
pub mod spans;

#[cfg(not(loom))]
pub use spans::Depot;
