//! What is known of the chunks of a group, in a few words each: plain values of atomics, for the page map to place
//! and the depot to use.
//!
//! ```text
//! # Role        `span_map`: which granules are in use; `partial_set`: which slabs no local heap holds; `unpurged`: where
//!               there may be something to purge; `huge`: where the kernel was asked for huge pages
//! # Not here    the memory they describe (see `pagemap`), what spans and slabs are for (see `depot`)
//! ```

pub mod huge;
pub mod partial_set;
pub mod span_map;
pub mod unpurged;
