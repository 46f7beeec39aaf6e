//! The built binary as a process that a test runs.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::PATIENCE;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_magalloc-server"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running process. Killed if the test ends before it does.
pub(crate) struct Process(Option<Child>);

impl Process {
    /// Starts the binary.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self(Some(command(arguments).spawn().expect("the binary starts")))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("the process is not yet waited for")
    }

    /// Waits for the end, and takes the output that nobody has read yet.
    pub(crate) fn wait(mut self) -> Output {
        let deadline = Instant::now() + PATIENCE;
        while self.child().try_wait().expect("the process can be waited for").is_none() {
            assert!(Instant::now() < deadline, "the process does not end");
            thread::sleep(Duration::from_millis(10));
        }
        let child = self.0.take().expect("only this takes the process");
        child.wait_with_output().expect("the output can be read")
    }

    /// What Ctrl-C does.
    #[cfg(unix)]
    pub(crate) fn interrupt(&mut self) {
        let id = libc::pid_t::try_from(self.child().id()).expect("an id of a process fits");
        // SAFETY: `kill` touches no memory; the id is of a child that was not waited for yet, so
        // it belongs to no other process.
        let result = unsafe { libc::kill(id, libc::SIGINT) };
        assert_eq!(result, 0, "the signal can be sent");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Errors mean that it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Exit code, stdout and stderr of the whole run.
pub(crate) fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    finished(Process::start(arguments).wait())
}

/// The same of a process that was waited for.
pub(crate) fn finished(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A process that serves, where it does, and the rest of its stdout. The reader must live as long
/// as the process.
pub(crate) fn serving(arguments: &[&str]) -> (Process, SocketAddr, BufReader<ChildStdout>) {
    let mut process = Process::start(arguments);
    let stdout = process.child().stdout.take().expect("stdout is a pipe");
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    stdout.read_line(&mut line).expect("stdout can be read");
    let address = line.trim_end().strip_prefix("magalloc-server: listening on http://");
    let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
    let address: SocketAddr = address.parse().expect("an address");
    assert_ne!(address.port(), 0);
    (process, address, stdout)
}

/// `--serve` on a free port.
pub(crate) fn serve() -> (Process, SocketAddr, BufReader<ChildStdout>) {
    serving(&["--serve", "127.0.0.1:0"])
}
