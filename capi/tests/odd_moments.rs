//! Calls at odd moments: before `main` and after it, while threads and processes end, while libraries come and go.

use common::{MODES, Mode, Outcome, compile, compile_shared, compile_with, run, shared_library};
use std::path::PathBuf;

mod common;

/// Runs a scenario of `ends.c` in each mode.
#[track_caller]
fn expect_end(scenario: &str, code: i32, stdout: &str) {
    for mode in MODES {
        println!("{mode:?}");
        compile("ends.c", mode).scenario(scenario).expect(code, stdout, "");
    }
}

#[test]
fn handlers_are_served() {
    expect_end("handlers_are_served", 0, "main\nfirst\nsecond\n");
}

#[test]
fn exit_in_main_is_served() {
    expect_end("exit_in_main_is_served", 7, "main\nfirst\nsecond\n");
}

#[test]
fn calls_after_all_handlers_are_served() {
    expect_end("calls_after_all_handlers_are_served", 0, "fini\nlate\n");
}

#[test]
fn stdio_buffers_are_written_at_the_end() {
    let numbers: String = (0..9000).map(|number| format!("number {number}\n")).collect();
    expect_end("stdio_buffers_are_written_at_the_end", 0, &numbers);
}

#[test]
fn exit_in_other_thread_keeps_its_code() {
    expect_end("exit_in_other_thread_keeps_its_code", 8, "first\nsecond\n");
}

#[test]
fn return_among_busy_threads_is_clean() {
    (0..30).for_each(|_| expect_end("return_among_busy_threads_is_clean", 0, ""));
}

#[test]
fn process_lives_as_long_as_its_last_thread() {
    expect_end("process_lives_as_long_as_its_last_thread", 0, "last\nsecond\n");
}

#[test]
fn quick_exit_is_served() {
    expect_end("quick_exit_is_served", 9, "quick\n");
}

#[test]
fn underscore_exit_ends_at_once() {
    expect_end("underscore_exit_ends_at_once", 10, "");
}

#[test]
fn abort_ends_by_its_signal() {
    for mode in MODES {
        let outcome = compile("ends.c", mode).scenario("abort_ends_by_its_signal");
        assert_eq!((outcome.signal, outcome.stderr.as_str()), (Some(libc::SIGABRT), ""), "{mode:?} {outcome:?}");
    }
}

scenarios! { "ends.c":
    key_destructors_allocate_and_free
    cancelled_threads_leave_nothing_locked
    signals_are_not_swallowed
}

/// The last of them ends the process, which writes a record.
#[test]
fn smallest_stacks_are_enough() {
    expect_end("smallest_stacks_are_enough", 11, "");
    let file = common::scratch().join("small_stack");
    for mode in MODES {
        let mut command = compile("ends.c", mode).command();
        command.arg("smallest_stacks_are_enough").env("MAGALLOC_STATS_FILE", &file).env("MAGALLOC_AT_EXIT", "unused");
        run(&mut command).expect(11, "", "");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap().matches("magalloc-stats 1\n").count(), 3);
    std::fs::remove_file(file).unwrap();
}

#[test]
fn vfork_and_exec_work_among_threads() {
    expect_end("vfork_and_exec_work_among_threads", 0, &"started\n".repeat(50));
}

#[test]
fn posix_spawn_works_among_threads() {
    expect_end("posix_spawn_works_among_threads", 0, &"started\n".repeat(50));
}

#[test]
fn static_objects_are_destroyed_in_order() {
    for mode in MODES {
        let outcome = compile("statics.cpp", mode).scenario("static_objects_are_destroyed_in_order");
        outcome.expect(0, "main\nthread\nfunction\nprogram\n", "");
    }
}

#[test]
fn thread_local_objects_are_destroyed_with_their_threads() {
    for mode in MODES {
        let outcome = compile("statics.cpp", mode).scenario("thread_local_objects_are_destroyed_with_their_threads");
        outcome.expect(0, "program\n", "");
    }
}

/// A library whose constructor and destructor allocate, and say a word.
fn early() -> PathBuf {
    compile_shared("early.c", "early", &[])
}

/// `loads.c` with the library as an argument.
fn loading(mode: Mode, scenario: &str, library: PathBuf) -> Outcome {
    run(compile("loads.c", mode).command().arg(scenario).arg(library))
}

#[test]
fn destructor_of_unloaded_library_frees() {
    for mode in MODES {
        loading(mode, "destructor_of_unloaded_library_frees", early()).expect(0, "", "");
    }
}

#[test]
fn library_is_unloaded_in_a_thread() {
    for mode in MODES {
        loading(mode, "library_is_unloaded_in_a_thread", early()).expect(0, "", "");
    }
}

#[test]
fn library_that_stays_frees_at_the_end() {
    for mode in MODES {
        let mut command = compile("loads.c", mode).command();
        command.arg("library_that_stays_frees_at_the_end").arg(early()).env("EARLY_SAYS", "early\n");
        run(&mut command).expect(0, "early\nmain\nearly\n", "");
    }
}

/// Loaded before this library, or after it; as one of several to preload, and as one that the program needs.
#[test]
fn constructors_of_other_libraries_are_served() {
    let [first, second] = [early(), shared_library()].map(|path| path.display().to_string());
    for order in [[&first, &second], [&second, &first]] {
        let mut command = compile("ends.c", Mode::Without).command();
        command.env("LD_PRELOAD", order.map(String::as_str).join(":")).env("EARLY_SAYS", "early\n");
        run(command.arg("handlers_are_served")).expect(0, "early\nmain\nfirst\nsecond\nearly\n", "");
    }
    let folder = format!("-Wl,-rpath,{}", common::scratch().display());
    for (mode, needed) in [(Mode::Preloaded, &first), (Mode::Dynamic, &first), (Mode::Static, &first)] {
        let program = compile_with("ends.c", mode, &["-Wl,--no-as-needed", needed, &folder]);
        let mut command = program.command();
        command.arg("handlers_are_served").env("EARLY_SAYS", "early\n");
        run(&mut command).expect(0, "early\nmain\nfirst\nsecond\nearly\n", "");
    }
}

#[test]
fn library_itself_stays_loaded() {
    loading(Mode::Without, "library_itself_stays_loaded", shared_library()).expect(0, "", "");
}

#[test]
fn library_itself_serves_threads_from_before() {
    loading(Mode::Without, "library_itself_serves_threads_from_before", shared_library()).expect(0, "", "");
}

/// The program's handlers and the records that the library writes at the end, in the same process.
#[test]
fn preloaded_into_itself_linked_is_one_library() {
    let mut command = compile("ends.c", Mode::Dynamic).command();
    command.arg("handlers_are_served").env("LD_PRELOAD", shared_library());
    run(&mut command).expect(0, "main\nfirst\nsecond\n", "");
    // The archive's functions come first; the library is there, too, and unused.
    let mut command = compile("ends.c", Mode::Static).command();
    command.arg("handlers_are_served").env("LD_PRELOAD", shared_library());
    run(&mut command).expect(0, "main\nfirst\nsecond\n", "");
}
