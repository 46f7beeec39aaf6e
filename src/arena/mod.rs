//! Arenas: memory that is given out in order and taken back at once, by one thread or by many.
//!
//! ```text
//! # Role        `Arena` for one thread at a time, with marks and scopes; `SharedArena` for many; `ArenaBox` for values whose
//!               destructor is to run. All memory is blocks of the process's heap
//! # Words       chunk: a block that is given out piece by piece, from its end down. Large block: one that a single request has
//! # Memory      chunks double from `CHUNK_BYTES_FIRST` to `CHUNK_BYTES_BOUND`; a request of at least `LARGE_BYTES_MIN` that
//!               finds no room is a block of its own, so less than that is lost at the end of a chunk
//! # Safety      a reference into an arena borrows it. What takes memory back needs the arena mutably, or is the end of a
//!               scope, whose references cannot leave it
//! # Not here    objects that are freed one by one (see `pool`); `Allocator` (see `allocator_api`)
//! # Checked by  arena/tests.rs, loom_tests/shared_arena.rs, tests/arenas.rs
//! ```

#[cfg(not(loom))]
mod block;
#[cfg(not(loom))]
mod boxed;
#[cfg(not(loom))]
mod bump;
#[cfg(not(loom))]
mod marks;
#[cfg(not(loom))]
mod methods;
#[cfg(all(not(loom), any(feature = "allocator-api2-02", feature = "allocator-api2-04")))]
mod resize;
#[cfg(not(loom))]
mod scope;
#[cfg(not(loom))]
mod shared;
pub mod shared_chunks;
mod sizes;
#[cfg(test)]
mod tests;

#[cfg(not(loom))]
pub use boxed::ArenaBox;
#[cfg(not(loom))]
pub use bump::Arena;
#[cfg(not(loom))]
pub use marks::{Mark, StaleMark};
#[cfg(not(loom))]
pub use scope::Scope;
#[cfg(not(loom))]
pub use shared::SharedArena;
