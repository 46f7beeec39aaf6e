//! The records that processes under the library append to a file when they end.
//!
//! ```text
//! # Form        lines `key value` between `magalloc-stats N` and `end`; `class BYTES SLABS BLOCKS CACHED` any number of
//!               times
//! # Tolerance   unknown numbers are kept, other unknown lines are skipped; a record without its end is only counted
//! ```

use std::collections::BTreeMap;

use serde::Serialize;

/// What the statistics of one process were at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Record {
    /// The process.
    pub(crate) pid: u32,
    /// The one that had started it, as far as it was still there.
    pub(crate) parent: u32,
    /// Its executable file.
    pub(crate) program: String,
    /// The library's version.
    pub(crate) version: String,
    /// All numbers by their names: bytes, or counts.
    #[serde(flatten)]
    pub(crate) figures: BTreeMap<String, u64>,
    /// The size classes that had slabs.
    pub(crate) classes: Vec<Class>,
}

/// A size class of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Class {
    /// Bytes of a block.
    pub(crate) block: u64,
    /// How many slabs.
    pub(crate) slabs: u64,
    /// How many blocks the program has.
    pub(crate) live: u64,
    /// How many free blocks thread caches have.
    pub(crate) cached: u64,
}

/// What a file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    /// The whole records, in order.
    pub(crate) whole: Vec<Record>,
    /// How many were cut off or made no sense.
    pub(crate) broken: u64,
}

impl Record {
    /// A number; `None` if the library did not write it.
    pub(crate) fn figure(&self, name: &str) -> Option<u64> {
        self.figures.get(name).copied()
    }

    /// Did the system's allocator serve the program?
    pub(crate) fn is_disabled(&self) -> bool {
        self.figure("disabled") == Some(1)
    }

    fn take(&mut self, line: &str) {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "pid" => self.pid = value.parse().unwrap_or_default(),
            "parent" => self.parent = value.parse().unwrap_or_default(),
            "program" => self.program = value.into(),
            "version" => self.version = value.into(),
            "class" => self.classes.extend(class(value)),
            // The name is taken by the list.
            "classes" => {}
            _ => {
                if let Ok(number) = value.parse() {
                    self.figures.insert(key.into(), number);
                }
            }
        }
    }
}

fn class(text: &str) -> Option<Class> {
    let mut numbers = text.split(' ').map(|number| number.parse().ok());
    let (block, slabs, blocks, cached) = (numbers.next()??, numbers.next()??, numbers.next()??, numbers.next()??);
    Some(Class { block, slabs, live: u64::saturating_sub(blocks, cached), cached })
}

/// The records in `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Records {
    let mut records = Records::default();
    let mut current: Option<Record> = None;
    // A last line without its end of line was cut off.
    let whole_lines = &bytes[..bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)];
    for line in String::from_utf8_lossy(whole_lines).lines() {
        if line.starts_with("magalloc-stats ") {
            records.broken += u64::from(current.replace(Record::default()).is_some());
        } else if line == "end" {
            match current.take() {
                Some(record) if record.pid != 0 => records.whole.push(record),
                Some(_) => records.broken += 1,
                None => {}
            }
        } else if let Some(record) = &mut current {
            record.take(line);
        }
    }
    let is_cut_off = current.is_some() || bytes.len() > whole_lines.len();
    records.broken += u64::from(is_cut_off);
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "magalloc-stats 1\npid 12\nparent 3\nprogram /a b/c\nversion 0.1.0\nheld 5\nnew 7\nodd x\n\
        class 64 3 1200 200\nclass 80 1 7 9 5\nclass 1 2 3\nclass a b c d\nend\n";

    #[test]
    fn record_is_read_with_what_is_unknown() {
        let records = parse(GOOD.as_bytes());
        assert_eq!((records.whole.len(), records.broken), (1, 0));
        let record = &records.whole[0];
        assert_eq!((record.pid, record.parent), (12, 3));
        assert_eq!((record.program.as_str(), record.version.as_str()), ("/a b/c", "0.1.0"));
        assert_eq!((record.figure("held"), record.figure("new"), record.figure("odd")), (Some(5), Some(7), None));
        // Counted at different moments.
        let second = Class { block: 80, slabs: 1, live: 0, cached: 9 };
        let classes = [Class { block: 64, slabs: 3, live: 1000, cached: 200 }, second];
        assert_eq!(record.classes, classes);
    }

    #[test]
    fn every_cut_is_noticed() {
        for cut in 1..GOOD.len() {
            let records = parse(&GOOD.as_bytes()[..cut]);
            assert_eq!((records.whole.len(), records.broken), (0, 1), "{cut}");
        }
        assert_eq!(parse(b""), Records::default());
    }

    #[test]
    fn records_around_a_broken_one_are_read() {
        let records = parse(format!("{GOOD}magalloc-stats 1\npid 9\n{GOOD}magalloc-stats 1\nend\n{GOOD}").as_bytes());
        assert_eq!((records.whole.len(), records.broken), (3, 2));
    }

    #[test]
    fn bytes_that_are_no_text_are_tolerated() {
        let records = parse(b"\xff\nmagalloc-stats 2\npid 1\nprogram /\xff\nheld 99999999999999999999999\nend\n");
        assert_eq!((records.whole.len(), records.broken), (1, 0));
        assert_eq!(records.whole[0].program, "/\u{fffd}");
        assert_eq!(records.whole[0].figure("held"), None);
    }
}
