//! Tables of workloads by allocators, tinted by how far a cell is from the best peer.

use crate::statistics::text::{self, mebibytes, or_none};
use crate::statistics::{Numbers, Statistics, Value};

/// One table.
pub(super) struct Grid {
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<(String, Vec<GridCell>)>,
}

/// One cell of it.
pub(super) struct GridCell {
    pub(super) text: String,
    /// In small print beside it.
    pub(super) note: String,
    /// Classes of the style sheet.
    pub(super) class: String,
}

/// Time, memory and latency; what was not measured is left out.
pub(super) fn all(statistics: &Statistics<'_>) -> Vec<Grid> {
    let time =
        "Median of wall time for one operation, and in small print the interquartile range of the runs relative to it.";
    let peak = "Median of the most that was resident, in MiB.";
    let idle = "Resident two seconds after the workload had ended, in MiB.";
    let rows = |value: Value, ratio: Value, format: fn(f64) -> String, note: fn(&Numbers) -> String| {
        let row = |(index, row): (usize, &crate::results::Row)| {
            (row.workload.to_owned(), cells(statistics, index, value, ratio, format, note))
        };
        statistics.results.rows.iter().enumerate().map(row).collect()
    };
    let grid = |title, note, rows| Grid {
        title,
        note,
        columns: statistics.columns.iter().map(|&a| statistics.name(a)).collect(),
        rows,
    };
    let spread = |cell: &Numbers| cell.time_spread.map_or_else(String::new, text::spread);
    let none = |_: &Numbers| String::new();
    let grids = [
        grid("Time of one operation", time, rows(|c| c.time, |c| c.time_ratio, text::time, spread)),
        grid("Peak resident memory", peak, rows(|c| c.peak, |c| c.peak_ratio, mebibytes, none)),
        grid("Resident memory after idling", idle, rows(|c| c.idle, |_| None, mebibytes, none)),
        grid("Latency of requests", "Medians of the runs.", latency(statistics)),
    ];
    grids.into_iter().filter(|grid| !grid.rows.is_empty()).collect()
}

fn latency(statistics: &Statistics<'_>) -> Vec<(String, Vec<GridCell>)> {
    let values: [(&str, Value); 3] = [
        ("half within", |cell| cell.latency.map(|latency| latency[0])),
        ("99 % within", |cell| cell.latency.map(|latency| latency[1])),
        ("99.9 % within", |cell| cell.latency.map(|latency| latency[2])),
    ];
    let mut rows = Vec::new();
    for (index, row) in statistics.results.rows.iter().enumerate() {
        if statistics.rows[index].iter().any(|cell| cell.latency.is_some()) {
            rows.extend(values.map(|(name, value)| {
                let cells = cells(statistics, index, value, |_| None, text::time, |_| String::new());
                (format!("{}, {name}", row.workload), cells)
            }));
        }
    }
    rows
}

fn cells(
    statistics: &Statistics<'_>,
    row: usize,
    value: Value,
    ratio: Value,
    format: fn(f64) -> String,
    note: fn(&Numbers) -> String,
) -> Vec<GridCell> {
    let best = statistics.rows[row].iter().filter_map(value).min_by(f64::total_cmp);
    let cell = |&a: &usize| {
        let numbers = &statistics.rows[row][a];
        if statistics.failed(row, a) {
            return GridCell { text: "failed".to_owned(), note: String::new(), class: "failed".to_owned() };
        }
        let number = value(numbers);
        let best = if number.is_some() && number == best { " best" } else { "" };
        let tint = ratio(numbers).map_or("", tint);
        GridCell { text: or_none(number, format), note: note(numbers), class: format!("{tint}{best}") }
    };
    statistics.columns.iter().map(cell).collect()
}

/// The class for a multiple of the best peer.
fn tint(ratio: f64) -> &'static str {
    match ratio {
        ..0.95 => "ahead",
        ..=1.05 => "even",
        ..=1.3 => "behind-1",
        ..=2.0 => "behind-2",
        _ => "behind-3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::sample::results;

    #[test]
    fn cells_are_tinted_by_their_distance_from_the_best_peer() {
        let results = results(&["magalloc", "system", "jemalloc"], &[&[Some(5.0), Some(10.0), Some(30.0)]]);
        let grids = all(&Statistics::new(&results));
        let classes: Vec<&str> = grids[0].rows[0].1.iter().map(|cell| cell.class.as_str()).collect();
        assert_eq!(classes, ["ahead best", "even", "behind-3"]);
    }

    #[test]
    fn failed_cell_says_so() {
        let results = results(&["magalloc", "system"], &[&[Some(5.0), None]]);
        let grids = all(&Statistics::new(&results));
        assert_eq!((grids[0].rows[0].1[1].text.as_str(), grids[0].rows[0].1[1].class.as_str()), ("failed", "failed"));
    }
}
