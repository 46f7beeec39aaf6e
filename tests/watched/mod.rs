//! Child processes whose memory is watched: what the kernel says of it, how to wait for it, and what is printed.

// Each test uses a part of it.
#![allow(dead_code)]

use crate::process::{self, layout};
use magalloc::Magalloc;
use std::alloc::GlobalAlloc;
use std::ops::RangeInclusive;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Runs the child `name`, which must end well, and prints what it measured.
#[track_caller]
pub fn passes(name: &str) {
    let outcome = process::child(name);
    print!("{}", outcome.stdout.lines().map(|line| format!("{name}: {line}\n")).collect::<String>());
    assert!(outcome.code == Some(0) && outcome.stderr.is_empty(), "{name}: {:?}\n{}", outcome.signal, outcome.stderr);
}

/// From now on, a panic in any thread ends the process: the other threads may wait for that one.
pub fn end_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        // SAFETY: _exit has no conditions.
        unsafe { libc::_exit(101) };
    }));
}

/// Time between two looks.
const STEP: Duration = Duration::from_millis(10);

/// Resident bytes of this process, as the kernel finds them page by page (`VmRSS` may lag behind by some pages a CPU).
pub fn resident() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("Linux 4.14");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a line with the sum");
    line.trim().strip_suffix(" kB").expect("in KiB").parse::<u64>().expect("a number") * 1024
}

/// Resident bytes beyond `before`.
pub fn resident_since(before: u64) -> u64 {
    resident().saturating_sub(before)
}

/// Bytes of a page.
pub fn page_bytes() -> usize {
    // SAFETY: sysconf has no conditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a page size")
}

/// Longest wait for what must come. It says nothing about how fast that is, which depends on what else the machine does;
/// it only lets a test fail, instead of hang, where it never comes. (How long memory waits before it is given back is
/// tested with a clock of its own: `src/heap/purging.rs`.)
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `holds`; sleeps between two looks. `false`: it does not.
pub fn wait_until(holds: impl FnMut() -> bool) -> bool {
    step_until(PATIENCE, holds, || sleep(STEP))
}

/// Does it hold within `time`? For what must not come: where the machine is busy, the look is later, and more strict.
pub fn holds_within(time: Duration, holds: impl FnMut() -> bool) -> bool {
    step_until(time, holds, || sleep(STEP))
}

/// Waits until `holds`; does `work` between two looks. `false`: it does not.
pub fn work_until(holds: impl FnMut() -> bool, mut work: impl FnMut()) -> bool {
    step_until(PATIENCE, holds, || {
        let begin = Instant::now();
        while begin.elapsed() < STEP {
            work();
        }
    })
}

fn step_until(deadline: Duration, mut holds: impl FnMut() -> bool, mut step: impl FnMut()) -> bool {
    let mut waited = Duration::ZERO;
    loop {
        let begin = Instant::now();
        if holds() {
            return true;
        }
        if waited >= deadline {
            return false;
        }
        step();
        // What is more is time in which the machine did other work.
        waited += begin.elapsed().min(STEP * 2);
    }
}

/// An empty vector with room for `capacity` elements whose pages are resident already, so that filling it changes
/// nothing about that.
pub fn resident_vec<T: Clone>(capacity: usize, any: T) -> Vec<T> {
    let mut vec = vec![any; capacity];
    vec.clear();
    vec
}

/// MiB, for messages.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A block, to be freed by hand. All its bytes have one value, which is not 0: as a page has that was given back.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    start: *mut u8,
    size: u32,
}

// SAFETY: a block is memory that whoever has it uses alone.
unsafe impl Send for Held {}

impl Held {
    /// No block.
    pub const NONE: Self = Self { start: std::ptr::dangling_mut(), size: 1 };

    /// Allocates a block and writes all of it; `None` where the allocator says no.
    pub fn try_new(allocator: &Magalloc, size: usize) -> Option<Self> {
        // SAFETY: the size is not 0.
        let start = unsafe { allocator.alloc(layout(size)) };
        if start.is_null() {
            return None;
        }
        let held = Self { start, size: u32::try_from(size).expect("below 4 GiB") };
        // SAFETY: the block has that many bytes.
        unsafe { start.write_bytes(held.value(), size) };
        Some(held)
    }

    /// The same; the allocator must be able to.
    pub fn new(allocator: &Magalloc, size: usize) -> Self {
        Self::try_new(allocator, size).unwrap_or_else(|| panic!("no memory for {size} bytes"))
    }

    /// Its first byte.
    pub fn start(self) -> *mut u8 {
        self.start
    }

    /// Its bytes, as asked for.
    pub fn size(self) -> usize {
        self.size as usize
    }

    /// What its bytes are: neighbours mostly differ.
    pub fn value(self) -> u8 {
        (self.start.addr() / 8) as u8 ^ (self.start.addr() >> 11) as u8 | 1
    }

    /// Nobody else wrote to it, nor was it given back.
    #[track_caller]
    pub fn verify(self) {
        // SAFETY: the block has that many bytes, all of which were written.
        let bytes = unsafe { std::slice::from_raw_parts(self.start, self.size()) };
        // Each byte equals its neighbour: one memcmp, fast in a debug build too.
        let is_whole = bytes[0] == self.value() && bytes[1..] == bytes[..bytes.len() - 1];
        let wrong = || bytes.iter().position(|byte| *byte != self.value());
        assert!(is_whole, "block of {} bytes at {:p}: wrong at offset {:?}", self.size, self.start, wrong());
    }

    /// Verifies and frees it.
    #[track_caller]
    pub fn free(self, allocator: &Magalloc) {
        self.verify();
        // SAFETY: a live block of that layout; whoever has it forgets it.
        unsafe { allocator.dealloc(self.start, layout(self.size())) };
    }

    /// Numbers of the pages in which a byte of it lies.
    pub fn pages(self, page_bytes: usize) -> RangeInclusive<usize> {
        let first = self.start.addr();
        first / page_bytes..=(first + self.size() - 1) / page_bytes
    }
}
