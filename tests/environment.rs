//! Options from the environment: what they change in a program that says nothing, or something else, in its code.
//! Each scenario is a process that was started with its variables.

mod process;

use magalloc::{AtExit, Magalloc};
use process::{Outcome, command, give, run, say, take};
use std::os::unix::process::CommandExt;
use std::sync::{Arc, Barrier};

const OPTIONS: Magalloc = Magalloc::new().at_exit(AtExit::None);
static DEFAULT: Magalloc = OPTIONS;
static SAME: Magalloc = Magalloc::new().at_exit(AtExit::None);
static ANOTHER: Magalloc = OPTIONS.hard_limit(TOO_MUCH / 2).report_exit(true);
static CLOSED: Magalloc = OPTIONS.at_exit(AtExit::Unused).environment(false).report_exit(true);

/// A program without a loader, which finds no other allocator in it.
const IS_STATIC: bool = cfg!(target_feature = "crt-static");

/// A request that no limit of these tests allows.
const TOO_MUCH: usize = 64 << 20;

/// Asks for `TOO_MUCH`, in a small program.
fn ask(allocator: &Magalloc) {
    give(allocator, take(allocator, 100), 100);
    let block = allocator.allocate(TOO_MUCH);
    say(if block.is_null() { "null" } else { "block" });
    // SAFETY: a live block, or null.
    unsafe { allocator.free(block) };
}

/// Blocks of many sizes, in use at the same time, all from the same allocator.
fn use_blocks(is_ours: bool) {
    let sizes = [0, 1, 8, 9, 64, 65, 1000, 4096, 32 << 10, 33 << 10, 1 << 20, 9 << 20];
    for size in sizes {
        let blocks = [
            DEFAULT.allocate(size),
            DEFAULT.allocate_zeroed(size),
            DEFAULT.allocate_aligned(size, 4096),
            take(&DEFAULT, size.max(1)),
        ];
        for block in blocks {
            assert!(!block.is_null() && DEFAULT.owns(block) == is_ours);
            // SAFETY: a live block.
            assert!(unsafe { DEFAULT.usable_size(block) } >= size);
            // SAFETY: a live block, not used afterwards.
            let longer = unsafe { DEFAULT.reallocate(block, 2 * size + 1) };
            assert!(!longer.is_null() && DEFAULT.owns(longer) == is_ours);
            // SAFETY: a live block of that length.
            unsafe { longer.write_bytes(7, 2 * size + 1) };
            // SAFETY: a live block, not used afterwards.
            unsafe { DEFAULT.free(longer) };
        }
    }
    say("used");
}

/// Growth inside a size class, where Rust's `realloc` asks nobody.
fn grow_in_class() {
    use std::alloc::{GlobalAlloc, Layout};
    let layout = Layout::from_size_align(65, 8).unwrap();
    // SAFETY: the size is not 0.
    let block = unsafe { DEFAULT.alloc(layout) };
    // SAFETY: a live block of that layout.
    let block = unsafe { DEFAULT.realloc(block, layout, 80) };
    // SAFETY: now 80 bytes long.
    unsafe { block.write_bytes(7, 80) };
    // SAFETY: a live block of that layout.
    unsafe { DEFAULT.dealloc(block, Layout::from_size_align(80, 8).unwrap()) };
    say("grown");
}

/// The statistics of a block of 4096 bytes, whatever else there is.
fn terminate() {
    let _ = take(&DEFAULT, 4096);
    // SAFETY: no conditions.
    unsafe { libc::raise(libc::SIGTERM) };
    say("survived");
}

/// Beside threads that allocate all the time, one of which may get the signal.
fn terminate_amid_work() {
    let _ = take(&DEFAULT, 4096);
    let working = Arc::new(Barrier::new(4));
    for _ in 0..3 {
        let working = Arc::clone(&working);
        std::thread::spawn(move || {
            let round = || [10, 1000, 50_000].map(|size| give(&DEFAULT, take(&DEFAULT, size), size));
            round();
            working.wait();
            loop {
                round();
            }
        });
    }
    working.wait();
    // Twice, as from a process group and from whoever forwards signals.
    for _ in 0..2 {
        // SAFETY: no conditions.
        unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
    }
    loop {
        std::thread::park();
    }
}

/// The signal is blocked but in a call that waits for it.
fn terminate_in_sigsuspend() {
    let _ = take(&DEFAULT, 4096);
    // SAFETY: all zeros is a valid signal set.
    let [mut only, mut none]: [libc::sigset_t; 2] = unsafe { std::mem::zeroed() };
    // SAFETY: the sets are valid, the signal is one; the handler is the allocator's.
    unsafe {
        libc::sigemptyset(&raw mut none);
        libc::sigemptyset(&raw mut only);
        libc::sigaddset(&raw mut only, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const only, std::ptr::null_mut());
        libc::raise(libc::SIGTERM);
        libc::sigsuspend(&raw const none);
    }
    say("survived");
}

/// The program sets a handler of its own.
fn handle_sigterm() {
    extern "C" fn handler(_signal: libc::c_int) {
        say("handled, ");
    }
    let _ = take(&DEFAULT, 4096);
    // SAFETY: the handler makes a system call only.
    unsafe { libc::signal(libc::SIGTERM, handler as *const () as usize) };
    terminate();
}

fn with(scenario: &str, variables: &[(&str, &str)]) -> Outcome {
    run(command(scenario).envs(variables.iter().copied()))
}

fn limit_is_read() {
    with("ask", &[]).expect(0, "block", "");
    with("ask", &[("MAGALLOC_HARD_LIMIT", "16M")]).expect(0, "null", "");
    with("ask", &[("MAGALLOC_HARD_LIMIT", "160M")]).expect(0, "block", "");
}

fn builder_may_forbid_it() {
    let outcome = with("ask_closed", &[("MAGALLOC_HARD_LIMIT", "16M"), ("MAGALLOC_REPORT_EXIT", "0")]);
    outcome.expect_kept(0, "block");
}

fn ignored_options_are_told_once() {
    let line =
        "magalloc: the options of the first Magalloc hold; those of another one are ignored: report_exit hard_limit\n";
    let asked = "block".repeat(4);
    with("ask_another", &[]).expect(0, &asked, line);
    with("ask_same", &[]).expect(0, &asked, "");
    // What the environment says is what both have.
    let line = line.replace(" hard_limit", "");
    with("ask_another", &[("MAGALLOC_HARD_LIMIT", "160M")]).expect(0, &asked, &line);
    with("ask_same", &[("MAGALLOC_HARD_LIMIT", "160M"), ("MAGALLOC_PURGE_DELAY_MS", "70")]).expect(0, &asked, "");
    let bad = "magalloc: MAGALLOC_AT_EXIT cannot be \"now\", but all, unused or none; it is ignored\n";
    with("ask_same", &[("MAGALLOC_AT_EXIT", "now")]).expect(0, &asked, bad);
}

fn unknown_names_and_values_are_told_once() {
    let lines = "magalloc: MAGALLOC_HARDLIMIT is no option; it is ignored\n\
                 magalloc: MAGALLOC_HARD_LIMIT cannot be \"16MB\", but bytes, such as 1G, or none; it is ignored\n";
    // The order of the variables is the environment's.
    let outcome = with("ask", &[("MAGALLOC_HARDLIMIT", "1"), ("MAGALLOC_HARD_LIMIT", "16MB")]);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&outcome.stderr), sorted(lines), "{outcome:?}");
    outcome.expect(0, "block", &outcome.stderr);
    with("ask", &[("MAGALLOC_LIB", "/anywhere"), ("MAGALLOCX", "1")]).expect(0, "block", "");
}

fn disabled_is_the_systems_allocator() {
    with("use_own", &[]).expect(0, "used", "");
    if IS_STATIC {
        let line = "magalloc: there is no other allocator in this program; MAGALLOC_DISABLE is ignored\n";
        return with("use_own", &[("MAGALLOC_DISABLE", "1")]).expect(0, "used", line);
    }
    with("use_systems", &[("MAGALLOC_DISABLE", "1")]).expect(0, "used", "");
    with("grow_in_class", &[("MAGALLOC_DISABLE", "1")]).expect(0, "grown", "");
}

/// Also under valgrind, which sees each byte beyond a block of the system's.
fn disabled_blocks_are_as_long_as_their_class() {
    if IS_STATIC {
        return process::skip("no block of a static program is the system's");
    }
    if cfg!(target_pointer_width = "32") {
        return process::skip("a valgrind for 64 bits has no library for a program of 32");
    }
    if !process::is_installed("valgrind") {
        return process::skip("valgrind is not installed");
    }
    let arguments = ["--quiet", "--error-exitcode=9"];
    let mut command = process::command_under("valgrind", &arguments, "grow_in_class");
    run(command.env("MAGALLOC_DISABLE", "1")).expect(0, "grown", "");
}

/// What is appended to a statistics file while `run` makes use of it.
fn appended(name: &str, run: impl FnOnce(&str)) -> String {
    let path = std::env::temp_dir().join(format!("magalloc-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    run(path.to_str().unwrap());
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(&path);
    text
}

fn is_one_record(text: &str) -> bool {
    text.starts_with("magalloc-stats 1\n") && text.ends_with("\nend\n") && text.matches("magalloc-stats").count() == 1
}

fn sigterm_leaves_a_record() {
    for scenario in ["terminate", "terminate_amid_work", "terminate_in_sigsuspend"] {
        for _ in 0..10 {
            let text = appended(scenario, |path| {
                let outcome = with(scenario, &[("MAGALLOC_STATS_FILE", path), ("MAGALLOC_STATS_ON_SIGTERM", "1")]);
                assert_eq!((outcome.signal, &*outcome.stdout, &*outcome.stderr), (Some(libc::SIGTERM), "", ""));
            });
            assert!(is_one_record(&text) && text.contains("\nclass 4096 1 "), "{scenario}: {text}");
        }
    }
}

fn sigterm_is_let_alone_without_need() {
    let ends_by_signal = |variables: &[(&str, &str)]| {
        let outcome = with("terminate", variables);
        assert_eq!((outcome.signal, &*outcome.stdout, &*outcome.stderr), (Some(libc::SIGTERM), "", ""));
    };
    assert_eq!(appended("unasked", |path| ends_by_signal(&[("MAGALLOC_STATS_FILE", path)])), "");
    ends_by_signal(&[("MAGALLOC_STATS_ON_SIGTERM", "1")]);
    // The program's own handler stays, and the record is that of its normal end.
    let text = appended("handled", |path| {
        let variables = [("MAGALLOC_STATS_FILE", path), ("MAGALLOC_STATS_ON_SIGTERM", "1")];
        with("handle_sigterm", &variables).expect(0, "handled, survived", "");
    });
    assert!(is_one_record(&text), "{text}");
    // It was ignored before, and is so still.
    let text = appended("ignored", |path| {
        let mut command = command("terminate");
        command.env("MAGALLOC_STATS_FILE", path).env("MAGALLOC_STATS_ON_SIGTERM", "1");
        // SAFETY: what runs between fork and exec calls nothing but signal.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGTERM, libc::SIG_IGN);
                Ok(())
            });
        }
        run(&mut command).expect(0, "survived", "");
    });
    assert!(is_one_record(&text), "{text}");
}

fn disabled_allocator_says_so() {
    if !IS_STATIC {
        let text = appended("disabled", |path| {
            let variables = [("MAGALLOC_STATS_FILE", path), ("MAGALLOC_DISABLE", "1")];
            with("use_systems", &variables).expect(0, "used", "");
        });
        assert!(is_one_record(&text) && text.contains("\ndisabled 1\n"), "{text}");
    }
    let text = appended("enabled", |path| {
        with("use_own", &[("MAGALLOC_STATS_FILE", path)]).expect(0, "used", "");
    });
    assert!(text.contains("\ndisabled 0\n"), "{text}");
}

fn record_is_appended() {
    let text = appended("record", |path| {
        let variables = [("MAGALLOC_STATS_FILE", path)];
        with("ask", &variables).expect(0, "block", "");
        with("use_own", &variables).expect(0, "used", "");
    });
    let records: Vec<&str> = text.split_inclusive("\nend\n").collect();
    assert_eq!(records.len(), 2, "{text}");
    for record in records {
        let figure = |name: &str| -> u64 {
            let line = record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in {record}")).parse().unwrap()
        };
        assert!(record.starts_with("magalloc-stats 1\npid "), "{record}");
        assert_eq!(figure("parent"), u64::from(std::process::id()));
        assert!(figure("held_peak") >= figure("held") && figure("committed") >= figure("held_peak"), "{record}");
        assert!(figure("held_peak") >= TOO_MUCH as u64 || record.contains("\nclass 4096 "), "{record}");
        assert!(record.contains(&format!("\nprogram {}\n", std::env::current_exe().unwrap().display())), "{record}");
    }
}

fn options_are_printed() {
    let text = format!("{:?}", OPTIONS.stats_file("/a \"b\""));
    assert!(text.contains(r#"stats_file: "/a \"b\"", "#) && text.len() < 600, "{text}");
    assert!(format!("{DEFAULT:?}").contains(r#"stats_file: "", "#));
}

fn record_that_cannot_be_written_is_told() {
    let line = "magalloc: the statistics cannot be appended to /does/not/exist\n";
    with("ask", &[("MAGALLOC_STATS_FILE", "/does/not/exist")]).expect(0, "block", line);
}

fn main() {
    process::main(
        &[
            ("ask_another", || {
                ask(&DEFAULT);
                ask(&ANOTHER);
                ask(&SAME);
                ask(&ANOTHER);
            }),
            ("ask_same", || {
                ask(&DEFAULT);
                ask(&SAME);
                std::thread::spawn(|| ask(&SAME)).join().unwrap();
                ask(&DEFAULT);
            }),
            ("ask", || ask(&DEFAULT)),
            ("ask_closed", || ask(&CLOSED)),
            ("use_own", || use_blocks(true)),
            ("use_systems", || use_blocks(false)),
            ("grow_in_class", grow_in_class),
            ("terminate", terminate),
            ("terminate_amid_work", terminate_amid_work),
            ("terminate_in_sigsuspend", terminate_in_sigsuspend),
            ("handle_sigterm", handle_sigterm),
        ],
        &[
            ("environment_overrules_the_builder", limit_is_read),
            ("builder_that_forbids_it_is_obeyed", builder_may_forbid_it),
            ("ignored_options_of_another_value_are_told_once", ignored_options_are_told_once),
            ("unknown_names_and_values_are_told_and_ignored", unknown_names_and_values_are_told_once),
            ("disabled_allocator_passes_everything_on", disabled_is_the_systems_allocator),
            ("disabled_realloc_inside_a_class_has_room", disabled_blocks_are_as_long_as_their_class),
            ("record_is_appended_to_the_statistics_file", record_is_appended),
            ("sigterm_leaves_a_record_and_ends_the_process", sigterm_leaves_a_record),
            ("sigterm_is_let_alone_without_need", sigterm_is_let_alone_without_need),
            ("record_of_a_disabled_allocator_says_so", disabled_allocator_says_so),
            ("options_are_printed_without_the_room_of_a_path", options_are_printed),
            ("statistics_file_that_cannot_be_written_is_told", record_that_cannot_be_written_is_told),
        ],
    );
}
