//! The readable summary.

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
    line(text, "committed", &format!("{}, of {} reserved", size("committed"), size("mapped")));
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
        &format!("{} refills, {} dissolves, {} OS calls", count("refills"), count("dissolves"), count("os_calls")),
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
    let _ = writeln!(text, "\n{:>12}{:>12}{:>14}{:>14}", "size class", "slabs", "live, cached", "bytes");
    for Class { block, slabs, blocks } in classes {
        let sum = bytes(block.saturating_mul(*blocks));
        let _ = writeln!(text, "{block:>12}{slabs:>12}{blocks:>14}{sum:>14}");
    }
}

fn children(text: &mut String, children: &[Record]) {
    if children.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{:>12}{:>12}{:>14}{:>14}  child", "process", "refills", "held at peak", "live at end");
    for child in children {
        let size = |name: &str| child.figure(name).map_or("n/a".into(), bytes);
        let refills = child.figure("refills").map_or("n/a".into(), |count| count.to_string());
        let Record { pid, program, .. } = child;
        let _ = writeln!(text, "{pid:>12}{refills:>12}{:>14}{:>14}  {program}", size("held_peak"), size("live"));
    }
}

/// A number of bytes in the unit that suits it.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10) as usize;
    let value = bytes as f64 / 1024f64.powi(power as i32);
    let unit = UNITS.get(power - 1).unwrap_or(&"EiB");
    // Three digits; what would be rounded up to four is shown as such.
    if value < 9.995 {
        format!("{value:.2} {unit}")
    } else if value < 99.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::parse;
    use crate::run::Ending;

    fn report(record: &str) -> Report {
        let mut records = parse(record.as_bytes());
        Report {
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
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_239, "10.0 KiB"),
            (123_456, "121 KiB"),
            (8 << 20, "8.00 MiB"),
            (1_122_444_902_400, "1.02 TiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (number, words) in cases {
            assert_eq!(bytes(number), words);
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
    fn no_record_is_one_line() {
        let text = text(&report(""));
        assert!(text.contains("\n  no record was written: because\n"), "{text}");
    }
}
