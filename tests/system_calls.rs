//! What the allocator does where a system call is refused: told by filters of system calls as sandboxes install them.
//!
//! A scenario is a process, because a filter is for life. The global allocator is the system's.

mod process;
mod watched;

use magalloc::{Magalloc, purge_all, stats};
use process::{command, give, layout, run, take};
use std::alloc::GlobalAlloc;
use std::time::Instant;
use watched::{end_on_panic, resident, resident_since};

static MAGALLOC: Magalloc = Magalloc::new();

const MIB: usize = 1 << 20;

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

/// Names the error for `refused_moves`.
const ERROR: &str = "TEST_ERROR";

/// Pages cannot be moved: all that is freed goes back all the same.
fn refused_moves() {
    const ROUNDS: usize = 100;
    end_on_panic();
    let error: u32 = std::env::var(ERROR).unwrap().parse().unwrap();
    filter(&[&[libc::SYS_mremap]], libc::SECCOMP_RET_ERRNO | error, libc::SECCOMP_RET_ALLOW);
    // Below, so that each block lies between others.
    let below = take(&MAGALLOC, 64 * MIB);
    grow(&MAGALLOC);
    purge_all();
    let (held, before, begin) = (stats().held, resident(), Instant::now());
    let moved = (0..ROUNDS).filter(|_| !grow(&MAGALLOC)).count();
    assert_eq!(moved, ROUNDS, "the obstacle is in the way");
    println!("{ROUNDS} moves in {} ms", begin.elapsed().as_millis());
    purge_all();
    assert!(stats().held <= held, "{held} bytes were held before: {:?}", stats());
    assert!(resident_since(before) < 8 << 20, "{} bytes more are resident", resident_since(before));
    give(&MAGALLOC, below, 64 * MIB);
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
        &[("ordinary_calls", ordinary_calls), ("no_extra_calls", no_extra_calls), ("refused_moves", refused_moves)],
        &[("refused_moves_lose_nothing", refused_moves_lose_nothing)],
    );
}
