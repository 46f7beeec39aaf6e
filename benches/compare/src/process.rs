//! One run: a process of the program to be measured, watched from the outside.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use magalloc_compare_subject::workloads::Shown;
use magalloc_compare_subject::{Measurement, Workload};

use crate::machine::{self, Spent};
use crate::results::{MemoryRun, Run};

/// Longer than any workload takes on any allocator here by an order of magnitude. Then the process is killed.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// How often resident memory is looked at.
const SAMPLE: Duration = Duration::from_millis(10);

/// What determines everything random in the workloads.
const SEED: u64 = 42;

/// Processes of a workload that is timed from the outside, at full length. One takes a millisecond.
const STARTS: f64 = 200.0;

/// How the names of variables begin that some allocator obeys.
const SETTINGS: [&[u8]; 9] = [
    b"GLIBC_TUNABLES",
    b"JE_MALLOC",
    b"LD_PRELOAD",
    b"MAGALLOC_",
    b"MALLOC_",
    b"MIMALLOC_",
    b"RPMALLOC_",
    b"TCMALLOC_",
    b"_RJEM_MALLOC",
];

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task<'program> {
    /// The program, built on some allocator.
    pub(crate) program: &'program Path,
    /// What it shall do.
    pub(crate) workload: &'static Workload,
    /// Share of the full length.
    pub(crate) scale: f64,
    /// Threads that work at once.
    pub(crate) threads: usize,
    /// Bytes of free memory that the machine is to have ready when a timed run begins.
    pub(crate) ready: u64,
    /// When the process is killed.
    pub(crate) limit: Duration,
}

impl Task<'_> {
    /// A timed run.
    pub(crate) fn timed(&self) -> Result<Run, String> {
        machine::warm(self.ready);
        let (before, own) = (Spent::read(), own_time());
        let (measurement, cpu) = match self.workload.shown {
            Shown::Process => {
                let measurement = self.starts()?;
                let cpu = measurement.cpu;
                (measurement, cpu)
            }
            _ => {
                let end = self.start(false)?.end()?;
                (end.measurement, end.cpu)
            }
        };
        let disturbed = before.by_others(Spent::read(), cpu + own_time() - own);
        Ok(Run { measurement, disturbed })
    }

    /// A run for memory; `ended` is called when the process has nothing more to do than to be idle.
    pub(crate) fn for_memory(&self, ended: impl FnOnce()) -> Result<MemoryRun, String> {
        let process = self.start(true)?;
        let pid = process.child.id();
        let recorded = self.workload.shown == Shown::RowAndMemory;
        let (stop, stopped) = channel::<()>();
        thread::scope(|scope| {
            let samples = scope.spawn(move || if recorded { sample(pid, &stopped) } else { Vec::new() });
            let end = process.end_with(ended);
            drop(stop);
            let over_time = samples.join().expect("sampling does not panic");
            let end = end?;
            let idle = end.idle.ok_or("did not say what is resident after being idle")?;
            Ok(MemoryRun { measurement: end.measurement, idle, over_time })
        })
    }

    /// Several processes, one after the other; times are those of whole processes.
    fn starts(&self) -> Result<Measurement, String> {
        let count = (STARTS * self.scale).round().max(1.0) as u64;
        let start = Instant::now();
        let mut cpu = 0;
        let mut last = None;
        for _ in 0..count {
            let end = self.start(false)?.end()?;
            cpu += end.cpu;
            last = Some(end.measurement);
        }
        let wall = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let last = last.expect("one at least");
        Ok(Measurement { wall, cpu, operations: last.operations * count, ..last })
    }

    fn start(&self, idle: bool) -> Result<Process, String> {
        let mut child = self
            .command(idle, std::env::vars_os().map(|variable| variable.0))
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", self.program.display()))?;
        let said = child.stdout.take().expect("it is piped");
        Ok(Process { child, said: BufReader::new(said), limit: self.limit })
    }

    /// How the program is called from an environment with these variables.
    fn command(&self, idle: bool, variables: impl Iterator<Item = OsString>) -> Command {
        let mut command = Command::new(self.program);
        // What a user has set for one allocator would be no fair comparison.
        for name in variables.filter(|name| SETTINGS.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix))) {
            command.env_remove(name);
        }
        command
            .arg(self.workload.name)
            .args([self.scale.to_string(), self.threads.to_string(), SEED.to_string()])
            .arg(if idle { "idle" } else { "end" })
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // The reason of a crash is its signal; what C libraries say about it would tear the progress bar.
            .stderr(Stdio::null());
        command
    }
}

/// A process that runs.
struct Process {
    child: Child,
    said: BufReader<ChildStdout>,
    /// When it is killed.
    limit: Duration,
}

/// What is known of a process that has ended well.
struct End {
    measurement: Measurement,
    /// Resident bytes after being idle.
    idle: Option<u64>,
    /// Processor time of the whole process, in nanoseconds.
    cpu: u64,
}

impl Process {
    fn end(self) -> Result<End, String> {
        self.end_with(|| ())
    }

    /// Waits for the end; calls `measured` when the process has said what it measured, or has failed.
    fn end_with(mut self, measured: impl FnOnce()) -> Result<End, String> {
        let (pid, limit) = (self.child.id(), self.limit);
        let (done, is_done) = channel::<()>();
        let (lines, timed_out) = thread::scope(|scope| {
            let watch = scope.spawn(move || kill_when_late(pid, limit, &is_done));
            let lines = read_lines(&mut self.said, measured);
            // What is said last is not the end: destructors and exit handlers may hang, too.
            wait_for_end(pid);
            drop(done);
            (lines, watch.join().expect("watching does not panic"))
        });
        let (status, cpu) = wait(self.child).map_err(|error| format!("cannot be waited for: {error}"))?;
        if timed_out {
            return Err(format!("took longer than {} s", limit.as_secs()));
        }
        if !status.success() {
            return Err(reason(status));
        }
        let lines = lines.map_err(|error| format!("cannot be read: {error}"))?;
        let measurement = serde_json::from_str(&lines[0]).map_err(|error| format!("says no measurement: {error}"))?;
        Ok(End { measurement, idle: lines[1].trim().parse().ok(), cpu })
    }
}

/// The two lines that a process may say.
fn read_lines(said: &mut BufReader<ChildStdout>, measured: impl FnOnce()) -> io::Result<[String; 2]> {
    let mut lines = [String::new(), String::new()];
    let first = said.read_line(&mut lines[0]);
    measured();
    first?;
    said.read_line(&mut lines[1])?;
    Ok(lines)
}

/// Kills the process if `done` is not closed in time. True if it did.
fn kill_when_late(pid: u32, limit: Duration, done: &Receiver<()>) -> bool {
    let late = done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
    if late {
        // SAFETY: no memory is concerned. The process is not reaped before this thread is joined, so it is the same
        // one.
        unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
    }
    late
}

/// Waits until the process has ended, and leaves it to be reaped.
fn wait_for_end(pid: u32) {
    // SAFETY: a struct of integers and addresses, for which zeroes are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let how = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: a valid place for the result; nobody else waits for this child.
    while unsafe { libc::waitid(libc::P_PID, pid, &raw mut info, how) } != 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// Processor time of this process, without the processes that it started, in nanoseconds.
fn own_time() -> u64 {
    // SAFETY: a struct of integers, for which zeroes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a valid place for the result.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    cpu(&usage)
}

/// User and system time, in nanoseconds.
fn cpu(usage: &libc::rusage) -> u64 {
    let time = |time: libc::timeval| time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_usec.cast_unsigned() * 1_000;
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Reaps the process: how it ended, and its processor time.
fn wait(child: Child) -> io::Result<(ExitStatus, u64)> {
    use std::os::unix::process::ExitStatusExt;
    let pid = child.id().cast_signed();
    // `Child` waits for nothing when it is dropped; from here on it is reaped by hand.
    drop(child);
    let mut status = 0;
    // SAFETY: a struct of integers, for which zeroes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: valid places for the results; nobody else waits for this child.
    let reaped = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    if reaped != pid {
        return Err(io::Error::last_os_error());
    }
    Ok((ExitStatus::from_raw(status), cpu(&usage)))
}

/// Why a process did not end well.
fn reason(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(signal) => format!("killed by signal {signal} ({})", signal_name(signal)),
        // A panic of the workload: a wrong result, or memory that could not be had.
        None => format!("ended with {status}"),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGILL => "SIGILL",
        libc::SIGKILL => "SIGKILL, perhaps out of memory",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGTRAP => "SIGTRAP",
        _ => "see signal(7)",
    }
}

/// Resident memory of a process until `stopped` is closed: milliseconds, bytes.
fn sample(pid: u32, stopped: &Receiver<()>) -> Vec<(u64, u64)> {
    let start = Instant::now();
    let file = format!("/proc/{pid}/statm");
    let mut samples = Vec::new();
    while stopped.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
        // Ended: the rest is silence.
        let Ok(text) = fs::read_to_string(&file) else { break };
        let Some(pages) = text.split(' ').nth(1).and_then(|text| text.parse::<u64>().ok()) else { break };
        // A zombie has none.
        if pages > 0 {
            samples.push((start.elapsed().as_millis() as u64, pages * page_size()));
        }
    }
    samples
}

fn page_size() -> u64 {
    // SAFETY: no memory is concerned.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.cast_unsigned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use magalloc_compare_subject::WORKLOADS;
    use std::io::Write;
    use std::path::PathBuf;

    fn task(program: &Path) -> Task<'_> {
        Task { program, workload: &WORKLOADS[0], scale: 1.0, threads: 1, ready: 0, limit: LIMIT }
    }

    /// A program for a test, which removes it.
    pub(crate) fn script(name: &str, text: &str) -> PathBuf {
        let program = std::env::temp_dir().join(format!("magalloc-compare-{}-{name}", std::process::id()));
        // Not written here: a process that another test forks meanwhile would have it open for writing, and the kernel
        // refuses to start such a file.
        let mut command = Command::new("sh");
        command.args(["-c", "cat >\"$0\" && chmod 700 \"$0\""]).arg(&program);
        let mut shell = command.stdin(Stdio::piped()).spawn().unwrap();
        write!(shell.stdin.take().unwrap(), "#!/bin/sh\n{text}").unwrap();
        assert!(shell.wait().unwrap().success());
        program
    }

    #[test]
    fn crashes_and_exit_codes_are_told_apart() {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(reason(ExitStatus::from_raw(11)), "killed by signal 11 (SIGSEGV)");
        assert_eq!(reason(ExitStatus::from_raw(101 << 8)), "ended with exit status: 101");
    }

    #[test]
    fn what_is_set_for_an_allocator_is_not_passed_on() {
        let settings = ["MALLOC_ARENA_MAX", "MIMALLOC_PURGE_DELAY", "MAGALLOC_HUGE_PAGES", "LD_PRELOAD"];
        let variables = settings.into_iter().chain(["HOME", "RAYON_NUM_THREADS"]).map(OsString::from);
        let command = task(Path::new("/bin/true")).command(false, variables);
        let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        assert_eq!(removed.len(), settings.len());
        assert!(settings.iter().all(|name| removed.iter().any(|removed| removed == name)), "{removed:?}");
    }

    #[test]
    fn a_process_that_does_not_end_is_killed() {
        let program = script("hangs", "exec sleep 60\n");
        let start = Instant::now();
        let failed = Task { limit: Duration::from_secs(1), ..task(&program) }.timed().unwrap_err();
        fs::remove_file(&program).unwrap();
        assert_eq!(failed, "took longer than 1 s");
        assert!(start.elapsed() < Duration::from_secs(60), "it ended by itself");
    }

    #[test]
    fn a_timed_run_finds_memory_ready() {
        use crate::machine::tests::{faults, faults_of};
        const BYTES: u64 = 512 << 20;
        let begun_with = |ready: u64| {
            let before = faults();
            Task { ready, ..task(Path::new("/bin/false")) }.timed().unwrap_err();
            faults() - before
        };
        let least = begun_with(0);
        assert!(begun_with(BYTES) - least >= faults_of(BYTES) * 3 / 4, "{least}");
    }

    #[test]
    fn failures_are_reasons() {
        let failed = |program: &str| task(Path::new(program)).timed().unwrap_err();
        assert!(failed("/nonexistent").contains("cannot be started"));
        assert_eq!(failed("/bin/false"), "ended with exit status: 1");
        assert!(failed("/bin/true").contains("says no measurement"));
        // Prints its arguments: no measurement either.
        assert!(failed("/bin/echo").contains("says no measurement"));
    }
}
