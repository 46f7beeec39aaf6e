//! What was measured, as it is written with `--json` and read by the table and the page.

use magalloc_compare_subject::{Counted, Measurement};
use serde::Serialize;

/// All that one call of the program has found out.
#[derive(Debug, Serialize)]
pub struct Results {
    /// The command, as it was called.
    pub command: String,
    /// When it ended, in seconds since 1970 (UTC).
    pub ended: u64,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// Where it ran.
    pub machine: Machine,
    /// Share of a workload's full length that was run.
    pub scale: f64,
    /// Timed runs of each workload on each allocator.
    pub passes: usize,
    /// The allocators, in the order of the columns. The first is magalloc, unless it was left out.
    pub allocators: Vec<Allocator>,
    /// One for each row of the table.
    pub rows: Vec<Row>,
    /// Throughput by the number of threads; empty if it was not measured.
    pub by_threads: Vec<Series>,
    /// Cost by the number of blocks; empty if it was not measured.
    pub by_blocks: Vec<Series>,
}

/// The machine.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Name and release of the kernel.
    pub kernel: String,
    /// `rustc --version`.
    pub compiler: String,
    /// The kernel's policy for transparent huge pages, which some allocators ask for: its file, the choice in brackets.
    pub huge_pages: String,
    /// The commit of magalloc that was measured, with `-dirty` where files differ from it.
    pub commit: String,
}

/// One allocator.
#[derive(Debug, Serialize)]
pub struct Allocator {
    /// Its name on the command line and in the tables.
    pub name: &'static str,
    /// Its version, and that of the crate that it comes in.
    pub version: String,
    /// How it was built.
    pub flags: String,
    /// Nanoseconds that malloc and free of 64 bytes took when it was looked at whether it is a release build.
    pub pair: Option<f64>,
    /// Why it takes no part, if so: it does not build, or is a debug build.
    pub refused: Option<String>,
}

/// One workload on all allocators.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The workload's name.
    pub workload: &'static str,
    /// What it stands for.
    pub stands_for: &'static str,
    /// What its operations are.
    pub operations: &'static str,
    /// How many threads worked at once.
    pub threads: usize,
    /// Whether its resident memory over time was recorded.
    pub memory_over_time: bool,
    /// What the workload asks of any allocator. None if that could not be counted.
    pub counted: Option<Counted>,
    /// One for each allocator of [`Results::allocators`], in that order.
    pub cells: Vec<Cell>,
}

/// One workload on one allocator.
#[derive(Debug, Default, Serialize)]
pub struct Cell {
    /// The timed runs that ended well, in their order.
    pub runs: Vec<Run>,
    /// The run for memory, which is not timed.
    pub memory: Option<MemoryRun>,
    /// The first failure, if any: a crash by its signal, a wrong result, a time-out.
    pub failure: Option<String>,
}

/// One timed run.
#[derive(Debug, Serialize)]
pub struct Run {
    /// What the process measured itself; `wall` and `cpu` from the outside for workloads that are whole processes.
    #[serde(flatten)]
    pub measurement: Measurement,
    /// Share of the machine's processor time that others took meanwhile: other processes, and the hypervisor. 0 to 1.
    pub disturbed: f64,
}

/// The run for memory.
#[derive(Debug, Serialize)]
pub struct MemoryRun {
    /// What the process measured itself; the times are not to be used.
    #[serde(flatten)]
    pub measurement: Measurement,
    /// Resident after the process had been idle for 2 s.
    pub idle: u64,
    /// Resident memory over time, if it was recorded: milliseconds since the start, bytes.
    pub over_time: Vec<(u64, u64)>,
}

/// One workload on all allocators, for several sizes of something.
#[derive(Debug, Serialize)]
pub struct Series {
    /// The workload's name.
    pub workload: &'static str,
    /// What it stands for.
    pub stands_for: &'static str,
    /// Threads or blocks, ascending.
    pub at: Vec<usize>,
    /// For each allocator, for each of `at`: the median of nanoseconds of wall time for one operation; None where it
    /// failed.
    pub nanoseconds: Vec<Vec<Option<f64>>>,
    /// For each allocator, why it failed, if it did.
    pub failures: Vec<Option<String>>,
}
