//! The project's targets, and whether they are met.

use super::{Means, Statistics, Value, beyond, growth, text};
use crate::results::Series;

/// Time: at most this multiple of the best single peer's geometric mean.
pub(crate) const TIME_MEAN: f64 = 0.85;
/// Peak memory: the same.
pub(crate) const PEAK_MEAN: f64 = 0.95;
/// Time: at most this multiple of the best peer in any row.
pub(crate) const TIME_ROW: f64 = 1.05;
/// Peak memory: the same.
pub(crate) const PEAK_ROW: f64 = 1.15;
/// At most this multiple of the time for ten times the blocks.
const TEN_TIMES: f64 = 11.0;
/// At most this share of throughput lost by more threads than cores.
const LOST: f64 = 0.05;

/// One target.
#[derive(Debug)]
pub(crate) struct Target {
    /// What is limited.
    pub(crate) what: &'static str,
    /// How.
    pub(crate) limit: String,
    /// What was measured; None if nothing was.
    pub(crate) measured: Option<String>,
    /// None if it cannot be said.
    pub(crate) met: Option<bool>,
    /// Against whom, over what, and what else there is to know.
    pub(crate) detail: String,
}

impl Target {
    /// `met`, in words.
    pub(crate) fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "not met",
            None => "not measured",
        }
    }
}

impl Statistics<'_> {
    /// All targets of [`super::JUDGED`]; none if it took no part.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let Some(judged) = self.judged else { return Vec::new() };
        let rows = |what, limit, of: Value| self.every_row(judged, what, limit, of);
        vec![
            self.mean(judged, "Time, geometric mean", TIME_MEAN, &self.time),
            rows("Time, every workload", TIME_ROW, |cell| cell.time_ratio),
            self.mean(judged, "Peak memory, geometric mean", PEAK_MEAN, &self.peak),
            rows("Peak memory, every workload", PEAK_ROW, |cell| cell.peak_ratio),
            self.ten_times(judged),
            self.more_threads(judged),
        ]
    }

    /// What is to be known first, in a sentence.
    pub(crate) fn verdict(&self) -> String {
        let Some(judged) = self.judged else {
            return "magalloc took no part: there is nothing to judge.".to_owned();
        };
        let part = |means: &Means, quantity| {
            let peer = self.name(means.best?);
            Some(format!("{} % of the {quantity} of {peer}", text::percent(means.relative[judged]?)))
        };
        let parts: Vec<String> = [part(&self.time, "time"), part(&self.peak, "memory")].into_iter().flatten().collect();
        let targets = self.targets();
        let met = targets.iter().filter(|target| target.met == Some(true)).count();
        let known = targets.iter().filter(|target| target.met.is_some()).count();
        let busy = if self.too_busy().is_some() { ", on a machine too busy to trust it" } else { "" };
        let met = format!("{met} of {} are met{busy}", text::count(known, "measured target"));
        match parts.as_slice() {
            [] => format!("magalloc could not be compared with any peer; {met}."),
            parts => {
                let best =
                    if parts.len() > 1 { ", the best peers in the mean of" } else { ", the best peer in the mean of" };
                let workloads = text::count(self.time.rows, "workload");
                format!("magalloc takes {}{best} {workloads}; {met}.", parts.join(" and "))
            }
        }
    }

    /// What a mean is of, in words: how many rows, and why not all.
    pub(crate) fn extent(&self, means: &Means) -> String {
        let all = means.rows + means.left_out.len();
        let mut extent = format!("over {} of {}", means.rows, text::count(all, "workload"));
        if !means.left_out.is_empty() {
            let names: Vec<String> = means.left_out.iter().map(|&row| self.left_out(row)).collect();
            extent += &format!("; left out, because an allocator failed there: {}", names.join(", "));
        }
        if !means.not_compared.is_empty() {
            let names: Vec<&str> = means.not_compared.iter().map(|&a| self.name(a)).collect();
            extent += &format!("; not compared, because it failed in most: {}", names.join(", "));
        }
        extent
    }

    /// A row's workload, and who failed there.
    fn left_out(&self, row: usize) -> String {
        let failed = (0..self.results.allocators.len()).filter(|&allocator| self.failed(row, allocator));
        let names: Vec<&str> = failed.map(|allocator| self.name(allocator)).collect();
        format!("{} ({})", self.results.rows[row].workload, names.join(", "))
    }

    fn mean(&self, judged: usize, what: &'static str, limit: f64, means: &Means) -> Target {
        let measured = means.relative[judged];
        let detail = match means.best {
            Some(best) => format!("{} is the best peer; {}", self.name(best), self.extent(means)),
            None => "no peer to compare with".to_owned(),
        };
        Target {
            what,
            limit: format!("{limit:.2} of the best peer"),
            measured: measured.map(text::precise_ratio),
            met: measured.map(|measured| measured <= limit),
            detail,
        }
    }

    /// A failure of the judged allocator is a row in which it is not as good as its best peer.
    fn every_row(&self, judged: usize, what: &'static str, limit: f64, of: Value) -> Target {
        let ratios: Vec<(usize, f64)> =
            self.rows.iter().enumerate().filter_map(|(row, cells)| Some((row, of(&cells[judged])?))).collect();
        let above = ratios.iter().filter(|(_, ratio)| *ratio > limit).count();
        let failed = (0..self.rows.len()).filter(|&row| self.failed(row, judged)).count();
        let worst = ratios.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let mut detail = match worst {
            Some(&(row, _)) => {
                let workload = self.results.rows[row].workload;
                format!("worst in {workload}; {above} of {} above the limit", text::count(ratios.len(), "workload"))
            }
            None => "no workload to compare".to_owned(),
        };
        if failed > 0 {
            detail += &format!("; magalloc failed in {failed}");
        }
        Target {
            what,
            limit: format!("{limit:.2} of the best peer"),
            measured: worst.map(|(_, ratio)| text::precise_ratio(*ratio)),
            met: (failed > 0 || worst.is_some()).then_some(failed == 0 && above == 0),
            detail,
        }
    }

    fn ten_times(&self, judged: usize) -> Target {
        let series = &self.results.by_blocks;
        let all = series.iter().filter_map(|series| Some((series, growth(series, judged)?)));
        let worst = all.max_by(|(_, a), (_, b)| a.ratio.total_cmp(&b.ratio));
        let failed = failed(series, judged);
        let measured = worst.map(|(_, growth)| 10.0 * growth.ratio);
        let detail = worst.map(|(series, growth)| {
            format!("worst in {}, from {} blocks", series.workload, text::thousands(growth.from as u64))
        });
        Target {
            what: "Ten times the blocks",
            limit: format!("{TEN_TIMES:.0} times the time"),
            measured: measured.map(|times| format!("{} times", text::significant(times))),
            met: scaling_met(measured.map(|measured| measured <= TEN_TIMES), !failed.is_empty()),
            detail: scaling_detail(detail, &failed),
        }
    }

    fn more_threads(&self, judged: usize) -> Target {
        let (series, cores) = (&self.results.by_threads, self.results.machine.cores);
        let all = series.iter().filter_map(|series| Some((series, beyond(series, judged, cores)?)));
        let worst = all.min_by(|(_, a), (_, b)| a.ratio.total_cmp(&b.ratio));
        let failed = failed(series, judged);
        let lost = worst.map(|(_, beyond)| (1.0 - beyond.ratio).max(0.0));
        let detail = worst.map(|(series, beyond)| {
            let speedup = beyond.one.map(|one| {
                format!("; {} threads do {} times what one does", cores, text::significant(beyond.full / one))
            });
            format!(
                "worst in {}, {} threads on {cores} cores{}",
                series.workload,
                beyond.threads,
                speedup.unwrap_or_default()
            )
        });
        Target {
            what: "More threads than cores",
            limit: format!("{} % of throughput lost", text::percent(LOST)),
            measured: lost.map(|lost| format!("{} %", text::percent(lost))),
            met: scaling_met(lost.map(|lost| lost <= LOST), !failed.is_empty()),
            detail: scaling_detail(detail, &failed),
        }
    }
}

/// Names of the series in which the allocator failed at some point.
fn failed(series: &[Series], allocator: usize) -> Vec<&'static str> {
    let failed = |series: &&Series| series.nanoseconds.get(allocator).is_some_and(|values| values.contains(&None));
    series.iter().filter(failed).map(|series| series.workload).collect()
}

fn scaling_met(measured: Option<bool>, failed: bool) -> Option<bool> {
    if failed { Some(false) } else { measured }
}

fn scaling_detail(worst: Option<String>, failed: &[&str]) -> String {
    let failed = (!failed.is_empty()).then(|| format!("failed in {}", failed.join(", ")));
    let parts: Vec<String> = worst.into_iter().chain(failed).collect();
    if parts.is_empty() { "was not run".to_owned() } else { parts.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::sample::{results, series};

    const NAMES: [&str; 3] = ["magalloc", "mimalloc-v3", "jemalloc"];

    fn met(results: &crate::results::Results) -> Vec<Option<bool>> {
        Statistics::new(results).targets().iter().map(|target| target.met).collect()
    }

    #[test]
    fn targets_are_met_by_a_better_allocator() {
        let mut results =
            results(&NAMES, &[&[Some(8.0), Some(10.0), Some(20.0)], &[Some(8.0), Some(20.0), Some(10.0)]]);
        results.machine.cores = 4;
        results.by_blocks = vec![series(&[10, 100], &[&[Some(10.0), Some(10.9)]])];
        results.by_threads = vec![series(&[1, 4, 8], &[&[Some(10.0), Some(3.0), Some(3.1)]])];
        assert_eq!(met(&results), [Some(true); 6]);
        let statistics = Statistics::new(&results);
        assert_eq!(statistics.targets()[1].measured.as_deref(), Some("0.800"));
        assert!(statistics.verdict().contains("6 of 6"), "{}", statistics.verdict());
    }

    #[test]
    fn targets_are_not_met_by_a_worse_one() {
        let mut results = results(&NAMES, &[&[Some(12.0), Some(10.0), Some(20.0)]]);
        results.machine.cores = 4;
        results.by_blocks = vec![series(&[10, 100], &[&[Some(10.0), Some(11.1)]])];
        results.by_threads = vec![series(&[1, 4, 8], &[&[Some(10.0), Some(3.0), Some(3.2)]])];
        assert_eq!(met(&results), [Some(false); 6]);
    }

    #[test]
    fn one_bad_row_misses_its_target_only() {
        let good: &[Option<f64>] = &[Some(5.0), Some(10.0), Some(10.0)];
        let results = results(&NAMES, &[good, good, good, good, &[Some(12.0), Some(10.0), Some(10.0)]]);
        assert_eq!(met(&results), [Some(true), Some(false), Some(true), Some(false), None, None]);
        let target = &Statistics::new(&results).targets()[1];
        assert!(target.detail.contains("row-4") && target.detail.contains("1 of 5 workloads"), "{}", target.detail);
    }

    #[test]
    fn failure_of_a_peer_leaves_its_row_out_of_the_mean_and_says_so() {
        let bad: &[Option<f64>] = &[Some(30.0), Some(10.0), None];
        let good: &[Option<f64>] = &[Some(5.0), Some(10.0), Some(10.0)];
        let targets = Statistics::new(&results(&NAMES, &[good, bad, good])).targets();
        assert_eq!((targets[0].met, targets[1].met), (Some(true), Some(false)));
        assert!(targets[0].detail.contains("over 2 of 3 workloads") && targets[0].detail.contains("row-1"));
    }

    #[test]
    fn own_failure_misses_every_row() {
        let good: &[Option<f64>] = &[Some(5.0), Some(10.0), Some(10.0)];
        let mut results = results(&NAMES, &[good, good, good]);
        results.rows[2].cells[0].failure = Some("killed by signal 11".to_owned());
        assert_eq!(met(&results)[..4], [Some(true), Some(false), Some(true), Some(false)]);
    }

    #[test]
    fn failed_point_misses_the_target_of_scaling() {
        let mut results = results(&NAMES, &[]);
        results.by_blocks = vec![series(&[10, 100], &[&[Some(10.0), None]])];
        let targets = Statistics::new(&results).targets();
        assert_eq!((targets[4].met, targets[5].met), (Some(false), None));
    }

    #[test]
    fn without_the_judged_or_without_peers_nothing_is_said() {
        let without = results(&["system", "jemalloc"], &[&[Some(1.0), Some(2.0)]]);
        assert!(Statistics::new(&without).targets().is_empty());
        assert!(Statistics::new(&without).verdict().contains("took no part"));
        assert_eq!(met(&results(&["magalloc"], &[&[Some(1.0)]])), [None; 6]);
    }
}
