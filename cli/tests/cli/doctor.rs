//! `magalloc doctor` tries, and tells.

use std::fs;

use crate::process::{finish, idle_library, library, magalloc, run};

/// What stands in the JSON under `name`: level and meaning.
#[track_caller]
fn finding(json: &serde_json::Value, name: &str) -> (String, String) {
    let findings = json["findings"].as_array().unwrap();
    let found =
        findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("no {name} in {json}"));
    let text = |field: &str| found[field].as_str().unwrap().to_string();
    (text("level"), text("meaning"))
}

#[test]
fn working_library_is_found_to_work() {
    let finished = run(&["doctor"]);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_eq!(finished.stderr, "");
    assert!(finished.stdout.ends_with("\npreloading works here\n"), "{finished:?}");
    for name in ["library", "preload", "kernel", "page size", "overcommit", "ulimit -v", "control group"] {
        let line = finished.stdout.lines().find(|line| line[9..].starts_with(name));
        assert!(line.is_some_and(|line| !line.starts_with("ERROR")), "{name}: {finished:?}");
    }
}

#[test]
fn json_tells_the_same() {
    let finished = run(&["doctor", "--json"]);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let json = finished.json();
    assert_eq!(json["preload"], true);
    for (name, done) in [("preload", "left a record"), ("preload, system", "started with the library")] {
        let (level, meaning) = finding(&json, name);
        assert_eq!(level, "ok");
        assert!(meaning.contains(done), "{meaning}");
    }
    let text = run(&["doctor"]).stdout;
    for finding in json["findings"].as_array().unwrap() {
        let line = text.lines().find(|line| line.contains(finding["name"].as_str().unwrap()));
        assert!(line.is_some(), "{finding} is not in {text}");
    }
}

#[test]
fn broken_library_is_found_to_be_broken() {
    let folder = tempfile::tempdir().unwrap();
    let (text, other) = (folder.path().join("text.so"), folder.path().join("other.so"));
    fs::write(&text, "no library").unwrap();
    let mut bytes = fs::read(library()).unwrap();
    // The processor that it is for.
    bytes[18] = !bytes[18];
    fs::write(&other, &bytes).unwrap();
    let none = format!("{}: cannot be preloaded: it is not libmagalloc.so", text.display());
    for (path, name, expected) in [
        (text.as_path(), "library", none.as_str()),
        (&other, "preload", "the library was not loaded: ERROR: ld.so: "),
        (idle_library(), "preload", "it has the library, but left no record of its end"),
    ] {
        let finished = finish(magalloc(["doctor", "--json"]).env("MAGALLOC_LIB", path));
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        let json = finished.json();
        assert_eq!(json["preload"], false);
        let (level, meaning) = finding(&json, name);
        assert_eq!(level, "error");
        assert!(meaning.starts_with(expected), "{meaning}");
    }
}

#[test]
fn missing_library_is_told() {
    let finished = finish(magalloc(["doctor"]).env("MAGALLOC_LIB", "/no/such.so"));
    assert_eq!(finished.code(), Some(1));
    let line = "ERROR    library            none: MAGALLOC_LIB=/no/such.so: there is no such file\n";
    assert!(finished.stdout.starts_with(line), "{finished:?}");
    assert!(finished.stdout.ends_with("\npreloading does not work here\n"), "{finished:?}");
}

#[test]
fn wrong_variable_is_warned_of() {
    let mut command = magalloc(["doctor", "--json"]);
    let finished = finish(command.env("MAGALLOC_SPEED", "1"));
    assert_eq!(finding(&finished.json(), "environment").0, "warning");
}

#[test]
fn limit_of_address_space_is_told() {
    let script = r#"ulimit -v 1048576; exec "$@""#;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, "sh", crate::process::MAGALLOC, "doctor", "--json"]).env("MAGALLOC_LIB", library());
    let output = finish(command.stdout(std::process::Stdio::piped()));
    assert_eq!(output.code(), Some(0), "{output:?}");
    assert_eq!(finding(&output.json(), "ulimit -v").0, "note");
}
