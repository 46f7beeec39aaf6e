//! Runs a test's scenarios as processes: the test program starts itself again, and the child is told by an
//! environment variable which scenario it is. What a test needs to see is what only a process has: an exit code, a
//! signal, and what it wrote to its end.

// Each test uses a part of it.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::CStr;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

/// A child's program or a parent's test, with its name.
pub type Named = (&'static str, fn());

/// Names the scenario for the child.
const SCENARIO: &CStr = c"TEST_SCENARIO";

/// Seconds after which the kernel ends a child that hangs: far longer than any takes on a busy machine.
const CHILD_SECONDS_MAX: libc::c_uint = 900;

/// Is this process the child `name`? Allocates nothing: can be asked before `main` and after it.
pub fn is_child(name: &CStr) -> bool {
    // SAFETY: the name ends with a zero; nobody changes the environment.
    let value = unsafe { libc::getenv(SCENARIO.as_ptr()) };
    // SAFETY: getenv gave null or a text that ends with a zero.
    !value.is_null() && unsafe { CStr::from_ptr(value) } == name
}

/// Sets an option of the allocator for this process, before its first call: as a variable of the environment.
pub fn set_option(name: &CStr, value: &CStr) {
    // SAFETY: both end with a zero; no other thread runs yet.
    assert_eq!(unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) }, 0);
}

/// In a child: runs the scenario and returns. In the parent: runs the tests whose names contain an argument, or
/// all, and ends the process if one fails.
pub fn main(children: &[Named], tests: &[Named]) {
    if let Some(name) = std::env::var_os(SCENARIO.to_str().unwrap()) {
        limit(libc::RLIMIT_CORE, 0);
        // SAFETY: alarm has no conditions.
        unsafe { libc::alarm(CHILD_SECONDS_MAX) };
        let (_, run) = children.iter().find(|(child, _)| **child == *name).expect("no such scenario");
        return run();
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
    let (mut passed, mut failed, mut filtered) = (0, 0, 0);
    for (name, test) in tests {
        if !wanted(name) {
            filtered += 1;
        } else if std::env::args().any(|argument| argument == "--list") {
            println!("{name}: test");
        } else if std::panic::catch_unwind(test).is_ok() {
            println!("test {name} ... ok");
            passed += 1;
        } else {
            println!("test {name} ... FAILED");
            failed += 1;
        }
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out"
    );
    if failed > 0 {
        std::process::exit(1);
    }
}

/// What a resource is named by: an enumeration with glibc, a number with musl.
#[cfg(target_env = "musl")]
type Resource = libc::c_int;
#[cfg(not(target_env = "musl"))]
type Resource = libc::__rlimit_resource_t;

/// Bounds a resource of this process.
pub fn limit(resource: Resource, value: u64) {
    let value = value as libc::rlim_t;
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: `limit` is valid.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Says visibly that a test could not be made here.
pub fn skip(reason: &str) {
    println!("skipped: {reason}");
}

/// Can this program be started?
pub fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// What a process left.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// This program as the child `name`.
pub fn command(name: &str) -> Command {
    with_scenario(Command::new(std::env::current_exe().unwrap()), name)
}

/// This program as the child `name`, started by another: `program arguments... this`.
pub fn command_under(program: &str, arguments: &[&str], name: &str) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).arg(std::env::current_exe().unwrap());
    with_scenario(command, name)
}

fn with_scenario(mut command: Command, name: &str) -> Command {
    command.env(SCENARIO.to_str().unwrap(), name);
    command
}

/// Runs it to its end.
pub fn run(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code(),
        signal: output.status.signal(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs it to its end. What each of its calls wrote to standard error: the pipe keeps them apart.
pub fn writes_to_stderr(command: &mut Command) -> Vec<String> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` is valid.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_DIRECT | libc::O_CLOEXEC) }, 0);
    // SAFETY: opened just now, nobody else's.
    let [mut read, write] = ends.map(|end| unsafe { std::fs::File::from_raw_fd(end) });
    let mut child = command.stdout(Stdio::null()).stderr(write).spawn().unwrap();
    // The command has the other end open as well.
    command.stderr(Stdio::null());
    let mut writes = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        match read.read(&mut bytes).unwrap() {
            0 => break,
            len => writes.push(String::from_utf8(bytes[..len].to_vec()).unwrap()),
        }
    }
    child.wait().unwrap();
    writes
}

/// Runs the child `name` to its end.
pub fn child(name: &str) -> Outcome {
    run(&mut command(name)).without_note()
}

impl Outcome {
    /// Some children choose options before `main`, by a value of their own, and are told that the global allocator's are
    /// ignored: without that line.
    pub fn without_note(mut self) -> Self {
        let is_wanted = |line: &&str| !line.starts_with("magalloc: the options of the first Magalloc hold; ");
        self.stderr = self.stderr.split_inclusive('\n').filter(is_wanted).collect();
        self
    }

    /// Exit code, standard output and standard error are exactly these.
    #[track_caller]
    pub fn expect(&self, code: i32, stdout: &str, stderr: &str) {
        let exact = self.code == Some(code) && self.stdout == stdout && self.stderr == stderr;
        assert!(exact, "expected code {code}, {stdout:?}, {stderr:?}; got {self:?}");
    }

    /// As `expect`, and standard error is the one line that all was unmapped.
    #[track_caller]
    pub fn expect_unmapped(&self, code: i32, stdout: &str) {
        let (unmapped, mapped) = self.report();
        assert!(unmapped == mapped && mapped > 0, "{self:?}");
        self.expect(code, stdout, &self.stderr);
    }

    /// As `expect`, and standard error is the one line that all was kept.
    #[track_caller]
    pub fn expect_kept(&self, code: i32, stdout: &str) {
        let (unmapped, mapped) = self.report();
        assert!(unmapped == 0 && mapped > 0, "{self:?}");
        self.expect(code, stdout, &self.stderr);
    }

    #[track_caller]
    fn report(&self) -> (u64, u64) {
        report_line(&self.stderr).unwrap_or_else(|| panic!("not exactly one report: {self:?}"))
    }
}

/// Reads `magalloc: exit: unmapped N of N mapped bytes\n`, and nothing else.
pub fn report_line(text: &str) -> Option<(u64, u64)> {
    let numbers = text.strip_prefix("magalloc: exit: unmapped ")?.strip_suffix(" mapped bytes\n")?;
    let (unmapped, mapped) = numbers.split_once(" of ")?;
    Some((unmapped.parse().ok()?, mapped.parse().ok()?))
}

/// Writes `text` to standard output at once, without std: also possible where std is not up yet, or no more.
pub fn say(text: &str) {
    // SAFETY: the text is valid for its length.
    let written = unsafe { libc::write(libc::STDOUT_FILENO, text.as_ptr().cast(), text.len()) };
    assert_eq!(written, text.len() as isize);
}

/// Runs `body` on a thread that std knows nothing of: its first call of the allocator is the body's.
pub fn on_raw_thread(body: fn()) {
    extern "C" fn start(body: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: `on_raw_thread` passes a function of this type.
        let body: fn() = unsafe { core::mem::transmute(body) };
        body();
        core::ptr::null_mut()
    }
    // SAFETY: all zeros is a valid integer or pointer: it depends on the C library which of them names a thread.
    let mut thread: libc::pthread_t = unsafe { core::mem::zeroed() };
    // SAFETY: all arguments are valid.
    let made = unsafe { libc::pthread_create(&raw mut thread, core::ptr::null(), start, body as *mut libc::c_void) };
    assert_eq!(made, 0);
    // SAFETY: made just now, and joined once.
    assert_eq!(unsafe { libc::pthread_join(thread, core::ptr::null_mut()) }, 0);
}

/// The layout of `size` bytes.
pub fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// Bytes that `take` fills.
const FILLED_BYTES: usize = 4 << 10;

/// A block of `size` bytes, its beginning filled.
pub fn take(allocator: &impl GlobalAlloc, size: usize) -> *mut u8 {
    // SAFETY: the size is not 0.
    let block = unsafe { allocator.alloc(layout(size)) };
    assert!(!block.is_null());
    // SAFETY: the block has `size` bytes.
    unsafe { block.write_bytes(0x5a, size.min(FILLED_BYTES)) };
    block
}

/// Gives it back. The test answers for `block` being one of that size, or wants to see what happens if not.
pub fn give(allocator: &impl GlobalAlloc, block: *mut u8, size: usize) {
    // SAFETY: see above.
    unsafe { allocator.dealloc(block, layout(size)) };
}

/// Small and large blocks, freed and leaked.
pub fn use_memory(allocator: &impl GlobalAlloc) {
    for size in [1, 8, 64, 1000, 30_000, 100_000, 9 << 20] {
        let blocks: Vec<*mut u8> = (0..20).map(|_| take(allocator, size)).collect();
        blocks.into_iter().skip(1).for_each(|block| give(allocator, block, size));
    }
}
