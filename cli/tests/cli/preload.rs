//! How the library gets into the program.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};

use crate::process::{
    MAGALLOC, WAYS, copy, finish, idle_library, library, magalloc, run, static_subject, subject, way,
};

#[test]
fn library_is_loaded() {
    let library = library().to_str().unwrap();
    for arguments in WAYS {
        let finished = finish(&mut way(arguments, &[subject(), "search", "/proc/self/maps", library]));
        assert_eq!(finished.code(), Some(0));
        assert!(finished.stdout.contains(library), "{arguments:?}: {finished:?}");
    }
}

#[test]
fn options_become_variables() {
    for (option, variable, value) in [
        ("PURGE_DELAY_MS=7", "MAGALLOC_PURGE_DELAY_MS", "7"),
        ("magalloc-soft-limit=80%", "MAGALLOC_SOFT_LIMIT", "80%"),
        ("stats_file=/dev/null", "MAGALLOC_STATS_FILE", "/dev/null"),
    ] {
        for arguments in WAYS {
            let finished = finish(&mut way(arguments, &["--option", option, subject(), "variable", variable]));
            assert_eq!((finished.stdout, finished.stderr), (format!("{value}\n"), String::new()), "{option}");
        }
    }
    let check =
        |rest: &[&str]| run(&[&["run", "--check"], rest, &[subject(), "variable", "MAGALLOC_CHECK_FREES"]].concat());
    assert_eq!(check(&[]).stdout, "1\n");
    assert_eq!(check(&["--option", "check-frees=0"]).stdout, "0\n");
    let last =
        ["run", "--option=HARD_LIMIT=1G", "--option", "hard-limit=2G", subject(), "variable", "MAGALLOC_HARD_LIMIT"];
    assert_eq!(run(&last).stdout, "2G\n");
}

#[test]
fn present_preload_stays_behind() {
    let (library, other) = (library().display(), idle_library().display());
    let own = library.to_string();
    for (present, expected) in [
        (other.to_string(), format!("{library}:{other}\n")),
        (format!("{other}:{library}"), format!("{library}:{other}\n")),
        (own, format!("{library}\n")),
        (String::new(), format!("{library}\n")),
    ] {
        let mut command = magalloc(["run", subject(), "variable", "LD_PRELOAD"]);
        let finished = finish(command.env("LD_PRELOAD", &present));
        assert_eq!((finished.stdout, finished.stderr), (expected, String::new()), "{present}");
    }
}

#[test]
fn library_whose_path_has_spaces_and_colons_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let (home, odd) = (folder.join("home"), folder.join("an odd:place"));
    for folder in [&home, &odd] {
        fs::create_dir(folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = odd.join("libmagalloc.so");
    fs::copy(library(), &path).unwrap();
    // The second time, the link is there.
    for _ in 0..2 {
        let mut command = magalloc(["run", subject(), "search", "/proc/self/maps", "libmagalloc.so"]);
        command.env("MAGALLOC_LIB", &path).env("HOME", &home).env_remove("XDG_CACHE_HOME");
        let finished = finish(&mut command);
        assert!(finished.stdout.contains(path.to_str().unwrap()), "{finished:?}");
        assert_eq!(finished.stderr, "");
    }
    let cache = home.join(".cache/magalloc");
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(cache).unwrap().count(), 1);
}

#[test]
fn library_is_found_beside_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    for name in ["bin", "lib"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let program = folder.join("bin/magalloc");
    copy(MAGALLOC, &program);
    for place in ["lib", "bin"] {
        let library_here = folder.join(place).join("libmagalloc.so");
        fs::copy(library(), &library_here).unwrap();
        let mut command = Command::new(&program);
        command.args(["run", subject(), "variable", "LD_PRELOAD"]).env_remove("MAGALLOC_LIB");
        let finished = finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        assert_eq!(finished.stdout, format!("{}\n", library_here.display()), "{finished:?}");
    }
}

#[cfg(feature = "embed")]
#[test]
fn library_inside_the_program_is_unpacked_for_this_user_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let program = folder.join("magalloc");
    copy(MAGALLOC, &program);
    let (home, temporary) = (folder.join("home"), folder.join("tmp"));
    fs::create_dir(&temporary).unwrap();
    // Without a home it lies among the temporary files.
    for place in [temporary.clone(), home.join(".cache")] {
        let mut command = Command::new(&program);
        command.args(["run", subject(), "search", "/proc/self/maps", "libmagalloc"]).env("HOME", &home);
        command.env("TMPDIR", &temporary).env_remove("MAGALLOC_LIB").env_remove("XDG_CACHE_HOME");
        let finished = finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        assert!(finished.stdout.contains(place.to_str().unwrap()), "{finished:?}");
        let made = fs::read_dir(&place).unwrap().next().unwrap().unwrap();
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir_all(&home).unwrap();
    }
}

#[test]
fn static_program_is_warned_of_and_runs() {
    let warning =
        format!("magalloc: warning: {} is statically linked: it runs without the library\n", static_subject());
    for arguments in WAYS {
        let finished = finish(&mut way(arguments, &[static_subject(), "exit", "5"]));
        assert_eq!((finished.code(), finished.stderr.as_str()), (Some(5), warning.as_str()));
    }
    let finished = run(&["run", "--stats", static_subject(), "exit", "5"]);
    assert_eq!(finished.code(), Some(5));
    assert!(finished.stderr.starts_with(&warning), "{finished:?}");
    let reason = format!("\n  no record was written: {} is statically linked\n", static_subject());
    assert!(finished.stderr.contains(&reason), "{finished:?}");
}

#[test]
fn set_uid_program_is_warned_of_and_runs() {
    // SAFETY: no conditions.
    if unsafe { libc::geteuid() } != 0 {
        // Only root can make a file of somebody else's.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("program");
    copy(subject(), &path);
    chown(&path, Some(65534), None).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    let program = path.to_str().unwrap();
    let library = library().to_str().unwrap();
    let finished = run(&["run", program, "search", "/proc/self/maps", library]);
    let warning = format!("magalloc: warning: {program} is set-uid: it runs without the library\n");
    assert_eq!((finished.code(), finished.stdout.as_str(), finished.stderr), (Some(0), "", warning));
}
