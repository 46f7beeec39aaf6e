//! Page size, overcommit, limits, mappings, huge pages.

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

use crate::doctor::{Finding, Level, control_group, read, read_number};
use crate::report::bytes;

/// The granule: pages may not be larger. Bytes.
const PAGE_BYTES_MAX: u64 = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) { 16 << 10 } else { 64 << 10 };
/// Below this limit of address space, programs and libraries need much of it. Bytes.
const SPACE_BYTES_SCARCE: u64 = 100 << 20;
/// A process has some dozens of mappings, and those of its libraries and threads.
const MAPPINGS_SCARCE: u64 = 1024;

pub(super) fn findings() -> Vec<Finding> {
    let mut findings = vec![
        page(page_size() as u64),
        overcommit(read_number("/proc/sys/vm/overcommit_memory"), headroom()),
        address_space(getrlimit(Resource::As).current),
        data(getrlimit(Resource::Data).current),
    ];
    findings.push(control_group::finding());
    findings.extend(read_number("/proc/sys/vm/max_map_count").map(mappings));
    let chosen = |name| Some(choice(&read(format!("/sys/kernel/mm/transparent_hugepage/{name}"))?).to_string());
    findings.push(huge_pages(chosen("enabled")));
    findings.extend(chosen("defrag").map(defrag));
    findings
}

fn page(size: u64) -> Finding {
    let value = bytes(size);
    if size > PAGE_BYTES_MAX {
        return Finding::new(
            "page size",
            Level::Error,
            value,
            "larger than 64 KiB: the allocator cannot give memory back",
        );
    }
    Finding::new("page size", Level::Ok, value, "the unit in which memory between live blocks is given back")
}

/// Bytes that strict overcommit leaves.
fn headroom() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    field(&text, "CommitLimit:")?.checked_sub(field(&text, "Committed_AS:")?)
}

/// A value of `/proc/meminfo`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let kibibytes = text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?;
    Some(kibibytes.parse::<u64>().ok()? * 1024)
}

fn overcommit(setting: Option<u64>, headroom: Option<u64>) -> Finding {
    let name = "overcommit";
    let free = "only memory that is used counts";
    match setting {
        Some(0) => Finding::new(name, Level::Ok, "0, heuristic", free),
        Some(1) => Finding::new(name, Level::Ok, "1, always", free),
        Some(2) => {
            let left = headroom.map_or("an unknown amount".into(), bytes);
            let meaning = format!("only what is committed counts, 4 MiB at a time; {left} can still be committed");
            Finding::new(name, Level::Note, "2, strict", meaning)
        }
        _ => Finding::new(name, Level::Note, "unknown", "only memory that is used should count"),
    }
}

fn address_space(limit: Option<u64>) -> Finding {
    let name = "ulimit -v";
    let Some(limit) = limit else {
        return Finding::new(name, Level::Ok, "unlimited", "address space is mapped as it is used");
    };
    let (level, meaning) = match limit {
        SPACE_BYTES_SCARCE.. => (Level::Note, "what is mapped counts, 4 MiB at a time; beyond it requests fail"),
        _ => (Level::Warning, "scarce: programs and libraries need much of it"),
    };
    Finding::new(name, level, bytes(limit), meaning)
}

fn data(limit: Option<u64>) -> Finding {
    let name = "ulimit -d";
    match limit {
        None => Finding::new(name, Level::Ok, "unlimited", "memory that is committed is not limited by it"),
        Some(limit) => {
            Finding::new(name, Level::Note, bytes(limit), "committed memory counts; beyond it requests fail")
        }
    }
}

fn mappings(limit: u64) -> Finding {
    let (level, meaning) = if limit < MAPPINGS_SCARCE {
        (Level::Warning, "low even for libraries and threads' stacks")
    } else {
        (Level::Ok, "enough: the allocator makes a few dozen, however much is allocated")
    };
    Finding::new("max_map_count", level, limit.to_string(), meaning)
}

/// The chosen one of `a [b] c`.
fn choice(text: &str) -> &str {
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    chosen.map_or(text, |(chosen, _)| chosen)
}

fn huge_pages(enabled: Option<String>) -> Finding {
    let name = "huge pages";
    let Some(enabled) = enabled else {
        return Finding::new(name, Level::Note, "not there", "HUGE_PAGES changes nothing");
    };
    let (level, meaning) = match enabled.as_str() {
        "always" => (Level::Note, "faster, but more stays resident; HUGE_PAGES=never turns them off for a program"),
        "madvise" => (Level::Ok, "used in heaps from 8 MiB on; HUGE_PAGES=never turns them off for a program"),
        _ => (Level::Ok, "not used; HUGE_PAGES changes nothing"),
    };
    Finding::new(name, level, enabled, meaning)
}

fn defrag(chosen: String) -> Finding {
    let (level, meaning) = match chosen.as_str() {
        "always" => (Level::Note, "a page fault may wait until the kernel has made a huge page"),
        "defer" => (Level::Ok, "huge pages are made in the background"),
        "defer+madvise" | "madvise" => (Level::Ok, "a page fault in a large heap may wait for a huge page"),
        _ => (Level::Ok, "no page fault waits for a huge page"),
    };
    Finding::new("huge pages, made", level, chosen, meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_the_values() {
        assert_eq!(page(4096).level, Level::Ok);
        assert_eq!(page(PAGE_BYTES_MAX).level, Level::Ok);
        assert_eq!(page(2 * PAGE_BYTES_MAX).level, Level::Error);
        assert_eq!(address_space(None).level, Level::Ok);
        assert_eq!(address_space(Some(1 << 30)).level, Level::Note);
        assert_eq!(address_space(Some(50 << 20)).level, Level::Warning);
        assert_eq!(mappings(65530).level, Level::Ok);
        assert_eq!(mappings(100).level, Level::Warning);
        assert_eq!(data(Some(1 << 20)).level, Level::Note);
        assert_eq!(huge_pages(Some("always".into())).level, Level::Note);
    }

    #[test]
    fn strict_overcommit_tells_what_is_left() {
        let finding = overcommit(Some(2), Some(3 << 30));
        assert!(finding.meaning.ends_with("3.00 GiB can still be committed"), "{finding:?}");
        assert_eq!(overcommit(Some(0), None).level, Level::Ok);
    }

    #[test]
    fn files_of_the_kernel_are_understood() {
        assert_eq!(choice("always [madvise] never"), "madvise");
        assert_eq!(choice("odd"), "odd");
        let text = "MemTotal:  5 kB\nCommitLimit:     1024 kB\nCommitted_AS:  24 kB\n";
        assert_eq!((field(text, "CommitLimit:"), field(text, "Committed_AS:")), (Some(1 << 20), Some(24 << 10)));
        assert_eq!(field(text, "Other:"), None);
    }
}
