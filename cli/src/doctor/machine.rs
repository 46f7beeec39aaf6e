//! The kernel, the C library, processors, and who is allowed to preload.

use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;

use magalloc::check_option;

use crate::doctor::{Finding, Level, read};
use crate::library::PRELOAD;
use crate::program::Image;
use crate::setting::PREFIX;

/// Variables with the options' beginning that are for this program.
const OWN: &str = "LIB";

pub(super) fn findings() -> Vec<Finding> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut findings = vec![kernel(&release), c_library(), processors()];
    findings.push(secure());
    findings.extend(preloaded(env::var_os(PRELOAD).as_deref()));
    findings.extend(variables());
    findings
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let value = format!("Linux {release}");
    if version >= (5, 7) {
        return Finding::new(
            "kernel",
            Level::Ok,
            value,
            "realloc moves the pages of large blocks instead of copying them",
        );
    }
    Finding::new("kernel", Level::Note, value, "realloc copies large blocks; from 5.7 on it would move their pages")
}

/// What the programs of this system are linked with.
fn c_library() -> Finding {
    let interpreter = Image::read(Path::new("/bin/sh")).and_then(|image| image.interpreter);
    let (value, is_ours) = match &interpreter {
        Some(path) if path.contains("ld-musl") => ("musl".to_string(), cfg!(target_env = "musl")),
        Some(_) => {
            (glibc_version().map_or("glibc".into(), |version| format!("glibc {version}")), cfg!(target_env = "gnu"))
        }
        None => ("unknown".into(), true),
    };
    if is_ours {
        return Finding::new(
            "C library",
            Level::Ok,
            value,
            "its malloc is replaced in programs that are linked dynamically",
        );
    }
    Finding::new(
        "C library",
        Level::Warning,
        value,
        "this program is for another C library; the library has to be built for this one",
    )
}

#[cfg(target_env = "gnu")]
fn glibc_version() -> Option<String> {
    // SAFETY: returns a constant string.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    version.to_str().ok().map(str::to_string)
}

#[cfg(not(target_env = "gnu"))]
fn glibc_version() -> Option<String> {
    None
}

fn processors() -> Finding {
    let count = thread::available_parallelism().map_or(1, usize::from);
    Finding::new(
        "processors",
        Level::Ok,
        count.to_string(),
        "no lock is taken anywhere; what a thread keeps for itself is bounded by CACHE_BYTES_MAX",
    )
}

fn secure() -> Finding {
    let status = read("/proc/self/status").unwrap_or_default();
    let none_new = status.lines().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"]));
    let value = if none_new { "no program gains rights here" } else { "programs may gain rights" };
    Finding::new(
        "set-uid",
        Level::Note,
        value,
        "set-uid and set-gid programs, and those with capabilities, ignore LD_PRELOAD, as do statically linked ones",
    )
}

fn preloaded(value: Option<&OsStr>) -> Option<Finding> {
    let value = value.filter(|value| !value.is_empty())?;
    let meaning = "stays behind the library; if that replaces malloc too, the library, being first, wins";
    Some(Finding::new("LD_PRELOAD", Level::Note, value.to_string_lossy(), meaning))
}

/// The options that are set in the environment.
fn variables() -> Vec<Finding> {
    let options = env::vars_os().filter_map(|(name, value)| {
        let name = name.as_bytes().strip_prefix(PREFIX.as_bytes())?;
        (name != OWN.as_bytes()).then(|| variable(&String::from_utf8_lossy(name), &value.to_string_lossy()))
    });
    options.collect()
}

fn variable(name: &str, value: &str) -> Finding {
    let text = format!("{PREFIX}{name}={value}");
    if check_option(name, value).is_err() {
        return Finding::new(
            "environment",
            Level::Warning,
            text,
            "no such option or value: ignored (see magalloc options)",
        );
    }
    if name == "DISABLE" && value == "1" {
        return Finding::new(
            "environment",
            Level::Warning,
            text,
            "the library leaves everything to the system's allocator",
        );
    }
    Finding::new("environment", Level::Note, text, "an option that holds for every program under the library")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_is_old_before_5_7() {
        for (release, level) in [
            ("6.18.44-fc", Level::Ok),
            ("5.7.0", Level::Ok),
            ("5.6.19", Level::Note),
            ("4.19", Level::Note),
            ("odd", Level::Note),
        ] {
            assert_eq!(kernel(release).level, level, "{release}");
        }
    }

    #[test]
    fn wrong_variables_are_warned_of() {
        assert_eq!(variable("PURGE_DELAY_MS", "5").level, Level::Note);
        assert_eq!(variable("PURGE_DELAY_MS", "x").level, Level::Warning);
        assert_eq!(variable("SPEED", "5").level, Level::Warning);
        assert_eq!(variable("DISABLE", "1").level, Level::Warning);
    }
}
