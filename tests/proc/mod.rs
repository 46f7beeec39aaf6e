//! What the kernel says of this process, read without allocating: a test that wants to be idle can ask.

// Each test uses its own part of this.
#![allow(dead_code)]

use std::fs::File;
use std::io::Read;
use std::os::linux::fs::MetadataExt;
use std::time::Duration;

/// Reads a file of `/proc` of at most as many bytes as the buffer has.
pub fn read<'b>(path: &str, buffer: &'b mut [u8]) -> &'b str {
    let mut file = File::open(path).unwrap();
    let mut len = 0;
    loop {
        match file.read(&mut buffer[len..]).unwrap() {
            0 => return std::str::from_utf8(&buffer[..len]).unwrap(),
            count => len += count,
        }
        assert!(len < buffer.len(), "{path} is longer than the buffer");
    }
}

/// The bytes that a line `name:  N kB` tells.
fn bytes_of(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    value.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Resident bytes of this process.
pub fn resident() -> u64 {
    bytes_of(read("/proc/self/status", &mut [0; 4096]), "VmRSS")
}

/// Bytes of address space that this process has mapped, touched or not.
pub fn mapped() -> u64 {
    bytes_of(read("/proc/self/status", &mut [0; 4096]), "VmSize")
}

/// Bytes of pages that this process has written to and shares with no other.
pub fn private_dirty() -> u64 {
    bytes_of(read("/proc/self/smaps_rollup", &mut [0; 4096]), "Private_Dirty")
}

/// Threads of this process, as the kernel counts them: one that was joined just now may be among them.
pub fn tasks() -> u64 {
    // A directory has two links and one for each folder in it.
    std::fs::metadata("/proc/self/task").unwrap().st_nlink() - 2
}

/// Milliseconds between two looks of `wait`.
const STEP_MS: u64 = 5;

/// Longest wait for what must come, in milliseconds: it says nothing about how fast that is, and only lets a test fail
/// instead of hang.
const PATIENCE_MS: u64 = 60_000;

/// Sleeps until `condition` holds; `false`: it does not.
pub fn wait(condition: impl FnMut() -> bool) -> bool {
    holds_within(PATIENCE_MS, condition)
}

/// Does `condition` hold within so many milliseconds? For what must not come. Counted are steps of sleep: where the
/// machine is busy, each takes longer.
pub fn holds_within(milliseconds: u64, mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..milliseconds.div_ceil(STEP_MS) {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(STEP_MS));
    }
    condition()
}
