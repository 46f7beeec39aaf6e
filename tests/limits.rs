//! Where address space is dear: under a limit of it, set before the start or later, and under valgrind. What fits is
//! served, what does not is refused without harm, and the end is as clean as elsewhere. Where it is not, no more of it is
//! taken than is used: an emulator, a debugger's core file and a limit look at all of it.

use magalloc::Magalloc;
use process::{Outcome, child, command, command_under, give, is_installed, layout, limit, take};
use std::alloc::GlobalAlloc;
use std::os::unix::process::CommandExt;

mod proc;
mod process;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new().report_exit(true);

const KIB: u64 = 1 << 10;
/// Limits of address space, in KiB.
const LIMITS: [u64; 4] = [2_000_000, 300_000, 200_000, 100_000];
/// What program, libraries, stacks and the ends of what the heap takes at a time need of a limit, in bytes.
const BESIDE: usize = 24 << 20;
/// What the C library's allocator reserves for a thread.
const ARENA: usize = 64 << 20;
/// Share of what is left of a limit that must be had as blocks, in percent: four blocks of 200,000 bytes fill a MiB.
const HAD_PERCENT: usize = 75;
/// A limit that a process gives itself, in bytes.
const LATE_LIMIT: usize = 400 << 20;
/// More than a process takes in address space for its first blocks.
const FIRST_BYTES_MAX: u64 = 64 << 20;

fn main() {
    process::main(
        &[
            ("serve", || serve(20)),
            ("serve_little", || serve(1)),
            ("refuse", refuse),
            ("exhaust_small", || exhaust(1_000, BESIDE)),
            ("exhaust_medium", || exhaust(30_000, BESIDE)),
            ("exhaust_large", || exhaust(200_000, BESIDE)),
            ("limit_late", limit_late),
            ("small", small),
            ("strangers", strangers),
            ("exhaust_in_thread", || std::thread::spawn(|| exhaust(1_000, BESIDE + ARENA)).join().unwrap()),
        ],
        &[
            ("limited_process_is_served", || under_each_limit("serve")),
            ("request_beyond_limit_is_refused", || under_each_limit("refuse")),
            ("exhausted_small_blocks_come_back", || under_each_limit("exhaust_small")),
            ("exhausted_medium_blocks_come_back", || under_each_limit("exhaust_medium")),
            ("exhausted_large_blocks_come_back", || under_each_limit("exhaust_large")),
            ("exhausted_in_thread_come_back", || under_each_limit("exhaust_in_thread")),
            ("late_limit_binds_and_leaves_room_for_a_thread", || child("limit_late").expect_unmapped(0, "")),
            ("small_process_takes_little_address_space", || child("small").expect_unmapped(0, "")),
            ("memory_of_others_in_the_way_is_passed_by", || child("strangers").expect_unmapped(0, "")),
            ("valgrind_finds_no_error", valgrind_finds_no_error),
        ],
    );
}

fn under(kib: u64, name: &str) -> Outcome {
    let mut command = command(name);
    // SAFETY: what runs between fork and exec calls nothing but setrlimit.
    unsafe { command.pre_exec(move || limit_address_space(kib)) };
    process::run(&mut command)
}

fn limit_address_space(kib: u64) -> std::io::Result<()> {
    limit(libc::RLIMIT_AS, kib * KIB);
    Ok(())
}

fn under_each_limit(name: &str) {
    for kib in LIMITS {
        under(kib, name).expect_unmapped(0, "");
    }
}

/// Bytes of address space that this process may have.
fn limit_bytes() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) }, 0);
    limit.rlim_cur.try_into().unwrap()
}

/// Blocks of every kind, on several threads.
fn serve(rounds: usize) {
    let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(move || serve_thread(rounds))).collect();
    serve_thread(rounds);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut text = String::new();
    for _ in 0..rounds * 10_000 {
        text.push_str("grows");
    }
    assert_eq!(text.len(), rounds * 50_000);
}

fn serve_thread(rounds: usize) {
    for _ in 0..rounds {
        for (size, count) in [(16, 1_000), (64, 1_000), (1_000, 200), (20_000, 10), (300_000, 2), (2 << 20, 1)] {
            let blocks: Vec<*mut u8> = (0..count).map(|_| take(&GLOBAL, size)).collect();
            blocks.into_iter().for_each(|block| give(&GLOBAL, block, size));
        }
    }
}

/// More than there is: null or an error, and what comes after is served.
fn refuse() {
    let mut kept = vec![7_u8; 5_000_000];
    for bytes in [limit_bytes(), limit_bytes() - (4 << 20), 1 << 50, isize::MAX as usize - 8] {
        assert!(Vec::<u8>::new().try_reserve_exact(bytes).is_err());
        assert!(kept.try_reserve_exact(bytes).is_err());
        // SAFETY: the size is not 0.
        assert!(unsafe { GLOBAL.alloc(layout(bytes)) }.is_null());
        // SAFETY: the size is not 0.
        assert!(unsafe { GLOBAL.alloc_zeroed(layout(bytes)) }.is_null());
        serve_thread(1);
    }
    assert!(kept.iter().all(|byte| *byte == 7));
}

/// Takes blocks until there are no more, each of which knows the one before. Returns the last, and how many.
///
/// # Panics
/// If more can be had than the limit.
fn take_all(size: usize) -> (*mut *mut u8, usize) {
    let mut last: *mut *mut u8 = std::ptr::null_mut();
    let mut count = 0;
    loop {
        // SAFETY: the size is not 0.
        let block: *mut *mut u8 = unsafe { GLOBAL.alloc(layout(size)) }.cast();
        if block.is_null() {
            return (last, count);
        }
        // SAFETY: a block of `size` bytes, aligned to 8.
        unsafe { block.write(last.cast()) };
        last = block;
        count += 1;
        assert!(count * size <= limit_bytes(), "more than the limit");
    }
}

fn give_all(mut last: *mut *mut u8, size: usize) {
    while !last.is_null() {
        // SAFETY: `take_all` wrote it.
        let before = unsafe { last.read() };
        give(&GLOBAL, last.cast(), size);
        last = before.cast();
    }
}

fn exhaust(size: usize, beside: usize) {
    let (last, first_count) = take_all(size);
    give_all(last, size);
    magalloc::flush_thread();
    let bytes = first_count * size;
    assert!(bytes + beside > limit_bytes() / 100 * HAD_PERCENT, "{bytes} of {}", limit_bytes());
    serve_thread(1);
    let (last, second_count) = take_all(size);
    give_all(last, size);
    assert!(second_count >= first_count / 10 * 9, "first {first_count}, then {second_count}");
    serve_thread(1);
}

/// The process has used the heap when it limits itself.
fn limit_late() {
    drop((0..1000).map(|number| vec![1_u8; 1000 + number]).collect::<Vec<_>>());
    limit(libc::RLIMIT_AS, LATE_LIMIT as u64);
    let (last, count) = take_all(1 << 20);
    let bytes = count << 20;
    assert!((LATE_LIMIT - BESIDE - LATE_LIMIT / 50..LATE_LIMIT).contains(&bytes), "{bytes} bytes");
    let small = std::thread::Builder::new().stack_size(256 << 10);
    small.spawn(|| drop(vec![7_u8; 100])).unwrap().join().unwrap();
    give_all(last, 1 << 20);
    let (last, again) = take_all(1 << 20);
    assert!(again >= count / 10 * 9, "first {count}, then {again}");
    give_all(last, 1 << 20);
}

/// The process's own mappings are there, and those of the first blocks.
fn small() {
    let blocks: Vec<Vec<u8>> = [24, 200, 700, 100_000].map(|size| vec![1; size]).into();
    assert!(proc::mapped() < FIRST_BYTES_MAX, "{} bytes", proc::mapped());
    drop(blocks);
}

/// Bytes of a stranger's mapping: less than the heap takes at a time.
const STRANGER_BYTES: usize = 64 << 10;

/// Maps `STRANGER_BYTES` at `place`, if nothing is there, and writes on them.
fn map_at(place: usize) -> Option<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let place = std::ptr::with_exposed_provenance_mut::<libc::c_void>(place);
    // SAFETY: takes a hole only, never what is mapped.
    let start = unsafe { libc::mmap(place, STRANGER_BYTES, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if start != place {
        return None;
    }
    // SAFETY: mapped just now.
    unsafe { start.cast::<u8>().write_bytes(0x5a, STRANGER_BYTES) };
    Some(start.cast())
}

/// Others map memory just where the heap was going to grow: blocks of all sizes are had all the same, and neither side
/// touches the other's.
fn strangers() {
    const ROUNDS: usize = 6;
    const SIZES: [(usize, usize); 4] = [(64, 100_000), (3_000, 3_000), (300_000, 40), (20 << 20, 3)];
    let mut strangers = Vec::with_capacity(ROUNDS);
    let mut blocks = Vec::with_capacity(ROUNDS * 200_000);
    for round in 0..ROUNDS {
        for (size, count) in SIZES {
            blocks.extend((0..count).map(|_| (take(&GLOBAL, size), size)));
        }
        // Behind the highest block, at the first place that is free, or some MiB further up.
        let highest = blocks.iter().map(|&(block, size)| block.addr() + size).max().unwrap();
        let from = highest.next_multiple_of(STRANGER_BYTES) + round % 3 * (5 << 20);
        strangers.push((0..1000).find_map(|number| map_at(from + number * STRANGER_BYTES)).expect("a free place"));
    }
    for &start in &strangers {
        // SAFETY: mapped above.
        let bytes = unsafe { std::slice::from_raw_parts(start, STRANGER_BYTES) };
        assert!(bytes.iter().all(|&byte| byte == 0x5a));
    }
    for (block, size) in blocks {
        // SAFETY: `take` has filled the beginning of a live block.
        assert_eq!(unsafe { block.read() }, 0x5a);
        give(&GLOBAL, block, size);
    }
    magalloc::check();
}

fn valgrind_finds_no_error() {
    if !is_installed("valgrind") {
        return process::skip("valgrind is not installed");
    }
    let mut command = command_under("valgrind", &["-q", "--error-exitcode=9"], "serve_little");
    process::run(&mut command).expect_unmapped(0, "");
}
