//! The readable summary.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::Write;

use crate::record::{Class, Record};
use crate::report::{Report, Usage};

/// The report for people, some lines of at most 100 characters or so.
pub(crate) fn text(report: &Report) -> String {
    let mut text = String::new();
    let name = report.command.first().map_or("", String::as_str);
    // Writing into a string does not fail.
    let _ = writeln!(text, "magalloc: {name} (process {}) ended with {}", report.pid, report.ending);
    match (&report.record, &report.no_record) {
        (Some(record), _) if record.is_disabled() => {
            line(&mut text, "disabled", "the system's allocator served the program (MAGALLOC_DISABLE=1)");
            usage(&mut text, &report.usage);
        }
        (Some(record), _) => {
            figures(&mut text, record);
            usage(&mut text, &report.usage);
            classes(&mut text, &record.classes);
        }
        (None, reason) => {
            let reason = reason.as_deref().unwrap_or("the reason is not known");
            let _ = writeln!(text, "  no record was written: {reason}");
            usage(&mut text, &report.usage);
        }
    }
    children(&mut text, &report.children);
    match report.broken_records {
        0 => {}
        1 => text.push_str("  1 broken record was skipped\n"),
        count => text.push_str(&format!("  {count} broken records were skipped\n")),
    }
    text
}

/// One line: a name and what is said of it.
fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<15} {value}");
}

fn figures(text: &mut String, record: &Record) {
    let size = |name: &str| record.figure(name).map_or("n/a".into(), bytes);
    let count = |name: &str| record.figure(name).map_or("n/a".into(), |count| count.to_string());
    let given_back =
        record.figure("held_peak").zip(record.figure("held")).map(|(peak, held)| peak.saturating_sub(held));
    line(text, "held", &format!("{} at its peak, {} at the end", size("held_peak"), size("held")));
    line(text, "committed", &format!("{}, of {} mapped", size("committed"), size("mapped")));
    line(text, "live", &format!("{} at the end", size("live")));
    let kinds = ["cached", "free", "dirty", "unusable"].map(|kind| format!("{} {kind}", size(kind)));
    line(text, "not live", &kinds.join(", "));
    line(
        text,
        "given back",
        &format!("{} of the peak, {} purges", given_back.map_or("n/a".into(), bytes), count("purges")),
    );
    line(
        text,
        "in use",
        &format!("{} slabs, {} large blocks, {} threads", count("slabs"), count("large_blocks"), count("threads")),
    );
    line(
        text,
        "work",
        &format!("{} refills, {} flushes, {} OS calls", count("refills"), count("flushes"), count("os_calls")),
    );
    line(text, "metadata", &size("metadata"));
    line(text, "resident", &format!("{} at the end", size("resident")));
}

fn usage(text: &mut String, usage: &Usage) {
    let Usage { wall_seconds, user_seconds, system_seconds, resident_peak, minor_faults, major_faults } = usage;
    let peak = bytes(*resident_peak);
    line(
        text,
        "kernel: memory",
        &format!("{peak} resident at its peak, {minor_faults} minor and {major_faults} major page faults"),
    );
    line(
        text,
        "kernel: time",
        &format!("{wall_seconds:.3} s, of processors {user_seconds:.3} s user and {system_seconds:.3} s system"),
    );
}

fn classes(text: &mut String, classes: &[Class]) {
    if classes.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{:>12}{:>12}{:>14}{:>14}{:>14}", "size class", "slabs", "live", "cached", "live bytes");
    for Class { block, slabs, live, cached } in classes {
        let sum = bytes(block.saturating_mul(*live));
        let _ = writeln!(text, "{block:>12}{slabs:>12}{live:>14}{cached:>14}{sum:>14}");
    }
}

/// Most children that have a row each; of more, the largest have, and the others one together.
const CHILDREN_MAX: usize = 10;

fn children(text: &mut String, children: &[Record]) {
    if children.is_empty() {
        return;
    }
    text.push('\n');
    let mut row = |cells: [&str; 4], child: &str| {
        let [pid, refills, peak, live] = cells;
        let _ = writeln!(text, "{pid:>12}{refills:>12}{peak:>14}{live:>14}  {child}");
    };
    row(["process", "refills", "held at peak", "live at end"], "child");
    let mut largest: Vec<&Record> = children.iter().collect();
    let mut others = Vec::new();
    if children.len() > CHILDREN_MAX {
        // The sort is stable: those of the same size stay in the order of their ends.
        largest.sort_by_key(|child| Reverse(child.figure("held_peak")));
        others = largest.split_off(CHILDREN_MAX - 1);
    }
    for child in largest {
        let pid = child.pid.to_string();
        if child.is_disabled() {
            row([&pid, "disabled", "", ""], &child.program);
            continue;
        }
        let size = |name: &str| child.figure(name).map_or("n/a".into(), bytes);
        let refills = child.figure("refills").map_or("n/a".into(), |count| count.to_string());
        row([&pid, &refills, &size("held_peak"), &size("live")], &child.program);
    }
    if !others.is_empty() {
        let figures = |name: &'static str| others.iter().filter_map(move |child| child.figure(name));
        let programs: BTreeSet<&str> = others.iter().map(|child| child.program.as_str()).collect();
        let (count, programs) = (format!("{} more", others.len()), programs.len());
        let peak = format!("<= {}", bytes(figures("held_peak").max().unwrap_or_default()));
        let (refills, live) = (figures("refills").sum::<u64>().to_string(), bytes(figures("live").sum()));
        row(
            [&count, &refills, &peak, &live],
            &format!("of {programs} program{}", if programs == 1 { "" } else { "s" }),
        );
    }
}

/// A number of bytes in the unit that suits it.
pub(crate) fn bytes(bytes: u64) -> String {
    magalloc::Bytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::parse;
    use crate::report::{SCHEMA, SCHEMA_VERSION, Units};
    use crate::run::Ending;

    fn report(record: &str) -> Report {
        let mut records = parse(record.as_bytes());
        Report {
            schema: SCHEMA,
            schema_version: SCHEMA_VERSION,
            version: "0",
            units: Units::all(),
            program: "/bin/prog".into(),
            command: vec!["prog".into(), "x".into()],
            library: "/m.so".into(),
            pid: 7,
            ending: Ending::Code(3),
            // SAFETY: zeros are a usage.
            usage: Usage::new(Duration::from_millis(1500), &unsafe { std::mem::zeroed() }),
            no_record: records.whole.is_empty().then(|| "because".into()),
            record: records.whole.pop(),
            children: records.whole,
            broken_records: records.broken,
        }
    }

    #[test]
    fn missing_numbers_are_told() {
        let text = text(&report("magalloc-stats 1\npid 7\nheld 2048\nend\nmagalloc-stats 1\n"));
        assert!(text.starts_with("magalloc: prog (process 7) ended with exit code 3\n"), "{text}");
        assert!(text.contains("  held            n/a at its peak, 2.00 KiB at the end\n"), "{text}");
        assert!(text.contains("  kernel: time    1.500 s, "), "{text}");
        assert!(text.contains("  1 broken record was skipped\n"), "{text}");
        assert!(!text.contains("size class") && !text.contains("child"), "{text}");
    }

    #[test]
    fn classes_tell_live_and_cached_apart() {
        let text = text(&report("magalloc-stats 1\npid 7\nclass 64 3 1200 200\nend\n"));
        assert!(text.contains("  size class       slabs          live        cached    live bytes\n"), "{text}");
        assert!(text.contains("\n          64           3          1000           200      62.5 KiB\n"), "{text}");
    }

    #[test]
    fn disabled_allocator_has_no_figures() {
        let record = "magalloc-stats 1\npid 7\nprogram /a\nheld 0\ndisabled 1\nend\n";
        let text = text(&report(&format!("{record}{record}")));
        assert!(text.contains("\n  disabled        the system's allocator served the program"), "{text}");
        assert!(text.contains("\n           7    disabled                              /a\n"), "{text}");
        assert!(!text.contains("\n  held") && !text.contains("size class"), "{text}");
    }

    /// Children of two programs, the n-th with a peak of n KiB.
    fn with_children(count: usize) -> String {
        let own = "magalloc-stats 1\npid 1000\nend\n";
        let child = |number: usize| {
            let (pid, program, peak) = (number, number % 2, number << 10);
            format!("magalloc-stats 1\npid {pid}\nprogram /p{program}\nheld_peak {peak}\nrefills 3\nlive 1024\nend\n")
        };
        let children: String = (1..=count).map(child).collect();
        text(&report(&format!("{children}{own}")))
    }

    #[test]
    fn many_children_are_summed_up() {
        assert_eq!(with_children(10).lines().filter(|line| line.contains("  /p")).count(), 10);
        assert!(!with_children(10).contains("more"));
        let text = with_children(40);
        let rows: Vec<&str> = text.lines().filter(|line| line.contains("  /p")).collect();
        assert_eq!(rows.len(), 9, "{text}");
        assert!(rows[0].starts_with("          40           3      40.0 KiB      1.00 KiB  /p0"), "{text}");
        assert!(text.ends_with("     31 more          93   <= 31.0 KiB      31.0 KiB  of 2 programs\n"), "{text}");
    }

    #[test]
    fn no_record_is_one_line() {
        let text = text(&report(""));
        assert!(text.contains("\n  no record was written: because\n"), "{text}");
    }
}
