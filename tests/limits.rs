//! Where address space is dear: under a limit of it, and under valgrind. What fits is served, what does not is
//! refused without harm, and the end is as clean as elsewhere.

use magalloc::Magalloc;
use process::{Outcome, command, command_under, give, is_installed, layout, limit, take};
use std::alloc::GlobalAlloc;
use std::os::unix::process::CommandExt;

mod process;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new().report_exit(true);

const KIB: u64 = 1 << 10;
/// Limits of address space, in KiB.
const LIMITS: [u64; 3] = [2_000_000, 300_000, 100_000];

fn main() {
    process::main(
        &[
            ("serve", || serve(20)),
            ("serve_little", || serve(1)),
            ("refuse", refuse),
            ("exhaust_small", || exhaust(1_000)),
            ("exhaust_medium", || exhaust(30_000)),
            ("exhaust_large", || exhaust(200_000)),
            ("exhaust_in_thread", || std::thread::spawn(|| exhaust(1_000)).join().unwrap()),
        ],
        &[
            ("limited_process_is_served", || under_each_limit("serve")),
            ("request_beyond_limit_is_refused", || under_each_limit("refuse")),
            ("exhausted_small_blocks_come_back", || under_each_limit("exhaust_small")),
            ("exhausted_medium_blocks_come_back", || under_each_limit("exhaust_medium")),
            ("exhausted_large_blocks_come_back", || under_each_limit("exhaust_large")),
            ("exhausted_in_thread_come_back", || under_each_limit("exhaust_in_thread")),
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
    for bytes in [limit_bytes(), limit_bytes() / 8 * 7, 1 << 50, isize::MAX as usize - 8] {
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

fn exhaust(size: usize) {
    let (last, first_count) = take_all(size);
    give_all(last, size);
    magalloc::flush_thread();
    let bytes = first_count * size;
    // Where little is allowed, program, libraries and the ends of regions take their part.
    assert!(bytes > limit_bytes() / 4, "{bytes} of {}", limit_bytes());
    serve_thread(1);
    let (last, second_count) = take_all(size);
    give_all(last, size);
    assert!(second_count >= first_count / 10 * 9, "first {first_count}, then {second_count}");
    serve_thread(1);
}

fn valgrind_finds_no_error() {
    if !is_installed("valgrind") {
        return process::skip("valgrind is not installed");
    }
    let mut command = command_under("valgrind", &["-q", "--error-exitcode=9"], "serve_little");
    process::run(&mut command).expect_unmapped(0, "");
}
