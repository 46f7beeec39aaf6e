//! Charts of something that changes: memory with time, throughput with threads, cost with blocks.

use plotly::common::{Font, Line, Marker, Mode, Title};
use plotly::layout::{Axis, AxisType, Margin, RangeMode};
use plotly::{Plot, Scatter};

use super::{Chart, axis, chart, colour, drawn, layout, symbol};
use crate::results::Series;
use crate::statistics::text::short;
use crate::statistics::{JUDGED, Statistics};

/// Pixels.
const HEIGHT: usize = 230;

/// Resident memory of a workload over time, if that was recorded.
pub(crate) fn over_time(statistics: &Statistics<'_>, index: usize) -> Option<Chart> {
    let row = &statistics.results.rows[index];
    let mut plot = Plot::new();
    for allocator in drawn(statistics) {
        let points = row.cells.get(allocator).and_then(|cell| cell.memory.as_ref()).map(|memory| &memory.over_time);
        let points = points.filter(|points| !points.is_empty() && !statistics.failed(index, allocator));
        if let Some(points) = points {
            let seconds = points.iter().map(|(milliseconds, _)| *milliseconds as f64 / 1e3).collect();
            let mebibytes = points.iter().map(|(_, bytes)| *bytes as f64 / f64::from(1 << 20)).collect();
            let mode = Mode::Lines;
            plot.add_trace(line(statistics, allocator, seconds, mebibytes, mode, "%{x:.2f} s: %{y:.1f} MiB"));
        }
    }
    let x = axis().show_grid(false).title(small("seconds"));
    finished(&format!("over-time-{index}"), row.workload, plot, x, "MiB")
}

/// Throughput by the number of threads.
pub(crate) fn threads(statistics: &Statistics<'_>) -> Vec<Chart> {
    let value = |nanoseconds: f64| 1e3 / nanoseconds;
    let hover = "%{x} threads: %{y:.1f} million a second";
    let of = |(index, series)| {
        let id = format!("threads-{index}");
        by_size(statistics, series, &id, value, hover, ("threads", "M op/s"))
    };
    statistics.results.by_threads.iter().enumerate().filter_map(of).collect()
}

/// Time for one block by the number of blocks: flat, if ten times the blocks take ten times the time.
pub(crate) fn blocks(statistics: &Statistics<'_>) -> Vec<Chart> {
    let hover = "%{x} blocks: %{y:.1f} ns each";
    let of = |(index, series)| {
        let id = format!("blocks-{index}");
        by_size(statistics, series, &id, |nanoseconds| nanoseconds, hover, ("blocks", "ns a block"))
    };
    statistics.results.by_blocks.iter().enumerate().filter_map(of).collect()
}

fn by_size(
    statistics: &Statistics<'_>,
    series: &Series,
    id: &str,
    value: fn(f64) -> f64,
    hover: &str,
    (x_title, y_title): (&str, &str),
) -> Option<Chart> {
    let mut plot = Plot::new();
    for allocator in drawn(statistics) {
        let values = series.nanoseconds.get(allocator).map_or(&[][..], Vec::as_slice);
        let points =
            series.at.iter().zip(values).filter_map(|(&at, nanoseconds)| Some((at as f64, value((*nanoseconds)?))));
        let (x, y): (Vec<f64>, Vec<f64>) = points.unzip();
        if !x.is_empty() {
            plot.add_trace(line(statistics, allocator, x, y, Mode::LinesMarkers, hover));
        }
    }
    let ticks = series.at.iter().map(|&at| at as f64).collect();
    let labels = series.at.iter().map(|&at| short(at as f64)).collect();
    let x = axis().type_(AxisType::Log).tick_values(ticks).tick_text(labels).title(small(x_title));
    finished(id, series.workload, plot, x, y_title)
}

fn line(
    statistics: &Statistics<'_>,
    allocator: usize,
    x: Vec<f64>,
    y: Vec<f64>,
    mode: Mode,
    hover: &str,
) -> Box<Scatter<f64, f64>> {
    let name = statistics.name(allocator);
    let (width, size) = if name == JUDGED { (3.0, 9) } else { (1.75, 6) };
    Scatter::new(x, y)
        .mode(mode)
        .name(name)
        .line(Line::new().color(colour(name)).width(width))
        .marker(Marker::new().color(colour(name)).symbol(symbol(name)).size(size))
        .hover_template(format!("{hover}<extra>%{{fullData.name}}</extra>"))
}

/// An axis's title, no larger than its labels.
fn small(title: &str) -> Title {
    Title::from(title).font(Font::new().size(12))
}

/// None if nothing is in the plot.
fn finished(id: &str, title: &'static str, mut plot: Plot, x: Axis, y_title: &str) -> Option<Chart> {
    if plot.data().is_empty() {
        return None;
    }
    let y = axis().range_mode(RangeMode::ToZero).title(small(y_title));
    plot.set_layout(layout(Margin::new().left(10).right(10).top(10).bottom(10)).x_axis(x).y_axis(y));
    Some(chart(id, title, HEIGHT, plot))
}
