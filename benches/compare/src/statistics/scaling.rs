//! How cost changes with the number of blocks, and throughput with the number of threads.

use crate::results::Series;

/// The worst growth of cost over ten times the blocks, of one allocator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    /// The smaller number of blocks.
    pub(crate) from: usize,
    /// Time per block at ten times as many, as a multiple of that at `from`.
    pub(crate) ratio: f64,
}

/// Over all pairs of numbers of blocks of which one is ten times the other, or so: they are what a workload made of its
/// scale. None if there is none, or one of them failed:
/// what failed has no cost to be compared.
pub(crate) fn growth(series: &Series, allocator: usize) -> Option<Growth> {
    let values = points(series, allocator)?;
    let pair = |&(from, small): &(usize, f64)| {
        let (_, large) = values.iter().find(|(blocks, _)| blocks.abs_diff(10 * from) <= from / 10)?;
        Some(Growth { from, ratio: large / small })
    };
    values.iter().filter_map(pair).max_by(|a, b| a.ratio.total_cmp(&b.ratio))
}

/// What more threads than cores do to one allocator's throughput.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Beyond {
    /// Operations in a second of one thread, if it was measured.
    pub(crate) one: Option<f64>,
    /// Operations in a second of as many threads as cores.
    pub(crate) full: f64,
    /// The number of threads above that with the least throughput.
    pub(crate) threads: usize,
    /// Throughput there, as a multiple of `full`.
    pub(crate) ratio: f64,
}

/// None if it failed anywhere, or threads as many as cores, or more, were not measured.
pub(crate) fn beyond(series: &Series, allocator: usize, cores: usize) -> Option<Beyond> {
    let values: Vec<(usize, f64)> =
        points(series, allocator)?.into_iter().map(|(threads, time)| (threads, 1e9 / time)).collect();
    let at = |threads: usize| values.iter().find(|(at, _)| *at == threads).map(|(_, throughput)| *throughput);
    let full = at(cores)?;
    let above = values.iter().filter(|(threads, _)| *threads > cores);
    let (threads, least) = above.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
    Some(Beyond { one: at(1), full, threads: *threads, ratio: least / full })
}

/// All points of the series with their times. None if one failed.
fn points(series: &Series, allocator: usize) -> Option<Vec<(usize, f64)>> {
    let values = series.nanoseconds.get(allocator)?;
    series.at.iter().zip(values).map(|(&at, &value)| Some((at, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::sample::series;

    #[test]
    fn growth_is_the_worst_over_ten_times_the_blocks() {
        let series = series(&[1_000, 3_000, 10_000, 100_007], &[&[Some(10.0), Some(90.0), Some(10.5), Some(21.0)]]);
        assert_eq!(growth(&series, 0), Some(Growth { from: 10_000, ratio: 2.0 }));
    }

    #[test]
    fn growth_without_a_pair_or_with_a_failure_is_unknown() {
        assert_eq!(growth(&series(&[1_000, 3_000], &[&[Some(1.0), Some(1.0)]]), 0), None);
        assert_eq!(growth(&series(&[1, 10, 100], &[&[Some(1.0), Some(1.0), None]]), 0), None);
    }

    #[test]
    fn threads_beyond_the_cores_are_compared_with_the_cores() {
        let series = series(&[1, 4, 8, 16], &[&[Some(40.0), Some(10.0), Some(12.5), Some(10.0)]]);
        let expected = Beyond { one: Some(2.5e7), full: 1e8, threads: 8, ratio: 0.8 };
        assert_eq!(beyond(&series, 0, 4), Some(expected));
        assert_eq!(beyond(&series, 0, 16), None);
        assert_eq!(beyond(&series, 0, 3), None);
    }
}
