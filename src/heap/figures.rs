//! The figures of the statistics by name, and their texts: for people, as JSON, and as metrics.
//!
//! ```text
//! # Role        the one table of names, units and meanings; whatever shows statistics goes by it
//! # Memory      all texts are written piece by piece to where the caller wants them: nothing is allocated
//! # Metrics     the text format of Prometheus (0.0.4), with names by its conventions; what it does not know (UNIT) is a comment to
//!               it. Each family is written once; there is no end mark, so that other metrics may follow
//! ```

use super::stats::{ClassStats, Stats};
use core::fmt::{self, Display, Formatter};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Bytes that there are.
    Bytes,
    /// How many there are.
    Count,
    /// Bytes, since the heap began.
    BytesTotal,
    /// How many there were, since the heap began.
    Total,
    /// 0 or 1.
    Switch,
}

impl Unit {
    /// Is the figure in bytes?
    #[must_use]
    pub const fn is_bytes(self) -> bool {
        matches!(self, Self::Bytes | Self::BytesTotal)
    }
}

/// A figure of [`Stats`], by name: [`Stats::figures`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figure {
    /// The field's name, which is its name wherever statistics are shown.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// What it says, in a few words.
    pub help: &'static str,
    /// Its value.
    pub value: u64,
}

macro_rules! figures {
    ($($name:ident $unit:ident $help:literal)*) => {
        /// How many figures there are.
        const FIGURES: usize = [$(stringify!($name)),*].len();

        impl Stats {
            /// All figures, by name.
            ///
            /// ```
            /// for figure in magalloc::stats().figures() {
            ///     println!("{}: {}", figure.name, figure.value);
            /// }
            /// ```
            #[must_use]
            pub fn figures(&self) -> [Figure; FIGURES] {
                [$(Figure { name: stringify!($name), unit: Unit::$unit, help: $help, value: self.$name.into() }),*]
            }
        }
    };
}

figures! {
    live Bytes "Blocks that the program has"
    cached Bytes "Free blocks in thread caches"
    free Bytes "Free blocks in slabs, and free spans"
    dirty Bytes "Free spans whose pages have not gone back to the kernel"
    unusable Bytes "Ends of slabs, too short for a block"
    metadata Bytes "The allocator's own memory"
    resident Bytes "The heap's part that is in memory, at most"
    held Bytes "Spans in use, and free ones that have not gone back"
    held_peak Bytes "The most that was ever held"
    committed Bytes "Memory that may be touched"
    mapped Bytes "Address space that is mapped"
    large Bytes "Large blocks that the program has"
    large_blocks Count "Large blocks that the program has"
    slabs Count "Slabs in use, or not given back yet"
    free_blocks Count "Free blocks in slabs, and one for all free spans"
    threads Count "Threads that have a cache"
    allocations Total "Blocks ever allocated, an estimate"
    slow_calls Total "Calls of malloc and free that a loaded magazine could not serve"
    refills Total "Times that blocks went from slabs to a thread cache"
    flushes Total "Times that blocks went from a thread cache to slabs"
    steals Total "Magazines taken from other threads' caches"
    os_calls Total "Calls of the operating system for memory"
    purges Total "Calls that gave pages back"
    purged BytesTotal "Address space whose pages these gave back"
    disabled Switch "Whether the system's allocator serves the program"
}

/// A number of bytes for people, in the unit that suits it: three digits.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl Display for Bytes {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let Some(power) = (self.0.max(1).ilog2() / 10).checked_sub(1) else { return write!(out, "{} B", self.0) };
        let value = self.0 as f64 / (1_u64 << (10 * (power + 1))) as f64;
        let unit = UNITS.get(power as usize).unwrap_or(&"EiB");
        // What would be rounded up to four digits is shown as such.
        let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        write!(out, "{value:.digits$} {unit}")
    }
}

/// Pads what it shows to so many columns, to the left.
struct Column<T>(T, usize);

impl<T: Display> Display for Column<T> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        struct Width(usize);
        impl fmt::Write for Width {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0 += text.len();
                Ok(())
            }
        }
        let mut width = Width(0);
        fmt::write(&mut width, format_args!("{}", self.0))?;
        let pad = self.1.saturating_sub(width.0);
        write!(out, "{:pad$}{}", "", self.0)
    }
}

/// A table for people: a line for each figure, its name, its value in a unit that suits it, and what it says.
impl Display for Stats {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for Figure { name, unit, help, value } in self.figures() {
            write!(out, "{name:<12} ")?;
            match unit {
                Unit::Bytes | Unit::BytesTotal => Column(Bytes(value), 12).fmt(out)?,
                Unit::Count | Unit::Total | Unit::Switch => write!(out, "{value:>12}")?,
            }
            writeln!(out, "  {help}")?;
        }
        Ok(())
    }
}

impl Stats {
    /// The figures as one JSON object, without a line's end; with those of `classes`, which may be none, in its list
    /// `classes`. Bytes and counts are numbers.
    ///
    /// ```
    /// let json = magalloc::stats().json(&magalloc::class_stats()).to_string();
    /// assert!(json.starts_with("{\"live\":") && json.ends_with("]}"));
    /// ```
    pub fn json<'s>(&'s self, classes: &'s [ClassStats]) -> impl Display + 's {
        Json(self, classes)
    }

    /// The figures as metrics, in the text format that Prometheus reads (`text/plain; version=0.0.4`), with a HELP and a TYPE
    /// line each, and a UNIT line where it is in bytes; with those of `classes`, which may be none, by size class.
    ///
    /// ```
    /// let metrics = magalloc::stats().metrics(&magalloc::class_stats()).to_string();
    /// assert!(metrics.contains("# TYPE magalloc_live_bytes gauge\n# UNIT magalloc_live_bytes bytes\nmagalloc_live_bytes "));
    /// ```
    pub fn metrics<'s>(&'s self, classes: &'s [ClassStats]) -> impl Display + 's {
        Metrics(self, classes)
    }
}

/// Classes in which there was ever anything.
fn used(classes: &[ClassStats]) -> impl Iterator<Item = &ClassStats> {
    classes.iter().filter(|class| class.slabs != 0 || class.allocations != 0)
}

struct Json<'s>(&'s Stats, &'s [ClassStats]);

impl Display for Json<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str("{")?;
        for Figure { name, value, .. } in self.0.figures() {
            write!(out, "\"{name}\":{value},")?;
        }
        out.write_str("\"classes\":[")?;
        for (number, class) in used(self.1).enumerate() {
            let ClassStats { block_bytes, slabs, cached, allocations, .. } = class;
            let (comma, live) = (if number == 0 { "" } else { "," }, class.live());
            write!(out, "{comma}{{\"block\":{block_bytes},\"slabs\":{slabs},\"live\":{live},\"cached\":{cached},")?;
            write!(out, "\"allocations\":{allocations}}}")?;
        }
        out.write_str("]}")
    }
}

/// The name of a metric: `magalloc_`, the figure's, and what its unit adds.
#[derive(Clone, Copy)]
struct Name(&'static str, Unit);

impl Display for Name {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let ending = match self.1 {
            Unit::Bytes => "_bytes",
            Unit::Count | Unit::Switch => "",
            Unit::BytesTotal => "_bytes_total",
            Unit::Total => "_total",
        };
        write!(out, "magalloc_{}{ending}", self.0)
    }
}

impl Name {
    /// The lines before the values.
    fn head(self, help: &str, out: &mut Formatter<'_>) -> fmt::Result {
        let kind = if matches!(self.1, Unit::BytesTotal | Unit::Total) { "counter" } else { "gauge" };
        writeln!(out, "# HELP {self} {help}.\n# TYPE {self} {kind}")?;
        if self.1.is_bytes() { writeln!(out, "# UNIT {self} bytes") } else { Ok(()) }
    }
}

struct Metrics<'s>(&'s Stats, &'s [ClassStats]);

impl Display for Metrics<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for Figure { name, unit, help, value } in self.0.figures() {
            let name = Name(name, unit);
            name.head(help, out)?;
            writeln!(out, "{name} {value}")?;
        }
        let bytes = |class: &ClassStats, blocks: u64| blocks * u64::from(class.block_bytes);
        type Of<'a> = &'a dyn Fn(&ClassStats) -> u64;
        let of_classes: [(&'static str, Unit, &str, Of<'_>); 4] = [
            ("class_live", Unit::Bytes, "Blocks of a size class that the program has", &ClassStats::live_bytes),
            ("class_cached", Unit::Bytes, "Free blocks of a size class in thread caches", &|of| bytes(of, of.cached)),
            ("class_slabs", Unit::Count, "Slabs of a size class", &|of| of.slabs),
            ("class_allocations", Unit::Total, "Blocks of a size class ever allocated, an estimate", &|of| {
                of.allocations
            }),
        ];
        for (name, unit, help, of) in of_classes.into_iter().filter(|_| used(self.1).next().is_some()) {
            let name = Name(name, unit);
            name.head(help, out)?;
            for class in used(self.1) {
                writeln!(out, "{name}{{block=\"{}\"}} {}", class.block_bytes, of(class))?;
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn classes() -> [ClassStats; 3] {
        let class = |block_bytes, slabs, blocks, cached, allocations| ClassStats {
            block_bytes,
            slabs,
            blocks,
            cached,
            allocations,
        };
        [class(8, 0, 0, 0, 0), class(64, 2, 300, 100, 4000), class(32 << 10, 1, 1, 0, 1)]
    }

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_239, "10.0 KiB"),
            (123_456, "121 KiB"),
            (8 << 20, "8.00 MiB"),
            (1_122_444_902_400, "1.02 TiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (number, words) in cases {
            assert_eq!(Bytes(number).to_string(), words);
        }
    }

    #[test]
    fn table_has_a_line_for_each_figure() {
        let stats = Stats { live: 1536, held_peak: 3 << 30, refills: 7, ..Stats::default() };
        let text = stats.to_string();
        assert_eq!(text.lines().count(), FIGURES);
        assert!(text.starts_with("live             1.50 KiB  Blocks that the program has\n"), "{text}");
        for line in [
            "held_peak        3.00 GiB  The most",
            "refills                 7  Times",
            "disabled                0  Whether",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }

    /// That no field was forgotten.
    #[test]
    fn every_field_is_a_figure() {
        let debug = std::format!("{:?}", Stats::default());
        let fields: BTreeSet<&str> = debug.split([' ', '{', ',']).filter_map(|word| word.strip_suffix(':')).collect();
        let figures: BTreeSet<&str> = Stats::default().figures().iter().map(|figure| figure.name).collect();
        assert_eq!((fields.len(), &fields), (FIGURES, &figures));
    }

    #[test]
    fn json_has_figures_and_used_classes() {
        let stats = Stats { live: 5, disabled: true, ..Stats::default() };
        let text = stats.json(&classes()).to_string();
        assert!(text.starts_with(r#"{"live":5,"cached":0,"#), "{text}");
        let end = r#","disabled":1,"classes":[{"block":64,"slabs":2,"live":200,"cached":100,"allocations":4000},{"block":32768,"slabs":1,"live":1,"cached":0,"allocations":1}]}"#;
        assert!(text.ends_with(end), "{text}");
        assert!(stats.json(&[]).to_string().ends_with(r#","disabled":1,"classes":[]}"#));
    }

    /// What is wrong with a text of metrics, by the text format and Prometheus's conventions (as `promtool check metrics`).
    fn wrong(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let (mut seen, mut family) = (BTreeSet::new(), [""; 2]);
        let mut lines = text.split_inclusive('\n').peekable();
        while let Some(line) = lines.next() {
            let Some(line) = line.strip_suffix('\n') else { return vec!["no end of line".into()] };
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let is_right = match words[..] {
                ["#", "HELP", name, help] => {
                    let kind = lines.peek().and_then(|next| next.strip_prefix("# TYPE ")?.trim_end().split_once(' '));
                    family = [name, kind.map_or("", |kind| kind.1)];
                    seen.insert(name.to_string()) && help.ends_with('.') && kind.is_some_and(|kind| kind.0 == name)
                }
                ["#", "TYPE", name, "counter"] => name == family[0] && name.ends_with("_total"),
                ["#", "TYPE", name, "gauge"] => name == family[0] && !name.ends_with("_total"),
                ["#", "UNIT", name, unit] => name == family[0] && name.trim_end_matches("_total").ends_with(unit),
                [sample, value] => {
                    let (name, labels) = sample.split_at(sample.find('{').unwrap_or(sample.len()));
                    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                    let number = labels.strip_prefix("{block=\"").and_then(|rest| rest.strip_suffix("\"}"));
                    let labelled = labels.is_empty() || number.is_some_and(|number| number.parse::<u32>().is_ok());
                    name == family[0]
                        && is_name
                        && labelled
                        && value.parse::<u64>().is_ok()
                        && seen.insert([sample, " "].concat())
                }
                _ => false,
            };
            if !is_right {
                found.push(line.to_string());
            }
        }
        found
    }

    #[test]
    fn metrics_are_as_the_text_format_wants_them() {
        let stats = Stats { live: 5, purged: 6, refills: 7, ..Stats::default() };
        let text = stats.metrics(&classes()).to_string();
        assert_eq!(wrong(&text), [""; 0]);
        for sample in ["magalloc_live_bytes 5\n", "magalloc_purged_bytes_total 6\n", "magalloc_refills_total 7\n"] {
            assert!(text.contains(sample), "{text}");
        }
        assert!(text.contains(
            "\nmagalloc_class_live_bytes{block=\"64\"} 12800\nmagalloc_class_live_bytes{block=\"32768\"} 32768\n"
        ));
        assert!(!stats.metrics(&[]).to_string().contains("class"));
    }

    #[test]
    fn wrong_metrics_are_noticed() {
        let good = "# HELP a_bytes A.\n# TYPE a_bytes gauge\n# UNIT a_bytes bytes\na_bytes 1\n";
        assert_eq!(wrong(good), [""; 0]);
        for (from, to) in
            [("gauge", "counter"), ("A.", "A"), ("a_bytes 1", "b_bytes 1"), (" 1", " x"), ("TYPE a_bytes", "TYPE a")]
        {
            assert!(!wrong(&good.replace(from, to)).is_empty(), "{from} {to}");
        }
        assert_eq!(wrong(&good.repeat(2)).len(), 2, "a family twice");
        assert_eq!(wrong("a 1"), ["no end of line"]);
    }
}
