//! Compiles C and C++ programs against the library as it is released, and runs them: preloaded, linked dynamically, and
//! linked with the archive. A program that hangs is killed.

// Each test uses a part of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Time after which a program counts as hanging.
pub const TIME_MAX: Duration = Duration::from_secs(900);

/// How a program gets the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `LD_PRELOAD`, into a program that knows nothing of it.
    Preloaded,
    /// Linked with libmagalloc.so.
    Dynamic,
    /// Linked with libmagalloc.a.
    Static,
    /// Not at all: the C library's own allocator.
    Without,
}

/// Those with the library.
pub const MODES: [Mode; 3] = [Mode::Preloaded, Mode::Dynamic, Mode::Static];

/// The folder with `libmagalloc.so` and `libmagalloc.a`: the release build, made now. What `cargo test` itself builds
/// unwinds, and is another library.
pub fn library_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--release", "--locked", "--package", "magalloc-capi", "--target-dir"]);
        let built = build.arg(target).current_dir(package()).status().unwrap();
        assert!(built.success(), "the library can be built");
        let folder = target.join("release");
        link(&folder);
        folder
    })
}

/// Gives the shared library in `folder` the name by which linked programs look for it, as an installation does.
fn link(folder: &Path) {
    let made = std::os::unix::fs::symlink("libmagalloc.so", folder.join(SONAME));
    assert!(made.is_ok() || folder.join(SONAME).exists(), "{made:?}");
}

/// The name by which programs that are linked with the library look for it.
pub const SONAME: &str = "libmagalloc.so.0";

/// The shared library.
pub fn shared_library() -> PathBuf {
    library_folder().join("libmagalloc.so")
}

/// The archive.
pub fn archive() -> PathBuf {
    library_folder().join("libmagalloc.a")
}

/// The folder of this package.
pub fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder for what this test program makes.
pub fn scratch() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(own.file_stem().unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Says visibly that a test could not be made here.
pub fn skip(reason: &str) {
    println!("skipped: {reason}");
}

/// Can this program be started?
pub fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// What a tool prints. It must succeed.
pub fn output_of(program: &str, arguments: &[&OsStr]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(output.stderr));
    text(output.stdout)
}

/// A program that was compiled.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// How it gets the library.
    pub mode: Mode,
}

/// The program `source` in `tests/c`. Compiled once in a test program.
pub fn compile(source: &str, mode: Mode) -> Program {
    compile_with(source, mode, &[])
}

/// The same with more arguments for the compiler.
pub fn compile_with(source: &str, mode: Mode, more: &[&str]) -> Program {
    let name = format!("{}-{mode:?}{}", source.replace('.', "-"), more.concat().replace(['/', '='], "-"));
    let path = scratch().join(name);
    once(&path, || {
        let library: Vec<OsString> = match mode {
            Mode::Preloaded | Mode::Without => vec!["-DPRELOADED".into()],
            Mode::Dynamic => vec![
                "-L".into(),
                library_folder().into(),
                "-lmagalloc".into(),
                format!("-Wl,-rpath,{}", library_folder().display()).into(),
            ],
            Mode::Static => vec![archive().into()],
        };
        let mut compiler = compiler(source);
        compiler.arg("-o").arg(&path).arg(source_path(source)).args(more).args(library);
        build(compiler.args(["-pthread", "-ldl"]));
    });
    Program { path, mode }
}

/// The shared library `lib<name>.so` of `source` in `tests/c`. It knows nothing of this one.
pub fn compile_shared(source: &str, name: &str, more: &[&str]) -> PathBuf {
    let path = scratch().join(format!("lib{name}.so"));
    once(&path, || build(compiler(source).args(["-shared", "-o"]).arg(&path).arg(source_path(source)).args(more)));
    path
}

/// Can the compiler make a program of `source`? With what it says if not.
pub fn try_compile(compiler: &str, arguments: &[&OsStr]) -> Result<(), String> {
    let output = Command::new(compiler).args(arguments).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The file of that name in `tests/c`.
pub fn source_path(source: &str) -> PathBuf {
    package().join("tests/c").join(source)
}

fn compiler(source: &str) -> Command {
    let is_cpp = source.ends_with(".cpp");
    let mut compiler = Command::new(if is_cpp { "c++" } else { "cc" });
    compiler.arg(if is_cpp { "-std=c++17" } else { "-std=gnu11" });
    // Without what compilers know of malloc: they would leave calls out, and object to what the tests are about.
    compiler.args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-fno-builtin", "-fPIC", "-I"]);
    compiler.arg(package().join("include"));
    compiler
}

fn build(command: &mut Command) {
    let output = command.output().expect("a compiler is installed");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `make` unless the file was made by this process already; whoever comes meanwhile waits.
fn once(path: &Path, make: impl FnOnce()) {
    type Made = Mutex<HashMap<PathBuf, Arc<OnceLock<()>>>>;
    static MADE: OnceLock<Made> = OnceLock::new();
    let made = Arc::clone(MADE.get_or_init(Mutex::default).lock().unwrap().entry(path.into()).or_default());
    made.get_or_init(make);
}

impl Program {
    /// To run it, with nothing in its environment that concerns the library.
    pub fn command(&self) -> Command {
        let mut command = clean(&self.path);
        if self.mode == Mode::Preloaded {
            command.env("LD_PRELOAD", shared_library());
        }
        command
    }

    /// Runs a scenario of it.
    pub fn scenario(&self, name: &str) -> Outcome {
        run(self.command().arg(name))
    }
}

/// A command with nothing in its environment that concerns the library.
pub fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MAGALLOC_") || name == "LD_PRELOAD" {
            command.env_remove(name);
        }
    }
    command
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

impl Outcome {
    /// Exit code, standard output and standard error are exactly these.
    #[track_caller]
    pub fn expect(&self, code: i32, stdout: &str, stderr: &str) {
        let exact = self.code == Some(code) && self.stdout == stdout && self.stderr == stderr;
        assert!(exact, "expected code {code}, {stdout:?}, {stderr:?}; got {self:?}");
    }

    /// Ended by SIGABRT, after one line on standard error that begins and ends so.
    #[track_caller]
    pub fn expect_abort(&self, begin: &str, end: &str) {
        let one_line = self.stderr.matches('\n').count() == 1 && self.stderr.ends_with('\n');
        let line = self.stderr.trim_end();
        let exact = one_line && line.starts_with(begin) && line.ends_with(end);
        assert!(self.signal == Some(libc::SIGABRT) && exact, "expected {begin:?} ... {end:?}; got {self:?}");
    }
}

/// Runs it to its end; kills it and all that it has started, and panics, if that takes too long.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let no_core_file = || {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `none` is valid.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
        Ok(())
    };
    // SAFETY: what is called in the child only sets a limit.
    unsafe { command.pre_exec(no_core_file) };
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (reader(child.stdout.take().unwrap()), reader(child.stderr.take().unwrap()));
    let deadline = Instant::now() + TIME_MAX;
    // Both end when the process has, and all that it has started.
    let received = [stdout, stderr].map(|text| text.recv_timeout(deadline.saturating_duration_since(Instant::now())));
    let [Ok(stdout), Ok(stderr)] = received else {
        kill_group(&mut child);
        panic!("{command:?} hangs");
    };
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            kill_group(&mut child);
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    Outcome { code: status.code(), signal: status.signal(), stdout, stderr }
}

fn kill_group(child: &mut Child) {
    // SAFETY: the group of a child that nobody has waited for, so the number is still its own.
    unsafe { libc::kill(-child.id().cast_signed(), libc::SIGKILL) };
    let _ = child.wait();
}

/// Reads all, on a thread.
fn reader(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// Runs a scenario of a program in each mode; it must be silent and exit with 0.
#[track_caller]
pub fn expect_in_all_modes(source: &str, scenario: &str) {
    for mode in MODES {
        let outcome = compile(source, mode).scenario(scenario);
        let is_good = outcome.code == Some(0) && outcome.stdout.is_empty() && outcome.stderr.is_empty();
        assert!(is_good, "{source} {scenario} {mode:?}: {outcome:?}");
    }
}

/// Tests by the names of the scenarios of a program.
#[macro_export]
macro_rules! scenarios {
    ($source:literal: $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                common::expect_in_all_modes($source, stringify!($name));
            }
        )*
    };
}
