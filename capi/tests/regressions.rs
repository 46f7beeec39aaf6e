//! Defects that there once were, and that no other test would notice.

use common::{MODES, Mode, Outcome, compile, compile_shared, run, scratch};
use std::os::unix::process::CommandExt;

mod common;

/// Runs a scenario of a program in `c/regressions`, with these options.
fn outcome(source: &str, mode: Mode, scenario: &str, options: &[(&str, &str)]) -> Outcome {
    std::fs::create_dir_all(scratch().join("regressions")).unwrap();
    let mut command = compile(&format!("regressions/{source}"), mode).command();
    run(command.arg(scenario).envs(options.iter().copied()))
}

/// The same in each mode: it exits with 0, after having said just `stdout`.
#[track_caller]
fn expect_with(source: &str, scenario: &str, options: &[(&str, &str)], stdout: &str) {
    for mode in MODES {
        println!("{mode:?}");
        outcome(source, mode, scenario, options).expect(0, stdout, "");
    }
}

#[track_caller]
fn expect(source: &str, scenario: &str) {
    expect_with(source, scenario, &[], "");
}

/// Bytes of address space that programs with a heap of several regions have.
const ADDRESS_SPACE_BYTES: libc::rlim_t = 400 << 20;

#[track_caller]
fn expect_in_several_regions(scenario: &str) {
    std::fs::create_dir_all(scratch().join("regressions")).unwrap();
    for mode in MODES {
        println!("{mode:?}");
        let mut command = compile("regressions/regions.c", mode).command();
        let limit_address_space = || {
            let limit = libc::rlimit { rlim_cur: ADDRESS_SPACE_BYTES, rlim_max: ADDRESS_SPACE_BYTES };
            // SAFETY: `limit` is valid.
            if unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        };
        // SAFETY: what is called in the child only sets a limit.
        unsafe { command.pre_exec(limit_address_space) };
        run(command.arg(scenario)).expect(0, "", "");
    }
}

#[test]
fn blocks_of_several_regions_are_kept() {
    expect_in_several_regions("blocks_of_several_regions_are_kept");
}

#[test]
fn blocks_of_several_regions_are_resized() {
    expect_in_several_regions("blocks_of_several_regions_are_resized");
}

#[test]
fn threads_that_never_allocate_leave_no_caches() {
    expect("caches.c", "threads_that_never_allocate_leave_no_caches");
}

#[test]
fn process_of_detached_threads_ends_with_its_main_thread() {
    expect_with("caches.c", "process_of_detached_threads_ends_with_its_main_thread", &[], "end\n");
}

#[test]
fn large_process_of_detached_threads_ends_with_its_main_thread() {
    expect_with("caches.c", "large_process_of_detached_threads_ends_with_its_main_thread", &[], "end\n");
}

#[test]
fn threads_that_begin_in_key_destructors_leave_no_caches() {
    expect("caches.c", "threads_that_begin_in_key_destructors_leave_no_caches");
}

#[test]
fn threads_have_caches_where_all_keys_are_taken() {
    expect("caches.c", "threads_have_caches_where_all_keys_are_taken");
}

/// Libraries with thread-local data, more than the loader's list has room for at first.
#[test]
fn libraries_are_loaded_in_children_of_a_large_process() {
    let folder = scratch().join("regressions");
    std::fs::create_dir_all(&folder).unwrap();
    let module = compile_shared("regressions/module.c", "module", &[]);
    for number in 1..=75 {
        std::fs::copy(&module, folder.join(format!("libmodule{number}.so"))).unwrap();
    }
    for mode in MODES {
        println!("{mode:?}");
        let mut command = compile("regressions/locks.c", mode).command();
        command.arg("libraries_are_loaded_in_children_of_a_large_process").arg(&folder);
        run(&mut command).expect(0, "", "");
    }
}

#[test]
fn many_fork_handlers_before_any_malloc_work() {
    expect("locks.c", "many_fork_handlers_before_any_malloc_work");
}

#[test]
fn many_fork_handlers_in_a_constructor_work() {
    let at_load = [("FORK_HANDLERS_AT_LOAD", "1")];
    expect_with("locks.c", "many_fork_handlers_in_a_constructor_work", &at_load, "");
}

#[test]
fn default_attributes_with_affinity_work_in_a_large_process() {
    expect("locks.c", "default_attributes_with_affinity_work_in_a_large_process");
}

/// So that whoever looks for records of all processes finds this one's, too.
#[test]
fn process_that_never_allocates_leaves_a_record_of_nothing() {
    for mode in MODES {
        let file = scratch().join(format!("record-{mode:?}"));
        let _ = std::fs::remove_file(&file);
        let path = file.display().to_string();
        outcome("locks.c", mode, "nothing_is_allocated", &[("MAGALLOC_STATS_FILE", &path)]).expect(0, "", "");
        let record = std::fs::read_to_string(&file).unwrap();
        assert!(record.starts_with("magalloc-stats 1\npid ") && record.ends_with("\nend\n"), "{mode:?} {record}");
        for name in ["mapped", "committed", "live", "cached", "held", "held_peak", "slabs", "threads", "os_calls"] {
            assert!(record.lines().any(|line| line == format!("{name} 0")), "{mode:?} {name}: {record}");
        }
    }
}

/// Gives memory back soon.
const SHORT_DELAY: (&str, &str) = ("MAGALLOC_PURGE_DELAY_MS", "20");

#[test]
fn small_heap_has_no_thread() {
    expect_with("purging.c", "small_heap_has_no_thread", &[SHORT_DELAY], "");
}

#[test]
fn thread_comes_and_goes_with_a_large_heap() {
    expect_with("purging.c", "thread_comes_and_goes_with_a_large_heap", &[SHORT_DELAY], "");
}

#[test]
fn main_thread_leaves_a_large_heap() {
    expect_with("purging.c", "main_thread_leaves_a_large_heap", &[], "end\n");
}

#[test]
fn last_thread_leaves_a_large_heap() {
    expect_with("purging.c", "last_thread_leaves_a_large_heap", &[], "end\n");
}

#[test]
fn malloc_is_no_cancellation_point() {
    let options = [SHORT_DELAY, ("MAGALLOC_HARD_LIMIT", "180M")];
    expect_with("purging.c", "malloc_is_no_cancellation_point", &options, "");
}

#[test]
fn fork_is_no_cancellation_point() {
    expect_with("purging.c", "fork_is_no_cancellation_point", &[SHORT_DELAY], "");
}

#[test]
fn malloc_in_vfork_child_does_not_stop_the_parent() {
    expect_with("purging.c", "malloc_in_vfork_child_does_not_stop_the_parent", &[SHORT_DELAY], "");
}

#[test]
fn first_malloc_in_vfork_child_does_not_stop_the_parent() {
    expect_with("purging.c", "first_malloc_in_vfork_child_does_not_stop_the_parent", &[SHORT_DELAY], "");
}

#[test]
fn report_into_closed_pipe_aborts() {
    for mode in MODES {
        let outcome = outcome("reports.c", mode, "report_into_closed_pipe_aborts", &[]);
        assert_eq!((outcome.signal, &*outcome.stderr), (Some(libc::SIGABRT), ""), "{mode:?}: {outcome:?}");
    }
}

#[test]
fn lines_into_closed_pipes_change_nothing() {
    expect("reports.c", "line_into_closed_pipe_lets_the_program_live");
    expect("reports.c", "line_into_closed_pipe_raises_no_held_signal");
    expect("reports.c", "line_into_closed_pipe_keeps_a_held_signal");
}

#[test]
fn line_waits_for_room_among_signals() {
    expect("reports.c", "line_waits_for_room_among_signals");
}

#[test]
fn malloc_stats_is_no_cancellation_point() {
    expect("reports.c", "malloc_stats_is_no_cancellation_point");
}

#[test]
fn program_of_one_thread_stays_one() {
    expect_with("worker.c", "program_of_one_thread_stays_one", &[SHORT_DELAY], "");
}

#[test]
fn thread_leaves_with_the_programs_last_but_one() {
    expect_with("worker.c", "thread_leaves_with_the_programs_last_but_one", &[SHORT_DELAY], "");
}

#[test]
fn process_of_vanished_threads_ends() {
    expect_with("worker.c", "process_of_vanished_threads_ends", &[SHORT_DELAY], "end\n");
}

#[test]
fn vanished_threads_leave_no_caches() {
    expect_with("worker.c", "vanished_threads_leave_no_caches", &[SHORT_DELAY], "");
}

#[test]
fn malloc_does_not_wait_for_a_stopped_thread() {
    for mode in MODES {
        let scenario = "malloc_does_not_wait_for_a_stopped_thread";
        let outcome = outcome("worker.c", mode, scenario, &[SHORT_DELAY]);
        if outcome.stdout == "skipped\n" {
            return println!("skipped: no process can be traced here");
        }
        outcome.expect(0, "", "");
    }
}

#[test]
fn child_of_bare_clone_gives_back() {
    expect_with("worker.c", "child_of_bare_clone_gives_back", &[SHORT_DELAY], "");
}

#[test]
fn fork_in_a_handler_amid_a_fork_works() {
    expect_with("worker.c", "fork_in_a_handler_amid_a_fork_works", &[SHORT_DELAY], "");
}

#[test]
fn refused_thread_is_asked_for_again() {
    expect_with("worker.c", "refused_thread_is_asked_for_again", &[SHORT_DELAY], "");
}
