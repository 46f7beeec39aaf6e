//! Signals that are sent to `magalloc run --stats` reach the program.

use std::io::{self, BufRead, BufReader, Lines, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use crate::process::{PATIENCE, Process, WAYS, magalloc, send, subject, way};

/// The program listening, its process, and its output. A process group of its own, whose leader's parent is of another
/// one: where the tests run in a group without a parent, SIGTSTP would be ignored.
fn listening(arguments: &[&str]) -> (Process, u32, Lines<BufReader<ChildStdout>>) {
    let mut process = Process::start(way(arguments, &[subject(), "listen"]).process_group(0));
    let mut lines = BufReader::new(process.child().stdout.take().expect("a pipe")).lines();
    let pid = lines.next().expect("a line").expect("text").parse().expect("the number of the process");
    (process, pid, lines)
}

#[test]
fn signals_are_forwarded() {
    let signals = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGPIPE,
        libc::SIGWINCH,
        libc::SIGIO,
        libc::SIGRTMIN() + 3,
    ];
    for arguments in WAYS {
        let (mut process, _, mut lines) = listening(arguments);
        for signal in signals {
            process.signal(signal);
            assert_eq!(lines.next().expect("a line").expect("text"), format!("{signal:02}"), "{arguments:?}");
        }
        process.signal(libc::SIGTERM);
        assert_eq!(lines.next().expect("a line").expect("text"), "15");
        assert_eq!(process.wait().code(), Some(7));
    }
}

#[test]
fn program_that_is_killed_ends_its_parent() {
    let (process, pid, _) = listening(WAYS[1]);
    send(pid, libc::SIGKILL);
    let status = process.wait().status;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
}

/// Whether a child stopped, or was continued, within the patience.
fn wait_for(pid: u32, options: i32, is_so: impl Fn(i32) -> bool) -> bool {
    let pid = libc::pid_t::try_from(pid).expect("an id of a process fits");
    let deadline = Instant::now() + PATIENCE;
    let mut status = MaybeUninit::<i32>::uninit();
    while Instant::now() < deadline {
        // SAFETY: `status` has room for one.
        let found = unsafe { libc::waitpid(pid, status.as_mut_ptr(), options | libc::WNOHANG) };
        assert!(found >= 0, "the process can be waited for");
        if found == pid {
            // SAFETY: there was a status, so it was written.
            return is_so(unsafe { status.assume_init() });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Is the process, which is no child of this one, stopped?
fn is_stopped(pid: u32) -> bool {
    state(pid).is_some_and(|state| state == 'T')
}

#[test]
fn parent_stops_and_goes_on_with_the_program() {
    let (mut process, pid, mut lines) = listening(WAYS[1]);
    let parent = process.child().id();
    assert_ne!(parent, pid);
    for signal in [libc::SIGSTOP, libc::SIGTSTP] {
        send(pid, signal);
        assert!(wait_for(parent, libc::WUNTRACED, |status| libc::WIFSTOPPED(status)));
        process.signal(libc::SIGCONT);
        process.signal(libc::SIGUSR1);
        assert_eq!(lines.next().expect("a line").expect("text"), "10");
    }
    process.signal(libc::SIGTSTP);
    assert!(wait_for(parent, libc::WUNTRACED, |status| libc::WIFSTOPPED(status)));
    assert!(is_stopped(pid), "a stop is forwarded");
    process.signal(libc::SIGCONT);
    process.signal(libc::SIGTERM);
    assert_eq!(process.wait().code(), Some(7));
}

/// Its state, as `ps` shows it.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may have anything in it.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// `timeout` signals the launcher and then its whole group: the second one may come when the program has ended.
#[test]
fn signal_that_comes_too_late_leaves_the_statistics() {
    let (mut errors, mut full) = io::pipe().expect("a pipe");
    // SAFETY: makes the room of a pipe one page, and touches no memory.
    let room = unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&full), libc::F_SETPIPE_SZ, 1) };
    let room = usize::try_from(room).expect("the room of a pipe can be set");
    full.write_all(&vec![b'-'; room]).expect("so much has room");
    let mut command = magalloc(["run", "--stats", "--", subject(), "listen"]);
    command.stderr(full);
    let mut process = Process::start(&mut command);
    drop(command);
    let mut lines = BufReader::new(process.child().stdout.take().expect("a pipe")).lines();
    let pid: u32 = lines.next().expect("a line").expect("text").parse().expect("the number of the process");
    let parent = process.child().id();
    process.signal(libc::SIGTERM);
    let deadline = Instant::now() + PATIENCE;
    // It sleeps because it cannot write.
    while state(pid).is_some() || state(parent) != Some('S') {
        assert!(Instant::now() < deadline, "the program ends, and its parent tells");
        std::thread::sleep(Duration::from_millis(5));
    }
    process.signal(libc::SIGTERM);
    let mut text = String::new();
    errors.read_to_string(&mut text).expect("text");
    assert!(text[room..].contains("ended with exit code 7"), "{text}");
    assert_eq!(process.wait().code(), Some(7));
}
