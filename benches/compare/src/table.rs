//! The results as text for a terminal, without colours: it is also read in the logs of CI.

use std::fmt::Write;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, LineStyle, Table};

use crate::results::Results;
use crate::statistics::text::{self, NONE, count, mebibytes, or_none};
use crate::statistics::{MEMORY_PEERS, Means, Statistics, Value, beyond, growth};

/// All of the results as text, the verdict last: it is what remains in sight.
pub(crate) fn render(results: &Results) -> String {
    let statistics = Statistics::new(results);
    let mut text = format!("{}\n{}\n\n", text::machine(&results.machine), results.command);
    section(&mut text, "Allocators", allocators(results));
    section(
        &mut text,
        "Wall time of one operation (* best; magalloc also as a multiple of the best peer)",
        time(&statistics),
    );
    let spread = values(&statistics, |cell| cell.time_spread, |share| format!("{} %", text::percent(share)));
    section(&mut text, "Spread of that: the middle half of the runs lies within so much of the median", spread);
    section(&mut text, "Processor time of one operation", values(&statistics, |cell| cell.cpu, text::time));
    section(
        &mut text,
        &format!(
            "Peak resident memory in MiB (* best; magalloc also as a multiple of the best of {}; live is what the \
             program itself asked for)",
            MEMORY_PEERS.join(", ")
        ),
        peak(&statistics),
    );
    section(
        &mut text,
        "Resident memory in MiB when the workload has ended",
        values(&statistics, |cell| cell.end, mebibytes),
    );
    section(
        &mut text,
        "Resident memory in MiB after two idle seconds",
        values(&statistics, |cell| cell.idle, mebibytes),
    );
    section(
        &mut text,
        "Peak resident memory as a multiple of what was live then",
        values(&statistics, |cell| cell.overhead, text::ratio),
    );
    section(&mut text, "Page faults of a run", values(&statistics, |cell| cell.faults, text::whole));
    section(&mut text, "Context switches of a run", values(&statistics, |cell| cell.switches, text::whole));
    section(&mut text, "Latency of requests", latency(&statistics));
    section(&mut text, "Throughput by threads, in million operations a second", threads(&statistics));
    section(&mut text, "Time by blocks: what ten times the blocks cost at worst, as a multiple", blocks(&statistics));
    section(&mut text, "Targets", targets(&statistics));
    notes(&mut text, &statistics);
    text
}

fn section(text: &mut String, title: &str, table: Option<Table>) {
    if let Some(table) = table {
        *text += &format!("{title}\n\n{}\n\n", table.trim_fmt());
    }
}

/// The first column to the left, the others to the right.
fn table(first: &str, others: impl IntoIterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING.header_separator(LineStyle::none().fill('─').junction('─')));
    table.set_header([first.to_owned()].into_iter().chain(others));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn names(statistics: &Statistics<'_>) -> impl Iterator<Item = String> {
    statistics.columns.iter().map(|&a| statistics.name(a).to_owned())
}

/// A cell for each allocator: the value with a mark if it is the best, or that it failed.
fn cells(statistics: &Statistics<'_>, row: usize, value: Value, format: fn(f64) -> String) -> Vec<String> {
    let best = statistics.rows[row].iter().filter_map(value).min_by(f64::total_cmp);
    let cell = |&a: &usize| match value(&statistics.rows[row][a]) {
        _ if statistics.failed(row, a) => "failed".to_owned(),
        Some(value) if Some(value) == best => format!("*{}", format(value)),
        value => or_none(value, format),
    };
    statistics.columns.iter().map(cell).collect()
}

/// Cells for each row, with two for the judged allocator: the value, and its ratio to the best peer.
fn compared(
    statistics: &Statistics<'_>,
    means: &Means,
    value: Value,
    ratio: Value,
    format: fn(f64) -> String,
) -> Vec<Vec<String>> {
    let place = statistics.judged.and_then(|judged| statistics.columns.iter().position(|&a| a == judged));
    let with_ratio = |mut cells: Vec<String>, ratio: String| {
        if let Some(place) = place {
            cells.insert(place + 1, ratio);
        }
        cells
    };
    let row = |(row, workload): (usize, &str)| {
        let ratio = statistics.judged.and_then(|judged| ratio(&statistics.rows[row][judged]));
        let mut cells = with_ratio(cells(statistics, row, value, format), or_none(ratio, text::ratio));
        cells.insert(0, workload.to_owned());
        cells
    };
    let workloads = statistics.results.rows.iter().map(|row| row.workload).enumerate();
    let means = statistics.columns.iter().map(|&a| or_none(means.relative[a], text::ratio));
    let mut means = with_ratio(means.collect(), String::new());
    means.insert(0, "geometric mean, relative".to_owned());
    let mut header = with_ratio(names(statistics).collect(), "of best".to_owned());
    header.insert(0, "workload".to_owned());
    [header].into_iter().chain(workloads.map(row)).chain([means]).collect()
}

fn filled(mut rows: Vec<Vec<String>>) -> Table {
    let mut header = rows.remove(0);
    let first = header.remove(0);
    let mut table = table(&first, header);
    table.add_rows(rows);
    table
}

fn allocators(results: &Results) -> Option<Table> {
    let mut table = table("allocator", ["malloc + free", "version", "built"].map(str::to_owned));
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    for allocator in &results.allocators {
        let pair = or_none(allocator.pair, text::time);
        table.add_row([allocator.name.to_owned(), pair, allocator.version.clone(), allocator.flags.clone()]);
    }
    (!table.is_empty()).then_some(table)
}

fn any(statistics: &Statistics<'_>, value: Value) -> bool {
    statistics.rows.iter().flatten().any(|cell| value(cell).is_some())
}

fn time(statistics: &Statistics<'_>) -> Option<Table> {
    if statistics.rows.is_empty() {
        return None;
    }
    Some(filled(compared(statistics, &statistics.time, |cell| cell.time, |cell| cell.time_ratio, text::time)))
}

fn peak(statistics: &Statistics<'_>) -> Option<Table> {
    if !any(statistics, |cell| cell.peak) {
        return None;
    }
    let mut rows = compared(statistics, &statistics.peak, |cell| cell.peak, |cell| cell.peak_ratio, mebibytes);
    let live = statistics.results.rows.iter().map(|row| or_none(row.counted.map(|c| c.live_peak as f64), mebibytes));
    let live = ["live".to_owned()].into_iter().chain(live).chain([String::new()]);
    for (row, live) in rows.iter_mut().zip(live) {
        row.push(live);
    }
    Some(filled(rows))
}

/// A value of each cell, without anything that follows from it.
fn values(statistics: &Statistics<'_>, value: Value, format: fn(f64) -> String) -> Option<Table> {
    if !any(statistics, value) {
        return None;
    }
    let mut table = table("workload", names(statistics));
    for (index, row) in statistics.results.rows.iter().enumerate() {
        let cells = cells(statistics, index, value, format);
        table.add_row([row.workload.to_owned()].into_iter().chain(cells));
    }
    Some(table)
}

fn latency(statistics: &Statistics<'_>) -> Option<Table> {
    if !any(statistics, |cell| cell.latency.map(|latency| latency[0])) {
        return None;
    }
    let mut table = table("workload", names(statistics));
    for (index, row) in statistics.results.rows.iter().enumerate() {
        if statistics.rows[index].iter().all(|cell| cell.latency.is_none()) {
            continue;
        }
        let values: [(&str, Value); 3] = [
            ("p50", |cell| cell.latency.map(|latency| latency[0])),
            ("p99", |cell| cell.latency.map(|latency| latency[1])),
            ("p99.9", |cell| cell.latency.map(|latency| latency[2])),
        ];
        for (name, value) in values {
            let cells = cells(statistics, index, value, text::time);
            table.add_row([format!("{} {name}", row.workload)].into_iter().chain(cells));
        }
    }
    Some(table)
}

fn threads(statistics: &Statistics<'_>) -> Option<Table> {
    let mut table = table("workload", names(statistics));
    let cores = statistics.results.machine.cores;
    for series in &statistics.results.by_threads {
        for (at, threads) in series.at.iter().enumerate() {
            let value = |&a: &usize| series.nanoseconds.get(a)?.get(at).copied()?;
            let cells = statistics.columns.iter().map(|a| or_none(value(a), |time| text::significant(1e3 / time)));
            table.add_row([format!("{}, {}", series.workload, count(*threads, "thread"))].into_iter().chain(cells));
        }
        let lost = |&a: &usize| or_none(beyond(series, a, cores).map(|b| b.ratio), |ratio| format!("{ratio:.2}"));
        let cells = statistics.columns.iter().map(lost);
        table.add_row(["  beyond the cores".to_owned()].into_iter().chain(cells));
    }
    (!table.is_empty()).then_some(table)
}

fn blocks(statistics: &Statistics<'_>) -> Option<Table> {
    let mut table = table("workload", names(statistics));
    for series in &statistics.results.by_blocks {
        let times = |&a: &usize| or_none(growth(series, a).map(|growth| 10.0 * growth.ratio), text::significant);
        table.add_row([series.workload.to_owned()].into_iter().chain(statistics.columns.iter().map(times)));
    }
    (!table.is_empty()).then_some(table)
}

fn targets(statistics: &Statistics<'_>) -> Option<Table> {
    let targets = statistics.targets();
    let mut table = table("target", ["measured", "at most", ""].map(str::to_owned));
    for target in &targets {
        let measured = target.measured.as_deref().unwrap_or(NONE);
        table.add_row([target.what, measured, &target.limit, target.verdict()]);
    }
    (!targets.is_empty()).then_some(table)
}

fn notes(text: &mut String, statistics: &Statistics<'_>) {
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes all");
    // Not in the table: they are longer than all the rest, and would push the columns apart.
    for target in statistics.targets() {
        line(format!("{}: {}", target.what, target.detail));
    }
    for (workload, allocator, failure) in statistics.failures() {
        line(format!("{allocator}: {workload}: {failure}"));
    }
    for allocator in &statistics.results.allocators {
        if let Some(reason) = &allocator.refused {
            line(format!("{} took no part: {reason}", allocator.name));
        }
    }
    if let Some(share) = statistics.too_busy() {
        line(busy(share));
    }
    line(format!("\n{}", statistics.verdict()));
}

/// The warning that nothing is to be trusted.
pub(crate) fn busy(share: f64) -> String {
    let share = text::percent(share);
    format!(
        "The machine was too busy to trust: in {share} % of the runs, others took more than a tenth of its processors. \
         Run it again on a machine at rest."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::sample::{plausible, results};

    #[test]
    fn text_fits_a_wide_terminal() {
        let text = render(&plausible());
        // Lines of tables begin with a blank; a terminal wraps the others well.
        for line in text.lines().filter(|line| line.starts_with(' ')) {
            assert!(line.chars().count() <= 140, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn everything_found_out_is_in_the_text() {
        let mut results = plausible();
        results.allocators[7].refused = Some("it is a debug build".to_owned());
        let text = render(&results);
        for row in &results.rows {
            assert!(text.contains(row.workload), "{}", row.workload);
        }
        assert!(text.contains("snmalloc: fragmentation: killed by signal 11"));
        assert!(text.contains("tcmalloc took no part: it is a debug build"));
        assert!(text.contains("geometric mean, relative") && text.contains("p99.9") && text.contains("not met"));
        assert!(!text.contains("too busy"));
    }

    #[test]
    fn refused_allocator_has_no_column() {
        let mut results = results(&["magalloc", "jemalloc"], &[&[Some(8.0), Some(10.0)]]);
        results.allocators[1].refused = Some("does not build".to_owned());
        let text = render(&results);
        assert!(text.lines().all(|line| !line.starts_with(" workload") || !line.contains("jemalloc")), "{text}");
    }

    #[test]
    fn ratio_stands_beside_the_judged_allocator() {
        let text = render(&results(&["system", "magalloc"], &[&[Some(10.0), Some(8.0)]]));
        let line = text.lines().find(|line| line.contains("row-0")).expect("it is a row");
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["row-0", "10.0", "ns", "*8.00", "ns", "0.80"]);
    }

    #[test]
    fn busy_machine_is_said() {
        let mut results = results(&["magalloc"], &[&[Some(8.0)]]);
        results.rows[0].cells[0].runs[0].disturbed = 0.5;
        assert!(render(&results).contains("too busy to trust: in 100 % of the runs"));
    }

    #[test]
    fn nothing_measured_is_rendered() {
        assert!(render(&results(&[], &[])).contains("took no part"));
    }
}
