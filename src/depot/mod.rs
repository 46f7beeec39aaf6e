//! The depot: everything that threads share.
//!
//! ```text
//! # Role        spans from chunks, slabs from spans, partial slabs, spare magazines
//! # Layers      span_map, partial_set, spare -> spans -> slabs, magazines
//! # Not here    which thread has what (see `owner`, `thread_cache`)
//! ```

pub mod partial_set;
pub mod spare;
pub mod span_map;

#[cfg(not(loom))]
pub mod magazines;
#[cfg(not(loom))]
pub mod slabs;
#[cfg(not(loom))]
pub mod spans;

#[cfg(not(loom))]
pub use spans::Depot;
