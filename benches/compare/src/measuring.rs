//! All runs of a plan, in an order that is fair: the allocators take turns within each workload, in another order in each
//! pass. Who comes before counts: what memory it gave back, and how, is what the next one gets. So the machine is to have
//! as much ready before each timed run as the workload took of it at most so far.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;

use magalloc_compare_subject::Workload;
use magalloc_compare_subject::random::Random;
use magalloc_compare_subject::workloads::Shown;

use crate::plan::Plan;
use crate::process::{LIMIT, Task};
use crate::results::{Cell, MemoryRun, Row, Run, Series};

/// What is known of one run before the next begins: told to the progress bar.
pub(crate) trait Watch {
    /// The runs of a workload begin.
    fn workload(&self, name: &str);
    /// `what` begins.
    fn begins(&self, what: &str);
    /// A run has ended.
    fn ended(&self);
}

/// Programs in the order of the columns; None for an allocator that takes no part.
pub(crate) type Programs = [Option<PathBuf>];

/// The rows of the table. `counted` is the program that counts.
pub(crate) fn rows(plan: &Plan, programs: &Programs, counted: Option<&PathBuf>, watch: &impl Watch) -> Vec<Row> {
    plan.rows.iter().map(|workload| row(plan, workload, programs, counted, watch)).collect()
}

fn row(
    plan: &Plan,
    workload: &'static Workload,
    programs: &Programs,
    counted: Option<&PathBuf>,
    watch: &impl Watch,
) -> Row {
    let threads = plan.threads_of(workload);
    let task = |program| Task { program, workload, scale: plan.scale, threads, ready: 0, limit: LIMIT };
    watch.workload(workload.name);
    watch.begins(&format!("{}: what it asks for", workload.name));
    let reference = counted.and_then(|program| task(program).timed().ok()).map(|run| run.measurement);
    watch.ended();
    watch.begins(&format!("{}: memory", workload.name));
    let mut cells: Vec<Cell> = in_memory(programs, &task, watch);
    let mut ready = cells.iter().filter_map(|cell| Some(cell.memory.as_ref()?.measurement.peak)).max().unwrap_or(0);
    let mut random = random(workload);
    for _ in 0..plan.passes {
        for column in order(programs.len(), &mut random) {
            let Some(program) = &programs[column] else { continue };
            watch.begins(&format!("{}: {}", workload.name, plan.subjects[column].name));
            // One failure is enough: a process that hangs takes minutes.
            if cells[column].failure.is_none() {
                let run = Task { ready, ..task(program) }.timed();
                ready = run.as_ref().map_or(ready, |run| ready.max(run.measurement.peak));
                cells[column].add(run);
            }
            watch.ended();
        }
    }
    let expected = reference.as_ref().map(|measurement| measurement.checksum);
    cells.iter_mut().for_each(|cell| cell.check(expected));
    Row {
        workload: workload.name,
        stands_for: workload.stands_for,
        operations: workload.operations,
        threads,
        memory_over_time: workload.shown == Shown::RowAndMemory,
        counted: reference.and_then(|measurement| measurement.counted),
        cells,
    }
}

/// What orders the runs of a workload: the same numbers each time that the program runs, others for each workload.
fn random(workload: &Workload) -> Random {
    Random::new(workload.name.bytes().fold(0, |seed, byte| seed << 5 ^ seed >> 59 ^ u64::from(byte)))
}

/// Whose turn it is in a pass.
fn order(columns: usize, random: &mut Random) -> Vec<usize> {
    let mut columns: Vec<usize> = (0..columns).collect();
    random.shuffle(&mut columns);
    columns
}

/// The runs for memory: one after the other, but each may be idle while the next ones run.
fn in_memory<'program>(
    programs: &'program Programs,
    task: &(impl Fn(&'program Path) -> Task<'program> + Sync),
    watch: &impl Watch,
) -> Vec<Cell> {
    thread::scope(|scope| {
        let runs: Vec<_> = programs
            .iter()
            .map(|program| {
                let task = task(program.as_ref()?);
                let (ended, is_ended) = channel::<()>();
                let run = scope.spawn(move || task.for_memory(|| drop(ended)));
                // Closed when the work is done, or when there is nothing to wait for.
                let _ = is_ended.recv();
                watch.ended();
                Some(run)
            })
            .collect();
        runs.into_iter()
            .map(|run| {
                let mut cell = Cell::default();
                if let Some(run) = run {
                    cell.add_memory(run.join().expect("a run does not panic"));
                }
                cell
            })
            .collect()
    })
}

impl Cell {
    fn add(&mut self, run: Result<Run, String>) {
        match run {
            Ok(run) => self.runs.push(run),
            Err(reason) => self.fail(reason),
        }
    }

    fn add_memory(&mut self, run: Result<MemoryRun, String>) {
        match run {
            Ok(run) => self.memory = Some(run),
            Err(reason) => self.fail(reason),
        }
    }

    fn fail(&mut self, reason: String) {
        self.failure.get_or_insert(reason);
    }

    /// Notes a result that is not as it should be. Without anything to compare with, the runs are compared with each
    /// other.
    fn check(&mut self, expected: Option<u64>) {
        let mut results = (self.runs.iter().map(|run| run.measurement.checksum))
            .chain(self.memory.iter().map(|run| run.measurement.checksum));
        let Some(expected) = expected.or_else(|| results.clone().next()) else { return };
        if let Some(wrong) = results.find(|checksum| *checksum != expected) {
            self.fail(wrong_result(wrong, expected));
        }
    }
}

fn wrong_result(result: u64, expected: u64) -> String {
    format!("wrong result: {result:#x} instead of {expected:#x}")
}

/// Nanoseconds for an operation by the number of threads.
pub(crate) fn by_threads(plan: &Plan, programs: &Programs, watch: &impl Watch) -> Vec<Series> {
    let (workloads, threads) = &plan.by_threads;
    if threads.is_empty() {
        return Vec::new();
    }
    let points = |program, workload, at: usize| {
        let (scale, threads) = (plan.scale, at);
        Task { program, workload, scale, threads, ready: 0, limit: LIMIT }
    };
    workloads.iter().map(|workload| series(plan, workload, programs, threads, points, watch)).collect()
}

/// Nanoseconds for a block by the number of blocks.
pub(crate) fn by_blocks(plan: &Plan, programs: &Programs, watch: &impl Watch) -> Vec<Series> {
    let (workloads, scales) = &plan.by_blocks;
    let indices: Vec<usize> = (0..scales.len()).collect();
    let points = |program, workload, at: usize| {
        let (scale, threads) = (scales[at], 1);
        Task { program, workload, scale, threads, ready: 0, limit: LIMIT }
    };
    let of = |workload| series(plan, workload, programs, &indices, points, watch);
    workloads.iter().map(|workload| of(workload)).collect()
}

/// One workload at several points. `at` of the result is the number of threads, or of operations where that is what
/// grows.
fn series<'program>(
    plan: &Plan,
    workload: &'static Workload,
    programs: &'program Programs,
    points: &[usize],
    task: impl Fn(&'program Path, &'static Workload, usize) -> Task<'program>,
    watch: &impl Watch,
) -> Series {
    watch.workload(&format!("{}, at several sizes", workload.name));
    let mut at = points.to_vec();
    let mut nanoseconds = vec![vec![None; points.len()]; programs.len()];
    let mut failures = vec![None; programs.len()];
    let mut random = random(workload);
    for (index, &point) in points.iter().enumerate() {
        let mut costs = vec![Vec::new(); programs.len()];
        // The work is the same for all.
        let mut expected = None;
        let mut ready = 0;
        for _ in 0..plan.passes {
            for column in order(programs.len(), &mut random) {
                let Some(program) = &programs[column] else { continue };
                watch.begins(&format!("{}: {}", workload.name, plan.subjects[column].name));
                // One failure is enough, as in a row.
                if failures[column].is_none() {
                    let task = Task { ready, ..task(program, workload, point) };
                    match task.timed().and_then(|run| same_result(run, &mut expected)) {
                        Ok(run) => {
                            ready = ready.max(run.measurement.peak);
                            let operations = run.measurement.operations;
                            costs[column].push(run.measurement.wall as f64 / operations as f64);
                            if workload.shown == Shown::Blocks {
                                at[index] = usize::try_from(operations).unwrap_or(usize::MAX);
                            }
                        }
                        Err(failure) => failures[column] = Some(failure),
                    }
                }
                watch.ended();
            }
        }
        for (column, costs) in costs.iter_mut().enumerate() {
            // A point counts if all of its runs ended well.
            if costs.len() == plan.passes {
                nanoseconds[column][index] = crate::statistics::median(costs);
            }
        }
    }
    Series { workload: workload.name, stands_for: workload.stands_for, at, nanoseconds, failures }
}

/// The run, if its result is what the first one's at this point was.
fn same_result(run: Run, expected: &mut Option<u64>) -> Result<Run, String> {
    let (result, expected) = (run.measurement.checksum, *expected.get_or_insert(run.measurement.checksum));
    if result == expected { Ok(run) } else { Err(wrong_result(result, expected)) }
}

#[cfg(test)]
mod tests {
    use magalloc_compare_subject::{Measurement, WORKLOADS};

    use super::*;
    use crate::process::tests::script;

    #[test]
    fn everybody_has_a_turn_in_each_pass_and_comes_after_everybody() {
        const COLUMNS: usize = 4;
        let mut after = [[0; COLUMNS]; COLUMNS];
        for workload in WORKLOADS {
            let mut random = random(workload);
            for _ in 0..5 {
                let mut pass = order(COLUMNS, &mut random);
                pass.windows(2).for_each(|pair| after[pair[0]][pair[1]] += 1);
                pass.sort_unstable();
                assert_eq!(pass, [0, 1, 2, 3]);
            }
        }
        // A quarter of all passes, in the mean.
        let least = WORKLOADS.len() * 5 / 8;
        for (one, after) in after.iter().enumerate() {
            assert!((0..COLUMNS).all(|other| other == one || after[other] > least), "{one}: {after:?}");
        }
    }

    #[test]
    fn wrong_results_are_failures() {
        let ended = |checksum| {
            let measurement = measurement(checksum);
            let mut cell = Cell { runs: vec![Run { measurement, disturbed: 0.0 }], ..Cell::default() };
            cell.check(Some(7));
            cell.failure
        };
        assert_eq!(ended(7), None);
        assert_eq!(ended(8).as_deref(), Some("wrong result: 0x8 instead of 0x7"));
    }

    #[test]
    fn a_point_of_a_series_has_one_result() {
        let run = |checksum| Run { measurement: measurement(checksum), disturbed: 0.0 };
        let mut expected = None;
        assert!(same_result(run(7), &mut expected).is_ok());
        assert!(same_result(run(7), &mut expected).is_ok());
        assert_eq!(same_result(run(8), &mut expected).unwrap_err(), "wrong result: 0x8 instead of 0x7");
    }

    fn measurement(checksum: u64) -> Measurement {
        Measurement {
            wall: 1,
            cpu: 1,
            system: 0,
            operations: 1,
            checksum,
            faults: 0,
            waits: 0,
            preemptions: 0,
            peak: 1,
            end: 1,
            latency: None,
            counted: None,
        }
    }

    #[test]
    fn first_failure_is_kept() {
        let mut cell = Cell::default();
        cell.add(Err("first".into()));
        cell.add(Err("second".into()));
        assert_eq!(cell.failure.as_deref(), Some("first"));
    }

    struct Nobody;

    impl Watch for Nobody {
        fn workload(&self, _: &str) {}
        fn begins(&self, _: &str) {}
        fn ended(&self) {}
    }

    #[test]
    fn rows_and_series_have_memory_ready() {
        use crate::machine::tests::{faults, faults_of};
        const BYTES: u64 = 256 << 20;
        // Says that it took so much at most, whatever it is asked.
        let said = serde_json::to_string(&Measurement { peak: BYTES, ..measurement(7) }).unwrap();
        let program = script("peak", &format!("echo '{said}'\necho 1\n"));
        let workload = &WORKLOADS[0];
        let plan = Plan {
            subjects: vec![&crate::allocators::SUBJECTS[0]],
            rows: vec![workload],
            scale: 1.0,
            passes: 2,
            threads: 1,
            by_threads: (vec![workload], vec![1]),
            by_blocks: (Vec::new(), Vec::new()),
        };
        let programs = [Some(program.clone())];
        let before = faults();
        let rows = rows(&plan, &programs, None, &Nobody);
        let after_rows = faults();
        let series = by_threads(&plan, &programs, &Nobody);
        let after_series = faults();
        std::fs::remove_file(program).unwrap();
        assert_eq!((rows[0].cells[0].failure.as_deref(), series[0].failures[0].as_deref()), (None, None));
        assert!(after_rows - before >= 2 * faults_of(BYTES), "{}", after_rows - before);
        // Before the first run nothing is known.
        assert!(after_series - after_rows >= faults_of(BYTES), "{}", after_series - after_rows);
    }
}
