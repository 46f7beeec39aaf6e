//! Modes are turned on and off while threads run: each thread is reached at its next call, whenever it began, and nothing is
//! lost.
//!
//! Without libtest (`harness = false`): a mode is the process's, and so is what was counted.

mod common;

use common::{Block, MAGALLOC, Random, layout};
use magalloc::{CallCounts, call_counts, check, set_checking, set_counting, stats};
use std::alloc::GlobalAlloc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

/// Sizes that nothing but these tests asks for.
const SMALL: usize = 30_000;
const LARGE: usize = 300_000;

fn counts_of(size: usize) -> CallCounts {
    let counts = call_counts();
    let class = counts.iter().find(|class| class.block_bytes as usize >= size);
    *class.unwrap_or(&counts[counts.len() - 1])
}

/// How many blocks of each size were allocated and freed since `before`.
fn since(before: [CallCounts; 2]) -> [u64; 4] {
    let now = [SMALL, LARGE].map(counts_of);
    let [small, large] = [0, 1].map(|size| {
        let (before, now) = (before[size], now[size]);
        [now.allocated - before.allocated, now.freed - before.freed]
    });
    [small[0], small[1], large[0], large[1]]
}

/// `pairs` blocks of each size, each freed at once, and then three that live together.
fn work(pairs: usize) {
    for size in [SMALL, LARGE] {
        let layout = layout(size, 8);
        for _ in 0..pairs {
            // SAFETY: a valid layout.
            let block = unsafe { MAGALLOC.alloc(layout) };
            assert!(!block.is_null());
            // SAFETY: live, and given up.
            unsafe { MAGALLOC.dealloc(block, layout) };
        }
    }
}

/// A thread that works when told to.
struct Worker {
    orders: Sender<usize>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn new() -> Self {
        let (orders, to_do) = channel();
        let (report, done) = channel();
        let thread = thread::spawn(move || {
            for pairs in to_do {
                work(pairs);
                report.send(()).expect("somebody waits");
            }
        });
        Self { orders, done, thread }
    }

    fn work(&self, pairs: usize) {
        self.orders.send(pairs).expect("the thread is there");
        self.done.recv().expect("the thread works");
    }

    fn end(self) {
        drop(self.orders);
        self.thread.join().expect("the thread ends well");
    }
}

fn each_thread_is_reached_at_its_next_call() {
    const PAIRS: usize = 100;
    let pairs = PAIRS as u64;
    let early: Vec<_> = (0..4).map(|_| Worker::new()).collect();
    // Their caches are warm: without the mode, all that follows would be fast.
    early.iter().for_each(|worker| worker.work(PAIRS));
    for _ in 0..10 {
        let before = [SMALL, LARGE].map(counts_of);
        early.iter().for_each(|worker| worker.work(PAIRS));
        assert_eq!(since(before), [0; 4], "counted while off");

        assert!(set_counting(true) && !set_counting(true));
        let late = Worker::new();
        early.iter().chain([&late]).for_each(|worker| worker.work(PAIRS));
        work(PAIRS);
        assert_eq!(since(before), [6 * pairs; 4], "4 threads born before, 1 after, and this one");

        assert!(set_counting(false) && !set_counting(false));
        early.iter().chain([&late]).for_each(|worker| worker.work(PAIRS));
        assert_eq!(since(before), [6 * pairs; 4], "counted while off");
        late.end();
    }
    early.into_iter().for_each(Worker::end);
}

/// Blocks come and go, and know what must be in them.
fn churn(random: &mut Random, blocks: &mut Vec<Block>) {
    for _ in 0..50 {
        if blocks.len() < 64 || random.below(2) == 0 {
            blocks.push(Block::new(random.size_below(200_000), 8));
        }
        if blocks.len() > 64 || random.below(2) == 0 {
            blocks.swap_remove(random.below(blocks.len()));
        }
    }
}

/// In a child: its one thread is reached as well, and what its parent was doing is over.
fn in_child(random: &mut Random) -> ! {
    churn(random, &mut Vec::new());
    let _ = set_counting(false) || set_checking(false);
    let before = [SMALL, LARGE].map(counts_of);
    work(3);
    let off = since(before);
    let is_on = set_counting(true);
    work(3);
    let on = since(before);
    let is_right = off == [0; 4] && is_on && on == [3; 4];
    check();
    // SAFETY: ends the child at once.
    unsafe { libc::_exit(i32::from(!is_right)) }
}

fn fork(random: &mut Random) {
    // SAFETY: the child allocates, which this allocator permits, and ends.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        in_child(random);
    }
    let mut status = 0;
    // SAFETY: our own child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "a child was not reached, or counted wrongly");
}

/// Whether the parent was counting or not, and its calls were fast or slow.
fn a_child_is_reached() {
    for is_on in [false, true, false] {
        set_counting(is_on);
        (0..2).for_each(|_| work(5));
        fork(&mut Random::with_seed(1));
    }
}

fn turns_amid_threads_that_begin_end_and_fork_lose_nothing() {
    const TURNS: usize = 1_000;
    const FORKS: usize = 40;
    let random = Random::new();
    let live_before = stats().live;
    let (is_over, ended) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..4 {
            let (mut random, is_over) = (random.fork(thread), &is_over);
            scope.spawn(move || {
                let mut blocks = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    churn(&mut random, &mut blocks);
                }
            });
        }
        let (mut of_short, is_over, ended) = (random.fork(4), &is_over, &ended);
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let number = of_short.next();
                let mut random = of_short.fork(number);
                thread::spawn(move || churn(&mut random, &mut Vec::new())).join().expect("it ends well");
                ended.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut of_forks = random.fork(5);
        let forks = scope.spawn(move || (0..FORKS).for_each(|_| fork(&mut of_forks)));
        let mut turned = 0;
        while turned < TURNS || !forks.is_finished() || ended.load(Ordering::Relaxed) == 0 {
            // One after the other, on and off.
            let turn = if turned / 2 % 2 == 0 { set_counting } else { set_checking };
            turned += usize::from(turn(turned.is_multiple_of(2)));
            if turned.is_multiple_of(16) {
                thread::yield_now();
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let _ = set_counting(false) || set_checking(false);
    check();
    assert!(stats().live <= live_before + (64 << 10), "{} and {} bytes live", live_before, stats().live);
}

/// Ends its thread as no destructor sees it, with a cache.
extern "C" fn vanish(_: *mut libc::c_void) -> *mut libc::c_void {
    work(10);
    // SAFETY: ends the thread.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!()
}

/// Its stack and thread-local memory are gone, or somebody else's, when a mode is turned on.
fn a_thread_that_vanished_is_passed_by() {
    const STACK: usize = 1 << 20;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    for _ in 0..8 {
        // SAFETY: a new mapping.
        let stack = unsafe {
            libc::mmap(std::ptr::null_mut(), STACK, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        assert_ne!(stack, libc::MAP_FAILED);
        // SAFETY: all zeros is a valid value for both, which are set next.
        let (mut attributes, mut thread): (libc::pthread_attr_t, libc::pthread_t) = unsafe { std::mem::zeroed() };
        // SAFETY: all are valid; the stack is the thread's until it has ended.
        let joined = unsafe {
            libc::pthread_attr_init(&raw mut attributes)
                | libc::pthread_attr_setstack(&raw mut attributes, stack, STACK)
                | libc::pthread_create(&raw mut thread, &raw const attributes, vanish, std::ptr::null_mut())
                | libc::pthread_join(thread, std::ptr::null_mut())
        };
        assert_eq!(joined, 0);
        // SAFETY: nobody's any more.
        assert_eq!(unsafe { libc::munmap(stack, STACK) }, 0);
        assert!(set_counting(true) && set_counting(false));
    }
}

/// A child that no handler is told of, born amid a turn of another thread's: nothing that it waits for goes on there.
fn a_child_that_nobody_told_ends() {
    const CHILDREN: usize = 60;
    const THREADS: usize = 60;
    let (is_over, mut ended) = (AtomicBool::new(false), Vec::new());
    let workers: Vec<_> = (0..THREADS).map(|_| Worker::new()).collect();
    workers.iter().for_each(|worker| worker.work(1));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let _ = set_counting(true) && set_counting(false);
            }
        });
        for _ in 0..CHILDREN {
            // SAFETY: a process of its own, with a copy of the memory; it only ends.
            let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } as libc::pid_t;
            assert!(child >= 0);
            if child == 0 {
                // SAFETY: the signal ends a child that hangs; handlers of the end run as ever.
                unsafe {
                    libc::alarm(300);
                    libc::exit(0)
                }
            }
            let mut status = 0;
            // SAFETY: our own child.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            ended.push(status);
            if status != 0 {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(ended, [0; CHILDREN], "a child hangs at its end");
    workers.into_iter().for_each(Worker::end);
}

fn main() {
    common::run(&[
        ("each_thread_is_reached_at_its_next_call", each_thread_is_reached_at_its_next_call),
        ("a_child_is_reached", a_child_is_reached),
        ("a_thread_that_vanished_is_passed_by", a_thread_that_vanished_is_passed_by),
        ("a_child_that_nobody_told_ends", a_child_that_nobody_told_ends),
        (
            "turns_amid_threads_that_begin_end_and_fork_lose_nothing",
            turns_amid_threads_that_begin_end_and_fork_lose_nothing,
        ),
    ]);
}
