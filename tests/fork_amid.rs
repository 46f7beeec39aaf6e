//! A fork by a signal handler that interrupts its thread while that gets a cache, or gives it up at its end: the child goes
//! on from there, as any does that returns from the handler.
//!
//! A scenario goes step by step, by a trap after each instruction, and forks at every few.

use magalloc::{Magalloc, stats};
use process::{command, give, on_raw_thread, run, take};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

mod process;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new();

fn main() {
    process::main(
        &[("begin", || at_once(begin)), ("end", || at_once(end))],
        &[
            ("fork_amid_a_threads_begin_leaves_it_the_cache", || passes(command("begin").env(STRIDE, "13"))),
            ("fork_amid_a_threads_end_leaves_the_cache_to_one_thread", || passes(command("end").env(STRIDE, "3"))),
            ("so_does_one_above_the_soft_limit", || {
                passes(command("end").env(STRIDE, "61").env("MAGALLOC_SOFT_LIMIT", "4K"));
            }),
        ],
    );
}

fn passes(scenario: &mut Command) {
    if cfg!(not(all(target_arch = "x86_64", target_env = "gnu"))) {
        return process::skip("traps are written down for x86-64, and other C libraries hold locks on the way");
    }
    let outcome = run(scenario);
    println!("{}", outcome.stdout.trim_end());
    assert!(outcome.code == Some(0) && outcome.stderr.is_empty(), "{outcome:?}");
}

/// Runs `body`; the first panic ends the process, whoever waits for the thread.
fn at_once(body: fn()) {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        // SAFETY: no conditions.
        unsafe { libc::_exit(101) };
    }));
    STEPS_PER_FORK.store(std::env::var(STRIDE).unwrap().parse().unwrap(), Ordering::Relaxed);
    body();
}

/// Names the number of instructions from one fork to the next for the scenario: a prime, so that loops are met in all
/// their parts.
const STRIDE: &str = "TEST_STRIDE";
static STEPS_PER_FORK: AtomicUsize = AtomicUsize::new(0);

static IS_STEPPING: AtomicBool = AtomicBool::new(false);
static IS_CHILD: AtomicBool = AtomicBool::new(false);
static STEPS: AtomicUsize = AtomicUsize::new(0);
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// From here on, the calling thread is interrupted by `on_step` after each instruction.
fn begin_steps() {
    // SAFETY: all zeros is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_step as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler is one for such a signal.
    assert_eq!(unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut()) }, 0);
    IS_STEPPING.store(true, Ordering::Relaxed);
    // SAFETY: handled.
    assert_eq!(unsafe { libc::raise(libc::SIGTRAP) }, 0);
}

/// Says whether this is the child of a fork meanwhile.
fn end_steps() -> bool {
    IS_STEPPING.store(false, Ordering::Relaxed);
    IS_CHILD.load(Ordering::Relaxed)
}

extern "C" fn on_step(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let is_stepping = IS_STEPPING.load(Ordering::Relaxed);
    let is_due =
        is_stepping && STEPS.fetch_add(1, Ordering::Relaxed).is_multiple_of(STEPS_PER_FORK.load(Ordering::Relaxed));
    if !is_due {
        return trap(context, is_stepping);
    }
    // SAFETY: the parent waits; the child goes on with its one thread.
    match unsafe { libc::fork() } {
        0 => {
            IS_CHILD.store(true, Ordering::Relaxed);
            // SAFETY: alarm has no conditions.
            unsafe { libc::alarm(300) };
            return trap(context, false);
        }
        // SAFETY: no conditions.
        -1 => unsafe { libc::_exit(2) },
        pid => {
            FORKS.fetch_add(1, Ordering::Relaxed);
            let mut status = -1;
            // SAFETY: `status` is valid.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            if status != 0 {
                // SAFETY: no conditions; the child has said what is wrong.
                unsafe { libc::_exit(1) };
            }
        }
    }
    trap(context, is_stepping);
}

/// Whether the interrupted thread is trapped after its next instruction.
#[cfg(target_arch = "x86_64")]
fn trap(context: *mut libc::c_void, is_trapped: bool) {
    const TRAP_FLAG: i64 = 1 << 8;
    // SAFETY: the kernel's, for the handler of a signal.
    let flags = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_EFL as usize] };
    *flags = if is_trapped { *flags | TRAP_FLAG } else { *flags & !TRAP_FLAG };
}

#[cfg(not(target_arch = "x86_64"))]
fn trap(_context: *mut libc::c_void, _is_trapped: bool) {}

/// Each of these threads gets its cache by steps: a new one, one that is parked, and one that was abandoned.
fn begin() {
    on_raw_thread(register_by_steps);
    on_raw_thread(register_by_steps);
    magalloc::purge_all();
    on_raw_thread(register_by_steps);
    say_how_many();
}

fn register_by_steps() {
    begin_steps();
    let block = take(&GLOBAL, 64);
    if end_steps() {
        assert_eq!(stats().threads, 1, "{:?}", stats());
        adopt_vanished();
        // SAFETY: no conditions.
        unsafe { libc::_exit(0) };
    }
    give(&GLOBAL, block, 64);
}

/// In the child's only thread with a cache: makes so many slabs that what other threads had comes home, and uses what is
/// there.
fn adopt_vanished() {
    let mut blocks: Vec<Vec<u8>> = (1..20_u8).flat_map(|byte| vec![vec![byte; 48 * usize::from(byte)]; 50]).collect();
    assert_eq!(stats().threads, 1, "{:?}", stats());
    let is_filled = |(number, block): (usize, &Vec<u8>)| block.iter().all(|&byte| usize::from(byte) == 1 + number / 50);
    assert!(blocks.iter().enumerate().all(is_filled));
    blocks.truncate(500);
    magalloc::flush_thread();
    magalloc::check();
}

static KEY: AtomicUsize = AtomicUsize::new(0);

/// A thread that gives its cache up by steps: parked, or, above the soft limit, emptied.
fn end() {
    let mut key = 0;
    // SAFETY: the key is valid, the destructor may be called at the end of any thread.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(around_the_end)) }, 0);
    KEY.store(key as usize, Ordering::Relaxed);
    on_raw_thread(|| {
        set_value(1);
        give(&GLOBAL, take(&GLOBAL, 64), 64);
    });
    say_how_many();
}

fn set_value(value: usize) {
    let key = KEY.load(Ordering::Relaxed) as libc::pthread_key_t;
    // SAFETY: the key was made; the value is a number.
    assert_eq!(unsafe { libc::pthread_setspecific(key, std::ptr::without_provenance(value)) }, 0);
}

/// The destructor of a key that was made after the allocator's, so it is called after that one's in each round. The
/// allocator's does its work in the second.
extern "C" fn around_the_end(value: *mut libc::c_void) {
    if value.addr() == 1 {
        set_value(2);
        begin_steps();
    } else if end_steps() {
        assert_eq!(stats().threads, 0, "{:?}", stats());
        // Its first call finds what this one left.
        on_raw_thread(adopt_vanished);
        assert_eq!(stats().threads, 0, "{:?}", stats());
        // SAFETY: no conditions.
        unsafe { libc::_exit(0) };
    }
}

fn say_how_many() {
    let [forks, steps] = [&FORKS, &STEPS].map(|count| count.load(Ordering::Relaxed));
    println!("{forks} forks amid {steps} instructions");
    assert!(forks > 20, "{forks} forks amid {steps} instructions");
}
