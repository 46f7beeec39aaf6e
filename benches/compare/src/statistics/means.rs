//! Geometric means over the rows, and the best single peer by them.

use super::{JUDGED, geometric_mean};

/// Geometric means of one quantity, over the rows in which all allocators that are compared ended well.
#[derive(Debug)]
pub(crate) struct Means {
    /// The peer with the smallest mean.
    pub(crate) best: Option<usize>,
    /// For each allocator, its mean as a multiple of the best peer's. None if it is not compared.
    pub(crate) relative: Vec<Option<f64>>,
    /// How many rows the means are of.
    pub(crate) rows: usize,
    /// Indices of the rows that are left out because an allocator that is compared failed there.
    pub(crate) left_out: Vec<usize>,
    /// Indices of the allocators that are not compared although they ended well somewhere: they did not in more than half
    /// of the rows, and would take those from the others.
    pub(crate) not_compared: Vec<usize>,
}

impl Means {
    /// Of the values by row and allocator. `is_peer` tells by its name whether an allocator can be the best peer.
    pub(crate) fn new(names: &[&str], values: &[Vec<Option<f64>>], is_peer: impl Fn(&str) -> bool) -> Self {
        let ended = |a: usize| values.iter().filter(|row| row[a].is_some()).count();
        let measured: Vec<usize> = (0..values.len()).filter(|&row| values[row].iter().any(Option::is_some)).collect();
        let (compared, few): (Vec<usize>, Vec<usize>) = (0..names.len())
            .filter(|&a| ended(a) > 0)
            .partition(|&a| names[a] == JUDGED || 2 * ended(a) >= measured.len());
        let (rows, left_out): (Vec<usize>, Vec<usize>) =
            measured.iter().partition(|&&row| compared.iter().all(|&a| values[row][a].is_some()));
        let mean = |a: usize| {
            let values: Vec<f64> = rows.iter().filter_map(|&row| values[row][a]).collect();
            geometric_mean(&values).filter(|_| compared.contains(&a))
        };
        let means: Vec<Option<f64>> = (0..names.len()).map(mean).collect();
        let best = (0..names.len())
            .filter(|&a| is_peer(names[a]))
            .filter_map(|a| Some((a, means[a]?)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b));
        Self {
            best: best.map(|(a, _)| a),
            relative: means.iter().map(|mean| Some((*mean)? / best?.1)).collect(),
            rows: rows.len(),
            left_out,
            not_compared: few,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(values: &[Option<f64>], expected: &[Option<f64>]) {
        assert_eq!(values.len(), expected.len());
        for (value, expected) in values.iter().zip(expected) {
            let same = match (value, expected) {
                (Some(a), Some(b)) => (a - b).abs() < 1e-9,
                (a, b) => a == b,
            };
            assert!(same, "{values:?}");
        }
    }

    #[test]
    fn best_peer_is_the_one_with_the_smallest_mean() {
        // b wins a row by far, c is better in the mean.
        let rows = [vec![Some(4.0), Some(1.0), Some(8.0)], vec![Some(4.0), Some(256.0), Some(8.0)]];
        let means = Means::new(&[JUDGED, "b", "c"], &rows, |name| name != JUDGED);
        assert_eq!(means.best, Some(2));
        close(&means.relative, &[Some(0.5), Some(2.0), Some(1.0)]);
    }

    #[test]
    fn row_of_a_failure_is_left_out_of_all_means() {
        let rows = [vec![Some(1.0), Some(2.0)], vec![Some(100.0), None], vec![Some(2.0), Some(4.0)]];
        let means = Means::new(&[JUDGED, "b"], &rows, |name| name != JUDGED);
        close(&means.relative, &[Some(0.5), Some(1.0)]);
        assert_eq!((means.rows, means.left_out), (2, vec![1]));
    }

    #[test]
    fn peer_that_mostly_failed_takes_no_rows_from_the_others() {
        let rows =
            [vec![Some(1.0), Some(2.0), None], vec![Some(1.0), Some(2.0), None], vec![Some(1.0), Some(2.0), Some(0.1)]];
        let means = Means::new(&[JUDGED, "b", "c"], &rows, |name| name != JUDGED);
        assert_eq!((means.best, means.rows, means.not_compared), (Some(1), 3, vec![2]));
        close(&means.relative, &[Some(0.5), Some(1.0), None]);
    }

    #[test]
    fn without_peers_there_is_no_mean() {
        let means = Means::new(&[JUDGED], &[vec![Some(1.0)]], |name| name != JUDGED);
        close(&means.relative, &[None]);
    }
}
