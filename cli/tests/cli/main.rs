//! Runs the built program on small C programs, with the real library.
//!
//! `TEST_MAGALLOC_LIBRARY` names a library to test with; else it is built.

mod doctor;
mod endings;
mod errors;
mod preload;
mod process;
mod signals;
mod stats;
mod terminal;
