//! Results made by hand, for tests.

use crate::results::{Allocator, Cell, Machine, MemoryRun, Results, Row, Run, Series};
use magalloc_compare_subject::{Counted, Latency, Measurement};

const MIB: u64 = 1 << 20;

const ALLOCATORS: [&str; 8] =
    ["magalloc", "system", "mimalloc-v2", "mimalloc-v3", "jemalloc", "snmalloc", "rpmalloc", "tcmalloc"];

/// How much each takes beside magalloc, about: time and memory.
const COST: [(f64, f64); 8] =
    [(1.0, 1.0), (2.1, 1.1), (1.25, 1.25), (1.2, 1.15), (1.45, 1.12), (1.22, 1.3), (1.35, 1.6), (1.3, 1.2)];

const WORKLOADS: [&str; 26] = [
    "pair-same-size",
    "pair-mixed-sizes",
    "random-sizes",
    "batch-free",
    "lifo-stack",
    "fifo-queue",
    "larson",
    "xmalloc",
    "producer-consumer",
    "thread-churn",
    "rayon-tree",
    "tokio-tasks",
    "web-requests",
    "json-parse",
    "string-building",
    "hash-map-growth",
    "big-integers",
    "vector-realloc",
    "large-blocks",
    "aligned-blocks",
    "fragmentation",
    "burst-idle",
    "cache-scratch",
    "cache-thrash",
    "process-start",
    "compiler-like",
];

/// A run with that time for each of 1,000 operations, and that peak.
pub(crate) fn run(nanoseconds: f64, peak: u64) -> Run {
    let wall = (nanoseconds * 1e3) as u64;
    let measurement = Measurement {
        wall,
        cpu: wall * 9 / 10,
        system: wall / 10,
        operations: 1_000,
        checksum: 1,
        faults: 100,
        waits: 0,
        preemptions: 0,
        peak,
        end: peak / 2,
        latency: None,
        counted: None,
    };
    Run { measurement, disturbed: 0.01 }
}

/// A cell with a run of that time for an operation, and as many MiB of memory.
pub(crate) fn cell(value: f64) -> Cell {
    let peak = (value * MIB as f64) as u64;
    let memory = MemoryRun { measurement: run(value, peak).measurement, idle: peak / 4, over_time: Vec::new() };
    Cell { runs: vec![run(value, peak)], memory: Some(memory), failure: None }
}

/// A series for the allocators of `nanoseconds`.
pub(crate) fn series(at: &[usize], nanoseconds: &[&[Option<f64>]]) -> Series {
    let nanoseconds: Vec<Vec<_>> = nanoseconds.iter().map(|values| values.to_vec()).collect();
    let failures = vec![None; nanoseconds.len()];
    Series { workload: "series", stands_for: "a sample", at: at.to_vec(), nanoseconds, failures }
}

/// A cell of [`cell`] for each allocator and each value of each row, named `row-0` and so on. None is a failure.
pub(crate) fn results(allocators: &[&'static str], rows: &[&[Option<f64>]]) -> Results {
    const NAMES: [&str; 5] = ["row-0", "row-1", "row-2", "row-3", "row-4"];
    let failed = || Cell { failure: Some("timed out".to_owned()), ..Cell::default() };
    let row = |(name, values): (&&'static str, &&[Option<f64>])| {
        row(name, 1, values.iter().map(|value| value.map_or_else(failed, cell)).collect())
    };
    let allocator = |&name: &&'static str| Allocator {
        name,
        version: "1.2.3".to_owned(),
        flags: "-O3".to_owned(),
        pair: Some(9.0),
        refused: None,
    };
    Results {
        command: "cargo run -p magalloc-compare".to_owned(),
        ended: 1_700_000_000,
        seconds: 754,
        machine: Machine {
            processor: "Sample CPU @ 3.1 GHz".to_owned(),
            cores: 8,
            memory: 32 << 30,
            kernel: "Linux 6.1.0".to_owned(),
            compiler: "rustc 1.95.0".to_owned(),
            huge_pages: "always [madvise] never".to_owned(),
            commit: "0123456".to_owned(),
        },
        scale: 1.0,
        passes: 5,
        allocators: allocators.iter().map(allocator).collect(),
        rows: NAMES.iter().zip(rows).map(row).collect(),
        by_threads: Vec::new(),
        by_blocks: Vec::new(),
    }
}

fn row(workload: &'static str, threads: usize, cells: Vec<Cell>) -> Row {
    let counted = Some(Counted { blocks: 1_000_000, live_peak: 5 * MIB, live_end: MIB });
    Row {
        workload,
        stands_for: "what programs do",
        operations: "allocations",
        threads,
        memory_over_time: false,
        counted,
        cells,
    }
}

/// 26 rows on 8 allocators with all that there can be: failures, an allocator that was refused, requests, memory over time,
/// both kinds of scaling.
pub(crate) fn plausible() -> Results {
    let mut random = Random(7);
    let mut results = results(&ALLOCATORS, &[]);
    for (index, workload) in WORKLOADS.iter().enumerate() {
        let base = 8.0 * 1.35_f64.powi(index as i32 % 19);
        let size = 4.0 * 1.3_f64.powi(index as i32 % 13);
        let cells = (0..ALLOCATORS.len()).map(|a| plausible_cell(index, a, base, size, &mut random)).collect();
        let mut row = row(workload, if index % 3 == 0 { 1 } else { 8 }, cells);
        row.memory_over_time = over_time(index);
        results.rows.push(row);
    }
    results.rows[20].cells[5] = Cell { failure: Some("killed by signal 11 (SIGSEGV)".to_owned()), ..Cell::default() };
    results.rows[9].cells[6] = Cell { failure: Some("timed out after 60 s".to_owned()), ..Cell::default() };
    let at = [1, 2, 4, 8, 16, 32];
    results.by_threads = ["larson", "xmalloc", "rayon-tree", "web-requests"]
        .map(|name| {
            scaling(name, &at, &mut random, |at, cost| 40.0 * cost / at.min(8) as f64 * (1.0 + at as f64 / 900.0))
        })
        .into();
    let at = [1_000, 10_000, 100_000, 1_000_000];
    results.by_blocks = ["blocks-same-size", "blocks-mixed-sizes"]
        .map(|name| {
            scaling(name, &at, &mut random, |at, cost| 12.0 * cost * (1.0 + (cost - 0.9) * (at as f64).log10() / 9.0))
        })
        .into();
    results
}

fn over_time(row: usize) -> bool {
    [7, 12, 20, 21].contains(&row)
}

fn plausible_cell(row: usize, allocator: usize, base: f64, size: f64, random: &mut Random) -> Cell {
    let (time, memory) = COST[allocator];
    let contended = if allocator == 1 && row % 5 == 2 { 3.5 } else { 1.0 };
    let time = base * time * contended * random.around(0.22);
    let peak = (size * memory * random.around(0.15) * MIB as f64) as u64;
    let runs = (0..5).map(|_| {
        let mut run = run(time * random.around(0.02), (peak as f64 * random.around(0.01)) as u64);
        if row == 11 || row == 12 {
            let at = |factor: f64| (time * factor) as u64;
            run.measurement.latency = Some(Latency { median: at(1.0), p99: at(3.0), p999: at(12.0), most: at(40.0) });
        }
        run
    });
    let runs = runs.collect();
    let measurement = run(time, peak).measurement;
    let idle = (peak as f64 * [0.15, 0.8, 0.6, 0.4, 0.35, 0.9, 0.95, 0.7][allocator]) as u64;
    let shape = |at: u64| if at < 60 { (at % 20) as f64 / 40.0 + 0.5 } else { (60.0 / at as f64).powi(2) };
    let points = (0..100).map(|at| (at * 30, (peak as f64 * shape(at) * random.around(0.02)) as u64));
    let over_time = if over_time(row) { points.collect() } else { Vec::new() };
    Cell { runs, memory: Some(MemoryRun { measurement, idle, over_time }), failure: None }
}

fn scaling(workload: &'static str, at: &[usize], random: &mut Random, time: impl Fn(usize, f64) -> f64) -> Series {
    let values = |&(cost, _): &(f64, f64)| at.iter().map(|&at| Some(time(at, cost) * random.around(0.02))).collect();
    let nanoseconds: Vec<_> = COST.iter().map(values).collect();
    let failures = vec![None; nanoseconds.len()];
    Series { workload, stands_for: "what programs do", at: at.to_vec(), nanoseconds, failures }
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    /// 1, give or take `share`.
    fn around(&mut self, share: f64) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1.0 + share * (2.0 * ((self.0 >> 33) as f64 / f64::from(1_u32 << 31)) - 1.0)
    }
}
