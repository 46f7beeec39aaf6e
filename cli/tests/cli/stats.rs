//! What `--stats` and `--json` tell is what the library wrote.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::process::{finish, magalloc, run, subject};

/// Runs the program with a file for its records: standard error, the JSON, and the file's text.
fn run_with_records(options: &[&str], program: &[&str]) -> (String, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let (file, json) = (folder.path().join("records"), folder.path().join("json"));
    let option = format!("stats-file={}", file.display());
    let fixed = ["run", "--stats", "--json", json.to_str().unwrap(), "--option", &option];
    let finished = run(&[&fixed, options, &["--"], program].concat());
    let json = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    (finished.stderr, json, fs::read_to_string(file).unwrap_or_default())
}

/// The number behind `name` in a text of one record.
#[track_caller]
fn figure(record: &str, name: &str) -> u64 {
    let value = record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {record}")).parse().unwrap()
}

/// The bytes that words such as `1.50 MiB` stand for.
fn bytes(words: &str) -> f64 {
    let (number, unit) = words.split_once(' ').unwrap();
    let power = ["B", "KiB", "MiB", "GiB", "TiB"].iter().position(|other| *other == unit).unwrap();
    number.parse::<f64>().unwrap() * 1024f64.powi(power as i32)
}

#[test]
fn json_is_the_record() {
    let (_, json, record) = run_with_records(&[], &[subject(), "exit", "3"]);
    let found = json["record"].as_object().unwrap();
    assert_eq!(json["ending"]["exit_code"], 3);
    assert_eq!(json["ending"]["signal"], Value::Null);
    assert_eq!(json["command"][2], "3");
    assert_eq!(json["pid"], figure(&record, "pid"));
    assert_eq!(json["children"].as_array().unwrap().len(), 0);
    let mut classes = Vec::new();
    for line in record.lines() {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("magalloc-stats" | "end", _) => {}
            ("class", numbers) => classes.push(numbers.to_string()),
            (name @ ("program" | "version"), value) => assert_eq!(found[name], value),
            (name, value) => assert_eq!(found[name], value.parse::<u64>().unwrap(), "{name}"),
        }
    }
    assert!(!classes.is_empty());
    let class = |class: &Value| {
        let blocks = class["live"].as_u64().unwrap() + class["cached"].as_u64().unwrap();
        format!("{} {} {blocks} {}", class["block"], class["slabs"], class["cached"])
    };
    assert_eq!(found["classes"].as_array().unwrap().iter().map(class).collect::<Vec<_>>(), classes);
    assert!(figure(&record, "live") >= 64_000, "{record}");
    let usage = &json["usage"];
    assert!(usage["resident_peak"].as_u64().unwrap() >= 64_000, "{usage}");
    assert!(usage["wall_seconds"].as_f64().unwrap() > 0.0 && usage["minor_faults"].as_u64().unwrap() > 0, "{usage}");
}

#[test]
fn json_says_what_it_is() {
    let json = run(&["run", "--json", "-", subject(), "exit", "0"]).json();
    assert_eq!((&json["schema"], &json["schema_version"]), (&Value::from("magalloc-run"), &Value::from(1)));
    assert_eq!(
        (&json["version"], &json["program"]),
        (&Value::from(env!("CARGO_PKG_VERSION")), &Value::from(subject()))
    );
    assert_eq!(json["record"]["pid"], json["pid"]);
    // Each number has a unit.
    let units = json["units"].to_string();
    let named = |name: &String| name == "pid" || name == "parent" || units.contains(&format!("\"{name}\""));
    let numbers = |object: &Value| -> Vec<String> {
        let fields = object.as_object().unwrap().iter();
        fields.filter(|(_, value)| value.is_number()).map(|(name, _)| name.clone()).collect()
    };
    for object in [&json["record"], &json["record"]["classes"][0], &json["usage"]] {
        assert!(numbers(object).len() >= 4, "{object}");
        assert_eq!(numbers(object).iter().find(|name| !named(name)), None, "{object}");
    }
}

#[test]
fn program_that_sigterm_ends_leaves_a_record() {
    let finished = run(&["run", "--stats", "--json", "-", subject(), "kill", "15"]);
    let json = finished.json();
    assert_eq!(json["ending"]["signal_name"], "SIGTERM");
    assert_eq!(json["record"]["pid"], json["pid"], "{json}");
    assert!(finished.stderr.contains("\n  held  "), "{finished:?}");
    // Whoever does not want it says so.
    let json = run(&["run", "--json", "-", "--option", "stats-on-sigterm=0", subject(), "kill", "15"]).json();
    assert_eq!((&json["record"], &json["no_record"]), (&Value::Null, &Value::from("SIGTERM killed it")));
}

#[test]
fn disabled_allocator_is_told() {
    let finished = run(&["run", "--stats", "--option", "disable=1", subject(), "exit", "0"]);
    assert!(finished.stderr.contains("\n  disabled        the system's allocator served"), "{finished:?}");
    assert!(!finished.stderr.contains("\n  held") && !finished.stderr.contains("0 B"), "{finished:?}");
}

#[test]
fn summary_has_the_figures_of_the_record() {
    let (summary, _, record) = run_with_records(&[], &[subject(), "exit", "0"]);
    let pid = figure(&record, "pid");
    assert!(summary.starts_with(&format!("magalloc: {} (process {pid}) ended with exit code 0\n", subject())));
    let line = |name: &str| {
        let found = summary.lines().find_map(|line| line.strip_prefix("  ")?.strip_prefix(name));
        found.unwrap_or_else(|| panic!("no {name} in {summary}")).trim().to_string()
    };
    let count = |name| figure(&record, name);
    let work = format!("{} refills, {} flushes, {} OS calls", count("refills"), count("flushes"), count("os_calls"));
    assert_eq!(line("work"), work);
    let in_use =
        format!("{} slabs, {} large blocks, {} threads", count("slabs"), count("large_blocks"), count("threads"));
    assert_eq!(line("in use"), in_use);
    assert!(line("given back").ends_with(&format!(" of the peak, {} purges", count("purges"))), "{summary}");
    for (name, prefix, key) in [
        ("held", " at its peak", "held_peak"),
        ("live", " at the end", "live"),
        ("committed", ", of ", "committed"),
        ("metadata", "", "metadata"),
    ] {
        let line = line(name);
        let words = if prefix.is_empty() { &line } else { line.split_once(prefix).unwrap().0 };
        let (shown, exact) = (bytes(words), count(key) as f64);
        assert!((shown - exact).abs() <= exact * 0.006, "{name}: {words} is not {exact}");
    }
    for class in record.lines().filter_map(|line| line.strip_prefix("class ")) {
        let numbers: Vec<u64> = class.split(' ').map(|number| number.parse().unwrap()).collect();
        let [block, slabs, blocks, cached] = numbers[..] else { panic!("{class}") };
        let row = [block, slabs, blocks - cached, cached].map(|number| number.to_string());
        let shown = |line: &str| line.split_whitespace().take(4).eq(row.iter().map(String::as_str));
        assert!(summary.lines().any(shown), "{class} is not in {summary}");
    }
}

#[test]
fn json_goes_to_standard_output_behind_the_programs() {
    let finished = run(&["run", "--json", "-", subject(), "variable", "MAGALLOC_STATS_FILE"]);
    let (path, json) = finished.stdout.split_once('\n').unwrap();
    let json: Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["record"]["pid"], json["pid"]);
    assert_eq!(finished.stderr, "", "there is no summary");
    assert!(!Path::new(path).exists() && !Path::new(path).parent().unwrap().exists(), "{path} is left");
}

#[test]
fn exit_in_a_thread_leaves_a_record() {
    let finished = run(&["run", "--json", "-", subject(), "thread", "5"]);
    assert_eq!(finished.code(), Some(5));
    let json = finished.json();
    assert_eq!(json["record"]["pid"], json["pid"]);
    assert_eq!(json["no_record"], Value::Null);
}

#[test]
fn program_without_record_is_told_of() {
    for (program, code, reason) in [
        (
            ["leave", "4"],
            Some(4),
            "it allocated nothing, ended by _exit, or did not load the library (see magalloc doctor)",
        ),
        (["kill", "9"], None, "SIGKILL killed it"),
    ] {
        let finished = run(&["run", "--stats", subject(), program[0], program[1]]);
        assert_eq!(finished.code(), code);
        let line = format!("  no record was written: {reason}\n");
        assert!(finished.stderr.contains(&line), "{finished:?}");
        assert!(finished.stderr.contains("\n  kernel: memory  "), "{finished:?}");
    }
}

#[test]
fn record_of_a_child_is_not_the_programs() {
    let script = r#""$0" exit 0; kill -KILL $$"#;
    let json = run(&["run", "--json", "-", "sh", "-c", script, subject()]).json();
    assert_eq!((&json["record"], &json["ending"]["signal_name"]), (&Value::Null, &Value::from("SIGKILL")));
    assert_eq!(json["children"][0]["program"], subject());
}

#[test]
fn nothing_is_left_in_the_folder_for_temporary_files() {
    let folder = tempfile::tempdir().unwrap();
    for action in [["exit", "0"], ["kill", "9"], ["kill", "11"]] {
        let mut command = magalloc(["run", "--stats", subject(), action[0], action[1]]);
        finish(command.env("TMPDIR", folder.path()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{action:?}");
    }
}

#[test]
fn children_are_listed() {
    let (summary, json, records) = run_with_records(&[], &[subject(), "children"]);
    let children = json["children"].as_array().unwrap();
    assert_eq!(children.len(), 2, "{json}");
    assert_eq!(records.matches("magalloc-stats").count(), 3);
    for child in children {
        assert_eq!(child["parent"], json["pid"]);
        let line = summary.lines().find(|line| line.trim().starts_with(&format!("{} ", child["pid"]))).unwrap();
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields[1], child["refills"].to_string());
        assert_eq!(*fields.last().unwrap(), subject());
    }
    assert_eq!(json["record"]["pid"], json["pid"]);
}

#[test]
fn children_can_be_left_out() {
    let (_, json, records) = run_with_records(&["--no-children"], &[subject(), "children"]);
    assert_eq!(json["children"].as_array().unwrap().len(), 0, "{json}");
    assert_eq!(json["record"]["pid"], json["pid"]);
    assert_eq!(records.matches("magalloc-stats").count(), 1);
}

#[test]
fn broken_and_older_records_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records");
    fs::write(&file, "magalloc-stats 1\npid 1\nend\n").unwrap();
    let option = format!("STATS_FILE={}", file.display());
    // What is cut off stands before the program's own record.
    let script = r#"printf 'magalloc-stats 1\npid 77\n' >>"$MAGALLOC_STATS_FILE"; exec "$0" exit 0"#;
    let finished = run(&["run", "--stats", "--json", "-", "--option", &option, "sh", "-c", script, subject()]);
    let json = finished.json();
    assert_eq!(json["record"]["pid"], json["pid"], "{json}");
    assert_eq!((json["children"].as_array().unwrap().len(), &json["broken_records"]), (0, &Value::from(1)));
    assert!(finished.stderr.ends_with("  1 broken record was skipped\n"), "{finished:?}");
}
