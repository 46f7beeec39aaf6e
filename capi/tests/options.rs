//! Options from the environment: each has an effect; what cannot be understood is told and ignored.

use common::{MODES, Mode, Outcome, clean, compile, compile_shared, compile_with, run, shared_library, skip};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

mod common;

/// A value of each option, and one that it cannot have.
const VALUES: &[(&str, &str, &str)] = &[
    ("PURGE_DELAY_MS", "50", "soon"),
    ("DIRTY_BYTES_MAX", "16M", "16MB"),
    ("CACHE_BYTES_MAX", "64K", "-1"),
    ("BACKGROUND_THREAD", "0", "2"),
    ("EXTRA_CALLS", "1", "2"),
    ("SOFT_LIMIT", "90%", "101%"),
    ("HARD_LIMIT", "1G", ""),
    ("HUGE_PAGES", "never", "ALWAYS"),
    ("AT_EXIT", "unused", "some"),
    ("REPORT_EXIT", "0", "yes!"),
    ("STATS_FILE", "/dev/null", ""),
    ("STATS_ON_SIGTERM", "1", "2"),
    ("FOREIGN", "ignore", "Ignore"),
    ("DISABLE", "1", "maybe"),
    ("CHECK_FREES", "1", "all"),
    ("COUNTING", "1", "on!"),
    ("CHILDREN", "0", "none"),
    ("KEEP_DEEPBIND", "1", "deep"),
];

/// Runs a scenario of a program with these variables.
fn with(source: &str, mode: Mode, variables: &[(&str, &str)], scenario: &str) -> Outcome {
    println!("{source} {scenario} {mode:?} {variables:?}");
    let mut command = compile(source, mode).command();
    run(command.envs(variables.iter().copied()).arg(scenario))
}

/// The same in all modes; it is silent and exits with 0.
#[track_caller]
fn expect_with(variables: &[(&str, &str)], scenario: &str) {
    for mode in MODES {
        with("options.c", mode, variables, scenario).expect(0, "", "");
    }
}

#[test]
fn every_option_is_accepted() {
    let names: Vec<_> = VALUES.iter().map(|(name, ..)| *name).collect();
    let table: Vec<_> = allocator::OPTION_TABLE.iter().map(|option| option.name).collect();
    assert_eq!(names, table, "each option has a line here");
    for (name, value, _) in VALUES {
        let name = format!("MAGALLOC_{name}");
        with("options.c", Mode::Preloaded, &[(&name, value)], "does_its_work").expect(0, "done\n", "");
    }
    let all: Vec<_> = VALUES.iter().map(|(name, value, _)| (format!("MAGALLOC_{name}"), *value)).collect();
    let all: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    for mode in MODES {
        with("options.c", mode, &all, "does_its_work").expect(0, "done\n", "");
    }
}

#[test]
fn bad_values_are_told_once_and_ignored() {
    for ((name, _, bad), option) in
        VALUES.iter().zip(allocator::OPTION_TABLE).filter(|((name, ..), _)| *name != "STATS_FILE")
    {
        let (name, values) = (format!("MAGALLOC_{name}"), option.values);
        let line = format!("magalloc: {name} cannot be \"{bad}\", but {values}; it is ignored\n");
        with("options.c", Mode::Preloaded, &[(&name, bad)], "does_its_work").expect(0, "done\n", &line);
    }
    let long = "x".repeat(512);
    let line =
        format!("magalloc: MAGALLOC_STATS_FILE cannot be \"{long}\", but path of up to 511 bytes; it is ignored\n");
    for mode in MODES {
        with("options.c", mode, &[("MAGALLOC_STATS_FILE", &long)], "does_its_work").expect(0, "done\n", &line);
    }
}

#[test]
fn unknown_names_are_told_once_and_ignored() {
    for mode in MODES {
        let line = "magalloc: MAGALLOC_NONSENSE is no option; it is ignored\n";
        with("options.c", mode, &[("MAGALLOC_NONSENSE", "1")], "does_its_work").expect(0, "done\n", line);
        let line = "magalloc: MAGALLOC_purge_delay_ms is no option; it is ignored\n";
        with("options.c", mode, &[("MAGALLOC_purge_delay_ms", "1")], "does_its_work").expect(0, "done\n", line);
        // Names of others, and the launcher's.
        let others = [("MAGALLOCX", "1"), ("XMAGALLOC_HARD_LIMIT", "1"), ("MAGALLOC_LIB", "/x"), ("MAGALLOC", "1")];
        with("options.c", mode, &others, "does_its_work").expect(0, "done\n", "");
    }
}

#[test]
fn short_purge_delay_gives_back_soon() {
    expect_with(&[("MAGALLOC_PURGE_DELAY_MS", "20")], "dirty_memory_is_given_back_soon");
}

#[test]
fn child_of_fork_gives_back_soon() {
    expect_with(&[("MAGALLOC_PURGE_DELAY_MS", "20")], "child_gives_dirty_memory_back_soon");
}

#[test]
fn endless_purge_delay_keeps() {
    let never = ("MAGALLOC_PURGE_DELAY_MS", "4294967295");
    with("options.c", Mode::Preloaded, &[never], "dirty_memory_is_kept").expect(0, "", "");
}

#[test]
fn dirty_bytes_beyond_the_maximum_are_given_back() {
    let never = ("MAGALLOC_PURGE_DELAY_MS", "4294967295");
    expect_with(&[never, ("MAGALLOC_DIRTY_BYTES_MAX", "8M")], "dirty_memory_is_given_back_soon");
}

#[test]
fn soft_limit_gives_back() {
    let never = ("MAGALLOC_PURGE_DELAY_MS", "4294967295");
    expect_with(&[never, ("MAGALLOC_SOFT_LIMIT", "16M")], "dirty_memory_is_given_back_soon");
}

#[test]
fn cache_bytes_max_bounds_the_cache() {
    expect_with(&[("MAGALLOC_CACHE_BYTES_MAX", "0")], "cache_is_small");
    expect_with(&[("MAGALLOC_CACHE_BYTES_MAX", "64M")], "cache_is_large");
}

#[test]
fn background_thread_comes_only_where_it_may() {
    expect_with(&[("MAGALLOC_BACKGROUND_THREAD", "1")], "background_thread_comes");
    expect_with(&[("MAGALLOC_BACKGROUND_THREAD", "0")], "background_thread_never_comes");
}

/// A program that never calls malloc itself.
#[test]
fn background_thread_comes_by_each_function() {
    for function in ["calloc", "realloc", "aligned_alloc", "memalign", "posix_memalign", "valloc", "pvalloc"] {
        expect_with(&[], &format!("background_thread_comes_by_{function}"));
    }
}

/// `ld.so program`: to the kernel, the loader is the program.
#[test]
fn background_thread_comes_where_the_loader_was_started_by_hand() {
    let Some(loader) = loader() else { return skip("the C library has no loader") };
    for mode in [Mode::Preloaded, Mode::Dynamic] {
        let mut command = clean(&loader);
        if mode == Mode::Preloaded {
            command.arg("--preload").arg(shared_library());
        }
        run(command.arg(compile("options.c", mode).path).arg("background_thread_comes")).expect(0, "", "");
    }
}

/// The loader of this program.
fn loader() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut paths = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5)).map(PathBuf::from);
    paths.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-")))
}

#[test]
fn hard_limit_refuses() {
    expect_with(&[("MAGALLOC_HARD_LIMIT", "64M")], "hard_limit_refuses");
}

#[test]
fn huge_pages_are_as_advised() {
    if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        return skip("no transparent huge pages");
    }
    // The block is new: by default, large ones have huge pages in what they grow by.
    for (value, flags) in
        [("auto", "not huge\n"), ("system", "system\n"), ("never", "not huge\n"), ("always", "huge\n")]
    {
        let variable = [("MAGALLOC_HUGE_PAGES", value)];
        with("options.c", Mode::Preloaded, &variable, "huge_pages_are_as_advised").expect(0, flags, "");
    }
}

#[test]
fn report_is_written_at_the_end() {
    for mode in MODES {
        for at_exit in ["none", "unused", "all"] {
            let variables = [("MAGALLOC_REPORT_EXIT", "1"), ("MAGALLOC_AT_EXIT", at_exit)];
            let outcome = with("options.c", mode, &variables, "does_its_work");
            let mapped = outcome.stderr.strip_prefix("magalloc: exit: unmapped 0 of ");
            let mapped = mapped.and_then(|rest| rest.strip_suffix(" mapped bytes\n"));
            assert!(mapped.is_some_and(|bytes| bytes.parse::<u64>().is_ok_and(|bytes| bytes > 0)), "{outcome:?}");
            assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "done\n"));
        }
        with("options.c", mode, &[("MAGALLOC_REPORT_EXIT", "0")], "does_its_work").expect(0, "done\n", "");
    }
}

const DISABLE: (&str, &str) = ("MAGALLOC_DISABLE", "1");

#[test]
fn disabled_allocator_owns_nothing() {
    for mode in MODES {
        with("options.c", mode, &[DISABLE], "disabled_allocator_owns_nothing").expect(0, "", "");
    }
}

#[test]
fn disabled_operators_are_the_systems() {
    for mode in MODES {
        with("disabled.cpp", mode, &[DISABLE], "disabled_operators_are_the_systems").expect(0, "", "");
    }
}

/// Constructors before this library's; and one that runs before the C library has an environment, so that blocks of
/// this allocator are there when it is disabled.
#[test]
fn blocks_from_before_it_was_disabled_come_back() {
    let first = compile_shared("early.c", "early-first", &["-Wl,-z,initfirst"]);
    let early = compile_shared("early.c", "early", &[]);
    for library in [first, early] {
        for preload in [[library.clone(), shared_library()], [shared_library(), library]] {
            let preload = preload.map(|path| path.display().to_string()).join(":");
            let mut command = compile("ends.c", Mode::Without).command();
            command.env("LD_PRELOAD", &preload);
            run(command.env(DISABLE.0, DISABLE.1).arg("handlers_are_served")).expect(0, "main\nfirst\nsecond\n", "");
            // The thread that had a cache of this allocator has none any more.
            let mut command = compile("options.c", Mode::Preloaded).command();
            command.env("LD_PRELOAD", preload).env(DISABLE.0, DISABLE.1).arg("disabled_allocator_owns_nothing");
            run(&mut command).expect(0, "", "");
        }
    }
}

#[test]
fn disabled_allocator_serves_odd_moments() {
    for scenario in ["key_destructors_allocate_and_free", "cancelled_threads_leave_nothing_locked"] {
        with("ends.c", Mode::Preloaded, &[DISABLE], scenario).expect(0, "", "");
    }
    with("forks.c", Mode::Preloaded, &[DISABLE], "forks_of_many_threads_at_once_work").expect(0, "", "");
}

#[test]
fn without_another_allocator_disable_is_told_and_ignored() {
    let program = compile_with("ends.c", Mode::Static, &["-static"]);
    let line = "magalloc: there is no other allocator in this program; MAGALLOC_DISABLE is ignored\n";
    let mut command = program.command();
    run(command.arg("handlers_are_served").env(DISABLE.0, DISABLE.1)).expect(0, "main\nfirst\nsecond\n", line);
    run(program.command().arg("handlers_are_served")).expect(0, "main\nfirst\nsecond\n", "");
}

/// A folder that everybody can read, and that is removed whatever happens.
struct OpenFolder(PathBuf);

impl OpenFolder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("magalloc-set-uid-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
        Self(folder)
    }

    /// A copy that belongs to root.
    fn copy(&self, file: &Path, name: &str, mode: u32) -> PathBuf {
        let copy = self.0.join(name);
        std::fs::copy(file, &copy).unwrap();
        chown(&copy, Some(0), Some(0)).unwrap();
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(mode)).unwrap();
        copy
    }
}

impl Drop for OpenFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program that runs as root whoever starts it.
#[test]
fn set_uid_program_ignores_the_environment() {
    // SAFETY: no conditions.
    if unsafe { libc::geteuid() } != 0 {
        return skip("only root can make programs set-uid root");
    }
    const NOBODY: u32 = 65534;
    let folder = OpenFolder::new();
    folder.copy(&shared_library(), "libmagalloc.so", 0o755);
    // The folder comes first; the library's own is perhaps not to be read by everybody.
    let rpath = format!("-Wl,-rpath,{}", folder.0.display());
    for mode in [Mode::Dynamic, Mode::Static] {
        let program = folder.copy(&compile_with("options.c", mode, &[&rpath]).path, &format!("{mode:?}"), 0o4755);
        let file = folder.0.join("record");
        let mut command = common::clean(&program);
        command.arg("secure_process_ignores_options").env("MAGALLOC_NONSENSE", "1").env("MAGALLOC_HARD_LIMIT", "bad");
        command.env(DISABLE.0, DISABLE.1).env("MAGALLOC_STATS_FILE", &file).env("MAGALLOC_REPORT_EXIT", "1");
        let outcome = run(command.current_dir("/").uid(NOBODY).gid(NOBODY));
        if outcome.stdout == "not secure\n" {
            return skip("programs here cannot be set-uid");
        }
        outcome.expect(0, "", "");
        assert!(!file.exists());
        // Started by root it is not secure, and looks: disabled, it owns nothing.
        let outcome = run(command.uid(0).gid(0));
        assert!(outcome.code == Some(1) && outcome.stderr.contains("MAGALLOC_NONSENSE is no option"), "{outcome:?}");
    }
}
