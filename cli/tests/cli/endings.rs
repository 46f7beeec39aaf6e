//! A program under `magalloc run` ends, and is, as without it.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use crate::process::{MAGALLOC, Process, WAYS, finish, library, magalloc, run_with_input, subject, way};

#[test]
fn exit_codes_pass_through() {
    for arguments in WAYS {
        for code in [0, 3, 255] {
            let finished = finish(&mut way(arguments, &[subject(), "exit", &code.to_string()]));
            assert_eq!(finished.code(), Some(code), "{arguments:?}: {finished:?}");
            assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", ""), "{arguments:?}");
        }
    }
}

#[test]
fn death_by_signal_passes_through() {
    for arguments in WAYS {
        for signal in [libc::SIGKILL, libc::SIGSEGV, libc::SIGTERM, libc::SIGPIPE, libc::SIGRTMIN()] {
            let finished = finish(&mut way(arguments, &[subject(), "kill", &signal.to_string()]));
            assert_eq!(finished.status.signal(), Some(signal), "{arguments:?}: {finished:?}");
            assert_eq!(finished.stderr, "", "{arguments:?}");
        }
    }
}

#[test]
fn parent_leaves_no_core() {
    let folder = tempfile::tempdir().unwrap();
    // The program forbids itself a core, so that only the parent's could be there.
    let script = r#"ulimit -c unlimited; exec "$0" run --json /dev/null sh -c 'ulimit -c 0; kill -SEGV $$'"#;
    let mut command = Command::new("sh");
    command.args(["-c", script, MAGALLOC]).env("MAGALLOC_LIB", library()).current_dir(folder.path());
    let status = command.status().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
    assert!(!status.core_dumped());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn without_statistics_the_process_becomes_the_program() {
    let mut process = Process::start(&mut magalloc(["run", "sh", "-c", "echo $$"]));
    let pid = process.child().id();
    assert_eq!(process.wait().stdout, format!("{pid}\n"));
}

#[test]
fn input_and_output_are_untouched() {
    let input = "a\0b\nno end".repeat(10_000);
    for arguments in WAYS {
        let arguments = [arguments, &["--", "cat"]].concat();
        let finished = run_with_input(&arguments, &input);
        assert_eq!(finished.code(), Some(0));
        assert_eq!(finished.stdout, input);
        assert_eq!(finished.stderr, "");
    }
}

#[test]
fn arguments_and_name_are_untouched() {
    for arguments in WAYS {
        let script = [
            "sh",
            "-c",
            r#"printf '%s|' "$0" "$@"; tr '\0' '|' </proc/$$/cmdline"#,
            "zero",
            "--stats",
            "a b",
            "",
            "--",
        ];
        let finished = finish(&mut way(arguments, &script));
        assert!(finished.stdout.starts_with("zero|--stats|a b||--|sh|-c|"), "{finished:?}");
    }
}

/// The lines of `/proc/self/status` about blocked and ignored signals, in a process that is started with SIGUSR1
/// blocked and `ignored` ignored.
fn signals(command: &mut Command, ignored: Option<i32>) -> String {
    // SAFETY: all of these may be called between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let mut mask = std::mem::zeroed();
            libc::sigemptyset(&raw mut mask);
            libc::sigaddset(&raw mut mask, libc::SIGUSR1);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
            if let Some(ignored) = ignored {
                libc::signal(ignored, libc::SIG_IGN);
            }
            Ok(())
        });
    }
    let lines = finish(command).stdout;
    lines.lines().filter(|line| !line.starts_with("SigQ:")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn blocked_and_ignored_signals_are_inherited() {
    let program = [subject(), "search", "/proc/self/status", "Sig"];
    for arguments in WAYS {
        for ignored in [None, Some(libc::SIGPIPE), Some(libc::SIGCHLD), Some(libc::SIGHUP)] {
            let mut direct = Command::new(program[0]);
            direct.args(&program[1..]).stdout(std::process::Stdio::piped());
            let expected = signals(&mut direct, ignored);
            assert!(expected.contains("SigBlk:\t0000000000000200\n"), "{expected}");
            // Beside it, SIGTERM is caught where statistics are wanted.
            let with_statistics = arguments.len() > 1;
            let caught = if with_statistics { "SigCgt:\t0000000000004000\n" } else { "SigCgt:\t0000000000000000\n" };
            let expected = expected.replace("SigCgt:\t0000000000000000\n", caught);
            assert_eq!(signals(&mut way(arguments, &program), ignored), expected, "{arguments:?} {ignored:?}");
        }
    }
}
