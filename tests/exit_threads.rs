//! The end of a process with threads: the allocator's own, which gives memory back, is gone before the memory is; the
//! program's keep their memory; and what is free is given back as the options say. Also what the program sees nothing
//! of: no signal goes astray, and errno stays what it was though calls of the kernel fail inside.

use magalloc::{Magalloc, stats};
use parked::beside;
use process::{child, command, give, is_child, layout, on_raw_thread, say, set_option, take, use_memory};
use std::alloc::GlobalAlloc;
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

mod parked;
mod proc;
mod process;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new().report_exit(true);

fn main() {
    process::main(
        &[
            ("purging", purging),
            ("in_thread", in_thread),
            ("last_thread", last_thread),
            ("detached", detached),
            ("handlers", handlers),
            ("unused", hold_and_free),
            ("none", hold_and_free),
            ("parked", parked),
            ("signals", signals),
            ("without_exit", without_exit),
            ("shrunk", shrunk),
            ("errno_enomem", || errno(libc::ENOMEM)),
            ("errno_enosys", || errno(libc::ENOSYS)),
        ],
        &[
            ("end_amid_purging_unmaps_all", end_amid_purging_unmaps_all),
            ("exit_in_other_thread_keeps_all", || repeat(10, || child("in_thread").expect_kept(8, ""))),
            ("exit_among_detached_threads_keeps_all", || repeat(8, || child("detached").expect_kept(9, ""))),
            ("handlers_and_destructors_are_served", handlers_and_destructors_are_served),
            ("exit_after_the_main_thread_keeps_all", || repeat(3, || child("last_thread").expect_kept(5, ""))),
            ("at_exit_unused_gives_free_memory_back", || gives_back("unused")),
            ("at_exit_none_gives_nothing_back", || late("none").expect_kept(0, if_late("kept\n"))),
            ("at_exit_all_among_threads_gives_free_memory_back", || gives_back("parked")),
            ("signals_go_to_the_programs_threads_only", || child("signals").expect_unmapped(0, "")),
            ("process_ends_with_its_last_thread", || child("without_exit").expect(0, "", "")),
            ("rest_of_a_shrunk_block_is_given_back", || child("shrunk").expect_unmapped(0, "")),
            ("errno_is_kept_over_refused_memory", || errno_is_kept("errno_enomem")),
            ("errno_is_kept_over_missing_calls", || errno_is_kept("errno_enosys")),
        ],
    );
}

fn repeat(times: usize, mut body: impl FnMut()) {
    (0..times).for_each(|_| body());
}

/// Before `main`, and before the allocator's first call, whose options hold.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

extern "C" fn at_start() {
    let is_silent = [c"unused", c"none", c"parked"].into_iter().any(is_child);
    if is_silent {
        // Nothing is given back but at the end.
        set_option(c"MAGALLOC_BACKGROUND_THREAD", c"0");
        set_option(c"MAGALLOC_PURGE_DELAY_MS", c"4294967295");
    }
    if is_child(c"unused") {
        set_option(c"MAGALLOC_AT_EXIT", c"unused");
    } else if is_child(c"none") {
        set_option(c"MAGALLOC_AT_EXIT", c"none");
    } else if is_child(c"errno_enomem") || is_child(c"errno_enosys") {
        // Little may stay dirty, so that frees call the kernel.
        set_option(c"MAGALLOC_DIRTY_BYTES_MAX", c"1M");
        set_option(c"MAGALLOC_PURGE_DELAY_MS", c"0");
    } else if !is_silent {
        // So that there is always something to do for the thread that gives memory back.
        set_option(c"MAGALLOC_PURGE_DELAY_MS", c"20");
    }
    let first = take(&GLOBAL, 64);
    FIRST.store(first, Ordering::Relaxed);
    assert!(is_mapped(first));
    give(&GLOBAL, first, 64);
}

/// The first block: in the heap's first pages, which nobody else maps when they are unmapped.
static FIRST: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

/// Is there any memory at `address`?
fn is_mapped(address: *mut u8) -> bool {
    // The largest base page of any system.
    let page = address.map_addr(|address| address & !0xffff);
    let mut present = 0;
    // SAFETY: `present` has room for the one page; nothing is touched at its address.
    unsafe { libc::mincore(page.cast(), 1, &raw mut present) == 0 }
}

/// After the allocator's own end: see `late_handler`.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_END: extern "C" fn() = at_end;

unsafe extern "C" {
    fn __cxa_atexit(
        handler: extern "C" fn(*mut libc::c_void),
        argument: *mut libc::c_void,
        library: *mut libc::c_void,
    ) -> libc::c_int;
}

extern "C" fn at_end() {
    if cfg!(target_env = "gnu") && std::env::var_os("TEST_LATE").is_some() {
        // SAFETY: registers a function that lives as long as the process, and as no library's: so it is called after
        // the allocator's own, which is registered later.
        assert_eq!(unsafe { __cxa_atexit(late_handler, std::ptr::null_mut(), std::ptr::null_mut()) }, 0);
    }
}

const MIB: u64 = 1 << 20;
/// Bytes that scenarios allocate and free before the end.
const HELD_BYTES: u64 = 50 * MIB;

/// Looks at what the allocator has left. Allocates nothing.
extern "C" fn late_handler(_argument: *mut libc::c_void) {
    if is_child(c"purging") || is_child(c"handlers") {
        assert_eq!(proc::tasks(), 1, "the allocator's thread is gone");
        assert!(!is_mapped(FIRST.load(Ordering::Relaxed)), "the heap is there");
        say("gone\n");
    } else {
        let live = LIVE.load(Ordering::Relaxed);
        // SAFETY: a live block of 64 KiB; it stays mapped, as the process has other threads or wants it so.
        assert!((0..64 << 10).all(|offset| unsafe { live.add(offset).read() } == 7), "a live block has changed");
        say(if proc::resident() > HELD_BYTES { "kept\n" } else { "given back\n" });
    }
}

/// Runs a child that looks at itself at last.
fn late(name: &str) -> process::Outcome {
    process::run(command(name).env("TEST_LATE", "1")).without_note()
}

/// The memory that was free at the end is gone from the process.
fn gives_back(name: &str) {
    late(name).expect_kept(0, if_late("given back\n"));
}

/// What such a child says where the C library lets it.
fn if_late(text: &'static str) -> &'static str {
    if cfg!(target_env = "gnu") { text } else { "" }
}

/// Large and small blocks, all touched.
fn hold() -> Vec<Vec<u8>> {
    let large = (0..HELD_BYTES / 2 / MIB).map(|_| vec![1; 1 << 20]);
    large.chain((0..HELD_BYTES / 2 / 1000).map(|_| vec![1; 1000])).collect()
}

/// Frees much beside a thread, until the allocator's is seen, too: on a busy machine, it may have come and gone before the look.
fn hold_until_given_back() {
    let is_there = || {
        drop(hold());
        proc::tasks() > 2
    };
    assert!(proc::wait(is_there), "nobody gives memory back");
}

/// Pauses before the end, in microseconds: within each phase of a purge delay of 20 ms.
const PAUSES: usize = 30;
const PAUSE_STEP_US: usize = 1_000;

fn end_amid_purging_unmaps_all() {
    for number in 0..PAUSES {
        let mut command = command("purging");
        command.env("TEST_LATE", "1").env("TEST_PAUSE", (number * PAUSE_STEP_US).to_string());
        process::run(&mut command).without_note().expect_unmapped(0, if_late("gone\n"));
    }
}

/// Runs `body` beside a thread that has a cache and sleeps: a program with one thread gives memory back on its way. Waits
/// for the end of that thread.
fn beside_a_thread(body: impl FnOnce()) {
    let thread = beside();
    body();
    thread.join();
    // The kernel counts a joined thread for a moment more; the allocator's own may be there.
    assert!(proc::wait(|| proc::tasks() <= 2), "{} threads", proc::tasks());
}

fn purging() {
    let pause = std::env::var("TEST_PAUSE").unwrap().parse().unwrap();
    // The allocator's thread is there, and sleeps or works, or finds that it is alone.
    beside_a_thread(hold_until_given_back);
    std::thread::sleep(Duration::from_micros(pause));
}

fn finish(code: i32) {
    use_memory(&GLOBAL);
    drop(hold());
    std::process::exit(code);
}

/// The main thread is one of the program that still runs.
fn in_thread() {
    std::thread::spawn(|| finish(8));
    loop {
        std::thread::park();
    }
}

/// The main thread ends as a thread does, and without destructors: the kernel still counts it.
fn last_thread() {
    std::thread::spawn(|| finish(5));
    // SAFETY: ends this thread, which holds nothing that others need.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

fn detached() {
    const THREADS: usize = 3;
    let begun = Arc::new(Barrier::new(THREADS + 1));
    for _ in 0..THREADS {
        let begun = Arc::clone(&begun);
        std::thread::spawn(move || {
            drop(black_box(vec![1; 100]));
            begun.wait();
            for number in 0.. {
                for size in [10, 100, 1_000, 50_000, 5 << 20] {
                    drop(black_box(vec![1_u8; size]));
                }
                match number % 100 {
                    30 => magalloc::flush_thread(),
                    60 => magalloc::purge_all(),
                    _ => {}
                }
            }
        });
    }
    begun.wait();
    std::thread::spawn(|| finish(9)).join().unwrap();
}

/// Freed and allocated anew by whatever runs at the end.
static SHARED: AtomicPtr<Vec<Vec<u8>>> = AtomicPtr::new(std::ptr::null_mut());

fn exchange_shared() {
    let before = SHARED.swap(Box::into_raw(Box::new(hold())), Ordering::AcqRel);
    if !before.is_null() {
        // SAFETY: came from a Box, and is nobody else's any more.
        drop(unsafe { Box::from_raw(before) });
    }
    use_memory(&GLOBAL);
}

struct Local(Cell<Vec<u8>>);

impl Drop for Local {
    fn drop(&mut self) {
        assert!(self.0.take().iter().all(|byte| *byte == 3));
        exchange_shared();
        say("tls\n");
    }
}

thread_local! {
    static LOCAL: Local = Local(Cell::new(vec![3; 100_000]));
}

extern "C" fn first_handler() {
    exchange_shared();
    magalloc::purge_all();
    say("first\n");
}

extern "C" fn second_handler() {
    // A thread that comes and goes while the process ends.
    on_raw_thread(exchange_shared);
    // Long enough for the allocator's thread to be at work again.
    std::thread::sleep(Duration::from_millis(30));
    exchange_shared();
    say("second\n");
}

fn handlers() {
    exchange_shared();
    LOCAL.with(|_| ());
    std::thread::spawn(|| LOCAL.with(|_| ())).join().unwrap();
    for handler in [first_handler, second_handler] {
        // SAFETY: registers a function that lives as long as the process.
        assert_eq!(unsafe { libc::atexit(handler) }, 0);
    }
}

/// The handlers come in reverse order, after the main thread's destructors.
fn handlers_and_destructors_are_served() {
    let late_text = if_late("gone\n");
    repeat(5, || late("handlers").expect_unmapped(0, &format!("tls\ntls\nsecond\nfirst\n{late_text}")));
}

/// A block that is in use until the end.
static LIVE: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

/// What is free at the end is in memory until then: nobody gives it back before.
fn hold_and_free() {
    LIVE.store(vec![7_u8; 64 << 10].leak().as_mut_ptr(), Ordering::Relaxed);
    drop(hold());
    assert!(proc::resident() > HELD_BYTES, "{:?}", stats());
}

fn parked() {
    std::thread::spawn(|| {
        drop(black_box(vec![1; 100]));
        loop {
            std::thread::park();
        }
    });
    hold_and_free();
}

/// Signals for the process wait until the main thread takes them: the allocator's thread does not.
fn signals() {
    static HANDLED: AtomicBool = AtomicBool::new(false);
    extern "C" fn handler(_signal: libc::c_int) {
        HANDLED.store(true, Ordering::Relaxed);
    }
    let is_handled = || HANDLED.load(Ordering::Relaxed);
    // SAFETY: all zeros is a valid signal set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in [libc::SIGUSR1, libc::SIGTERM, libc::SIGRTMIN() + 1] {
        HANDLED.store(false, Ordering::Relaxed);
        // SAFETY: the handler uses an atomic only.
        unsafe { libc::signal(signal, handler as *const () as usize) };
        // SAFETY: `set` is valid.
        unsafe { libc::sigemptyset(&raw mut set) };
        // SAFETY: `set` is valid.
        unsafe { libc::sigaddset(&raw mut set, signal) };
        // SAFETY: `set` is valid.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        // The allocator's thread is there, and no other.
        beside_a_thread(hold_until_given_back);
        // SAFETY: there is a handler.
        assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
        assert!(!proc::holds_within(20, is_handled), "signal {signal} went to another thread");
        // SAFETY: `set` is valid.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
        assert!(is_handled(), "signal {signal} is lost");
    }
}

const ERRNO: libc::c_int = 4242;

/// Runs `body`, over which errno has to stay what it was.
#[track_caller]
fn keeps<R>(body: impl FnOnce() -> R) -> R {
    // SAFETY: the location is this thread's own.
    unsafe { *libc::__errno_location() = ERRNO };
    let result = body();
    // SAFETY: as above.
    assert_eq!(unsafe { *libc::__errno_location() }, ERRNO);
    result
}

/// From now on, these calls of the calling thread fail with `error`. `false`: the kernel does not let us.
fn refuse(calls: &[libc::c_long], error: libc::c_int) -> bool {
    let step =
        |code: u32, if_equal: u8, value: u32| libc::sock_filter { code: code as u16, jt: if_equal, jf: 0, k: value };
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        // To the last step but one, which refuses.
        let distance = calls.len() - index;
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, distance as u8, *call as u32));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW));
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | error as u32));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: all arguments are numbers.
    let is_possible = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0;
    // SAFETY: the program is valid, and so long.
    is_possible && unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } == 0
}

const REFUSED: [libc::c_long; 7] = [
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_mincore,
    libc::SYS_clone,
    libc::SYS_clone3,
];

fn errno(error: libc::c_int) {
    const LARGE: usize = 6 << 20;
    let blocks: Vec<_> = (0..8).map(|_| take(&GLOBAL, LARGE)).collect();
    let small: Vec<_> = (0..5_000).map(|_| take(&GLOBAL, 3_000)).collect();
    // Room for all that may be had before the kernel is needed: it cannot grow then.
    let mut filled = Vec::with_capacity(1 << 20);
    if !refuse(&REFUSED, error) {
        return say("skipped\n");
    }
    let calls = stats().os_calls;
    // Each of these frees calls the kernel, if only to start a thread.
    for block in blocks.iter().skip(1).step_by(2) {
        keeps(|| give(&GLOBAL, *block, LARGE));
    }
    small.into_iter().for_each(|block| keeps(|| give(&GLOBAL, block, 3_000)));
    // SAFETY: a block of that size; refused, or served with the contents kept.
    let grown = keeps(|| unsafe { GLOBAL.realloc(blocks[0], layout(LARGE), LARGE + (5 << 20)) });
    if !grown.is_null() {
        // SAFETY: the block is at least as large as before.
        assert_eq!(unsafe { grown.add(4095).read() }, 0x5a);
    }
    // SAFETY: the size is not 0.
    let allocate = |size| keeps(|| unsafe { GLOBAL.alloc(layout(size)) });
    for size in [64, 3_000, LARGE] {
        let blocks = std::iter::repeat_with(|| allocate(size)).take_while(|block| !block.is_null());
        filled.extend(blocks.map(|block| (block, size)));
    }
    for size in [LARGE, 600 << 20] {
        // SAFETY: the size is not 0.
        assert!(keeps(|| unsafe { GLOBAL.alloc_zeroed(layout(size)) }).is_null());
        // SAFETY: a block of that size; where it is refused it stays what it was.
        assert!(keeps(|| unsafe { GLOBAL.realloc(blocks[2], layout(LARGE), LARGE + size) }).is_null());
    }
    keeps(magalloc::flush_thread);
    keeps(stats);
    filled.into_iter().for_each(|(block, size)| keeps(|| give(&GLOBAL, block, size)));
    keeps(magalloc::purge_all);
    assert!(stats().os_calls >= calls + 20, "{calls} {:?}", stats());
    magalloc::check();
}

fn errno_is_kept(name: &str) {
    let outcome = child(name);
    if outcome.stdout == "skipped\n" {
        return process::skip("no system call can be refused here");
    }
    outcome.expect_unmapped(0, "");
}

/// No thread calls `exit`: the kernel ends the process when the last one has returned, and that is not the allocator's.
fn without_exit() {
    let held = hold();
    std::thread::spawn(move || drop(held));
    // SAFETY: ends the calling thread only; nothing of it is used by others.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// A large block loses most of its length, and then the program sleeps: nothing else calls the allocator.
fn shrunk() {
    beside_a_thread(shrink);
}

fn shrink() {
    let mut block = vec![1u8; HELD_BYTES as usize];
    block.truncate(1 << 20);
    block.shrink_to_fit();
    let is_small = proc::wait(|| proc::resident() < HELD_BYTES / 2);
    assert!(is_small, "{} bytes are resident", proc::resident());
    assert_eq!(block[black_box(0)], 1);
}
