//! The system calls that the allocator makes, and what it does where one is refused: told by filters of system calls as
//! sandboxes install them, which end a process for a call that is not on their list, or give it an error.
//!
//! A scenario is a process, because a filter is for life. The global allocator is the system's.

mod common;
mod process;
mod watched;

use common::Random;
use magalloc::{Magalloc, SoftLimit, class_stats, flush_thread, purge_all, stats};
use process::{command, give, layout, run, take};
use std::alloc::GlobalAlloc;
use std::time::Instant;
use watched::{end_on_panic, resident, resident_since, wait_until};

/// Without a thread of its own, which needs further calls to begin; and with one.
static ALONE: Magalloc = Magalloc::new().background_thread(false).purge_delay_ms(100);
/// Also the first call of the process reads no file.
static WITHOUT_FILES: Magalloc =
    Magalloc::new().background_thread(false).purge_delay_ms(100).soft_limit(SoftLimit::None);
static WITH_THREAD: Magalloc = Magalloc::new().purge_delay_ms(100);

const MIB: usize = 1 << 20;
/// Bytes of blocks that a scenario has at most.
const BYTES: usize = 200 * MIB;

/// What filters of servers let through beside what the program needs: memory, futexes, clocks. (With a thread of the
/// allocator's own, each of the program's asks once who it is.)
const FOR_MEMORY: &[libc::c_long] = &[
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
];
/// What this program itself needs: to write, sleep and end, threads, and its own allocator.
const FOR_PROGRAM: &[libc::c_long] = &[
    libc::SYS_write,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_brk,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
];

/// What a filter does.
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// From now on, the calls in `listed` have one outcome, and all others the other.
fn filter(listed: &[&[libc::c_long]], outcome: u32, otherwise: u32) {
    let step = |code: u32, jt: usize, k: u32| libc::sock_filter { code: code as u16, jt: jt as u8, jf: 0, k };
    let calls: Vec<libc::c_long> = listed.concat();
    // The number of the call is what a filter sees first.
    let mut steps = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    steps.extend(calls.iter().enumerate().map(|(index, call)| {
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, calls.len() - index, u32::try_from(*call).unwrap())
    }));
    steps.extend([otherwise, outcome].map(|outcome| step(libc::BPF_RET | libc::BPF_K, 0, outcome)));
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: no conditions.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is valid.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }, 0);
}

/// What the threads of a scenario do.
fn life(allocator: &Magalloc, bytes: usize) {
    let mut random = Random::new();
    let mut blocks = Vec::new();
    let mut taken = 0;
    while taken < bytes {
        let most = if random.below(100) == 0 { 300_000 } else { 1200 };
        let size = 1 + random.below(most);
        taken += size;
        blocks.push((take(allocator, size), size));
    }
    let (kept, freed): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|_| random.below(7) == 0);
    freed.into_iter().for_each(|(block, size)| give(allocator, block, size));
    // Slow paths, on which memory is given back where nobody else does.
    let purges = stats().purges;
    let goes_back = || {
        flush_thread();
        give(allocator, take(allocator, 100), 100);
        stats().purges > purges + 100
    };
    assert!(wait_until(goes_back), "{:?}", stats());
    grow(allocator);
    kept.into_iter().for_each(|(block, size)| give(allocator, block, size));
    assert!(class_stats().iter().any(|class| class.slabs > 0));
    purge_all();
}

/// A block that has to move, and shrinks. Says whether it is where it was.
fn grow(allocator: &Magalloc) -> bool {
    let [old, new] = [8 * MIB, 20 * MIB];
    let block = take(allocator, old);
    let obstacle = take(allocator, MIB);
    // SAFETY: a block of that size.
    let last = unsafe { block.add(old - 1) };
    // SAFETY: the block's last byte.
    unsafe { last.write(7) };
    // SAFETY: a live block of that layout.
    let grown = unsafe { allocator.realloc(block, layout(old), new) };
    // SAFETY: the block's, which is larger now.
    assert!(!grown.is_null() && unsafe { *grown.add(old - 1) } == 7);
    // SAFETY: likewise.
    let shrunk = unsafe { allocator.realloc(grown, layout(new), old) };
    // SAFETY: likewise.
    assert!(!shrunk.is_null() && unsafe { *shrunk.add(old - 1) } == 7);
    give(allocator, shrunk, old);
    give(allocator, obstacle, MIB);
    grown == block
}

/// Threads that the standard library knows nothing of: it makes calls of its own.
fn on_threads(count: usize, body: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void) {
    let threads: Vec<libc::pthread_t> = (0..count)
        .map(|_| {
            let mut thread = 0;
            // SAFETY: all arguments are valid.
            let made = unsafe { libc::pthread_create(&raw mut thread, core::ptr::null(), body, core::ptr::null_mut()) };
            assert_eq!(made, 0);
            thread
        })
        .collect();
    for thread in threads {
        // SAFETY: made just now, and joined once.
        assert_eq!(unsafe { libc::pthread_join(thread, core::ptr::null_mut()) }, 0);
    }
}

/// Only what any allocator needs, after the first call.
fn ordinary_calls() {
    end_on_panic();
    give(&ALONE, take(&ALONE, 100), 100);
    live_by_ordinary_calls(&ALONE);
}

/// Only what any allocator needs, from before the first call on.
fn ordinary_calls_from_the_first_on() {
    end_on_panic();
    live_by_ordinary_calls(&WITHOUT_FILES);
}

fn live_by_ordinary_calls(allocator: &Magalloc) {
    // The options of the first call hold, whichever value is used.
    extern "C" fn body(_: *mut libc::c_void) -> *mut libc::c_void {
        life(&ALONE, BYTES / 8);
        core::ptr::null_mut()
    }
    filter(&[FOR_MEMORY, FOR_PROGRAM], ALLOW, KILL);
    life(allocator, BYTES);
    on_threads(3, body);
    // SAFETY: _exit has no conditions. An ordinary end looks whether other threads run.
    unsafe { libc::_exit(0) };
}

/// All but those that no group of a service manager's has.
fn no_extra_calls() {
    extern "C" fn body(_: *mut libc::c_void) -> *mut libc::c_void {
        life(&WITH_THREAD, BYTES / 8);
        core::ptr::null_mut()
    }
    end_on_panic();
    filter(&[&[libc::SYS_process_madvise, libc::SYS_mincore]], KILL, ALLOW);
    life(&WITH_THREAD, BYTES);
    on_threads(3, body);
}

/// Names the error for `refused_moves`.
const ERROR: &str = "TEST_ERROR";

/// Pages cannot be moved: all that is freed goes back all the same.
fn refused_moves() {
    const ROUNDS: usize = 100;
    end_on_panic();
    let error: u32 = std::env::var(ERROR).unwrap().parse().unwrap();
    filter(&[&[libc::SYS_mremap]], libc::SECCOMP_RET_ERRNO | error, ALLOW);
    // Below, so that each block lies between others.
    let below = take(&ALONE, 64 * MIB);
    grow(&ALONE);
    purge_all();
    let (held, before, begin) = (stats().held, resident(), Instant::now());
    let moved = (0..ROUNDS).filter(|_| !grow(&ALONE)).count();
    assert_eq!(moved, ROUNDS, "the obstacle is in the way");
    println!("{ROUNDS} moves in {} ms", begin.elapsed().as_millis());
    purge_all();
    assert!(stats().held <= held, "{held} bytes were held before: {:?}", stats());
    assert!(resident_since(before) < 8 << 20, "{} bytes more are resident", resident_since(before));
    give(&ALONE, below, 64 * MIB);
}

fn refused_moves_lose_nothing() {
    for error in [libc::EPERM, libc::ENOMEM, libc::EFAULT, libc::EINVAL, libc::ENOSYS] {
        let outcome = run(command("refused_moves").env(ERROR, error.to_string()));
        print!("error {error}: {}", outcome.stdout);
        assert!(outcome.code == Some(0) && outcome.stderr.is_empty(), "error {error}: {outcome:?}");
    }
}

fn main() {
    process::main(
        &[
            ("ordinary_calls", ordinary_calls),
            ("ordinary_calls_from_the_first_on", ordinary_calls_from_the_first_on),
            ("no_extra_calls", no_extra_calls),
            ("refused_moves", refused_moves),
        ],
        &[
            ("only_ordinary_calls_are_made_after_the_first", || watched::passes("ordinary_calls")),
            ("without_soft_limit_only_ordinary_calls_are_made", || {
                watched::passes("ordinary_calls_from_the_first_on");
            }),
            ("extra_calls_are_made_on_demand_only", || watched::passes("no_extra_calls")),
            ("refused_moves_lose_nothing", refused_moves_lose_nothing),
        ],
    );
}
