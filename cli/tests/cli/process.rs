//! What the tests start: the built program, the library, and the programs under it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Only so that a hang fails the test instead of stopping it for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// The built program.
pub(crate) const MAGALLOC: &str = env!("CARGO_BIN_EXE_magalloc");

/// Folders that live as long as the tests.
fn built() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// The library, built if need be.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = env::var_os("TEST_MAGALLOC_LIBRARY").map_or_else(build_library, PathBuf::from);
        path.canonicalize().expect("the library is there")
    });
    &LIBRARY
}

fn build_library() -> PathBuf {
    // Where this program was built, so that what it has in common is not built again.
    let target = Path::new(MAGALLOC).ancestors().nth(2).expect("the program is in a folder of the target folder");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(["build", "--quiet", "--release", "--package", "magalloc-capi", "--target-dir"]).arg(target);
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo starts");
    assert!(status.success(), "the library is built");
    target.join("release/libmagalloc.so")
}

/// Compiles C. The result is put in place whole, since several tests may do it at the same time.
fn compile(name: &str, source: &str, arguments: &[&str]) -> PathBuf {
    let folder = TempDir::new_in(built()).expect("a folder");
    let (code, program) = (folder.path().join("code.c"), folder.path().join(name));
    fs::write(&code, source).expect("the code is written");
    let mut command = Command::new("cc");
    let status = command.args(["-O1", "-pthread", "-o"]).arg(&program).arg(&code).args(arguments).status();
    assert!(status.expect("cc starts").success(), "{name} compiles");
    fs::rename(&program, built().join(name)).expect("the result is moved");
    built().join(name)
}

/// The program of `subject.c`.
pub(crate) fn subject() -> &'static str {
    static SUBJECT: LazyLock<PathBuf> = LazyLock::new(|| compile("subject", include_str!("subject.c"), &[]));
    SUBJECT.to_str().expect("the path is text")
}

/// The same, linked statically.
pub(crate) fn static_subject() -> &'static str {
    static SUBJECT: LazyLock<PathBuf> =
        LazyLock::new(|| compile("subject-static", include_str!("subject.c"), &["-static"]));
    SUBJECT.to_str().expect("the path is text")
}

/// A library that does nothing.
pub(crate) fn idle_library() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> =
        LazyLock::new(|| compile("libidle.so", "const char *idle = \"magalloc-stats\";\n", &["-shared", "-fPIC"]));
    &LIBRARY
}

/// Copies a file that is to be executed. By another process: one that this process starts meanwhile would hold a file
/// that this one writes to open for a moment, and such a file cannot be executed.
pub(crate) fn copy(from: impl AsRef<OsStr>, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().expect("cp starts");
    assert!(status.success(), "{} is copied", to.display());
}

/// The program with these arguments, the library, and nothing of the caller's environment that would matter.
pub(crate) fn magalloc<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(MAGALLOC);
    command.args(arguments).env("MAGALLOC_LIB", library()).env_remove("LD_PRELOAD");
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("MAGALLOC_") && name != "MAGALLOC_LIB" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// The exit code.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// A running program. Killed if the test ends before it does.
pub(crate) struct Process(Option<Child>);

impl Process {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(Some(command.spawn().expect("the program starts")))
    }

    /// The process itself.
    pub(crate) fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("the process is not yet waited for")
    }

    /// Sends it a signal.
    pub(crate) fn signal(&mut self, signal: i32) {
        send(self.child().id(), signal);
    }

    /// Waits for the end, and takes the output that nobody has read yet.
    pub(crate) fn wait(mut self) -> Finished {
        let child = self.0.take().expect("only this takes the process");
        let pid = child.id();
        let (done, output) = mpsc::channel();
        thread::spawn(move || done.send(child.wait_with_output()));
        match output.recv_timeout(PATIENCE) {
            Ok(output) => output.expect("the output can be read").into(),
            Err(_) => {
                send(pid, libc::SIGKILL);
                panic!("the process does not end");
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended. If it leads a group, the program that it started is in there.
            // SAFETY: `kill` touches no memory.
            let _ = unsafe { libc::kill(-child.id().cast_signed(), libc::SIGKILL) };
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a signal to a process that was not waited for yet.
pub(crate) fn send(pid: u32, signal: i32) {
    let pid = libc::pid_t::try_from(pid).expect("an id of a process fits");
    // SAFETY: `kill` touches no memory.
    let result = unsafe { libc::kill(pid, signal) };
    assert_eq!(result, 0, "the signal can be sent");
}

/// Runs it to its end.
pub(crate) fn finish(command: &mut Command) -> Finished {
    Process::start(command).wait()
}

/// `magalloc` with these arguments, to its end.
pub(crate) fn run(arguments: &[&str]) -> Finished {
    finish(&mut magalloc(arguments))
}

/// `magalloc`, with this text as standard input.
pub(crate) fn run_with_input(arguments: &[&str], input: &str) -> Finished {
    let mut process = Process::start(magalloc(arguments).stdin(Stdio::piped()));
    let mut stdin = process.child().stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("the input is read");
    drop(stdin);
    process.wait()
}

/// Both ways to start a program: in this process's place, and as a child.
pub(crate) const WAYS: [&[&str]; 2] = [&["run"], &["run", "--json", "/dev/null"]];

/// `magalloc` with a way and then these arguments.
pub(crate) fn way(way: &[&str], arguments: &[&str]) -> Command {
    magalloc(way.iter().chain(arguments))
}
