//! The machine: what it is, and how much of it others are using.

use std::fs;
use std::process::Command;
use std::thread;

use memmap2::{Advice, MmapMut};

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
        huge_pages: fs::read_to_string(format!("{HUGE_PAGES}/enabled"))
            .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned()),
        commit: answer_of(Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(COMMIT)),
    }
}

/// Where the kernel says how it has huge pages, if it has them.
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage";

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

/// Has so many bytes of free memory ready, in huge pages. The host of a virtual machine takes back what is free there for
/// some seconds, and then the first use of a huge page takes many times as long as the next.
pub(crate) fn warm(bytes: u64) {
    // A hint: where there is not so much memory, or no huge page, runs go on as they are.
    drop(taken(bytes));
}

/// So many bytes, touched; they go with the value.
fn taken(bytes: u64) -> Option<MmapMut> {
    let mut memory = MmapMut::map_anon(usize::try_from(bytes).ok()?).ok()?;
    let _ = memory.advise(Advice::HugePage);
    memory.chunks_mut(PAGE).for_each(|page| page[0] = 1);
    Some(memory)
}

/// Bytes of a page, or less.
const PAGE: usize = 4096;

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
pub(crate) mod tests {
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

    /// Page faults of this thread so far.
    pub(crate) fn faults() -> i64 {
        // SAFETY: a struct of integers, for which zeroes are valid.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: a valid place for the result.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        usage.ru_minflt
    }

    /// What touching so many bytes takes at least.
    pub(crate) fn faults_of(bytes: u64) -> i64 {
        let huge_page = fs::read_to_string(format!("{HUGE_PAGES}/hpage_pmd_size"));
        let page = huge_page.map_or(PAGE as u64, |bytes| bytes.trim().parse().unwrap());
        // A huge page at each end may be incomplete.
        (bytes / page).saturating_sub(2).cast_signed()
    }

    #[test]
    fn warming_takes_memory() {
        const BYTES: u64 = 256 << 20;
        let before = faults();
        warm(BYTES);
        assert!(faults() - before >= faults_of(BYTES), "{}", faults() - before);
    }

    #[test]
    fn what_cannot_be_had_is_not_warmed() {
        let before = faults();
        warm(0);
        warm(u64::MAX);
        assert!(faults() - before < 100);
    }

    #[test]
    fn machine_is_known() {
        let machine = describe();
        assert!(machine.cores > 0 && machine.memory > 1 << 20, "{machine:?}");
        assert!(machine.kernel.starts_with("Linux"), "{machine:?}");
        assert_eq!(answer_of(&mut Command::new("a program that there is not")), "unknown");
        assert_eq!(answer_of(&mut Command::new("false")), "unknown");
    }

    #[test]
    fn memory_is_taken_in_huge_pages() {
        let memory = taken(4 << 20).expect("memory");
        let first = format!("{:x}-", memory.as_ptr().addr());
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        // A kernel without huge pages takes no advice.
        if fs::exists(HUGE_PAGES).unwrap() {
            let flags = maps.split(&first).nth(1).and_then(|text| text.split("VmFlags:").nth(1)?.lines().next());
            assert!(flags.is_some_and(|flags| flags.split(' ').any(|flag| flag == "hg")), "{flags:?}");
        }
    }
}
