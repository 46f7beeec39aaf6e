//! One workload, measured from inside its process.

use crate::workloads::{Parameters, Workload};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fs;
use std::time::{Duration, Instant};

/// What one run was seen to do. Durations in nanoseconds, memory in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// From the workload's first instruction to its last.
    pub wall: u64,
    /// Processor time of all threads, user and system.
    pub cpu: u64,
    /// The kernel's part of `cpu`.
    pub system: u64,
    /// How many operations.
    pub operations: u64,
    /// The same for all allocators.
    pub checksum: u64,
    /// Page faults that the kernel served from memory.
    pub faults: u64,
    /// Context switches because a thread waited.
    pub waits: u64,
    /// Context switches because a thread had used its time slice.
    pub preemptions: u64,
    /// The most memory that was resident (`VmHWM`), with the program's own.
    pub peak: u64,
    /// Resident when the workload had ended.
    pub end: u64,
    /// How long requests took.
    pub latency: Option<Latency>,
    /// What was asked for, if the program was built to count it.
    pub counted: Option<Counted>,
}

/// Latencies of requests, in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the requests took at most this long.
    pub median: u64,
    /// 99 of 100 took at most this long.
    pub p99: u64,
    /// 999 of 1,000 took at most this long.
    pub p999: u64,
    /// The longest.
    pub most: u64,
}

/// What a workload asks of any allocator.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counted {
    /// Blocks that were allocated, reallocations not counted.
    pub blocks: u64,
    /// The most bytes that were live at once, as requested.
    pub live_peak: u64,
    /// Bytes that were live when the workload had ended.
    pub live_end: u64,
}

/// Runs `workload`. `count` reads what was counted; `afterwards` is called with the measurement while what the workload
/// keeps is still there.
pub fn measure(
    workload: &Workload,
    parameters: &Parameters,
    count: impl FnOnce() -> Option<Counted>,
    afterwards: impl FnOnce(&Measurement),
) {
    let before = usage();
    let start = Instant::now();
    let outcome = (workload.run)(parameters);
    let wall = start.elapsed();
    let after = usage();
    let counted = count();
    let end = resident();
    let peak = status("VmHWM:");
    let system = system_time(&after) - system_time(&before);
    afterwards(&Measurement {
        wall: nanoseconds(wall),
        cpu: nanoseconds(user_time(&after) - user_time(&before) + system),
        system: nanoseconds(system),
        operations: outcome.operations,
        checksum: outcome.checksum,
        faults: (after.ru_minflt - before.ru_minflt).cast_unsigned(),
        waits: (after.ru_nvcsw - before.ru_nvcsw).cast_unsigned(),
        preemptions: (after.ru_nivcsw - before.ru_nivcsw).cast_unsigned(),
        peak,
        end,
        latency: outcome.latencies.as_ref().map(latency),
        counted,
    });
    drop(outcome.kept);
}

/// Resident memory of this process, in bytes.
#[must_use]
pub fn resident() -> u64 {
    status("VmRSS:")
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    Latency {
        median: histogram.value_at_quantile(0.5),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        most: histogram.max(),
    }
}

/// What the process has used so far, all threads together, ended ones included.
fn usage() -> libc::rusage {
    // SAFETY: a struct of integers, for which zeroes are valid.
    let mut usage = unsafe { std::mem::zeroed() };
    // SAFETY: a valid place for the result.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    assert_eq!(result, 0, "getrusage of the process itself cannot fail");
    usage
}

fn user_time(usage: &libc::rusage) -> Duration {
    duration(usage.ru_utime)
}

fn system_time(usage: &libc::rusage) -> Duration {
    duration(usage.ru_stime)
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.cast_unsigned()) + Duration::from_micros(time.tv_usec.cast_unsigned())
}

/// A line of `/proc/self/status` that is in kB, in bytes.
fn status(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    status
        .lines()
        .find_map(|text| text.strip_prefix(line))
        .and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .expect("the kernel reports it")
        * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_their_names() {
        let mut histogram = Histogram::new(3).expect("three digits");
        (1..=1_000).for_each(|duration| histogram.record(duration).expect("within its range"));
        let Latency { median, p99, p999, most } = latency(&histogram);
        assert_eq!([median, p99, p999, most], [500, 990, 999, 1_000]);
    }
}
