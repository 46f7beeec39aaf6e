//! The memory limit of the control group that the process is in, versions 1 and 2, read without allocating.
//!
//! `/proc/self/cgroup` names the group: a line `0::/path` for version 2, `N:memory:/path` for version 1, which comes first
//! where there are both, and has the memory then. The group's limit and those of the groups above hold; inside a container
//! the path may be one of the host's, then the mount's root is what the container sees of its own group.
//!
//! Every process asks at its first call, so few calls are made (3 or more for the line, 3 for each group on the way up), and
//! little of the stack is used: all of it happens in one buffer.

use super::read::File;
use crate::sys::posix::cancel::NotCancelled;
use core::ffi::CStr;

/// Longest line that is understood, and longest name of a file made of it, in bytes: systemd's paths have some 100 to
/// 300.
const TEXT_MAX: usize = 512;
/// Bytes of a limit that are read: the longest number has 20 digits.
const NUMBER_MAX: usize = 24;

/// Bytes that the group may use; `None` where nothing limits it.
pub fn memory_limit() -> Option<usize> {
    let _whole = NotCancelled::new();
    let mut text = [0; TEXT_MAX];
    let (version, from, len) = group(&File::open(c"/proc/self/cgroup")?, &mut text)?;
    let (mount, name): (&[u8], &[u8]) = match version {
        Version::One => (b"/sys/fs/cgroup/memory", b"/memory.limit_in_bytes\0"),
        Version::Two => (b"/sys/fs/cgroup", b"/memory.max\0"),
    };
    if mount.len() + len > TEXT_MAX {
        return None;
    }
    text.copy_within(from..from + len, mount.len());
    text[..mount.len()].copy_from_slice(mount);
    lowest_limit(&mut text, mount.len(), mount.len() + len, name)
}

/// Which hierarchy has the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The first line that names a group of memory's: where its path lies in `text`, and how long it is.
fn group(groups: &File, text: &mut [u8]) -> Option<(Version, usize, usize)> {
    let (mut len, mut is_whole) = (0, true);
    loop {
        let more = groups.read(&mut text[len..]);
        len += more;
        while let Some(end) = text[..len].iter().position(|&byte| byte == b'\n') {
            if let Some((version, from)) = path_of(&text[..end]).filter(|_| is_whole) {
                return Some((version, from, end - from));
            }
            text.copy_within(end + 1..len, 0);
            (len, is_whole) = (len - end - 1, true);
        }
        if more == 0 {
            return None;
        }
        if len == text.len() {
            // What is left of it is no line.
            (len, is_whole) = (0, false);
        }
    }
}

/// Where the path begins in a line of `/proc/self/cgroup`, if the line is of memory's group.
fn path_of(line: &[u8]) -> Option<(Version, usize)> {
    let mut fields = line.splitn(3, |&byte| byte == b':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let version = match controllers {
        b"" => Version::Two,
        _ => controllers.split(|&byte| byte == b',').find(|&one| one == b"memory").map(|_| Version::One)?,
    };
    Some((version, line.len() - path.len()))
}

/// The lowest limit of the group whose folder is the first `end` bytes of `text`, and of those above it down to the
/// mount, which has `mount` bytes. `name` is that of the file, a slash before it and a zero behind.
fn lowest_limit(text: &mut [u8], mount: usize, mut end: usize, name: &[u8]) -> Option<usize> {
    let mut lowest = None;
    if text[mount..end].ends_with(b"/") {
        end -= 1;
    }
    loop {
        if let Some(place) = text.get_mut(end..end + name.len()) {
            place.copy_from_slice(name);
            let here = CStr::from_bytes_until_nul(text).ok().and_then(limit);
            lowest = [lowest, here].into_iter().flatten().min();
        }
        let Some(parent) = text[mount..end].iter().rposition(|&byte| byte == b'/') else { return lowest };
        end = mount + parent;
    }
}

/// The limit in a file.
fn limit(path: &CStr) -> Option<usize> {
    let mut text = [0; NUMBER_MAX];
    let len = File::open(path)?.read(&mut text);
    number(&text[..len])
}

/// A limit above this many bytes is none: version 1 writes a number near 2^63 for "unlimited".
const UNLIMITED: u64 = i64::MAX as u64 / 2;

/// The number at the start of a file; `None` for "max", or for one that limits nothing.
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let value =
        digits.clone().try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?;
    // What is beyond the address space limits nothing.
    (digits.count() > 0 && value < UNLIMITED).then(|| usize::try_from(value).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::path::{Path, PathBuf};

    /// A folder of this test's.
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("magalloc-cgroup-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn c_path(path: &Path) -> CString {
        CString::new(path.to_str().unwrap()).unwrap()
    }

    #[test]
    fn lines_of_both_versions_are_read() {
        assert_eq!(path_of(b"0::/user.slice/a"), Some((Version::Two, 3)));
        assert_eq!(path_of(b"4:cpu,memory:/a:b"), Some((Version::One, 13)));
        assert_eq!(path_of(b"4:cpu:/a"), None);
        assert_eq!(path_of(b"garbage"), None);
    }

    #[test]
    fn the_group_is_found_among_many_lines() {
        let folder = folder("lines");
        let found = |lines: &str| {
            let path = folder.join("lines");
            std::fs::write(&path, lines).unwrap();
            let mut text = [0; 64];
            let (version, from, len) = group(&File::open(&c_path(&path)).unwrap(), &mut text)?;
            Some((version, String::from_utf8(text[from..from + len].to_vec()).unwrap()))
        };
        let many = "9:name=systemd:/a/b/c\n8:pids:/a/b/c\n7:blkio,cpu:/a/b/c\n".repeat(5);
        assert_eq!(found(&format!("{many}4:memory:/m/n\n0::/u\n")), Some((Version::One, "/m/n".into())));
        assert_eq!(found(&format!("{many}0::/u\n")), Some((Version::Two, "/u".into())));
        // One that is too long is passed by.
        let long = "4:memory:/".to_owned() + &"m".repeat(1000);
        assert_eq!(found(&format!("{long}\n0::/u\n")), Some((Version::Two, "/u".into())));
        assert_eq!(found(&many), None);
        assert_eq!(found(""), None);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn unlimited_is_no_limit() {
        assert_eq!(number(b"max\n"), None);
        assert_eq!(number(b"9223372036854771712\n"), None);
        assert_eq!(number(b"99999999999999999999999\n"), None);
        assert_eq!(number(b""), None);
        assert_eq!(number(b"1073741824\n"), Some(1 << 30));
    }

    #[test]
    fn lowest_limit_on_the_way_up_holds() {
        let folder = folder("limits");
        std::fs::create_dir_all(folder.join("a/b")).unwrap();
        std::fs::write(folder.join("max"), "max\n").unwrap();
        std::fs::write(folder.join("a/max"), "1000\n").unwrap();
        std::fs::write(folder.join("a/b/max"), "2000\n").unwrap();
        let mount = folder.to_str().unwrap();
        let limit = |path: &str| {
            let mut text = [0; TEXT_MAX];
            let whole = format!("{mount}{path}");
            text[..whole.len()].copy_from_slice(whole.as_bytes());
            lowest_limit(&mut text, mount.len(), whole.len(), b"/max\0")
        };
        assert_eq!(limit("/a/b"), Some(1000));
        assert_eq!(limit("/a/missing/"), Some(1000));
        assert_eq!(limit("/"), None);
        // Its own file has no place behind such a name.
        assert_eq!(limit(&format!("/a/{}", "m".repeat(TEXT_MAX - mount.len() - 4))), Some(1000));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
