//! The options as variables of the environment: one table, read once, without allocating.
//!
//! ```text
//! # Role        `OPTION_TABLE`: what there is; `read`: the variables `MAGALLOC_<NAME>` of this process into `Options`
//! # Errors      a name that is not in the table, and a value that cannot be understood, are told by one line on
//!               standard error; the option stays as it was
//! # Safety      a process with more rights than its caller (set-uid) does not look
//! # Not here    what the options mean (see `options`), how variables are found (see `sys`)
//! ```

use crate::options::{AtExit, Foreign, HugePages, Options, Path, SoftLimit};
use crate::sys::platform::{for_each_variable, line};

/// What the names of all variables begin with.
const PREFIX: &[u8] = b"MAGALLOC_";

/// Variables with that beginning that are for others: the launcher's.
const NOT_OURS: [&[u8]; 1] = [b"LIB"];

/// An option that can be set in the environment; [`OPTION_TABLE`] has all of them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OptionInfo {
    /// Its name; the variable is called `MAGALLOC_` and this.
    pub name: &'static str,
    /// What it can be.
    pub values: &'static str,
    /// What it is unless set.
    pub default: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Sets it; `false`: no such value.
    set: fn(&mut Options, &[u8]) -> bool,
}

/// Why an option cannot be set: see [`check_option`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionError {
    /// There is no option of that name.
    UnknownName,
    /// The option cannot have that value.
    BadValue,
    /// It cannot be changed while the program runs, or not now: [`set_option`](crate::set_option).
    NotNow,
}

macro_rules! options {
    ($($name:literal, $values:literal, $default:literal, $about:literal, $set:expr;)*) => {
        &[$(OptionInfo { name: $name, values: $values, default: $default, about: $about, set: $set }),*]
    };
}

/// Every option that the environment can set: as a variable called `MAGALLOC_` and its name.
///
/// ```
/// for option in magalloc::OPTION_TABLE {
///     println!("MAGALLOC_{} ({}; default: {}): {}", option.name, option.values, option.default, option.about);
/// }
/// ```
#[rustfmt::skip]
pub static OPTION_TABLE: &[OptionInfo] = options! {
    "PURGE_DELAY_MS", "milliseconds", "1000",
    "after which the pages of free memory are given back to the kernel",
    |options, value| put(&mut options.purge_delay_ms, number(value).and_then(|value| u32::try_from(value).ok()));

    "DIRTY_BYTES_MAX", "bytes, such as 64M", "1G (256M where pointers have 32 bits)",
    "of free memory kept for that time at most; less where it makes the process an eighth larger than lately, or, with one thread, is more than half of what is in use; what is more is given back at once",
    |options, value| put(&mut options.dirty_bytes_max, number(value));

    "CACHE_BYTES_MAX", "bytes, such as 1M", "4M",
    "of free blocks that a thread may keep for itself, a quarter in small heaps; more makes changing loads faster",
    |options, value| put(&mut options.cache_bytes_max, number(value));

    "BACKGROUND_THREAD", "0 or 1", "1",
    "whether a thread gives memory back while the program is idle; else the program's threads do on the way",
    |options, value| put(&mut options.background_thread, switch(value));

    "EXTRA_CALLS", "0 or 1", "0",
    "1: process_madvise too, to give many ranges back at once; 0: what filters of system calls know of an allocator",
    |options, value| put(&mut options.extra_calls, switch(value));

    "SOFT_LIMIT", "bytes, such as 1G, N% of the control group's limit, or none", "85%",
    "from which on free memory is given back at once and caches are kept small",
    |options, value| put(&mut options.soft_limit, soft_limit(value));

    "HARD_LIMIT", "bytes, such as 1G, or none", "none",
    "beyond which requests fail",
    |options, value| put(&mut options.hard_limit, if value == b"none" { Some(usize::MAX) } else { number(value) });

    "HUGE_PAGES", "auto, system, never or always", "auto",
    "whether memory is backed by huge pages; auto: in heaps from 8 MiB on; system: as the kernel's policy says",
    |options, value| put(&mut options.huge_pages, match value {
        b"auto" => Some(HugePages::Auto),
        b"system" => Some(HugePages::System),
        b"never" => Some(HugePages::Never),
        b"always" => Some(HugePages::Always),
        _ => None,
    });

    "AT_EXIT", "all, unused or none", "all (none in the C library, where all is as unused)",
    "what is given back at the end of the process, before the kernel takes the rest",
    |options, value| put(&mut options.at_exit, match value {
        b"all" => Some(AtExit::All),
        b"unused" => Some(AtExit::Unused),
        b"none" => Some(AtExit::None),
        _ => None,
    });

    "REPORT_EXIT", "0 or 1", "0",
    "one line on standard error at the end: bytes mapped and unmapped",
    |options, value| put(&mut options.report_exit, switch(value));

    "STATS_FILE", "path of up to 511 bytes", "none",
    "to which a record of the statistics is appended at the end of the process",
    |options, value| put(&mut options.stats_file, Path::new(value));

    "STATS_ON_SIGTERM", "0 or 1", "0",
    "1: also when SIGTERM ends the process, if the program leaves that signal alone",
    |options, value| put(&mut options.stats_on_sigterm, switch(value));

    "FOREIGN", "abort or ignore", "abort",
    "what happens when C's free gets an address of another allocator",
    |options, value| put(&mut options.foreign, match value {
        b"abort" => Some(Foreign::Abort),
        b"ignore" => Some(Foreign::Ignore),
        _ => None,
    });

    "DISABLE", "0 or 1", "0",
    "1: the system's allocator serves everything, to compare or to retreat",
    |options, value| put(&mut options.disable, switch(value));

    "CHECK_FREES", "0 or 1", "0",
    "1: every double free, and every free of what is no block, ends the process at once; some 100 ns a call",
    |options, value| put(&mut options.check_frees, switch(value));

    "COUNTING", "0 or 1", "0",
    "1: every allocation and free is counted from the start, some 10 ns each; a program can turn it on and off",
    |options, value| put(&mut options.counting, switch(value));

    "CHILDREN", "0 or 1", "1",
    "0: the preloaded library leaves the environment, so that it is not inherited",
    |options, value| put(&mut options.children, switch(value));

    "KEEP_DEEPBIND", "0 or 1", "0",
    "1: the shared library lets dlopen have RTLD_DEEPBIND; such a library then frees with the C library's own free",
    |options, value| put(&mut options.keep_deepbind, switch(value));
};

fn put<T>(option: &mut T, value: Option<T>) -> bool {
    value.map(|value| *option = value).is_some()
}

fn switch(value: &[u8]) -> Option<bool> {
    match value {
        b"0" | b"no" | b"false" | b"off" => Some(false),
        b"1" | b"yes" | b"true" | b"on" => Some(true),
        _ => None,
    }
}

/// A number, with a unit of K, M, G or T (of 1024) behind it if need be.
fn number(value: &[u8]) -> Option<usize> {
    let (digits, unit) = match value {
        [digits @ .., b'K' | b'k'] => (digits, 1 << 10),
        [digits @ .., b'M' | b'm'] => (digits, 1 << 20),
        [digits @ .., b'G' | b'g'] => (digits, 1 << 30),
        [digits @ .., b'T' | b't'] => (digits, 1u64 << 40),
        digits => (digits, 1),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        digits.iter().try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    usize::try_from(value?.checked_mul(unit)?).ok()
}

fn soft_limit(value: &[u8]) -> Option<SoftLimit> {
    match value {
        b"none" => Some(SoftLimit::None),
        [percent @ .., b'%'] => {
            let percent = number(percent).filter(|percent| (1..=100).contains(percent))?;
            Some(SoftLimit::CgroupPercent(percent as u8))
        }
        // Up to a hundred bytes are no limit; the sign was forgotten.
        bytes => number(bytes).filter(|bytes| *bytes > 100).map(SoftLimit::Bytes),
    }
}

fn find(name: &[u8]) -> Option<&'static OptionInfo> {
    OPTION_TABLE.iter().find(|info| info.name.as_bytes() == name)
}

/// Sets an option, if it can have that value.
pub(crate) fn set(options: &mut Options, name: &[u8], value: &[u8]) -> Result<(), OptionError> {
    let info = find(name).ok_or(OptionError::UnknownName)?;
    if (info.set)(options, value) { Ok(()) } else { Err(OptionError::BadValue) }
}

/// Whether the option `name` (without `MAGALLOC_`) can have that value: for programs that set options for others.
///
/// ```
/// use magalloc::{OptionError, check_option};
///
/// assert_eq!(check_option("HARD_LIMIT", "1G"), Ok(()));
/// assert_eq!(check_option("HARD_LIMIT", "much"), Err(OptionError::BadValue));
/// assert_eq!(check_option("SPEED", "1"), Err(OptionError::UnknownName));
/// ```
///
/// # Errors
/// No such option, or not that value.
pub fn check_option(name: &str, value: &str) -> Result<(), OptionError> {
    set(&mut Options::new(), name.as_bytes(), value.as_bytes())
}

/// Reads the process's variables into `options`, if these allow it.
pub(crate) fn read(options: &mut Options) {
    read_each(options, |name, value, error| match error {
        OptionError::UnknownName => line(&[b"magalloc: ", PREFIX, name, b" is no option; it is ignored"]),
        OptionError::BadValue => {
            let values = find(name).map_or(&b""[..], |info| info.values.as_bytes());
            line(&[b"magalloc: ", PREFIX, name, b" cannot be \"", value, b"\", but ", values, b"; it is ignored"]);
        }
        OptionError::NotNow => {}
    });
}

/// The same, for the options of another `Magalloc`: what cannot be understood was told already.
pub(crate) fn read_again(options: &mut Options) {
    read_each(options, |_, _, _| ());
}

fn read_each(options: &mut Options, complain: impl Fn(&[u8], &[u8], OptionError)) {
    if !options.environment {
        return;
    }
    for_each_variable(PREFIX, |name, value| {
        if NOT_OURS.contains(&name) {
            return;
        }
        if let Err(error) = set(options, name, value) {
            complain(name, value, error);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Options {
        let mut options = Options::new();
        set(&mut options, name.as_bytes(), value.as_bytes()).unwrap();
        options
    }

    #[test]
    fn every_default_is_what_the_table_says() {
        for info in OPTION_TABLE {
            let mut words = info.default.split([' ', '(']);
            let default = words.next().unwrap();
            // In brackets stands what it is elsewhere.
            let default = if cfg!(target_pointer_width = "32") && info.default.ends_with("have 32 bits)") {
                words.nth(1).unwrap()
            } else {
                default
            };
            let default = if info.name == "STATS_FILE" { "" } else { default };
            assert_eq!(with(info.name, default), Options::new(), "{}", info.name);
        }
    }

    #[test]
    fn every_option_changes_something() {
        let values = ["7", "1", "0", "5%", "never", "unused", "/x", "ignore"];
        for info in OPTION_TABLE {
            let changes = |value: &&str| {
                let mut options = Options::new();
                (info.set)(&mut options, value.as_bytes()) && options != Options::new()
            };
            assert!(values.iter().any(changes), "{}", info.name);
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("3k", 3 << 10), ("3K", 3 << 10), ("5M", 5 << 20), ("1g", 1 << 30)]
        {
            assert_eq!(with("HARD_LIMIT", text).hard_limit, bytes);
        }
        for text in ["", "K", "-1", "1.5M", "0x10", "99999999999999999999", "17179869184G", "4 K", "4KB"] {
            assert_eq!(check_option("HARD_LIMIT", text), Err(OptionError::BadValue), "{text}");
        }
    }

    #[test]
    fn soft_limit_is_bytes_or_percent() {
        assert_eq!(with("SOFT_LIMIT", "80%").soft_limit, SoftLimit::CgroupPercent(80));
        assert_eq!(with("SOFT_LIMIT", "8K").soft_limit, SoftLimit::Bytes(8 << 10));
        for text in ["0%", "101%", "%", "8%%", "80", "0"] {
            assert_eq!(check_option("SOFT_LIMIT", text), Err(OptionError::BadValue), "{text}");
        }
    }

    #[test]
    fn unknown_names_and_long_paths_are_refused() {
        assert_eq!(check_option("purge_delay_ms", "1"), Err(OptionError::UnknownName));
        assert_eq!(check_option("STATS_FILE", &"x".repeat(511)), Ok(()));
        assert_eq!(check_option("STATS_FILE", &"x".repeat(512)), Err(OptionError::BadValue));
    }
}
