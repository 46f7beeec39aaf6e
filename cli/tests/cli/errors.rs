//! What goes wrong is one line and an exit code.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::process::{MAGALLOC, WAYS, copy, finish, library, magalloc, run, way};

/// The end is `code`, after exactly this line on standard error.
#[track_caller]
fn assert_fails(command: &mut std::process::Command, code: i32, line: &str) {
    let finished = finish(command);
    assert_eq!(finished.stderr, format!("magalloc: {line}\n"));
    assert_eq!(finished.code(), Some(code));
    assert_eq!(finished.stdout, "");
}

fn write(path: &Path, text: &str, mode: u32) {
    let source = path.with_extension("source");
    fs::write(&source, text).unwrap();
    copy(source, path);
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn missing_program_is_127() {
    for arguments in WAYS {
        assert_fails(&mut way(arguments, &["no-such-program"]), 127, "no-such-program: program not found");
        assert_fails(&mut way(arguments, &["/no/such", "x"]), 127, "/no/such: program not found");
    }
}

#[test]
fn program_that_cannot_be_executed_is_126() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    write(Path::new(&path("plain")), "", 0o644);
    write(Path::new(&path("script")), "#!/no/such\n", 0o755);
    for arguments in WAYS {
        let fails = |name: &str, reason: &str| {
            let path = path(name);
            assert_fails(&mut way(arguments, &[&path]), 126, &format!("{path}: {reason}"));
        };
        fails("plain", "Permission denied");
        fails("script", "its interpreter is missing");
        fails("", "Is a directory");
        fails("plain/x", "Not a directory");
    }
}

#[test]
fn wrong_arguments_are_2() {
    let cases: [(&[&str], &str); 8] = [
        (&[], "no command: run, doctor, options, completions or man (see magalloc --help)"),
        (&["walk"], "unrecognized subcommand 'walk' (see magalloc --help)"),
        (&["run", "--fast", "true"], "unexpected argument '--fast' found (see magalloc --help)"),
        (&["run"], "the following required arguments were not provided: <PROGRAM>... (see magalloc --help)"),
        (&["run", "--option", "HUGE_PAGES", "true"], "--option HUGE_PAGES: expected NAME=VALUE"),
        (
            &["run", "--option", "huge-pages=2", "true"],
            "--option huge-pages=2: HUGE_PAGES cannot be \"2\", but auto, system, never or always",
        ),
        (&["run", "--json", "/no/such/file", "true"], "--json /no/such/file: No such file or directory"),
        (&["doctor", "extra"], "unexpected argument 'extra' found (see magalloc --help)"),
    ];
    for (arguments, line) in cases {
        assert_fails(&mut magalloc(arguments), 2, line);
    }
}

#[test]
fn unknown_option_lists_those_there_are() {
    let finished = run(&["run", "--option", "SPEED=1", "true"]);
    assert_eq!(finished.code(), Some(2));
    assert!(finished.stderr.starts_with("magalloc: --option SPEED=1: no option \"SPEED\"; there are "));
    for option in magalloc::OPTION_TABLE {
        assert!(finished.stderr.contains(option.name), "{finished:?}");
    }
    assert_eq!(finished.stderr.lines().count(), 1);
}

#[test]
fn missing_library_is_2_and_says_where_it_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    assert_fails(
        magalloc(["run", "true"]).env("MAGALLOC_LIB", "/no/such.so"),
        2,
        "MAGALLOC_LIB=/no/such.so: there is no such file",
    );
    let line = format!("MAGALLOC_LIB={}: not a file", folder.display());
    assert_fails(magalloc(["run", "true"]).env("MAGALLOC_LIB", &folder), 2, &line);
    if cfg!(feature = "embed") {
        return;
    }
    fs::create_dir(folder.join("bin")).unwrap();
    let program = folder.join("bin/magalloc");
    copy(MAGALLOC, &program);
    let beside = folder.join("bin");
    let line = format!(
        "no libmagalloc.so: looked for {0}/libmagalloc.so and {0}/../lib/libmagalloc.so; or set MAGALLOC_LIB",
        beside.display()
    );
    let mut command = std::process::Command::new(program);
    command.args(["run", "true"]).env_remove("MAGALLOC_LIB");
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    assert_fails(&mut command, 2, &line);
}

#[test]
fn library_that_others_could_have_put_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libmagalloc.so");
    fs::copy(library(), &path).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let line = format!(
        "MAGALLOC_LIB={}: not preloaded: {}: others may write to this folder",
        path.display(),
        folder.path().canonicalize().unwrap().display()
    );
    assert_fails(magalloc(["run", "true"]).env("MAGALLOC_LIB", &path), 2, &line);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(finish(magalloc(["run", "true"]).env("MAGALLOC_LIB", &path)).code(), Some(0));
}

#[test]
fn help_and_options_go_to_standard_output() {
    for (arguments, parts) in [
        (&["--help"][..], &["run", "doctor", "options", "Examples:"][..]),
        (&["run", "--help"], &["--stats", "--json", "--option", "--no-children", "Examples:", "127"]),
        (&["doctor", "--help"], &["--json", "Exit codes:"]),
        (&["options"], &["PURGE_DELAY_MS", "milliseconds   ", "  1000  "]),
        (&["--version"], &["magalloc 0"]),
        (&["man"], &[".TH magalloc 1", ".SH \"MAGALLOC RUN\"", "CHECK_FREES=1", "Exit codes"]),
        (&["completions", "bash"], &["complete -F _magalloc", "--no-children", "doctor"]),
        (&["completions", "zsh"], &["#compdef magalloc", "--no-children"]),
        (&["completions", "fish"], &["complete -c magalloc", "no-children"]),
    ] {
        let finished = run(arguments);
        assert_eq!((finished.code(), finished.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        for part in parts {
            assert!(finished.stdout.contains(part), "{part:?} is not in {}", finished.stdout);
        }
    }
}
