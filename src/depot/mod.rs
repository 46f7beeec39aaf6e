//! The depot: everything that threads share.
//!
//! ```text
//! # Role        spans from chunks, slabs from spans, partial slabs, magazines, spare and full; the accounts and limits
//! # Layers      spare -> magazines; counts, budget, groups -> spans, dirty, huge_pages -> slabs; mapping_table -> mappings
//! # Not here    which thread has what (see `local`)
//! ```

pub mod budget;
pub mod mapping_table;
pub mod spare;

#[cfg(not(loom))]
pub mod counts;
#[cfg(not(loom))]
pub mod dirty;
#[cfg(not(loom))]
pub mod groups;
#[cfg(not(loom))]
pub mod huge_pages;
#[cfg(not(loom))]
pub mod magazines;
#[cfg(not(loom))]
pub mod mappings;
#[cfg(not(loom))]
mod new_region;
#[cfg(not(loom))]
mod soft_limit;
#[cfg(not(loom))]
pub mod slabs;
#[cfg(not(loom))]
pub mod span;
#[cfg(not(loom))]
pub mod spans;

#[cfg(not(loom))]
pub use spans::Depot;
