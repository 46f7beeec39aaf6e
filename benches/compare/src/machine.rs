//! The machine: what it is, and how much of it others are using.

use std::fs;
use std::process::Command;
use std::thread;

use crate::results::Machine;

/// Describes the machine. What cannot be read is "unknown".
pub(crate) fn describe() -> Machine {
    Machine {
        processor: value_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
        cores: cores(),
        memory: value_of("/proc/meminfo", "MemTotal")
            .and_then(|text| text.strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .map_or(0, |kilobytes| kilobytes * 1024),
        kernel: ["ostype", "osrelease"]
            .map(|name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_else(|_| "unknown".into()))
            .map(|text| text.trim().to_owned())
            .join(" "),
        compiler: answer_of(Command::new("rustc").arg("--version")),
        huge_pages: fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
            .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned()),
        commit: answer_of(Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(COMMIT)),
    }
}

/// What asks git for the commit.
const COMMIT: [&str; 5] = ["describe", "--always", "--dirty", "--abbrev=9", "--exclude=*"];

/// What a command writes; "unknown" where it cannot be run or fails.
fn answer_of(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".into())
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The first value of `key` in a file of lines `key : value`.
fn value_of(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Processor time that the whole machine has spent since it was started, in clock ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// By anyone, also by other guests of the hypervisor.
    busy: u64,
    /// `busy`, and idle.
    all: u64,
}

impl Spent {
    /// Reads it; nothing at all if it cannot be read.
    pub(crate) fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// The first line: user, nice, system, idle, iowait, irq, softirq, steal; what follows is in user already.
    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|text| text.parse().ok()).collect();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        let all = ticks.iter().sum();
        Self { busy: all - idle, all }
    }

    /// Share of the machine that others than a process with `own` nanoseconds of processor time used from `self` to
    /// `later`: 0 to 1.
    pub(crate) fn by_others(self, later: Self, own: u64) -> f64 {
        // What the kernel's interfaces for user space count in.
        const TICK: f64 = 1e7;
        let all = later.all.saturating_sub(self.all) as f64 * TICK;
        let busy = later.busy.saturating_sub(self.busy) as f64 * TICK;
        // Each core's account is a tick late at most.
        let others = busy - own as f64 - cores() as f64 * TICK;
        if all == 0.0 { 0.0 } else { (others / all).clamp(0.0, 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_what_is_busy_without_the_own() {
        let before = Spent::parse("cpu  100 0 50 1000 10 0 0 5 0 0\ncpu0 1 2 3\n");
        let later = Spent::parse("cpu  5150 0 60 12120 10 0 0 2945 0 0\n");
        // 8,000 ticks of 19,120 were busy; 6,000 of them, 60 s, were the process's own.
        let expected = (2_000.0 - cores() as f64) / 19_120.0;
        assert!((before.by_others(later, 60_000_000_000) - expected).abs() < 1e-9);
        assert_eq!(before.by_others(later, 200_000_000_000), 0.0);
        assert_eq!(before.by_others(before, 0), 0.0);
    }

    #[test]
    fn machine_is_known() {
        let machine = describe();
        assert!(machine.cores > 0 && machine.memory > 1 << 20, "{machine:?}");
        assert!(machine.kernel.starts_with("Linux"), "{machine:?}");
        assert_eq!(answer_of(&mut Command::new("a program that there is not")), "unknown");
        assert_eq!(answer_of(&mut Command::new("false")), "unknown");
    }
}
