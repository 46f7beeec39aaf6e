//! The results as one HTML page with charts, which needs no network.

mod charts;
mod grid;

use askama::Template;
use jiff::Timestamp;
use plotly::Plot;

use crate::results::{Results, Row};
use crate::statistics::text::{self, count, mebibytes, or_none, thousands};
use crate::statistics::{MEMORY_PEERS, PEAK_MEAN, Statistics, TIME_MEAN, Target, geometric_mean};
use crate::table::busy;

use charts::{Chart, Swatch};
use grid::Grid;

/// What `templates/page.html` is filled with.
#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    results: &'a Results,
    verdict: String,
    busy: Option<String>,
    machine: String,
    effort: String,
    ended: String,
    /// The plotting library, as a script element.
    script: String,
    legend: Vec<Swatch>,
    time_mean: Option<Mean>,
    peak_mean: Option<Mean>,
    targets: Vec<Target>,
    time: Option<Chart>,
    peak: Option<Chart>,
    memory_peers: String,
    overhead: Vec<(&'static str, String)>,
    over_time: Vec<Chart>,
    threads: Vec<Chart>,
    blocks: Vec<Chart>,
    grids: Vec<Grid>,
    details: Vec<Detail>,
    failures: Vec<(&'static str, &'static str, &'a str)>,
}

/// A chart of geometric means, and what they are of.
struct Mean {
    chart: Chart,
    extent: String,
}

/// All numbers of a workload.
struct Detail {
    workload: &'static str,
    stands_for: &'static str,
    facts: String,
    rows: Vec<[String; 9]>,
}

/// The results as a page.
pub(crate) fn render(results: &Results) -> Result<String, askama::Error> {
    let statistics = &Statistics::new(results);
    let mean = |means, id, limit| {
        let chart = charts::means(statistics, means, id, limit)?;
        Some(Mean { chart, extent: statistics.extent(means) })
    };
    let rows = 0..results.rows.len();
    let page = Page {
        results,
        verdict: statistics.verdict(),
        busy: statistics.too_busy().map(busy),
        machine: text::machine(&results.machine),
        effort: effort(results),
        ended: ended(results.ended),
        script: script(),
        legend: charts::legend(statistics),
        time_mean: mean(&statistics.time, "time-mean", TIME_MEAN),
        peak_mean: mean(&statistics.peak, "peak-mean", PEAK_MEAN),
        targets: statistics.targets(),
        time: charts::time(statistics),
        peak: charts::peak(statistics),
        memory_peers: MEMORY_PEERS.join(", "),
        overhead: overhead(statistics),
        over_time: rows.clone().filter_map(|row| charts::over_time(statistics, row)).collect(),
        threads: charts::threads(statistics),
        blocks: charts::blocks(statistics),
        grids: grid::all(statistics),
        details: rows.map(|row| detail(statistics, row)).collect(),
        failures: statistics.failures().collect(),
    };
    page.render()
}

fn effort(results: &Results) -> String {
    let length = if results.scale == 1.0 { String::new() } else { format!(" at {} of the full length", results.scale) };
    let passes = count(results.passes, "timed run");
    let minutes = text::significant(results.seconds as f64 / 60.0);
    format!("{passes} of each workload on each allocator{length}, {minutes} minutes in all")
}

fn ended(seconds: u64) -> String {
    let timestamp = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    timestamp.map_or_else(|| seconds.to_string(), |timestamp| timestamp.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// The library's script alone: the one for formulas, which comes after it, would double the wait for nothing.
fn script() -> String {
    const END: &str = "</script>";
    let scripts = Plot::offline_js_sources();
    let end = scripts.find(END).map_or(scripts.len(), |at| at + END.len());
    scripts[..end].to_owned()
}

/// The geometric mean of peak resident to live memory, by allocator.
fn overhead(statistics: &Statistics<'_>) -> Vec<(&'static str, String)> {
    let mean = |&a: &usize| {
        let overheads: Vec<f64> = statistics.rows.iter().filter_map(|row| row[a].overhead).collect();
        Some((statistics.name(a), text::ratio(geometric_mean(&overheads)?)))
    };
    statistics.columns.iter().filter_map(mean).collect()
}

fn detail(statistics: &Statistics<'_>, index: usize) -> Detail {
    let row = &statistics.results.rows[index];
    let numbers = |&a: &usize| {
        let cell = &statistics.rows[index][a];
        [
            statistics.name(a).to_owned(),
            or_none(cell.time, text::time),
            or_none(cell.time_spread, text::spread),
            or_none(cell.time_ratio, text::ratio),
            or_none(cell.cpu, text::time),
            or_none(cell.peak, mebibytes),
            or_none(cell.overhead, text::ratio),
            or_none(cell.end, mebibytes),
            or_none(cell.idle, mebibytes),
        ]
    };
    let rows = statistics.columns.iter().map(numbers).collect();
    Detail { workload: row.workload, stands_for: row.stands_for, facts: facts(row), rows }
}

fn facts(row: &Row) -> String {
    let operations = row.cells.iter().flat_map(|cell| &cell.runs).map(|run| run.measurement.operations).max();
    let mut facts = count(row.threads, "thread");
    if let Some(operations) = operations {
        facts += &format!("; {} {}", thousands(operations), row.operations);
    }
    if let Some(counted) = row.counted {
        let [peak, end] = [counted.live_peak, counted.live_end].map(|bytes| mebibytes(bytes as f64));
        facts +=
            &format!("; {} blocks, at most {peak} MiB live at once, {end} MiB at the end", thousands(counted.blocks));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::sample::{plausible, results};

    /// What the page loads or leads to, apart from the script of the library, which is not ours.
    fn own_text(page: &str) -> String {
        page.replacen(&script(), "", 1)
    }

    #[test]
    fn page_has_every_workload_and_allocator() {
        let results = plausible();
        let page = own_text(&render(&results).expect("the page renders"));
        for row in &results.rows {
            assert!(page.contains(&format!("<h3>{}</h3>", row.workload)), "{}", row.workload);
        }
        for allocator in &results.allocators {
            assert!(page.contains(&format!("<td>{}</td>", allocator.name)), "{}", allocator.name);
        }
        assert!(page.contains("2023-11-14 22:13 UTC") && page.contains("killed by signal 11"));
    }

    #[test]
    fn page_needs_no_network() {
        let page = render(&plausible()).expect("the page renders");
        assert!(page.contains("Plotly.newPlot(") && page.contains(&script()));
        for loading in ["http:", "https:", "<link", "@import", "src=", "url("] {
            assert!(!own_text(&page).contains(loading), "{loading}");
        }
    }

    #[test]
    fn text_is_escaped() {
        let planted = "<script>alert(1)</script>";
        let mut results = results(&["magalloc", planted], &[&[Some(8.0), Some(10.0)], &[Some(8.0), None]]);
        results.rows[0].workload = planted;
        results.rows[0].stands_for = planted;
        results.rows[0].memory_over_time = true;
        for cell in &mut results.rows[0].cells {
            cell.memory.as_mut().expect("the sample has it").over_time = vec![(0, 1), (1, 2)];
        }
        results.command = planted.to_owned();
        results.allocators[1].flags = planted.to_owned();
        results.machine.processor = planted.to_owned();
        let page = render(&results).expect("the page renders");
        assert!(page.contains("alert(1)") && !page.contains("<script>alert"), "planted");
    }

    #[test]
    fn page_without_anything_measured_is_rendered() {
        let page = own_text(&render(&results(&[], &[])).expect("the page renders"));
        assert!(page.contains("took no part") && !page.contains("Plotly.newPlot"));
    }

    #[test]
    fn busy_machine_is_said() {
        let mut results = results(&["magalloc"], &[&[Some(8.0)]]);
        assert!(!render(&results).expect("the page renders").contains("too busy"));
        results.rows[0].cells[0].runs[0].disturbed = 0.5;
        assert!(render(&results).expect("the page renders").contains("too busy"));
    }
}
