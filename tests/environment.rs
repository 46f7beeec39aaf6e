//! Options from the environment: what they change in a program that says nothing, or something else, in its code.
//! Each scenario is a process that was started with its variables.

mod process;

use magalloc::{AtExit, Magalloc};
use process::{Outcome, command, give, run, say, take};

static DEFAULT: Magalloc = Magalloc::new().at_exit(AtExit::None);
static CLOSED: Magalloc = DEFAULT.at_exit(AtExit::Unused).environment(false).report_exit(true);

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

fn unknown_names_and_values_are_told_once() {
    let lines = "magalloc: MAGALLOC_HARDLIMIT is no option; it is ignored\n\
                 magalloc: MAGALLOC_HARD_LIMIT cannot be \"16MB\"; it is ignored\n";
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
    with("use_systems", &[("MAGALLOC_DISABLE", "1")]).expect(0, "used", "");
    with("grow_in_class", &[("MAGALLOC_DISABLE", "1")]).expect(0, "grown", "");
}

/// Also under valgrind, which sees each byte beyond a block of the system's.
fn disabled_blocks_are_as_long_as_their_class() {
    if !process::is_installed("valgrind") {
        return process::skip("valgrind is not installed");
    }
    let arguments = ["--quiet", "--error-exitcode=9"];
    let mut command = process::command_under("valgrind", &arguments, "grow_in_class");
    run(command.env("MAGALLOC_DISABLE", "1")).expect(0, "grown", "");
}

fn record_is_appended() {
    let path = std::env::temp_dir().join(format!("magalloc-record-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let variables = [("MAGALLOC_STATS_FILE", path.to_str().unwrap())];
    with("ask", &variables).expect(0, "block", "");
    with("use_own", &variables).expect(0, "used", "");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
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

fn record_that_cannot_be_written_is_told() {
    let line = "magalloc: the statistics cannot be appended to /does/not/exist\n";
    with("ask", &[("MAGALLOC_STATS_FILE", "/does/not/exist")]).expect(0, "block", line);
}

fn main() {
    process::main(
        &[
            ("ask", || ask(&DEFAULT)),
            ("ask_closed", || ask(&CLOSED)),
            ("use_own", || use_blocks(true)),
            ("use_systems", || use_blocks(false)),
            ("grow_in_class", grow_in_class),
        ],
        &[
            ("environment_overrules_the_builder", limit_is_read),
            ("builder_that_forbids_it_is_obeyed", builder_may_forbid_it),
            ("unknown_names_and_values_are_told_and_ignored", unknown_names_and_values_are_told_once),
            ("disabled_allocator_passes_everything_on", disabled_is_the_systems_allocator),
            ("disabled_realloc_inside_a_class_has_room", disabled_blocks_are_as_long_as_their_class),
            ("record_is_appended_to_the_statistics_file", record_is_appended),
            ("statistics_file_that_cannot_be_written_is_told", record_that_cannot_be_written_is_told),
        ],
    );
}
