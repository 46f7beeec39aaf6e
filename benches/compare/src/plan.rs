//! What is to be measured.

use magalloc_compare_subject::workloads::Shown;
use magalloc_compare_subject::{WORKLOADS, Workload};

use crate::allocators::{SUBJECTS, Subject};
use crate::arguments::Arguments;
use crate::machine;

/// Share of a workload's full length that `--quick` runs.
const QUICK_SCALE: f64 = 0.2;

/// Timed runs: an odd number, so that a median is one of them.
const RUNS: usize = 5;
const QUICK_RUNS: usize = 3;

/// Threads at which throughput is compared, unless others are wanted.
const BY_THREADS: [u32; 5] = [1, 2, 4, 16, 64];

/// Shares of the full number of blocks at which cost is compared: a factor of 10 each.
const BLOCK_SCALES: [f64; 4] = [0.001, 0.01, 0.1, 1.0];

/// What is to be measured, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The columns.
    pub(crate) subjects: Vec<&'static Subject>,
    /// The rows of the table.
    pub(crate) rows: Vec<&'static Workload>,
    /// Share of the full length for the rows and for throughput by threads.
    pub(crate) scale: f64,
    /// Timed runs of each workload on each allocator.
    pub(crate) passes: usize,
    /// Workers, for workloads that have several.
    pub(crate) threads: usize,
    /// Throughput by threads: these workloads, at these threads.
    pub(crate) by_threads: (Vec<&'static Workload>, Vec<usize>),
    /// Cost by the number of blocks: these workloads, at these scales.
    pub(crate) by_blocks: (Vec<&'static Workload>, Vec<f64>),
}

impl Plan {
    /// What the command line asks for.
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let wanted = |workload: &&'static Workload| {
            arguments.only.is_empty() || arguments.only.iter().any(|name| name == workload.name)
        };
        let wanted_with = |shown: fn(Shown) -> bool| -> Vec<&'static Workload> {
            WORKLOADS.iter().filter(wanted).filter(|workload| shown(workload.shown)).collect()
        };
        let by_threads = match (&arguments.by_threads[..], arguments.quick) {
            ([], true) => Vec::new(),
            // With as many as there are cores: throughput beyond them is compared with that.
            ([], false) => ascending(&[&BY_THREADS[..], &[machine::cores() as u32]].concat()),
            (chosen, _) => ascending(chosen),
        };
        Self {
            subjects: SUBJECTS
                .iter()
                .filter(|subject| {
                    arguments.allocators.is_empty() || arguments.allocators.iter().any(|name| name == subject.name)
                })
                .collect(),
            rows: wanted_with(|shown| shown != Shown::Blocks),
            scale: if arguments.quick { QUICK_SCALE } else { 1.0 },
            passes: arguments.runs.map_or(if arguments.quick { QUICK_RUNS } else { RUNS }, |runs| runs as usize),
            threads: arguments.threads.map_or_else(machine::cores, |threads| threads as usize),
            by_threads: (wanted_with(|shown| shown == Shown::RowAndThreads), by_threads),
            by_blocks: (
                if arguments.quick && arguments.only.is_empty() {
                    Vec::new()
                } else {
                    wanted_with(|shown| shown == Shown::Blocks)
                },
                BLOCK_SCALES.to_vec(),
            ),
        }
    }

    /// Threads of a workload.
    pub(crate) fn threads_of(&self, workload: &Workload) -> usize {
        (workload.threads_per_core * self.threads).max(1)
    }

    /// How many runs that are, for `subjects` allocators.
    pub(crate) fn runs(&self, subjects: usize) -> usize {
        // With the one for memory, and the one that counts.
        let rows = self.rows.len() * (subjects * (self.passes + 1) + 1);
        let points =
            self.by_threads.0.len() * self.by_threads.1.len() + self.by_blocks.0.len() * self.by_blocks.1.len();
        rows + points * subjects * self.passes
    }
}

fn ascending(threads: &[u32]) -> Vec<usize> {
    let mut threads: Vec<usize> = threads.iter().map(|threads| *threads as usize).collect();
    threads.sort_unstable();
    threads.dedup();
    threads
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn plan(arguments: &[&str]) -> Plan {
        Plan::new(&Arguments::try_parse_from([&["magalloc-compare"], arguments].concat()).unwrap())
    }

    #[test]
    fn default_is_everything() {
        let plan = plan(&[]);
        assert_eq!(plan.subjects.len(), SUBJECTS.len());
        assert!(plan.rows.len() > 18);
        for threads in BY_THREADS.map(|threads| threads as usize).into_iter().chain([machine::cores()]) {
            assert!(plan.by_threads.1.contains(&threads), "{threads}");
        }
        assert_eq!(plan.by_blocks.0.len(), 1);
    }

    #[test]
    fn quick_is_less() {
        let plan = plan(&["--quick"]);
        assert!(plan.scale < 1.0 && plan.by_threads.1.is_empty() && plan.by_blocks.0.is_empty());
        assert!(plan.runs(8) < Plan::new(&Arguments::try_parse_from(["magalloc-compare"]).unwrap()).runs(8) / 2);
    }

    #[test]
    fn names_are_the_tables_order() {
        let plan = plan(&["--only", "larson,pair", "--allocators", "jemalloc,magalloc", "--by-threads", "8,1,8"]);
        assert_eq!(plan.rows.iter().map(|workload| workload.name).collect::<Vec<_>>(), ["pair", "larson"]);
        assert_eq!(plan.subjects.iter().map(|subject| subject.name).collect::<Vec<_>>(), ["magalloc", "jemalloc"]);
        assert_eq!(plan.by_threads.1, [1, 8]);
        // Two rows of one count, and a memory and five timed runs on two allocators; one series of two points.
        assert_eq!(plan.runs(2), 2 * (2 * 6 + 1) + 2 * 2 * 5);
    }
}
