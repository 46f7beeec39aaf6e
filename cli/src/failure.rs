//! Why the program ends early: a line for standard error and an exit code, as shells choose it.

use std::fmt::Display;
use std::io::{self, Write};

/// The arguments are wrong, or the library is missing.
pub(crate) const USAGE: u8 = 2;
/// Something that the system should have done failed.
const SYSTEM: u8 = 125;
/// The program to start was found, but it cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The program to start was not found.
const NOT_FOUND: u8 = 127;

/// A reason, one line without `magalloc: ` before it, and the exit code that goes with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// The line.
    pub(crate) reason: String,
}

impl Failure {
    /// The user asked for something that does not exist.
    pub(crate) fn usage(reason: impl Into<String>) -> Self {
        Self { code: USAGE, reason: reason.into() }
    }

    /// The system refused something.
    pub(crate) fn system(reason: impl Into<String>) -> Self {
        Self { code: SYSTEM, reason: reason.into() }
    }

    /// The program to start is there, and does not start.
    pub(crate) fn not_executable(program: impl Display, reason: impl Display) -> Self {
        Self { code: NOT_EXECUTABLE, reason: format!("{program}: {reason}") }
    }

    /// There is no program of that name.
    pub(crate) fn not_found(program: impl Display) -> Self {
        Self { code: NOT_FOUND, reason: format!("{program}: program not found") }
    }
}

/// Writes one line to standard error. Unlike `eprintln!` this does not panic when nobody reads.
pub(crate) fn complain(line: impl Display) {
    // One write, so that it stays a line among those of others.
    let _ = io::stderr().write_all(format!("magalloc: {line}\n").as_bytes());
}

/// What the system says of an error, without its number.
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" (os error ").map_or(text.as_str(), |(words, _number)| words).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_without_number() {
        assert_eq!(words(&io::Error::from_raw_os_error(libc::ENOENT)), "No such file or directory");
        assert_eq!(words(&io::Error::other("broken")), "broken");
    }
}
