//! The memory limit of the control group that the process is in, versions 1 and 2, read without allocating.
//!
//! `/proc/self/cgroup` names the group: a line `0::/path` for version 2, `N:memory:/path` for version 1. Its limit and
//! those of the groups above hold; inside a container the path may be one of the host's, then the mount's root is what
//! the container sees of its own group.

use super::cancel::NotCancelled;
use core::ffi::CStr;

/// Longest line of `/proc/self/cgroup` and longest path of a limit's file that is looked at, in bytes: two or three times
/// a container's inside a container. The first malloc of a program is what reads it, on a stack that may be small.
const TEXT_MAX: usize = 768;
/// Longest text of a limit, in bytes: 20 digits and a line's end.
const NUMBER_MAX: usize = 24;

/// Reads from a file.
struct File(libc::c_int);

impl File {
    fn open(path: &CStr) -> Option<Self> {
        // SAFETY: the path ends with a zero.
        let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        (file >= 0).then_some(Self(file))
    }

    /// As many bytes from `offset` on as fit and there are; none where the file cannot be read.
    fn read<'a>(&self, bytes: &'a mut [u8], offset: usize) -> &'a [u8] {
        let mut len = 0;
        while len < bytes.len() {
            let rest = &mut bytes[len..];
            // SAFETY: `rest` is valid for its length.
            let count =
                unsafe { libc::pread(self.0, rest.as_mut_ptr().cast(), rest.len(), (offset + len) as libc::off_t) };
            match usize::try_from(count) {
                Ok(count) if count > 0 => len += count,
                _ => break,
            }
        }
        &bytes[..len]
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: our own descriptor.
        unsafe { libc::close(self.0) };
    }
}

/// A version of control groups: the controller's name in `/proc/self/cgroup`, where the groups are mounted, and the file
/// of the limit.
struct Version {
    controller: &'static [u8],
    mount: &'static [u8],
    file: &'static [u8],
}

const VERSIONS: [Version; 2] = [
    Version { controller: b"memory", mount: b"/sys/fs/cgroup/memory", file: b"/memory.limit_in_bytes" },
    Version { controller: b"", mount: b"/sys/fs/cgroup", file: b"/memory.max" },
];

/// Bytes that the group may use; `None` where nothing limits it.
pub fn memory_limit() -> Option<usize> {
    let _whole = NotCancelled::new();
    lowest_limit(&File::open(c"/proc/self/cgroup")?, &VERSIONS)
}

/// The lowest limit of the groups that the lines of a file name. One buffer serves all: a line is read anew from its place.
fn lowest_limit(groups: &File, versions: &[Version]) -> Option<usize> {
    let mut text = [0; TEXT_MAX];
    let (mut offset, mut lowest) = (0, None);
    loop {
        let read = groups.read(&mut text, offset);
        let Some(len) = read.iter().position(|&byte| byte == b'\n') else {
            if read.len() < TEXT_MAX {
                return lowest;
            }
            // Too long: the rest of it is no line of any version, or is taken for what it ends in.
            offset += read.len();
            continue;
        };
        for version in versions {
            // Anew, because the last version has made a path of it.
            let line = groups.read(&mut text[..len], offset);
            if let Some(path) = path_of(line, version.controller) {
                let path = (len - path.len(), path.len());
                lowest = [lowest, limit(version, &mut text, path)].into_iter().flatten().min();
            }
        }
        offset += len + 1;
    }
}

/// The path of the group in a line of `/proc/self/cgroup`, if the line is of that controller.
fn path_of<'a>(line: &'a [u8], controller: &[u8]) -> Option<&'a [u8]> {
    let mut fields = line.splitn(3, |&byte| byte == b':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    controllers.split(|&byte| byte == b',').any(|one| one == controller).then_some(path)
}

/// The lowest limit of the group whose path lies in `text` (from, length) and of those above it; `text` is overwritten.
fn limit(version: &Version, text: &mut [u8; TEXT_MAX], (from, len): (usize, usize)) -> Option<usize> {
    let (mount, file) = (version.mount.len(), version.file.len());
    if mount + len + file >= TEXT_MAX {
        return None;
    }
    text.copy_within(from..from + len, mount);
    text[..mount].copy_from_slice(version.mount);
    let mut end = mount + len;
    if text[mount..end].last() == Some(&b'/') {
        end -= 1;
    }
    let mut lowest = None;
    loop {
        text[end..end + file].copy_from_slice(version.file);
        text[end + file] = 0;
        lowest = [lowest, limit_in(&text[..=end + file])].into_iter().flatten().min();
        let parent = text[mount..end].iter().rposition(|&byte| byte == b'/');
        let Some(parent) = parent else { return lowest };
        end = mount + parent;
    }
}

/// The limit in the file at `path`, which ends with a zero.
fn limit_in(path: &[u8]) -> Option<usize> {
    let file = File::open(CStr::from_bytes_with_nul(path).ok()?)?;
    number(file.read(&mut [0; NUMBER_MAX], 0))
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

    /// Groups in a folder of this test's own.
    struct Groups {
        folder: String,
    }

    impl Groups {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("magalloc-cgroup-{name}-{}", std::process::id()));
            std::fs::create_dir_all(folder.join("a/b")).unwrap();
            std::fs::write(folder.join("max"), "max\n").unwrap();
            std::fs::write(folder.join("a/max"), "1000\n").unwrap();
            std::fs::write(folder.join("a/b/max"), "2000\n").unwrap();
            Self { folder: folder.to_str().unwrap().into() }
        }

        /// What a process finds whose groups are these.
        fn limit(&self, lines: &str) -> Option<usize> {
            let path = format!("{}/groups", self.folder);
            std::fs::write(&path, lines).unwrap();
            let file = File::open(&std::ffi::CString::new(path).unwrap()).unwrap();
            let mount = self.folder.clone().leak().as_bytes();
            lowest_limit(&file, &[Version { controller: b"memory", mount, file: b"/max" }])
        }
    }

    impl Drop for Groups {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }

    #[test]
    fn lowest_limit_on_the_way_up_holds() {
        let groups = Groups::new("way-up");
        assert_eq!(groups.limit("1:memory:/a/b\n"), Some(1000));
        assert_eq!(groups.limit("1:memory:/a/missing/\n"), Some(1000));
        assert_eq!(groups.limit("1:memory:/\n"), None);
        assert_eq!(groups.limit(""), None);
    }

    #[test]
    fn line_is_found_among_many_and_behind_one_that_is_too_long() {
        let groups = Groups::new("lines");
        let others: String =
            (2..14).map(|number| format!("{number}:c{number}:/some/{}\n", "path/".repeat(40))).collect();
        assert_eq!(groups.limit(&format!("{others}1:memory:/a/b\n0::/a\n")), Some(1000));
        let long = format!("5:memory:/{}\n", "x".repeat(3 * TEXT_MAX));
        assert_eq!(groups.limit(&format!("{long}1:cpu,memory:/a\n")), Some(1000));
        assert_eq!(groups.limit(&format!("1:memory:/{}\n", "x".repeat(TEXT_MAX - 20))), None);
    }
}
