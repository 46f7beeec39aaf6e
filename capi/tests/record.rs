//! The record of statistics that a process appends to a file at its end.

use common::{MODES, Mode, compile, run, scratch};
use std::path::{Path, PathBuf};

mod common;

/// Names of the figures, in their order.
#[rustfmt::skip]
const FIGURES: [&str; 25] = [
    "live", "cached", "free", "dirty", "unusable", "metadata", "resident", "held", "held_peak", "committed", "mapped",
    "large", "large_blocks", "slabs", "free_blocks", "threads", "allocations", "slow_calls", "refills", "flushes",
    "steals", "os_calls", "purges", "purged", "disabled",
];

/// A record as its readers see it.
#[derive(Debug)]
struct Record {
    pid: u32,
    parent: u32,
    program: String,
    figures: Vec<u64>,
    /// Bytes of a block, slabs, blocks that are not free, and those of them that caches have.
    classes: Vec<[u64; 4]>,
}

impl Record {
    fn figure(&self, name: &str) -> u64 {
        self.figures[FIGURES.iter().position(|figure| *figure == name).unwrap()]
    }
}

/// All records of a file: every line has its place.
fn read(path: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with("end\n"), "{text}");
    let records = text.strip_suffix("end\n").unwrap().split("end\n");
    records.map(|text| record(text).unwrap_or_else(|| panic!("no record: {text}"))).collect()
}

fn record(text: &str) -> Option<Record> {
    let mut lines = text.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
    let mut value = |name| lines.next().filter(|line| line.0 == name).map(|line| line.1);
    (value("magalloc-stats")? == "1").then_some(())?;
    let (pid, parent) = (value("pid")?.parse().ok()?, value("parent")?.parse().ok()?);
    let program = value("program")?.to_string();
    (value("version")? == env!("CARGO_PKG_VERSION")).then_some(())?;
    let figures: Option<Vec<u64>> = FIGURES.into_iter().map(|name| value(name)?.parse().ok()).collect();
    let class = |(name, value): (&str, &str)| {
        let numbers: Vec<u64> = value.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        (name == "class").then_some(())?;
        numbers.try_into().ok()
    };
    let classes = lines.map(class).collect::<Option<_>>()?;
    Some(Record { pid, parent, program, figures: figures?, classes })
}

/// A file that does not exist.
fn file(name: &str) -> PathBuf {
    let path = scratch().join(name);
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn record_says_what_the_process_had() {
    for mode in MODES {
        let (program, file) = (compile("record.c", mode), file(&format!("one-{mode:?}")));
        run(program.command().arg("one_record").env("MAGALLOC_STATS_FILE", &file)).expect(0, "", "");
        let records = read(&file);
        assert_eq!(records.len(), 1);
        let record = &records[0];
        assert_eq!((Path::new(&record.program), record.parent), (program.path.as_path(), std::process::id()));
        assert!(record.pid > 0 && record.pid != record.parent);
        let [mapped, committed, live, held, held_peak] =
            ["mapped", "committed", "live", "held", "held_peak"].map(|name| record.figure(name));
        assert!((5 << 20..6 << 20).contains(&live), "{record:?}");
        assert!(live <= held && held <= held_peak && held_peak <= committed && committed <= mapped, "{record:?}");
        assert_eq!((record.figure("large_blocks"), record.figure("threads")), (1, 1), "{record:?}");
        assert!(record.classes.len() >= 4 && record.classes.is_sorted(), "{record:?}");
        let is_right = |[bytes, slabs, blocks, cached]: &[u64; 4]| *bytes >= 8 && *slabs > 0 && cached <= blocks;
        assert!(record.classes.iter().all(is_right), "{record:?}");
        let cached: u64 = record.classes.iter().map(|[bytes, _, _, cached]| bytes * cached).sum();
        assert_eq!((cached, record.figure("disabled")), (record.figure("cached"), 0), "{record:?}");
        let slabs: u64 = record.classes.iter().map(|[_, slabs, ..]| slabs).sum();
        assert_eq!(slabs, record.figure("slabs"), "{record:?}");
    }
}

/// What is in the file stays; many processes append at the same time.
#[test]
fn records_of_many_processes_do_not_mix() {
    let file = file("many");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for mode in MODES {
                    let mut command = compile("record.c", mode).command();
                    run(command.arg("forked_records").env("MAGALLOC_STATS_FILE", &file)).expect(0, "", "");
                }
            });
        }
    });
    let records = read(&file);
    assert_eq!(records.len(), 8 * 3 * (1 + 8));
    let mut processes: Vec<u32> = records.iter().map(|record| record.pid).collect();
    processes.sort_unstable();
    processes.dedup();
    assert_eq!(processes.len(), records.len());
    // Children of a fork have the numbers of their own process, and their parent's record is there, too.
    let children = records.iter().filter(|record| processes.binary_search(&record.parent).is_ok());
    assert_eq!(children.count(), 8 * 3 * 8);
}

#[test]
fn process_that_ends_at_once_leaves_no_record() {
    let file = file("none");
    let mut command = compile("record.c", Mode::Preloaded).command();
    run(command.arg("ends_without_record").env("MAGALLOC_STATS_FILE", &file)).expect(0, "", "");
    assert!(!file.exists());
}

#[test]
fn file_that_cannot_be_written_is_told() {
    for path in ["/nonexistent/folder/file", "/", "/dev/full"] {
        let mut command = compile("record.c", Mode::Preloaded).command();
        let line = format!("magalloc: the statistics cannot be appended to {path}\n");
        run(command.arg("one_record").env("MAGALLOC_STATS_FILE", path)).expect(0, "", &line);
    }
}

/// With all that happens at an exit: free memory is given back after the record, not before.
#[test]
fn record_is_written_before_memory_is_given_back() {
    for at_exit in ["all", "unused"] {
        let file = file(at_exit);
        let mut command = compile("record.c", Mode::Preloaded).command();
        command.arg("one_record").env("MAGALLOC_STATS_FILE", &file).env("MAGALLOC_AT_EXIT", at_exit);
        // Nothing goes back before the end.
        command.env("MAGALLOC_PURGE_DELAY_MS", u32::MAX.to_string());
        run(&mut command).expect(0, "", "");
        assert!(read(&file)[0].figure("dirty") > 1 << 20);
    }
}

#[test]
fn text_that_is_no_record_is_noticed() {
    assert!(record("magalloc-stats 1\npid 1\n").is_none());
    assert!(record("pid 1\n").is_none());
}
