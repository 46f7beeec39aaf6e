//! The memory limit of the control group that this process is in, and how much of it is used.

use std::path::{Path, PathBuf};

use crate::doctor::{Finding, Level, read, read_number};
use crate::report::bytes;

/// Above this many bytes a limit is none: version 1 writes a number near 2^63 for "unlimited".
const UNLIMITED: u64 = u64::MAX >> 2;
/// From this percentage on there is little left.
const NEARLY_FULL: u64 = 90;

/// A controller's files.
struct Version {
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
}

const VERSION_1: Version =
    Version { mount: "/sys/fs/cgroup/memory", limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes" };
const VERSION_2: Version = Version { mount: "/sys/fs/cgroup", limit: "memory.max", usage: "memory.current" };

/// A limit and what is used of it. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    limit: u64,
    usage: Option<u64>,
}

pub(super) fn finding() -> Finding {
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let lowest = |version: &Version, controller| lowest(Path::new(version.mount), group(&groups, controller)?, version);
    let limits = [lowest(&VERSION_1, "memory"), lowest(&VERSION_2, "")];
    describe(limits.into_iter().flatten().min_by_key(|limit| limit.limit))
}

/// The group in `/proc/self/cgroup`: `N:memory:/path` in version 1, `0::/path` in version 2.
fn group<'a>(groups: &'a str, controller: &str) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        controllers.split(',').any(|one| one == controller).then_some(path)
    })
}

/// The lowest limit of the group and those above it. Inside a container the path may be the host's; then what is
/// found is the container's own, at the mount.
fn lowest(mount: &Path, group: &str, version: &Version) -> Option<Limit> {
    let folders = Path::new(group).ancestors().map(|path| mount.join(path.strip_prefix("/").unwrap_or(path)));
    let limit = |folder: PathBuf| {
        let limit = read_number(folder.join(version.limit)).filter(|limit| *limit < UNLIMITED)?;
        Some(Limit { limit, usage: read_number(folder.join(version.usage)) })
    };
    folders.filter_map(limit).min_by_key(|limit| limit.limit)
}

fn describe(limit: Option<Limit>) -> Finding {
    let name = "control group";
    let Some(Limit { limit, usage }) = limit else {
        return Finding::new(name, Level::Ok, "no memory limit", "SOFT_LIMIT in percent changes nothing");
    };
    let percent = usage.map(|usage| usage.saturating_mul(100).checked_div(limit).unwrap_or(100));
    let used = match (usage, percent) {
        (Some(usage), Some(percent)) => format!("{} of {} used, {percent} %", bytes(usage), bytes(limit)),
        _ => bytes(limit),
    };
    let level = if percent.is_some_and(|percent| percent >= NEARLY_FULL) { Level::Warning } else { Level::Note };
    Finding::new(name, level, used, "beyond it the kernel kills; SOFT_LIMIT=80% makes the allocator hold back before")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn group_of_either_version_is_found() {
        let groups = "4:cpu,memory:/a:b\n0::/user.slice\n";
        assert_eq!(group(groups, "memory"), Some("/a:b"));
        assert_eq!(group(groups, ""), Some("/user.slice"));
        assert_eq!(group("1:name=x:/\ngarbage\n", "memory"), None);
    }

    #[test]
    fn lowest_limit_on_the_way_up_counts() {
        let mount = tempfile::tempdir().unwrap();
        let write = |path: &str, text| fs::write(mount.path().join(path), text).unwrap();
        fs::create_dir_all(mount.path().join("a/b")).unwrap();
        write("memory.max", "max\n");
        write("a/memory.max", "1000\n");
        write("a/memory.current", "250\n");
        write("a/b/memory.max", "2000\n");
        let lowest = |group| lowest(mount.path(), group, &VERSION_2);
        assert_eq!(lowest("/a/b"), Some(Limit { limit: 1000, usage: Some(250) }));
        assert_eq!(lowest("/a/missing"), Some(Limit { limit: 1000, usage: Some(250) }));
        assert_eq!(lowest("/"), None);
        write("memory.max", "9223372036854771712\n");
        assert_eq!(lowest("/"), None);
    }

    #[test]
    fn little_left_is_a_warning() {
        let level = |usage| describe(Some(Limit { limit: 1000, usage })).level;
        assert_eq!((level(Some(899)), level(Some(900)), level(None)), (Level::Note, Level::Warning, Level::Note));
        assert_eq!(describe(None).level, Level::Ok);
        assert_eq!(describe(Some(Limit { limit: 0, usage: Some(1) })).level, Level::Warning);
    }
}
