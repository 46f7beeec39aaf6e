//! The workloads, each in a module of its own: what a program does with memory, reduced to that.
//!
//! Every one is written from the published description of a benchmark or from what a kind of program does, is determined by
//! its seed, and returns a checksum that is the same on every allocator, so that nothing can be optimised away and a
//! wrong result is seen.

use hdrhistogram::Histogram;
use std::any::Any;

mod asymmetric;
mod batches;
mod bignum;
mod blocks;
mod buffers;
mod burst;
mod burst_idle;
mod channels;
mod compile;
mod first_touch;
mod fragmentation;
mod growth;
mod interpreter;
mod json;
mod larson;
mod mix;
mod pair;
mod raw;
mod rayon;
mod sizes;
mod store;
mod text;
mod thread_churn;
mod tokio_tasks;

/// One workload.
#[derive(Debug)]
pub struct Workload {
    /// The name on the command line and in the tables: lower case, words joined by `-`.
    pub name: &'static str,
    /// What it does and what it stands for, in a line.
    pub stands_for: &'static str,
    /// What is counted in [`Outcome::operations`], in the plural.
    pub operations: &'static str,
    /// Threads, as a multiple of the machine's cores; 0 for workloads of a single thread.
    pub threads_per_core: usize,
    /// Where its results are shown.
    pub shown: Shown,
    /// Does it.
    pub run: fn(&Parameters) -> Outcome,
}

/// Where results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A row of the table.
    Row,
    /// A row, and resident memory over time.
    RowAndMemory,
    /// A row, and throughput by threads. The work is the same for any number of threads.
    RowAndThreads,
    /// Cost by the number of blocks, which `scale` multiplies. No row.
    Blocks,
    /// A row, timed from the outside: from the start of the process to its end.
    Process,
}

/// How a workload is run.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Share of the full length: 1 takes about half a second to a second on one core. Less work, the same shape: sizes of
    /// working sets stay, rounds become fewer (at least one).
    pub scale: f64,
    /// Threads that work at the same time, at least 1. Workloads of a single thread ignore it.
    pub threads: usize,
    /// What determines everything random.
    pub seed: u64,
}

impl Parameters {
    /// `count` at full length, scaled; at least 1.
    #[must_use]
    pub fn scaled(&self, count: usize) -> usize {
        ((count as f64 * self.scale).round() as usize).max(1)
    }
}

/// What a workload has done.
pub struct Outcome {
    /// How many operations, of the kind that [`Workload::operations`] names.
    pub operations: u64,
    /// The same on every allocator, for the same parameters.
    pub checksum: u64,
    /// How long requests took, in nanoseconds, where the workload has requests.
    pub latencies: Option<Histogram<u64>>,
    /// What is still live when it ends and stays so while the process is idle.
    pub kept: Option<Box<dyn Any>>,
}

impl Outcome {
    /// An outcome without latencies, of which nothing stays live.
    #[must_use]
    pub fn new(operations: u64, checksum: u64) -> Self {
        Self { operations, checksum, latencies: None, kept: None }
    }
}

/// A histogram for latencies of 1 ns to 60 s, three digits. Made before the clock starts: it allocates.
///
/// # Panics
///
/// Never: the bounds are valid.
#[must_use]
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds")
}

/// All workloads, in the order of the tables.
pub static WORKLOADS: &[Workload] = &[
    pair::PAIR,
    burst::BURST,
    mix::MIX_SMALL,
    mix::MIX_WIDE,
    larson::LARSON,
    asymmetric::ASYMMETRIC,
    channels::RING,
    channels::FAN_IN,
    batches::BATCHES,
    batches::BATCHES_HANDED,
    thread_churn::THREAD_CHURN,
    json::JSON,
    store::STORE,
    interpreter::INTERPRETER,
    bignum::BIGNUM,
    rayon::RAYON_SORT,
    rayon::RAYON_TREE,
    rayon::RAYON_WORDS,
    growth::GROWTH,
    buffers::BUFFERS,
    tokio_tasks::TOKIO_TASKS,
    compile::COMPILE,
    fragmentation::FRAGMENTATION,
    burst_idle::BURST_IDLE,
    first_touch::FIRST_TOUCH,
    blocks::BLOCKS,
];

/// The workload of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}
