//! What is measured: the workloads, and the measuring of one of them in a process of its own.
//!
//! `magalloc-compare` starts a process of this crate's program for each run. The program is built once for each
//! allocator, as its global one; the workloads are the same code in all of them.

pub mod measure;
pub mod random;
pub mod workloads;

pub use measure::{Counted, Latency, Measurement};
pub use workloads::{Outcome, Parameters, WORKLOADS, Workload};
