//! The kernel's view: strace lists every mapping that a process makes and gives up, and at the end none of the
//! allocator's may be left, in no part. The allocator's are those without access and without reserve; the C library
//! makes such ones for arenas of threads, which the environment forbids it here.

use magalloc::Magalloc;
use process::{command_under, give, is_installed, layout, report_line, take, use_memory};
use std::alloc::GlobalAlloc;
use std::collections::HashMap;
use std::path::Path;

mod process;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new().report_exit(true);

fn main() {
    process::main(
        &[("small", || drop(vec![1; 100])), ("threads", threads), ("large", large), ("regions", regions)],
        &[
            ("trace_without_munmap_is_refused", trace_without_munmap_is_refused),
            ("trace_with_part_left_is_refused", trace_with_part_left_is_refused),
            ("trace_with_hole_is_refused", trace_with_hole_is_refused),
            ("trace_of_threads_is_joined", trace_of_threads_is_joined),
            ("small_program_unmaps_every_range", || {
                traced("small", "exec \"$0\"");
            }),
            ("program_with_threads_unmaps_every_range", || {
                traced("threads", "exec \"$0\"");
            }),
            ("moved_large_blocks_are_unmapped", moved_large_blocks_are_unmapped),
            ("every_region_is_unmapped", every_region_is_unmapped),
        ],
    );
}

/// What a trace says of the allocator's ranges.
#[derive(Default, Debug)]
struct Trace {
    /// Mapped now: start and end of each part.
    live: Vec<(u64, u64)>,
    /// Bytes of them after the last reservation. At the most there may have been more: where address space is
    /// scarce, the allocator finds out how much there is by trying.
    live_bytes: u64,
    /// Reservations so far.
    reservations: usize,
    /// Moves of pages between them.
    moves: usize,
}

/// Reads the output of `strace -f -o`.
fn read(text: &str) -> Result<Trace, String> {
    let mut trace = Trace::default();
    let mut unfinished = HashMap::new();
    for line in text.lines() {
        let (thread, line) = line.split_once(' ').ok_or(line)?;
        let mut line = line.trim_start().to_string();
        if let Some(begin) = line.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, begin.trim_end().to_string());
            continue;
        }
        if line.starts_with("<... ") {
            let begin = unfinished.remove(thread).ok_or_else(|| format!("resumed from nothing: {line}"))?;
            line = begin + line.split_once("resumed>").ok_or(line.clone())?.1;
        }
        trace.note(&line).ok_or_else(|| format!("not understood: {line}"))??;
    }
    Ok(trace)
}

fn number(text: &str) -> Option<u64> {
    match text.trim().strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.trim().parse().ok(),
    }
}

impl Trace {
    /// Takes in one call. `None`: not understood; an error: a call that breaks a range.
    fn note(&mut self, line: &str) -> Option<Result<(), String>> {
        let Some((call, rest)) = line.split_once('(') else { return Some(Ok(())) };
        if !matches!(call, "mmap" | "munmap" | "mremap") {
            return Some(Ok(()));
        }
        let (arguments, result) = rest.rsplit_once(") ")?;
        let result = result.trim_start().strip_prefix("= ")?;
        if result.starts_with("-1 ") {
            return Some(Ok(()));
        }
        let arguments: Vec<&str> = arguments.split(", ").collect();
        let bytes = number(arguments[1])?;
        match call {
            "mmap" => {
                // Neither the C library nor the program maps that way.
                let is_ours = arguments[3].contains("MAP_ANONYMOUS")
                    && arguments[3].contains("MAP_NORESERVE")
                    && arguments[3].split('|').all(|flag| flag != "MAP_FIXED");
                if is_ours {
                    let start = number(result)?;
                    self.live.push((start, start + bytes));
                    self.reservations += 1;
                    self.live_bytes = self.live.iter().map(|(start, end)| end - start).sum();
                }
            }
            "munmap" => self.unmap(number(arguments[0])?, bytes),
            _ => {
                let from = number(arguments[0])?;
                if self.live.iter().any(|(start, end)| (*start..*end).contains(&from)) {
                    self.moves += 1;
                    if !arguments[3].contains("MREMAP_DONTUNMAP") {
                        return Some(Err(format!("a hole that another mapping can take: {line}")));
                    }
                }
            }
        }
        Some(Ok(()))
    }

    fn unmap(&mut self, from: u64, bytes: u64) {
        let to = from + bytes;
        let parts = self.live.iter().flat_map(|&(start, end)| [(start, end.min(from)), (start.max(to), end)]);
        self.live = parts.filter(|(start, end)| start < end).collect();
        self.live.dedup();
    }
}

/// Runs a child under strace. All of its ranges are unmapped, and they are what its report counts.
fn traced(name: &str, shell: &str) -> Option<Trace> {
    if !is_installed("strace") {
        process::skip("strace is not installed");
        return None;
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trace.{name}.{}", std::process::id()));
    let path = file.to_str().unwrap();
    let mut command = command_under("strace", &["-f", "-o", path, "-e", "trace=%memory", "sh", "-c", shell], name);
    let outcome = process::run(command.env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1"));
    outcome.expect_unmapped(0, "");
    let trace = read(&std::fs::read_to_string(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(trace.live, [], "left mapped");
    assert_eq!(report_line(&outcome.stderr).unwrap().1, trace.live_bytes);
    Some(trace)
}

fn threads() {
    let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(|| use_memory(&GLOBAL))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Blocks that grow in turns are in each other's way, so they move.
fn large() {
    let mut blocks = [1, 2, 3].map(|megabytes| (take(&GLOBAL, megabytes << 20), megabytes << 20));
    for _ in 0..20 {
        for (block, size) in &mut blocks {
            // SAFETY: a live block of that size.
            *block = unsafe { GLOBAL.realloc(*block, layout(*size), *size + (9 << 20)) };
            *size += 9 << 20;
            // SAFETY: as above.
            assert_eq!(unsafe { block.read() }, 0x5a);
        }
    }
    give(&GLOBAL, blocks[0].0, blocks[0].1);
}

fn moved_large_blocks_are_unmapped() {
    if let Some(trace) = traced("large", "exec \"$0\"") {
        assert!(trace.moves > 10, "{trace:?}");
    }
}

/// 200 MB, of 400 that the limit allows: more than the first region is given.
fn regions() {
    for _ in 0..200 {
        take(&GLOBAL, 1_000_000);
    }
}

fn every_region_is_unmapped() {
    let small = traced("small", "exec \"$0\"");
    let trace = traced("regions", "ulimit -v 400000; exec \"$0\"");
    if let (Some(small), Some(trace)) = (small, trace) {
        assert!(trace.reservations >= small.reservations + 2, "{trace:?}");
    }
}

const COMPLETE: &str = "\
7 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7000
7 mmap(NULL, 65536, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0) = 0x10000
7 mmap(NULL, 131072, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0) = 0x40000
7 mmap(NULL, 99999999, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0) = -1 ENOMEM (Cannot allocate memory)
7 mprotect(0x10000, 4096, PROT_READ|PROT_WRITE) = 0
7 mremap(0x41000, 4096, 4096, MREMAP_MAYMOVE|MREMAP_FIXED|MREMAP_DONTUNMAP, 0x43000) = 0x43000
7 munmap(0x10000, 65536)                 = 0
7 munmap(0x40000, 131072)                = 0
7 +++ exited with 0 +++
";

#[track_caller]
fn expect_left(text: &str, left: &[(u64, u64)]) {
    assert_eq!(read(text).unwrap().live, left);
}

fn trace_without_munmap_is_refused() {
    expect_left(COMPLETE, &[]);
    assert_eq!(read(COMPLETE).unwrap().live_bytes, 0x30000);
    expect_left(&COMPLETE.replace("7 munmap(0x40000, 131072)                = 0\n", ""), &[(0x40000, 0x60000)]);
    expect_left(&COMPLETE.replace("7 munmap(0x10000, 65536)                 = 0\n", ""), &[(0x10000, 0x20000)]);
}

fn trace_with_part_left_is_refused() {
    expect_left(
        &COMPLETE.replace("munmap(0x40000, 131072)", "munmap(0x41000, 4096)"),
        &[(0x40000, 0x41000), (0x42000, 0x60000)],
    );
    expect_left(
        &COMPLETE.replace("131072)                = 0", "131072) = -1 EINVAL (Invalid)"),
        &[(0x40000, 0x60000)],
    );
}

fn trace_with_hole_is_refused() {
    assert!(read(&COMPLETE.replace("|MREMAP_DONTUNMAP", "")).is_err());
}

fn trace_of_threads_is_joined() {
    let begin = "8 mmap(NULL, 65536, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0 <unfinished ...>\n";
    let other =
        "9 munmap(0x1000, 4096 <unfinished ...>\n8 <... mmap resumed>) = 0x100000\n9 <... munmap resumed>) = 0\n";
    expect_left(&format!("{begin}{other}{COMPLETE}"), &[(0x100000, 0x110000)]);
}
