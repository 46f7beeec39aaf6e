//! The only place in this crate that names `core::sync::atomic`: it is no part of the allocator, whose `sync` is private,
//! and has no models.

pub use core::sync::atomic::{AtomicPtr, Ordering};
