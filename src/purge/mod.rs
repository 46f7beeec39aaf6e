//! Purging: how free memory goes back to the kernel. Here are its parts, which know nothing of a heap; `depot::dirty` and
//! `heap::purge` put them to work.
//!
//! ```text
//! # Role        `signal`: is there anything to purge, and how urgent is it; `pace`: when the next epoch begins;
//!               `in_flight`: what a purge or a steal holds just now; `walks`: how many walks are under way; `slab_pages`:
//!               which pages of a slab may go; `warm`: how much free memory the program evidently takes again; `pause`: when
//!               not to try what failed lately; `worker_state`: is the purging thread there
//! # The rest    `depot::dirty`: free spans; `depot::huge_pages`: whole huge pages; `heap::purge`: the walk over all chunks,
//!               what an epoch does; `global::worker`: the purging thread
//! ```

pub mod in_flight;
pub mod pace;
pub mod signal;
pub mod slab_pages;
pub mod walks;
pub mod warm;
pub mod worker_state;

#[cfg(not(loom))]
pub mod pause;
