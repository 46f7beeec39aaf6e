//! Options of the allocator on the command line, and their table.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use magalloc::{OPTION_TABLE, OptionError, OptionInfo, check_option};

use crate::failure::Failure;

/// What the variables of the environment begin with.
pub(crate) const PREFIX: &str = "MAGALLOC_";

/// An option that has a valid value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its name, without [`PREFIX`].
    pub(crate) name: &'static str,
    /// Its value.
    pub(crate) value: OsString,
}

impl Setting {
    /// Of `NAME=VALUE`; the name in any case, with `-` or `_`, with or without [`PREFIX`].
    pub(crate) fn parse(text: &OsStr) -> Result<Self, Failure> {
        let bad = |reason: String| Failure::usage(format!("--option {}: {reason}", text.display()));
        let mut parts = text.as_bytes().splitn(2, |byte| *byte == b'=');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            return Err(bad("expected NAME=VALUE".into()));
        };
        let Some(info) = find(name) else {
            let name = String::from_utf8_lossy(name);
            return Err(bad(format!("no option {name:?}; there are {}", names())));
        };
        // What is not UTF-8 can only be a path, and of a path the check asks no more than its length.
        let value_text = String::from_utf8_lossy(value);
        match check_option(info.name, &value_text) {
            Ok(()) => Ok(Self { name: info.name, value: OsString::from_vec(value.to_vec()) }),
            Err(OptionError::UnknownName) => Err(bad(format!("no such option; there are {}", names()))),
            Err(_) => Err(bad(format!("{} cannot be {:?}, but {}", info.name, value_text, info.values))),
        }
    }

    /// The variable that tells the library.
    pub(crate) fn variable(&self) -> String {
        variable(self.name)
    }
}

/// The variable that tells the library the option `name`.
pub(crate) fn variable(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn find(name: &[u8]) -> Option<&'static OptionInfo> {
    let name: Vec<u8> = name.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }).collect();
    let name = name.strip_prefix(PREFIX.as_bytes()).unwrap_or(&name);
    OPTION_TABLE.iter().find(|info| info.name.as_bytes() == name)
}

fn names() -> String {
    let names: Vec<&str> = OPTION_TABLE.iter().map(|info| info.name).collect();
    names.join(", ")
}

/// All options, for people.
pub(crate) fn table() -> String {
    let mut text =
        String::from("Set with `magalloc run --option NAME=VALUE`, or as MAGALLOC_NAME in the environment.\n");
    text.push_str("Bytes may have a unit of 1024: K, M, G or T.\n");
    let rows = OPTION_TABLE.iter().map(|info| [info.name, info.values, info.default, info.about]);
    let rows: Vec<[&str; COLUMNS]> = std::iter::once(["NAME", "VALUES", "DEFAULT", "WHAT IT IS"]).chain(rows).collect();
    let longest = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| longest(column).min(WIDTHS_MAX[column]));
    for row in rows {
        text.push('\n');
        let cells = std::array::from_fn::<Vec<String>, COLUMNS, _>(|column| wrapped(row[column], widths[column]));
        for line in 0..cells.iter().map(Vec::len).max().unwrap_or_default() {
            let mut written = String::new();
            for (cell, width) in cells.iter().zip(widths) {
                written.push_str(&format!("{:<width$}  ", cell.get(line).map_or("", String::as_str)));
            }
            text.push_str(written.trim_end());
            text.push('\n');
        }
    }
    text
}

/// Columns of the table, and the width of each at most, in characters.
const COLUMNS: usize = 4;
const WIDTHS_MAX: [usize; COLUMNS] = [20, 22, 18, 50];

/// The words of `text` in lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("never empty");
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(word.into());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Setting, Failure> {
        Setting::parse(OsStr::new(text))
    }

    #[test]
    fn names_have_many_spellings() {
        for name in ["PURGE_DELAY_MS", "purge-delay-ms", "MAGALLOC_PURGE_DELAY_MS", "magalloc-Purge_Delay-ms"] {
            let setting = parse(&format!("{name}=5")).unwrap();
            assert_eq!((setting.name, setting.value.as_os_str()), ("PURGE_DELAY_MS", OsStr::new("5")));
            assert_eq!(setting.variable(), "MAGALLOC_PURGE_DELAY_MS");
        }
    }

    #[test]
    fn value_may_hold_anything_of_a_path() {
        assert_eq!(parse("STATS_FILE=/a=b c").unwrap().value, "/a=b c");
        assert!(Setting::parse(OsStr::from_bytes(b"STATS_FILE=/\xff")).is_ok());
        assert!(Setting::parse(OsStr::from_bytes(b"HUGE_PAGES=never\xff")).is_err());
    }

    #[test]
    fn wrong_ones_say_what_would_be_right() {
        let reason = |text| {
            let failure = parse(text).unwrap_err();
            assert_eq!(failure.code, 2);
            failure.reason
        };
        let unknown = reason("SPEED=1");
        assert!(unknown.starts_with("--option SPEED=1: no option \"SPEED\"; there are "), "{unknown}");
        for info in OPTION_TABLE {
            assert!(unknown.contains(info.name), "{unknown}");
        }
        assert_eq!(
            reason("HUGE_PAGES=x"),
            "--option HUGE_PAGES=x: HUGE_PAGES cannot be \"x\", but auto, system, never or always"
        );
        assert_eq!(reason("HUGE_PAGES"), "--option HUGE_PAGES: expected NAME=VALUE");
    }

    #[test]
    fn table_has_every_option_in_columns() {
        let table = table();
        let head = table.lines().find(|line| line.starts_with("NAME ")).unwrap();
        let columns = ["VALUES", "DEFAULT", "WHAT"].map(|name| head.find(name).unwrap());
        for info in OPTION_TABLE {
            let line = table.lines().find(|line| line.split(' ').next() == Some(info.name)).unwrap();
            for (column, text) in columns.into_iter().zip([info.values, info.default, info.about]) {
                let first = text.split(' ').next().unwrap();
                assert!(line[column..].starts_with(first), "{first:?} in {line:?}");
                assert!(line[..column].ends_with("  "), "{line:?} runs together");
            }
        }
        assert!(table.lines().all(|line| line.len() <= 116), "{table}");
        let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>().join(" ");
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(words(&wrapped(OPTION_TABLE[0].about, 20).join(" ")), OPTION_TABLE[0].about);
    }
}
