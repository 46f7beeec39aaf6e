//! What the load measured, as a table.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::tally::Tally;

/// Memory of the process at one moment, in bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Handed out by the allocator.
    pub(crate) live: u64,
    /// In the caches of threads.
    pub(crate) cached: u64,
    /// Usable without asking the system.
    pub(crate) committed: u64,
    /// Resident, where the system tells.
    pub(crate) resident: Option<u64>,
    /// Does the system's allocator serve, so that all but `resident` is unknown?
    pub(crate) disabled: bool,
}

impl Memory {
    /// The present state.
    pub(crate) fn now() -> Self {
        let stats = magalloc::stats();
        let (live, cached, committed) = (stats.live, stats.cached, stats.committed);
        Self { live, cached, committed, resident: resident(), disabled: stats.disabled }
    }

    /// The larger value of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            live: self.live.max(other.live),
            cached: self.cached.max(other.cached),
            committed: self.committed.max(other.committed),
            resident: self.resident.max(other.resident),
            disabled: self.disabled || other.disabled,
        }
    }
}

/// Resident bytes of this process. Taken from `status`, where they stand in units of 1024 bytes;
/// `statm` has them in pages, whose size would have to be asked for.
#[cfg(target_os = "linux")]
pub(crate) fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Not known here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn resident() -> Option<u64> {
    None
}

/// The outcome of a load.
pub(crate) struct Report {
    /// How long the clients sent requests.
    pub(crate) elapsed: Duration,
    /// How many clients there were.
    pub(crate) clients: u64,
    /// How many threads served and drove them.
    pub(crate) threads: usize,
    /// The requests of all clients.
    pub(crate) tally: Tally,
    /// The highest values seen during the load, each by itself.
    pub(crate) peak: Memory,
    /// The state when the documents were deleted and the clients closed.
    pub(crate) after: Memory,
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { elapsed, clients, threads, tally, peak, after } = self;
        // What was between two samples may have been missed.
        let peak = peak.max(*after);
        let latency = &tally.latency;
        let requests = latency.len();
        let rate = requests as f64 / elapsed.as_secs_f64();
        let elapsed = elapsed.as_secs_f64();
        writeln!(f, "{clients} clients on {threads} threads for {elapsed:.1} s")?;
        writeln!(f)?;
        writeln!(f, "requests     {requests:>14}")?;
        writeln!(f, "requests/s   {rate:>14.0}")?;
        writeln!(f, "errors       {:>14}", tally.errors)?;
        writeln!(f, "latency p50  {:>14}", millis(latency.value_at_quantile(0.50)))?;
        writeln!(f, "latency p99  {:>14}", millis(latency.value_at_quantile(0.99)))?;
        writeln!(f, "latency max  {:>14}", millis(latency.max()))?;
        writeln!(f)?;
        row(f, "", ["live", "cached", "committed", "resident"])?;
        row(f, "peak", peak.cells().each_ref().map(String::as_str))?;
        row(f, "after", after.cells().each_ref().map(String::as_str))?;
        if let Some(reason) = &tally.first_error {
            writeln!(f)?;
            writeln!(f, "first error: {reason}")?;
        }
        Ok(())
    }
}

impl Memory {
    fn cells(&self) -> [String; 4] {
        let resident = self.resident.map_or_else(|| "n/a".into(), mebibytes);
        let figures = [self.live, self.cached, self.committed];
        let [live, cached, committed] =
            figures.map(|bytes| if self.disabled { "disabled".into() } else { mebibytes(bytes) });
        [live, cached, committed, resident]
    }
}

fn row(f: &mut Formatter<'_>, name: &str, cells: [&str; 4]) -> fmt::Result {
    let [live, cached, committed, resident] = cells;
    writeln!(f, "{name:<6}{live:>13}{cached:>13}{committed:>13}{resident:>13}")
}

/// Bytes for people.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
}

fn millis(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_takes_each_value_by_itself() {
        let a = Memory { live: 5, cached: 1, committed: 9, resident: None, disabled: false };
        let b = Memory { live: 3, cached: 2, committed: 8, resident: Some(7), disabled: false };
        let max = a.max(b);
        assert_eq!((max.live, max.cached, max.committed, max.resident), (5, 2, 9, Some(7)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn resident_bytes_are_known_on_linux() {
        assert!(resident().is_some_and(|bytes| bytes > 100_000));
    }

    fn table(peak: Memory, after: Memory) -> String {
        let elapsed = Duration::from_secs(2);
        Report { elapsed, clients: 3, threads: 4, tally: Tally::new(), peak, after }.to_string()
    }

    fn cells<'t>(table: &'t str, name: &str) -> Vec<&'t str> {
        let line = table.lines().find(|line| line.starts_with(name)).expect("a row of that name");
        line.split_whitespace().collect()
    }

    #[test]
    fn table_has_a_cell_for_what_is_not_known() {
        let table = table(Memory { live: 3 << 20, ..Memory::default() }, Memory::default());
        assert_eq!(cells(&table, "peak"), ["peak", "3.00", "MiB", "0.00", "MiB", "0.00", "MiB", "n/a"]);
        assert!(!table.contains("first error"));
    }

    #[test]
    fn peak_is_no_less_than_what_came_later() {
        let table = table(Memory::default(), Memory { committed: 3 << 20, ..Memory::default() });
        assert_eq!(cells(&table, "peak")[5..7], ["3.00", "MiB"]);
    }

    #[test]
    fn disabled_allocator_has_no_figures() {
        let memory = Memory { disabled: true, resident: Some(1 << 20), ..Memory::default() };
        assert_eq!(
            cells(&table(memory, memory), "after"),
            ["after", "disabled", "disabled", "disabled", "1.00", "MiB"]
        );
    }
}
