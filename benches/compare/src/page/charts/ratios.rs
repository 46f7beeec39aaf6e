//! Charts of multiples of the best peer.

use plotly::common::{Anchor, DashType, Font, Line, Marker, Mode, Orientation, TextAnchor, TextPosition};
use plotly::layout::{AxisType, ItemSizing, Legend, Margin, Shape, ShapeLayer, ShapeLine, ShapeType, TraceOrder};
use plotly::{Bar, Plot, Scatter};

use super::{Chart, axis, chart, colour, drawn, layout, symbol, vertical};
use crate::statistics::text::{self, mebibytes};
use crate::statistics::{JUDGED, Means, Numbers, PEAK_ROW, Statistics, TIME_ROW, Value};

/// Where the axis of multiples is labelled, as far as it reaches: if it reaches far, and if not.
const TICKS: [f64; 11] = [0.25, 0.33, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0, 6.0, LAST];
const FINE_TICKS: [f64; 11] = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5];
/// An axis reaches far if its ends are this far apart.
const FAR: f64 = 3.0;
/// The largest multiple on the axis. What is beyond stands at its end: far enough off to be clear, and the rest keeps its
/// room.
const LAST: f64 = 10.0;

/// Pixels of a workload's row.
const ROW: usize = 25;
/// Pixels of a bar.
const BAR: usize = 30;

/// Bars of geometric means, with a line at the target.
pub(crate) fn means(statistics: &Statistics<'_>, means: &Means, id: &str, limit: f64) -> Option<Chart> {
    let mut shown: Vec<(usize, f64)> =
        statistics.columns.iter().filter_map(|&a| Some((a, means.relative[a]?))).collect();
    let most = shown.iter().map(|(_, mean)| *mean).max_by(f64::total_cmp)?;
    // From the bottom to the top.
    shown.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let names: Vec<&str> = shown.iter().map(|(a, _)| statistics.name(*a)).collect();
    let labels = names.iter().zip(&shown).map(|(name, (_, mean))| match *name {
        JUDGED => format!("<span style=\"color:white\"><b>{mean:.2}</b></span>"),
        _ => format!("{mean:.2}"),
    });
    let ticks = names.iter().map(|name| if *name == JUDGED { format!("<b>{name}</b>") } else { (*name).to_owned() });
    let bar = Bar::new(shown.iter().map(|(_, mean)| *mean).collect(), names.clone())
        .orientation(Orientation::Horizontal)
        .text_array(labels.collect::<Vec<_>>())
        .text_position(TextPosition::Inside)
        .inside_text_anchor(TextAnchor::End)
        .inside_text_font(Font::new().color("#14161a"))
        .text_angle(0.0)
        .hover_template("%{y}: %{x:.3f} of the best peer<extra></extra>")
        .marker(Marker::new().color_array(names.iter().map(|name| colour(name)).collect()));
    let mut plot = Plot::new();
    plot.add_trace(bar);
    let places = (0..names.len()).map(|place| place as f64).collect();
    let x = axis().range(vec![0.0, 1.02 * most]);
    let y = axis().show_grid(false).tick_values(places).tick_text(ticks.collect());
    let mut layout = layout(Margin::new().left(10).right(10).top(10).bottom(10)).x_axis(x).y_axis(y).bar_gap(0.3);
    layout.add_shape(vertical(1.0, DashType::Solid));
    if statistics.judged.is_some() {
        layout.add_shape(vertical(limit, DashType::Dot));
    }
    plot.set_layout(layout);
    Some(chart(id, "", BAR * names.len() + 50, plot))
}

/// Time of each workload.
pub(crate) fn time(statistics: &Statistics<'_>) -> Option<Chart> {
    let describe = |cell: &Numbers| cell.time.map_or_else(String::new, text::time);
    ratios(statistics, "time", |cell| cell.time_ratio, describe, TIME_ROW)
}

/// Peak memory of each workload.
pub(crate) fn peak(statistics: &Statistics<'_>) -> Option<Chart> {
    let describe = |cell: &Numbers| cell.peak.map_or_else(String::new, |peak| format!("{} MiB", mebibytes(peak)));
    ratios(statistics, "peak", |cell| cell.peak_ratio, describe, PEAK_ROW)
}

/// A row for each workload, a dot for each allocator; the judged allocator's best rows on top.
fn ratios(
    statistics: &Statistics<'_>,
    id: &str,
    ratio: Value,
    describe: impl Fn(&Numbers) -> String,
    limit: f64,
) -> Option<Chart> {
    let mut rows: Vec<usize> = (0..statistics.rows.len())
        .filter(|&row| statistics.rows[row].iter().any(|cell| ratio(cell).is_some()))
        .collect();
    // From the bottom to the top. Rows in which the judged allocator failed are the worst.
    let judged = |row: usize| statistics.judged.and_then(|a| ratio(&statistics.rows[row][a])).unwrap_or(f64::INFINITY);
    rows.sort_by(|&a, &b| judged(b).total_cmp(&judged(a)));
    let all = || rows.iter().flat_map(|&row| &statistics.rows[row]).filter_map(ratio);
    let (least, most) = (all().min_by(f64::total_cmp)?, all().max_by(f64::total_cmp)?);
    let mut plot = Plot::new();
    for allocator in drawn(statistics) {
        let name = statistics.name(allocator);
        let cells = rows.iter().enumerate().filter_map(|(place, &row)| {
            let cell = &statistics.rows[row][allocator];
            Some((place, row, cell, ratio(cell)?))
        });
        let (mut x, mut y, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        for (place, row, cell, ratio) in cells {
            x.push(ratio.min(LAST));
            y.push(place);
            let workload = statistics.results.rows[row].workload;
            notes.push(format!("{workload}: {}, {} of the best peer", describe(cell), text::ratio(ratio)));
        }
        let (size, opacity) = if name == JUDGED { (14, 1.0) } else { (9, 0.85) };
        let marker = Marker::new().color(colour(name)).symbol(symbol(name)).size(size).opacity(opacity);
        let marker = if name == JUDGED { marker.line(Line::new().color("white").width(1.5)) } else { marker };
        let trace = Scatter::new(x, y)
            .mode(Mode::Markers)
            .name(name)
            .marker(marker)
            .clip_on_axis(false)
            .hover_text_array(notes)
            .hover_template("%{hovertext}<extra>%{fullData.name}</extra>");
        plot.add_trace(trace);
    }
    let (first, last) = (0.93 * least, 1.06 * most.min(LAST));
    let ticks = if last / first > FAR { TICKS } else { FINE_TICKS };
    let ticks: Vec<f64> = ticks.into_iter().filter(|tick| (first..=last).contains(tick)).collect();
    let label = |tick: &f64| if *tick == LAST && most > LAST { format!("≥ {tick}") } else { format!("{tick}×") };
    let x = axis()
        .type_(AxisType::Log)
        .range(vec![first.log10(), last.log10()])
        .tick_text(ticks.iter().map(label).collect())
        .tick_values(ticks);
    let places = (0..rows.len()).map(|place| place as f64).collect();
    let name = |&row: &usize| {
        let workload = statistics.results.rows[row].workload;
        let failed = statistics.judged.is_some_and(|judged| statistics.failed(row, judged));
        if failed { format!("{workload} ({JUDGED} failed)") } else { workload.to_owned() }
    };
    let names = rows.iter().map(name).collect();
    let y = axis().tick_values(places).tick_text(names).range(vec![-0.7, rows.len() as f64 - 0.3]);
    // Traces are drawn from the last allocator to the first.
    let legend = Legend::new()
        .orientation(Orientation::Horizontal)
        .trace_order(TraceOrder::Reversed)
        .item_sizing(ItemSizing::Trace)
        .x(0.0)
        .y(1.0)
        .y_anchor(Anchor::Bottom);
    let mut layout = layout(Margin::new().left(10).right(16).top(10).bottom(10))
        .x_axis(x)
        .y_axis(y)
        .show_legend(true)
        .legend(legend);
    layout.add_shape(ahead(first));
    layout.add_shape(vertical(1.0, DashType::Solid));
    if statistics.judged.is_some() {
        layout.add_shape(vertical(limit, DashType::Dot));
    }
    plot.set_layout(layout);
    Some(chart(id, "", ROW * rows.len() + 100, plot))
}

/// What is better than the best peer.
fn ahead(first: f64) -> Shape {
    Shape::new()
        .shape_type(ShapeType::Rect)
        .layer(ShapeLayer::Below)
        .x_ref("x")
        .y_ref("paper")
        .x0(first)
        .x1(1.0)
        .y0(0.0)
        .y1(1.0)
        .fill_color("rgba(60, 170, 100, 0.09)")
        .line(ShapeLine::new().width(0.0))
}
