//! Few mappings and little beside the blocks: what 1 GiB of 64-byte blocks costs, by the kernel's own figures.
//!
//! The allocator's mappings are found by comparison: `/proc/self/maps` before the blocks are made and after, less
//! all mappings with a name (files, stacks, the C library's heap). Nothing else maps anything in between.

use magalloc::Magalloc;
use process::{child, layout};
use std::alloc::GlobalAlloc;

mod process;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new().report_exit(true);

const GIB: u64 = 1 << 30;
const BLOCK_BYTES: usize = 64;

fn main() {
    process::main(
        &[("small", small), ("gibibyte", gibibyte), ("moved", moved)],
        &[
            ("small_process_asks_the_kernel_for_little", || child("small").expect_unmapped(0, "")),
            ("gibibyte_of_small_blocks_costs_little", || child("gibibyte").expect_unmapped(0, "")),
            ("growing_blocks_leave_no_mappings_behind", || child("moved").expect_unmapped(0, "")),
            ("lines_of_maps_are_read", lines_of_maps_are_read),
        ],
    );
}

/// What `/proc/self/maps` says of mappings without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Maps {
    count: usize,
    /// Bytes that may be written: what the kernel accounts for.
    writable_bytes: u64,
}

fn read_maps(text: &str) -> Maps {
    let mut maps = Maps { count: 0, writable_bytes: 0 };
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.len() == 5 {
            let (start, end) = fields[0].split_once('-').unwrap();
            let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
            maps.count += 1;
            maps.writable_bytes += if fields[1] == "rw-p" { end - start } else { 0 };
        }
    }
    maps
}

fn maps() -> Maps {
    read_maps(&std::fs::read_to_string("/proc/self/maps").unwrap())
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Fails if `bytes` are more than `percent` of `of`.
fn at_most(percent: u64, bytes: u64, of: u64, what: &str) {
    assert!(bytes <= of * percent / 100, "{what}: {bytes} of {of} bytes are more than {percent} %");
}

/// A process whose only blocks are Rust's own and a few of three sizes.
fn small() {
    let blocks: Vec<Box<[u8]>> = [24, 200, 700].into_iter().map(|size| vec![1; size].into()).collect();
    // The ballast; memory for owners with caches, for magazines, for a region's head, its first chunks and their metadata;
    // and advice not to make a huge page of the chunks.
    assert_eq!(magalloc::stats().os_calls, 6);
    drop(blocks);
}

fn gibibyte() {
    let (maps_before, resident_before) = (maps(), resident());
    for _ in 0..GIB / BLOCK_BYTES as u64 {
        // SAFETY: the size is not 0. The blocks are leaked: the end of the process is to find them.
        let block = unsafe { GLOBAL.alloc(layout(BLOCK_BYTES)) };
        // SAFETY: a block of that size.
        unsafe { block.write(1) };
    }
    let (maps_after, resident_after) = (maps(), resident());
    let count = maps_after.count - maps_before.count;
    assert!(count <= 20, "{count} mappings");
    at_most(105, maps_after.writable_bytes - maps_before.writable_bytes, GIB, "writable");
    at_most(102, resident_after - resident_before, GIB, "resident");
    let stats = magalloc::stats();
    assert!((GIB..GIB + GIB / 100).contains(&stats.live), "{stats:?}");
    at_most(2, stats.metadata, stats.live, "metadata");
    at_most(105, stats.committed, stats.live, "committed");
}

/// Two vectors that grow in turns are in each other's way, so that their pages move, up to 300 MiB each.
fn moved() {
    const STEP: usize = 7 << 20;
    let before = maps();
    let mut moves = 0;
    for _ in 0..3 {
        let mut vectors = [const { Vec::<u8>::new() }; 2];
        for _ in 0..40 {
            for vector in &mut vectors {
                let place = vector.as_ptr();
                vector.reserve_exact(STEP);
                moves += usize::from(place != vector.as_ptr());
                vector.resize(vector.len() + STEP, 9);
            }
        }
        assert!(vectors.iter().all(|vector| vector.iter().step_by(4096).all(|byte| *byte == 9)));
    }
    let after = maps();
    assert!(moves > 20, "{moves} moves");
    assert!(after.count <= before.count + 2, "{before:?} {after:?}");
}

fn lines_of_maps_are_read() {
    let text = "\
55d0a000-55d0b000 r--p 00000000 08:01 123                        /bin/program
55d0c000-55d0d000 rw-p 00000000 00:00 0                          [heap]
7f000000-7f003000 rw-p 00000000 00:00 0
7f003000-7f008000 ---p 00000000 00:00 0
7ffe0000-7fff0000 rw-p 00000000 00:00 0                          [stack]
";
    assert_eq!(read_maps(text), Maps { count: 2, writable_bytes: 0x3000 });
}
