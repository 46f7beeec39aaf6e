//! The memory limit of the control group that the process is in, versions 1 and 2, read without allocating.
//!
//! `/proc/self/cgroup` names the group: a line `0::/path` for version 2, `N:memory:/path` for version 1. Its limit and
//! those of the groups above hold; inside a container the path may be one of the host's, then the mount's root is what
//! the container sees of its own group.

use super::file::beginning;
use core::ffi::CStr;

/// Longest path, and longest part of a file that is looked at, in bytes.
const TEXT_MAX: usize = 4096;

/// Bytes, zero-terminated where they are a path.
struct Text {
    bytes: [u8; TEXT_MAX],
    len: usize,
}

impl Text {
    /// The beginning of a file; empty where it cannot be read.
    fn read(path: &CStr) -> Self {
        let mut text = Self { bytes: [0; TEXT_MAX], len: 0 };
        text.len = beginning(path, &mut text.bytes);
        text
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The parts joined to a path; `None` where it is too long or has a zero inside.
    fn path<'a>(&'a mut self, parts: &[&[u8]]) -> Option<&'a CStr> {
        self.len = 0;
        for part in parts {
            let end = self.len + part.len();
            self.bytes.get_mut(self.len..end)?.copy_from_slice(part);
            self.len = end;
        }
        *self.bytes.get_mut(self.len)? = 0;
        CStr::from_bytes_with_nul(&self.bytes[..=self.len]).ok()
    }
}

/// Bytes that the group may use; `None` where nothing limits it.
pub fn memory_limit() -> Option<usize> {
    let groups = Text::read(c"/proc/self/cgroup");
    let lines = || groups.as_bytes().split(|&byte| byte == b'\n');
    let version_1 = lines().find_map(|line| path_of(line, b"memory"));
    let version_2 = lines().find_map(|line| path_of(line, b""));
    let limit_1 = version_1.and_then(|path| limit(b"/sys/fs/cgroup/memory", path, b"/memory.limit_in_bytes"));
    let limit_2 = version_2.and_then(|path| limit(b"/sys/fs/cgroup", path, b"/memory.max"));
    [limit_1, limit_2].into_iter().flatten().min()
}

/// The path of the group in a line of `/proc/self/cgroup`, if the line is of that controller.
fn path_of<'a>(line: &'a [u8], controller: &[u8]) -> Option<&'a [u8]> {
    let mut fields = line.splitn(3, |&byte| byte == b':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    controllers.split(|&byte| byte == b',').any(|one| one == controller).then_some(path)
}

/// The lowest limit of the group at `path` and of those above it.
fn limit(mount: &[u8], path: &[u8], file: &[u8]) -> Option<usize> {
    let mut name = Text { bytes: [0; TEXT_MAX], len: 0 };
    let mut path = path.strip_suffix(b"/").unwrap_or(path);
    let mut lowest = None;
    loop {
        if let Some(name) = name.path(&[mount, path, file]) {
            let here = number(Text::read(name).as_bytes());
            lowest = [lowest, here].into_iter().flatten().min();
        }
        let Some(parent) = path.iter().rposition(|&byte| byte == b'/') else { return lowest };
        path = &path[..parent];
    }
}

/// A limit above this many bytes is none: version 1 writes a number near 2^63 for "unlimited".
const UNLIMITED: usize = isize::MAX as usize / 2;

/// The number at the start of a file; `None` for "max", or for one that limits nothing.
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let value = digits
        .clone()
        .try_fold(0usize, |value, digit| value.checked_mul(10)?.checked_add(usize::from(digit - b'0')))?;
    (digits.count() > 0 && value < UNLIMITED).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_versions_are_read() {
        assert_eq!(path_of(b"0::/user.slice/a", b""), Some(&b"/user.slice/a"[..]));
        assert_eq!(path_of(b"4:cpu,memory:/a:b", b"memory"), Some(&b"/a:b"[..]));
        assert_eq!(path_of(b"4:cpu,memory:/a", b""), None);
        assert_eq!(path_of(b"garbage", b""), None);
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
        let folder = std::env::temp_dir().join(format!("magalloc-cgroup-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("a/b")).unwrap();
        std::fs::write(folder.join("max"), "max\n").unwrap();
        std::fs::write(folder.join("a/max"), "1000\n").unwrap();
        std::fs::write(folder.join("a/b/max"), "2000\n").unwrap();
        let mount = folder.to_str().unwrap().as_bytes();
        assert_eq!(limit(mount, b"/a/b", b"/max"), Some(1000));
        assert_eq!(limit(mount, b"/a/missing/", b"/max"), Some(1000));
        assert_eq!(limit(mount, b"/", b"/max"), None);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
