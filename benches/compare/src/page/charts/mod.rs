//! The charts: what they show is in the modules, how they look is here.
//!
//! All colours read on a light and on a dark page; that of text is set by the style sheet, which knows the page's.

mod lines;
mod ratios;

use plotly::common::{DashType, Font, MarkerSymbol};
use plotly::configuration::DisplayModeBar;
use plotly::layout::{Axis, DragMode, HoverMode, Margin, Shape, ShapeLayer, ShapeLine, ShapeType, TicksDirection};
use plotly::{Configuration, Layout, Plot};

use crate::statistics::{JUDGED, Statistics};

pub(super) use lines::{blocks, over_time, threads};
pub(super) use ratios::{means, peak, time};

/// Grids and other lines that should not be noticed.
const FAINT: &str = "rgba(128, 128, 128, 0.2)";
/// Lines that mean something.
const REFERENCE: &str = "rgba(128, 128, 128, 0.9)";

/// One chart, as HTML.
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) html: String,
    /// In pixels: the width is the page's.
    pub(super) height: usize,
}

/// An allocator in a legend.
pub(super) struct Swatch {
    pub(super) name: &'static str,
    pub(super) colour: &'static str,
}

/// A strong colour for the judged allocator, muted ones for its peers; the two versions of one are of one hue.
fn colour(name: &str) -> &'static str {
    match name {
        JUDGED => "#e8501f",
        "mimalloc-v2" => "#8db6e0",
        "mimalloc-v3" => "#4479b5",
        "jemalloc" => "#5aa578",
        "snmalloc" => "#a283c6",
        "rpmalloc" => "#c4a544",
        "tcmalloc" => "#4fb3b8",
        _ => "#9a9da3",
    }
}

/// For eyes that do not tell the colours apart.
fn symbol(name: &str) -> MarkerSymbol {
    match name {
        "mimalloc-v2" => MarkerSymbol::TriangleUp,
        "mimalloc-v3" => MarkerSymbol::TriangleDown,
        "jemalloc" => MarkerSymbol::Square,
        "snmalloc" => MarkerSymbol::Diamond,
        "rpmalloc" => MarkerSymbol::Pentagon,
        "tcmalloc" => MarkerSymbol::Hexagram,
        "system" => MarkerSymbol::X,
        _ => MarkerSymbol::Circle,
    }
}

/// Of the allocators that took part.
pub(super) fn legend(statistics: &Statistics<'_>) -> Vec<Swatch> {
    let swatch = |&a: &usize| Swatch { name: statistics.name(a), colour: colour(statistics.name(a)) };
    statistics.columns.iter().map(swatch).collect()
}

/// The columns from the last to the first: what is drawn last is on top.
fn drawn(statistics: &Statistics<'_>) -> impl Iterator<Item = usize> {
    let (judged, peers): (Vec<usize>, Vec<usize>) =
        statistics.columns.iter().rev().partition(|&&a| Some(a) == statistics.judged);
    peers.into_iter().chain(judged)
}

fn layout(margin: Margin) -> Layout {
    Layout::new()
        .font(Font::new().family("system-ui, sans-serif").size(13))
        .paper_background_color("rgba(0, 0, 0, 0)")
        .plot_background_color("rgba(0, 0, 0, 0)")
        .show_legend(false)
        // A page that is scrolled on a phone should not zoom its charts.
        .drag_mode(DragMode::False)
        .hover_mode(HoverMode::Closest)
        .margin(margin)
}

fn axis() -> Axis {
    Axis::new()
        .grid_color(FAINT)
        .zero_line(false)
        .fixed_range(true)
        .auto_margin(true)
        .tick_angle(0.0)
        // Unseen ticks keep the labels off the data.
        .ticks(TicksDirection::Outside)
        .tick_length(6)
        .tick_color("rgba(0, 0, 0, 0)")
}

/// A vertical line from the bottom to the top.
fn vertical(at: f64, dash: DashType) -> Shape {
    let line = ShapeLine::new().color(REFERENCE).width(1.5).dash(dash);
    Shape::new()
        .shape_type(ShapeType::Line)
        .layer(ShapeLayer::Below)
        .x_ref("x")
        .y_ref("paper")
        .x0(at)
        .x1(at)
        .y0(0.0)
        .y1(1.0)
        .line(line)
}

fn chart(id: &str, title: &'static str, height: usize, mut plot: Plot) -> Chart {
    plot.set_configuration(Configuration::new().responsive(true).display_mode_bar(DisplayModeBar::False));
    Chart { title, html: plot.to_inline_html(Some(id)), height }
}
