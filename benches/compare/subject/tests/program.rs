//! The program as the comparison calls it.

use magalloc_compare_subject::Measurement;
use std::process::Command;
use std::time::{Duration, Instant};

fn program(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_magalloc-compare-subject"));
    command.args(arguments.split(' '));
    command
}

/// The lines that it prints, and how long it takes.
fn lines(arguments: &str) -> (Vec<String>, Duration) {
    let start = Instant::now();
    let output = program(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().map(str::to_owned).collect(), start.elapsed())
}

#[test]
fn resident_memory_is_told_after_two_idle_seconds() {
    let (lines, elapsed) = lines("mix-small 0.001 1 42 idle");
    let [first, second] = &lines[..] else { panic!("two lines: {lines:?}") };
    let measurement: Measurement = serde_json::from_str(first).unwrap();
    let idle: u64 = second.parse().unwrap();
    assert!(idle > 1 << 20 && idle <= measurement.peak, "{idle} of {}", measurement.peak);
    assert!(elapsed >= Duration::from_secs(2), "{elapsed:?}");
}

#[test]
fn without_idling_there_is_one_line() {
    let (lines, _) = lines("pair 0.001 1 42 end");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let measurement: Measurement = serde_json::from_str(&lines[0]).unwrap();
    assert!(measurement.wall > 0 && measurement.operations > 0 && measurement.counted.is_none());
}

#[test]
fn wrong_arguments_are_2() {
    for arguments in ["", "pair", "walk 1 1 42 end", "pair one 1 42 end", "pair 1 1 42 sleep"] {
        assert_eq!(program(arguments).output().unwrap().status.code(), Some(2), "{arguments}");
    }
}
