//! What follows from the runs: medians, ratios to the best peer, geometric means, and whether the targets are met.
//!
//! A cell that failed in any run has no numbers here: what a process did that ended wrongly elsewhere proves nothing.

mod means;
#[cfg(test)]
pub(crate) mod sample;
mod scaling;
mod targets;
pub(crate) mod text;

pub(crate) use means::Means;
pub(crate) use scaling::{beyond, growth};
pub(crate) use targets::{PEAK_MEAN, PEAK_ROW, TIME_MEAN, TIME_ROW, Target};

use crate::results::{Cell, Results, Row, Run};

/// The allocator that is judged. All others are its peers.
pub(crate) const JUDGED: &str = "magalloc";

/// The peers that memory is judged against: what people choose instead of the system's allocator, but for rpmalloc, which
/// returns nothing while threads run.
pub(crate) const MEMORY_PEERS: [&str; 5] = ["mimalloc-v2", "mimalloc-v3", "jemalloc", "snmalloc", "tcmalloc"];

/// A run is disturbed if others took more than this share of the processors.
const DISTURBED: f64 = 0.1;

/// No number is to be trusted if more than this share of the runs was disturbed.
const TOO_BUSY: f64 = 0.25;

/// All that is computed from [`Results`].
#[derive(Debug)]
pub(crate) struct Statistics<'a> {
    /// What it was computed from.
    pub(crate) results: &'a Results,
    /// Indices of the allocators that were not refused: the columns that are shown.
    pub(crate) columns: Vec<usize>,
    /// The index of [`JUDGED`], if it took part.
    pub(crate) judged: Option<usize>,
    /// One for each of [`Results::rows`].
    pub(crate) rows: Vec<Vec<Numbers>>,
    /// Geometric means of the time of one operation.
    pub(crate) time: Means,
    /// Geometric means of the peak of resident memory.
    pub(crate) peak: Means,
    /// Share of the runs that were disturbed; None without runs.
    pub(crate) disturbed: Option<f64>,
}

/// One cell, in numbers. What was not measured, or failed, is None.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// Nanoseconds of wall time for one operation, the median of the runs.
    pub(crate) time: Option<f64>,
    /// The [`spread`] of `time`.
    pub(crate) time_spread: Option<f64>,
    /// `time` as a multiple of the best peer's in this row. Below 1 only for the judged allocator.
    pub(crate) time_ratio: Option<f64>,
    /// Nanoseconds of processor time for one operation, the median of the runs.
    pub(crate) cpu: Option<f64>,
    /// Bytes resident at most: the median of all runs, that for memory included.
    pub(crate) peak: Option<f64>,
    /// `peak` as a multiple of that of the best of [`MEMORY_PEERS`] in this row.
    pub(crate) peak_ratio: Option<f64>,
    /// `peak` as a multiple of the bytes that were live at most.
    pub(crate) overhead: Option<f64>,
    /// Bytes resident when the workload had ended.
    pub(crate) end: Option<f64>,
    /// Bytes resident after the process had been idle.
    pub(crate) idle: Option<f64>,
    /// Page faults of a run, the median.
    pub(crate) faults: Option<f64>,
    /// Times that a thread of a run had to leave its processor, because it waited or because another one's turn had come:
    /// the median.
    pub(crate) switches: Option<f64>,
    /// Nanoseconds that half, 99 of 100 and 999 of 1,000 requests took at most: medians of the runs.
    pub(crate) latency: Option<[f64; 3]>,
}

/// One of the numbers of a cell.
pub(crate) type Value = fn(&Numbers) -> Option<f64>;

impl<'a> Statistics<'a> {
    /// Of these results.
    pub(crate) fn new(results: &'a Results) -> Self {
        let names: Vec<&str> = results.allocators.iter().map(|allocator| allocator.name).collect();
        let columns: Vec<usize> = (0..names.len()).filter(|&a| results.allocators[a].refused.is_none()).collect();
        let mut rows: Vec<Vec<Numbers>> = results.rows.iter().map(|row| numbers(row, names.len())).collect();
        for row in &mut rows {
            let time = best(names.iter().zip(&*row).filter(|(name, _)| **name != JUDGED).map(|(_, cell)| cell.time));
            let peak =
                best(names.iter().zip(&*row).filter(|(name, _)| is_memory_peer(name)).map(|(_, cell)| cell.peak));
            for cell in row {
                cell.time_ratio = ratio(cell.time, time);
                cell.peak_ratio = ratio(cell.peak, peak);
            }
        }
        let of = |value: Value| -> Vec<Vec<Option<f64>>> {
            rows.iter().map(|row| row.iter().map(value).collect()).collect()
        };
        let time = Means::new(&names, &of(|cell| cell.time), |name| name != JUDGED);
        let peak = Means::new(&names, &of(|cell| cell.peak), is_memory_peer);
        Self {
            judged: columns.iter().copied().find(|&a| names[a] == JUDGED),
            disturbed: disturbed(results),
            results,
            columns,
            rows,
            time,
            peak,
        }
    }

    /// The share of disturbed runs, if it is so high that nothing measured is to be trusted.
    pub(crate) fn too_busy(&self) -> Option<f64> {
        self.disturbed.filter(|&share| share > TOO_BUSY)
    }

    /// The name of the allocator with that index.
    pub(crate) fn name(&self, allocator: usize) -> &'static str {
        self.results.allocators[allocator].name
    }

    /// Has any run of the cell failed?
    pub(crate) fn failed(&self, row: usize, allocator: usize) -> bool {
        self.results.rows[row].cells.get(allocator).is_some_and(|cell| cell.failure.is_some())
    }

    /// Workload, allocator and failure of all cells that failed, in the order of the table, and then of the series.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let names = || self.results.allocators.iter().map(|allocator| allocator.name);
        let rows = self.results.rows.iter().flat_map(move |row| {
            let cells = names().zip(&row.cells);
            cells.filter_map(|(name, cell)| Some((row.workload, name, cell.failure.as_deref()?)))
        });
        let series = self.results.by_threads.iter().chain(&self.results.by_blocks).flat_map(move |series| {
            let failures = names().zip(&series.failures);
            failures.filter_map(|(name, failure)| Some((series.workload, name, failure.as_deref()?)))
        });
        rows.chain(series)
    }
}

/// Is memory judged against the allocator of that name?
fn is_memory_peer(name: &str) -> bool {
    MEMORY_PEERS.contains(&name)
}

fn numbers(row: &Row, allocators: usize) -> Vec<Numbers> {
    let live = row.counted.map(|counted| counted.live_peak as f64).filter(|&live| live > 0.0);
    let mut numbers: Vec<Numbers> = row.cells.iter().map(|cell| cell_numbers(cell, live)).collect();
    numbers.resize_with(allocators, Numbers::default);
    numbers
}

fn cell_numbers(cell: &Cell, live: Option<f64>) -> Numbers {
    if cell.failure.is_some() {
        return Numbers::default();
    }
    let each = |value: &dyn Fn(&Run) -> Option<f64>| -> Vec<f64> { cell.runs.iter().filter_map(value).collect() };
    let per_operation = |time: u64, run: &Run| {
        (run.measurement.operations > 0).then(|| time as f64 / run.measurement.operations as f64)
    };
    let times = each(&|run| per_operation(run.measurement.wall, run));
    let memory = cell.memory.as_ref();
    let mut peaks = each(&|run| Some(run.measurement.peak as f64));
    peaks.extend(memory.map(|memory| memory.measurement.peak as f64));
    let peak = median(&peaks);
    let latency = |of: fn(&magalloc_compare_subject::Latency) -> u64| {
        median(&each(&|run| Some(of(run.measurement.latency.as_ref()?) as f64)))
    };
    Numbers {
        time: median(&times),
        time_spread: spread(&times),
        time_ratio: None,
        cpu: median(&each(&|run| per_operation(run.measurement.cpu, run))),
        peak,
        peak_ratio: None,
        overhead: ratio(peak, live),
        end: memory.map(|memory| memory.measurement.end as f64),
        idle: memory.map(|memory| memory.idle as f64),
        faults: median(&each(&|run| Some(run.measurement.faults as f64))),
        switches: median(&each(&|run| Some((run.measurement.waits + run.measurement.preemptions) as f64))),
        latency: (|| Some([latency(|l| l.median)?, latency(|l| l.p99)?, latency(|l| l.p999)?]))(),
    }
}

fn disturbed(results: &Results) -> Option<f64> {
    let runs = || results.rows.iter().flat_map(|row| &row.cells).flat_map(|cell| &cell.runs);
    let all = runs().count();
    (all > 0).then(|| runs().filter(|run| run.disturbed > DISTURBED).count() as f64 / all as f64)
}

fn best(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    values.flatten().min_by(f64::total_cmp)
}

fn ratio(value: Option<f64>, to: Option<f64>) -> Option<f64> {
    Some(value? / to.filter(|&to| to > 0.0)?)
}

/// The value in the middle; between two, their mean.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The interquartile range relative to the median. Not the full range: it grows with the number of runs, and a single
/// run that something else disturbed would make it. None for less than two values.
pub(crate) fn spread(values: &[f64]) -> Option<f64> {
    let middle = median(values).filter(|&middle| values.len() > 1 && middle > 0.0)?;
    Some((quantile(values, 0.75)? - quantile(values, 0.25)?) / middle)
}

/// Between two values, in proportion.
fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}

/// What all would have to be for the same product.
pub(crate) fn geometric_mean(values: &[f64]) -> Option<f64> {
    let logarithms: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (logarithms / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::sample::{cell, results, run};
    use super::*;

    #[test]
    fn median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[10.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn spread_ignores_a_single_outlier() {
        assert_eq!(spread(&[1.0]), None);
        assert_eq!(spread(&[8.0, 10.0, 12.0]), Some(0.2));
        assert_eq!(spread(&[10.0, 10.0, 10.0, 10.0, 99.0]), Some(0.0));
    }

    #[test]
    fn geometric_mean_is_of_the_product() {
        assert_eq!(geometric_mean(&[]), None);
        let mean = geometric_mean(&[1.0, 10.0, 100.0]).expect("there are values");
        assert!((mean - 10.0).abs() < 1e-9, "{mean}");
    }

    #[test]
    fn ratios_are_to_the_best_peer() {
        let results = results(&["magalloc", "system", "mimalloc-v3"], &[&[Some(8.0), Some(10.0), Some(20.0)]]);
        let statistics = Statistics::new(&results);
        let ratios: Vec<_> = statistics.rows[0].iter().map(|cell| cell.time_ratio).collect();
        assert_eq!(ratios, [Some(0.8), Some(1.0), Some(2.0)]);
        // Memory is not judged against the system's allocator.
        assert_eq!(statistics.rows[0][1].peak_ratio, Some(0.5));
    }

    #[test]
    fn failed_cell_has_no_numbers() {
        let mut results = results(&["magalloc", "system"], &[&[Some(8.0), Some(10.0)]]);
        results.rows[0].cells[1].failure = Some("killed by signal 11".to_owned());
        let statistics = Statistics::new(&results);
        assert_eq!(statistics.rows[0][1].time, None);
        assert_eq!(statistics.rows[0][0].time_ratio, None);
        assert_eq!(statistics.failures().collect::<Vec<_>>(), [("row-0", "system", "killed by signal 11")]);
    }

    #[test]
    fn peak_is_of_all_runs_and_the_rest_of_the_one_for_memory() {
        let mut cell = cell(10.0);
        cell.runs = vec![run(10.0, 100), run(10.0, 300)];
        let memory = cell.memory.as_mut().expect("the sample has it");
        (memory.measurement.peak, memory.measurement.end, memory.idle) = (200, 80, 50);
        let numbers = cell_numbers(&cell, Some(100.0));
        assert_eq!((numbers.peak, numbers.overhead), (Some(200.0), Some(2.0)));
        assert_eq!((numbers.end, numbers.idle), (Some(80.0), Some(50.0)));
    }

    #[test]
    fn machine_is_too_busy_beyond_a_quarter_of_the_runs() {
        let mut results = results(&["magalloc"], &[&[Some(1.0)], &[Some(1.0)], &[Some(1.0)], &[Some(1.0)]]);
        assert_eq!(Statistics::new(&results).disturbed, Some(0.0));
        results.rows[0].cells[0].runs[0].disturbed = 0.2;
        assert_eq!(Statistics::new(&results).too_busy(), None);
        results.rows[1].cells[0].runs[0].disturbed = 0.2;
        assert_eq!(Statistics::new(&results).too_busy(), Some(0.5));
    }

    #[test]
    fn nothing_measured_is_no_number() {
        let results = results(&[], &[]);
        let statistics = Statistics::new(&results);
        assert_eq!((statistics.disturbed, statistics.judged, statistics.time.best), (None, None, None));
    }
}
