//! What the library costs a program that does nothing, in memory.

use common::{clean, compile_shared, run, shared_library};

mod common;

/// Most that `true` has more in memory with the library than without, in KiB; parts of files included, which all
/// processes share. The kernel brings these in 64 KiB at once, so that it is one such part more or less when code moves: 376
/// to 428 were measured. A table or a cache that a start touches shows below.
const MORE_KIB_MAX: i64 = 450;

/// The same without parts of files.
const MORE_ANONYMOUS_KIB_MAX: i64 = 64;

/// Processes measured for a median.
const RUNS: usize = 11;

/// Medians of what `true` has in memory: all, and without parts of files.
fn resident_kib(libraries: &[&str]) -> [i64; 2] {
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        let outcome = run(clean("true").env("LD_PRELOAD", libraries.join(":")));
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
        let (all, anonymous) = outcome.stdout.trim_end().split_once('\n').unwrap();
        figures[0].push(all.parse().unwrap());
        figures[1].push(anonymous.parse().unwrap());
    }
    figures.map(|mut figures| {
        figures.sort_unstable();
        figures[RUNS / 2]
    })
}

#[test]
fn smallest_program_has_little_more_in_memory() {
    let says = compile_shared("resident.c", "resident", &[]).display().to_string();
    let library = shared_library().display().to_string();
    let (without, with) = (resident_kib(&[&says]), resident_kib(&[&says, &library]));
    println!("with {with:?} KiB, without {without:?} KiB");
    assert!(without[0] > 500 && without[1] > 30 && with[1] > without[1], "with {with:?} KiB, without {without:?} KiB");
    assert!(with[0] - without[0] <= MORE_KIB_MAX, "with {with:?} KiB, without {without:?} KiB");
    assert!(with[1] - without[1] <= MORE_ANONYMOUS_KIB_MAX, "with {with:?} KiB, without {without:?} KiB");
}
