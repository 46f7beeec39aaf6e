//! How much memory an idle program keeps: a burst of small blocks, of which 1 % stay, and then nothing more happens.
//!
//! `cargo run --release --manifest-path benches/beside/Cargo.toml --bin idle [VARIANT [SECONDS [MIB]]]` starts itself
//! once for each variant and allocator, so that each has a process of its own, and prints a table. There, 4 threads
//! allocate 1 GiB (MIB) in blocks of 16 to 1,024 bytes and write to all of it, free most of the blocks, and sleep. The
//! resident memory is looked at after 2 seconds and again after 12 (SECONDS). It is what the process has beyond what
//! it had before the burst, without the lists of this program.
//!
//! jemalloc is there twice: as it comes, and with the background thread that it has as an option. magalloc has its
//! own by default.

use allocators::{JEMALLOC, MAGALLOC, MIMALLOC, SEED, SYSTEM, random_numbers};
use std::alloc::{GlobalAlloc, Layout};
use std::process::{Command, Stdio, exit};
use std::sync::{Barrier, Mutex};
use std::thread::{scope, sleep};
use std::time::Duration;

mod allocators;

const THREADS: usize = 4;
const SIZE_MIN: usize = 16;
const SIZE_MAX: usize = 1024;
/// One block, or one run of blocks, of so many stays.
const ONE_OF: usize = 100;
/// Blocks of a run: neighbours in time.
const RUN: usize = 1000;
const EARLY_SECONDS: u64 = 2;
const LATE_SECONDS: u64 = 12;
const MIB: usize = 1024;
/// From here on each thread has a run that stays.
const MIB_MIN: usize = 128;
const PAGE_BYTES: usize = 4096;

/// Tells a process of this program which allocator it is for.
const CHILD: &str = "IDLE_ALLOCATOR";

type Allocator = dyn GlobalAlloc + Sync;

/// Name, the allocator, and a variable of its processes' environment.
const ALLOCATORS: [(&str, &Allocator, (&str, &str)); 5] = [
    ("magalloc", &MAGALLOC, ("", "")),
    ("mimalloc", &MIMALLOC, ("", "")),
    ("jemalloc", &JEMALLOC, ("", "")),
    ("jemalloc-thread", &JEMALLOC, ("_RJEM_MALLOC_CONF", "background_thread:true")),
    ("system", &SYSTEM, ("", "")),
];

/// Which blocks stay.
#[derive(Clone, Copy)]
enum Stay {
    Scattered,
    Clustered,
}

const VARIANTS: [(&str, &str, Stay); 2] = [
    (
        "scattered",
        "1 % of the blocks stay, chosen at random, and the others are freed in random order",
        Stay::Scattered,
    ),
    ("clustered", "each 100th run of 1,000 neighbours stays", Stay::Clustered),
];

/// A block that the program has.
#[derive(Clone, Copy)]
struct Block {
    address: usize,
    size: usize,
}

impl Block {
    /// A block, all of it written to.
    fn new(allocator: &Allocator, size: usize) -> Self {
        // SAFETY: no size here is 0.
        let block = unsafe { allocator.alloc(layout(size)) };
        assert!(!block.is_null(), "no memory for a block of {size} bytes");
        // SAFETY: a block of that size.
        unsafe { block.write_bytes(1, size) };
        Self { address: block.expose_provenance(), size }
    }

    fn free(self, allocator: &Allocator) {
        let block = std::ptr::with_exposed_provenance_mut(self.address);
        // SAFETY: allocated with that layout, and freed once.
        unsafe { allocator.dealloc(block, layout(self.size)) };
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a small size")
}

/// Blocks in memory that is no allocator's: resident from the beginning, gone with the list.
struct List {
    blocks: &'static mut [Block],
}

impl List {
    fn new(length: usize) -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let bytes = length * size_of::<Block>();
        // SAFETY: new memory, where the kernel likes.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "no memory for a list of {length} blocks");
        // SAFETY: nobody else has it, and zeros are a block.
        Self { blocks: unsafe { std::slice::from_raw_parts_mut(start.cast(), length) } }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; the slice goes with `self`.
        unsafe { libc::munmap(self.blocks.as_mut_ptr().cast(), size_of_val(self.blocks)) };
    }
}

/// What happens in a child.
struct Burst {
    allocator: &'static Allocator,
    stay: Stay,
    /// Of each thread.
    blocks: usize,
    /// Where all threads and the main thread wait for each other.
    step: Barrier,
    staying: Mutex<Vec<Block>>,
}

/// What a child found out, in bytes.
struct Found {
    peak: usize,
    must_stay: usize,
    early: usize,
    late: usize,
}

impl Burst {
    fn new(allocator: &'static Allocator, stay: Stay, bytes: usize) -> Self {
        let blocks = bytes / ((SIZE_MIN + SIZE_MAX) / 2) / THREADS;
        let staying = Mutex::new(Vec::with_capacity(2 * THREADS * blocks / ONE_OF));
        Self { allocator, stay, blocks, step: Barrier::new(THREADS + 1), staying }
    }

    fn run(&self, late_seconds: u64) -> Found {
        scope(|scope| {
            for seed in (SEED..).take(THREADS) {
                scope.spawn(move || self.thread(seed));
            }
            let lists = THREADS * (self.blocks * size_of::<Block>()).next_multiple_of(PAGE_BYTES);
            let before = self.while_all_wait() - lists;
            let peak = self.while_all_wait() - before - lists;
            self.step.wait();
            let must_stay = self.must_stay();
            sleep(Duration::from_secs(EARLY_SECONDS));
            let early = resident().saturating_sub(before);
            sleep(Duration::from_secs(late_seconds - EARLY_SECONDS));
            let late = resident().saturating_sub(before);
            self.step.wait();
            Found { peak, must_stay, early, late }
        })
    }

    /// Resident memory between two steps.
    fn while_all_wait(&self) -> usize {
        self.step.wait();
        let resident = resident();
        self.step.wait();
        resident
    }

    fn thread(&self, seed: u64) {
        let mut random = random_numbers(seed);
        let list = List::new(self.blocks);
        self.step.wait();
        self.step.wait();
        for block in &mut *list.blocks {
            let more = random() % (SIZE_MAX - SIZE_MIN + 1) as u64;
            *block = Block::new(self.allocator, SIZE_MIN + more as usize);
        }
        self.step.wait();
        self.step.wait();
        if let Stay::Scattered = self.stay {
            let last = list.blocks.len() as u64 - 1;
            (1..=last).for_each(|last| list.blocks.swap(last as usize, (random() % (last + 1)) as usize));
        }
        let stays = |index: usize| match self.stay {
            Stay::Scattered => index.is_multiple_of(ONE_OF),
            Stay::Clustered => index / RUN % ONE_OF == ONE_OF / 2,
        };
        for (index, block) in list.blocks.iter().enumerate() {
            if stays(index) {
                self.staying.lock().expect("nobody panics").push(*block);
            } else {
                block.free(self.allocator);
            }
        }
        drop(list);
        self.step.wait();
        // Asleep until the end.
        self.step.wait();
    }

    /// Scattered: the pages that hold a block. Clustered: the bytes of the blocks.
    fn must_stay(&self) -> usize {
        let mut staying = std::mem::take(&mut *self.staying.lock().expect("nobody panics"));
        match self.stay {
            Stay::Scattered => {
                staying.sort_unstable_by_key(|block| block.address);
                let mut pages = 0;
                let mut next = 0;
                for block in &staying {
                    let end = (block.address + block.size).div_ceil(PAGE_BYTES);
                    pages += end - next.max(block.address / PAGE_BYTES).min(end);
                    next = end;
                }
                pages * PAGE_BYTES
            }
            Stay::Clustered => staying.iter().map(|block| block.size).sum(),
        }
    }
}

/// Anonymous memory of this process that is resident, by the kernel's exact count.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("Linux tells");
    let kib = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).and_then(|rest| rest.strip_suffix("kB"));
    kib.and_then(|kib| kib.trim().parse::<usize>().ok()).expect("a number of kB") * 1024
}

/// Prints what a process of its own finds out about `allocator`.
fn print_row(variant: &str, allocator: &str, variable: (&str, &str), seconds: u64, mib: usize) {
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"));
    child.args([variant, &seconds.to_string(), &mib.to_string()]).env(CHILD, allocator).stderr(Stdio::inherit());
    if !variable.0.is_empty() {
        child.env(variable.0, variable.1);
    }
    let output = child.output().expect("this program starts again");
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();
    let [peak, must_stay, early, late] = bytes[..] else {
        eprintln!("idle: the process for {allocator} failed: {}", output.status);
        exit(1);
    };
    let mib = |bytes: f64| format!("{:10.1}", bytes / f64::from(1 << 20));
    let after = [early, late].map(|bytes| format!(" |{}{:8.2}", mib(bytes), bytes / must_stay)).concat();
    println!("{variant:10}{allocator:16}{} {}{after}", mib(peak), mib(must_stay));
}

fn usage(problem: &str) -> ! {
    eprintln!("idle: {problem}\nusage: idle [VARIANT [SECONDS [MIB]]]\nvariants:");
    for (name, meaning, _) in VARIANTS {
        eprintln!("  {name:15} {meaning}");
    }
    exit(2);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let only = arguments.next();
    let seconds = arguments.next().map_or(Ok(LATE_SECONDS), |text| text.parse());
    let mib = arguments.next().map_or(Ok(MIB), |text| text.parse());
    if let Some(more) = arguments.next() {
        usage(&format!("{more:?} is one argument too many"));
    }
    let variants = VARIANTS.iter().filter(|variant| only.as_ref().is_none_or(|only| only == variant.0));
    if let Some(name) = &only
        && variants.clone().next().is_none()
    {
        usage(&format!("no variant is called {name:?}"));
    }
    let Some(seconds) = seconds.ok().filter(|seconds| *seconds > EARLY_SECONDS) else {
        usage(&format!("SECONDS is a whole number above {EARLY_SECONDS}"))
    };
    let Some(mib) = mib.ok().filter(|mib| (MIB_MIN..=usize::MAX >> 20).contains(mib)) else {
        usage(&format!("MIB is a whole number from {MIB_MIN}"))
    };
    if let Ok(name) = std::env::var(CHILD) {
        let allocator = ALLOCATORS.iter().find(|allocator| allocator.0 == name).expect("the name of an allocator");
        let stay = variants.clone().next().expect("the parent names one").2;
        let found = Burst::new(allocator.1, stay, mib << 20).run(seconds);
        println!("{} {} {} {}", found.peak, found.must_stay, found.early, found.late);
        return;
    }
    println!("{mib} MiB on {THREADS} threads in blocks of {SIZE_MIN} to {SIZE_MAX} bytes; resident, in MiB");
    println!("must stay: scattered, the pages that hold a block; clustered, the bytes of the blocks");
    let [early, late] =
        [EARLY_SECONDS, seconds].map(|seconds| format!(" |{:>18}", format!("after {seconds} s asleep")));
    println!("{:10}{:16}{:>10} {:>10}{early}{late}", "", "", "peak", "must stay");
    for (variant, _, _) in variants {
        for (allocator, _, variable) in ALLOCATORS {
            print_row(variant, allocator, variable, seconds, mib);
        }
    }
}
