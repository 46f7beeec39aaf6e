//! Errors of programs: addresses of others, and blocks that are freed twice. The process ends with one line.

use common::{MODES, Outcome, compile, run};

mod common;

/// Runs a scenario of `foreign.c` in each mode, and checks what it left.
#[track_caller]
fn each(scenario: &str, foreign: Option<&str>, check: impl Fn(&Outcome)) {
    for mode in MODES {
        let mut command = compile("foreign.c", mode).command();
        command.arg(scenario).envs(foreign.map(|value| ("MAGALLOC_FOREIGN", value)));
        println!("{scenario} {mode:?} {foreign:?}");
        check(&run(&mut command));
    }
}

/// Ended by SIGABRT, with this line about the address that it said.
#[track_caller]
fn expect_line(scenario: &str, foreign: Option<&str>, begin: &str, end: &str) {
    each(scenario, foreign, |outcome| {
        let address = outcome.stdout.trim_end();
        assert!(address.starts_with("0x"), "{outcome:?}");
        outcome.expect_abort(&format!("{begin} {address}"), end);
        assert_eq!(outcome.stderr, format!("{begin} {address}{end}\n"));
    });
}

const FOREIGN: &str = ", which another allocator gave (MAGALLOC_FOREIGN=ignore lets it be)";
const NOT_LIVE: &str = ", which is not a live block: freed twice, or not the address that malloc gave";

#[test]
fn foreign_addresses_abort() {
    for foreign in [None, Some("abort")] {
        expect_line("free_of_stack", foreign, "magalloc: free of", FOREIGN);
        expect_line("free_of_mapping", foreign, "magalloc: free of", FOREIGN);
        expect_line("realloc_of_mapping", foreign, "magalloc: realloc of", FOREIGN);
        expect_line("usable_size_of_mapping", foreign, "magalloc: malloc_usable_size of", FOREIGN);
    }
}

#[test]
fn foreign_address_as_first_call_aborts() {
    each("free_of_stack_as_first_call", None, |outcome| outcome.expect_abort("magalloc: free of 0x", FOREIGN));
}

#[test]
fn ignored_foreign_addresses_stay_as_they_are() {
    let scenarios = ["free_of_stack", "free_of_mapping", "realloc_of_mapping", "usable_size_of_mapping"];
    for scenario in scenarios {
        each(scenario, Some("ignore"), |outcome| outcome.expect(0, &outcome.stdout, ""));
    }
    each("free_of_stack_as_first_call", Some("ignore"), |outcome| outcome.expect(0, "", ""));
}

#[test]
fn address_inside_large_block_aborts() {
    for foreign in [None, Some("ignore")] {
        expect_line("free_inside_large_block", foreign, "magalloc: free of", NOT_LIVE);
    }
}

#[test]
fn address_inside_first_granule_of_large_block_aborts() {
    expect_line("free_inside_first_granule_of_large_block", None, "magalloc: free of", NOT_LIVE);
}

#[test]
fn large_block_freed_twice_aborts() {
    for foreign in [None, Some("ignore")] {
        expect_line("free_of_large_block_twice", foreign, "magalloc: free of", NOT_LIVE);
        expect_line("realloc_of_freed_large_block", foreign, "magalloc: realloc of", NOT_LIVE);
    }
}

#[test]
fn wrong_addresses_of_a_block_that_is_a_mapping_abort() {
    expect_line("free_inside_mapped_block", None, "magalloc: free of", NOT_LIVE);
    expect_line("free_inside_mapped_block", Some("ignore"), "magalloc: free of", NOT_LIVE);
    expect_line("free_of_mapped_block_twice", None, "magalloc: free of", NOT_LIVE);
}

#[test]
fn address_inside_small_block_aborts_when_it_leaves_the_cache() {
    let end = ", which is not a block of that size (of the class of 1024): no block begins there";
    expect_line("free_inside_small_block", None, "magalloc: free of", end);
}

#[test]
fn small_block_freed_twice_at_once_aborts() {
    for foreign in [None, Some("ignore")] {
        expect_line("free_of_small_block_twice", foreign, "magalloc: free of", NOT_LIVE);
    }
    expect_line("free_of_small_block_twice_at_any_fill", None, "magalloc: free of", NOT_LIVE);
}

#[test]
fn small_block_freed_twice_aborts_when_it_leaves_the_cache() {
    expect_line("free_of_small_block_twice_around_another", None, "magalloc: double free of block", "");
}

#[test]
fn checked_frees_notice_at_once() {
    expect_line("free_of_small_block_twice_checked", None, "magalloc: double free of block", "");
    let end = ", which is not a block of that size (of the class of 1024): no block begins there";
    expect_line("free_inside_small_block_checked", None, "magalloc: free of", end);
}

#[test]
fn errors_are_noticed_while_calls_are_counted() {
    let counting = |scenario: &str| {
        let mut command = compile("foreign.c", MODES[0]).command();
        run(command.arg(scenario).env("MAGALLOC_COUNTING", "1"))
    };
    for scenario in ["free_of_small_block_twice", "free_of_large_block_twice", "free_of_small_block_twice_at_any_fill"]
    {
        counting(scenario).expect_abort("magalloc: free of 0x", NOT_LIVE);
    }
    counting("frees_that_are_right").expect(0, "right\n", "");
}

#[test]
fn frees_that_are_right_are_silent() {
    each("frees_that_are_right", None, |outcome| outcome.expect(0, "right\n", ""));
}
