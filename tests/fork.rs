//! The child of a fork: it can do at once whatever the parent could, it gets back what the threads had that do not
//! exist there, gives memory back like any process, and unmaps everything at its end.
//!
//! Each scenario is a process that forks. Children report their ends on standard error, so that the test can count.

use held::{Held, asleep, expect_resident_falls_to, on_the_way};
use light::{Exchange, Light, Random, Worker, class_sizes};
use magalloc::{Magalloc, Stats, stats};
use parked::{beside, parked};
use process::{Outcome, child, is_child, layout, on_raw_thread};
use std::alloc::GlobalAlloc;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

mod held;
mod light;
mod parked;
mod proc;
mod process;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new().report_exit(true);

/// Purge delay of most scenarios: short, so that memory is given back all the time while others fork.
const DELAY_MS_SHORT: u32 = 50;
const DELAY_MS_SHORT_TEXT: &std::ffi::CStr = c"50";

/// Before `main`, and before the allocator's first call, whose options hold.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

extern "C" fn at_start() {
    if [c"adopt", c"late_frees", c"copies", c"accounts"].into_iter().any(is_child) {
        // Caches stay full, and pages where they are.
        process::set_option(c"MAGALLOC_BACKGROUND_THREAD", c"0");
        process::set_option(c"MAGALLOC_PURGE_DELAY_MS", c"4294967295");
    } else if !is_child(c"purge") && !is_child(c"purge_inherited") {
        process::set_option(c"MAGALLOC_PURGE_DELAY_MS", DELAY_MS_SHORT_TEXT);
    }
    process::give(&GLOBAL, process::take(&GLOBAL, 64), 64);
}

const MIB: u64 = 1 << 20;
const CHUNK: u64 = 4 * MIB;

fn main() {
    process::main(
        &[
            ("busy", || busy(|| forks(240))),
            ("busy_in_thread", || busy(|| std::thread::spawn(|| forks(50)).join().unwrap())),
            ("busy_together", || busy(|| together(20))),
            ("first_call", || busy(|| (0..20).for_each(|_| on_raw_thread(|| forks(1))))),
            ("without_handlers", without_handlers),
            ("adopt", adopt),
            ("late_frees", late_frees),
            ("purge", purge),
            ("purge_inherited", purge_inherited),
            ("copies", copies),
            ("generations", || generation(3)),
            ("amid_purging", amid_purging),
            ("accounts", accounts),
        ],
        &[
            ("children_of_busy_threads_work_and_unmap_all", || all_unmapped("busy", 241)),
            ("children_of_any_thread_do", || all_unmapped("busy_in_thread", 51)),
            ("threads_fork_at_the_same_time", || all_unmapped("busy_together", 41)),
            ("first_call_of_a_thread_is_in_the_child", || all_unmapped("first_call", 21)),
            ("child_without_handlers_works_and_ends", child_without_handlers_works_and_ends),
            ("child_gets_back_what_vanished_threads_had", || all_unmapped("adopt", 3)),
            ("blocks_of_vanished_threads_come_home", || all_unmapped("late_frees", 2)),
            ("child_and_parent_give_memory_back_when_idle", || all_unmapped("purge", 2)),
            ("child_gives_back_what_was_free_at_the_fork", || all_unmapped("purge_inherited", 2)),
            ("fork_copies_few_pages", || all_unmapped("copies", 2)),
            ("grandchildren_work", || all_unmapped("generations", 4)),
            ("accounts_are_right_in_the_child", || all_unmapped("accounts", 101)),
            ("fork_amid_purging_loses_nothing", || all_unmapped("amid_purging", FORKS_AMID_PURGING + 1)),
        ],
    );
}

/// The scenario `name` ends well, and `ends` processes of it report that all was unmapped.
fn all_unmapped(name: &str, ends: usize) {
    let outcome = child(name);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), ""), "{outcome:?}");
    expect_reports(&outcome, ends);
}

fn expect_reports(outcome: &Outcome, count: usize) {
    let lines = outcome.stderr.split_inclusive('\n');
    let reports: Vec<_> = lines.map(|line| process::report_line(line).unwrap_or_else(|| panic!("{line}"))).collect();
    assert_eq!(reports.len(), count, "{reports:?}");
    assert!(reports.iter().all(|(unmapped, mapped)| unmapped == mapped && *mapped > 0), "{reports:?}");
}

/// Seconds after which the kernel ends a forked child that hangs.
const SECONDS_MAX: libc::c_uint = 300;

/// Forks. The child runs `body` and ends like a program that returns from `main`.
fn fork(body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child goes on as a process of one thread, and uses nothing of std that another may have locked.
    in_child(unsafe { libc::fork() }, body)
}

fn in_child(pid: libc::pid_t, body: impl FnOnce()) -> libc::pid_t {
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    if pid > 0 {
        return pid;
    }
    // SAFETY: alarm has no conditions.
    unsafe { libc::alarm(SECONDS_MAX) };
    std::process::exit(if catch_unwind(AssertUnwindSafe(body)).is_ok() { 0 } else { 101 });
}

/// Waits for a child, which must end well.
fn wait(pid: libc::pid_t) {
    let mut status = -1;
    // SAFETY: `status` is valid.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "status of the child: {status:#x}");
}

/// Blocks of every class and some large ones, allocated, resized and freed.
fn use_every_class() {
    let sizes = class_sizes().chain([40_000, 100_000, 1 << 20, 5 << 20]);
    let mut lights: Vec<_> = sizes.flat_map(|size| (0..2).map(move |_| Light::new(size, 8))).collect();
    for number in (0..lights.len()).step_by(5) {
        let size = lights[number].size();
        lights[number].resize(size * 3 / 2);
    }
    while lights.len() > 1 {
        // From both ends.
        lights.swap_remove(0);
        lights.pop();
    }
}

static STOP: AtomicBool = AtomicBool::new(false);
static EXCHANGE: Exchange = Exchange::new();

/// Runs `body` while other threads allocate and free without pause; what they had is free again afterwards.
fn busy(body: fn()) {
    const THREADS: usize = 2;
    let before = quiet();
    let begun = Arc::new(Barrier::new(THREADS + 1));
    let threads = [0, 1].map(|seed| {
        let begun = Arc::clone(&begun);
        std::thread::spawn(move || {
            let mut worker = Worker::new(seed, &EXCHANGE, 300);
            (0..1_000).for_each(|_| worker.step());
            begun.wait();
            // Often where the cache cannot serve: there is most to go wrong.
            for number in (1..).take_while(|_| !STOP.load(Ordering::Relaxed)) {
                match number % 512 {
                    100 => magalloc::purge_all(),
                    _ if number % 32 == 0 => magalloc::flush_thread(),
                    _ => worker.step(),
                }
            }
        })
    });
    begun.wait();
    body();
    STOP.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    EXCHANGE.clear();
    let after = quiet();
    assert!(after.live <= before.live + MIB / 4, "{before:?}\n{after:?}");
}

/// Figures and invariants while no other thread of the program is inside.
fn quiet() -> Stats {
    magalloc::flush_thread();
    magalloc::check();
    stats()
}

fn forks(count: usize) {
    for number in 0..count {
        let mut random = Random::new(number as u64);
        // Of every size, some of them from other threads: freed both by the child and by the parent.
        let held: Vec<_> = (0..30)
            .filter_map(|_| {
                let size = 8 + random.size_below(90_000);
                EXCHANGE.swap(&mut random, Light::new(size, 8))
            })
            .collect();
        wait(fork(|| {
            drop(held);
            use_every_class();
            on_raw_thread(use_every_class);
            EXCHANGE.clear();
            magalloc::purge_all();
        }));
    }
}

/// Two threads fork; their children report at the same time, each with one write.
fn together(count: usize) {
    let threads = [0, 1].map(|_| std::thread::spawn(move || forks(count)));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A fork by the bare system call: no handler of pthreads runs, and the child learns of nothing.
fn without_handlers() {
    busy(|| {
        drop(Held::new());
        assert!(proc::wait(|| proc::tasks() == 4), "the allocator has a thread beside the program's 3");
        for _ in 0..10 {
            // SAFETY: as in `fork`; the child makes no threads, of which the C library would know too little.
            let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
            wait(in_child(pid as libc::pid_t, || {
                use_every_class();
                magalloc::purge_all();
            }));
        }
    });
}

fn child_without_handlers_works_and_ends() {
    if cfg!(not(target_arch = "x86_64")) {
        return process::skip("arguments of clone are written down for x86-64 only");
    }
    all_unmapped("without_handlers", 11);
}

const PARKED: usize = 24;
/// Bytes of blocks that `fill` makes of each class: several slabs.
const FILL_BYTES: usize = 200 << 10;

/// Fills the thread's cache and leaves it free slabs of all classes.
fn fill() {
    for size in class_sizes() {
        let blocks: Vec<_> = (0..FILL_BYTES.div_ceil(size)).map(|_| take(size)).collect();
        blocks.into_iter().for_each(|block| give(block, size));
    }
}

/// A block whose first byte is touched. Faster than one that knows what it is.
fn take(size: usize) -> *mut u8 {
    // SAFETY: the size is not 0.
    let block = unsafe { GLOBAL.alloc(layout(size)) };
    assert!(!block.is_null());
    // SAFETY: the block has at least one byte.
    unsafe { block.write(1) };
    block
}

fn give(block: *mut u8, size: usize) {
    process::give(&GLOBAL, block, size);
}

/// Takes granules until no free one is left in the chunks that there are: what is free then lies in slabs and caches.
fn take_free_spans() -> Vec<*mut u8> {
    const GRANULE: usize = 64 << 10;
    let mut spans = Vec::with_capacity(100_000);
    let committed = stats().committed;
    while stats().committed == committed {
        // A chunk, or what the free ones lack to a chunk; then the small change.
        spans.push(take(GRANULE));
    }
    spans.extend((1..CHUNK as usize / GRANULE).map(|_| take(GRANULE)));
    spans
}

fn adopt() {
    let threads = parked(PARKED, fill);
    let spans = take_free_spans();
    let before = stats();
    assert_eq!(before.threads, PARKED as u64 + 1, "{before:?}");
    assert!(before.cached > 3 * MIB && before.free > 32 * MIB, "{before:?}");
    // In blocks of all classes.
    wait(fork(|| {
        let bytes = (before.free + before.cached) as usize * 8 / 10 / class_sizes().count();
        for size in class_sizes() {
            (0..bytes / size).for_each(|_| _ = take(size));
        }
        expect_adopted(&before);
    }));
    // In one class, of which the vanished threads had little: their slabs have to become spans again.
    wait(fork(|| {
        const SIZE: usize = 500;
        let bytes = (before.free + before.cached) as usize * 6 / 10;
        (0..bytes / SIZE).for_each(|_| _ = take(SIZE));
        expect_adopted(&before);
    }));
    let after = stats();
    assert_eq!((after.threads, after.committed), (before.threads, before.committed), "{before:?}\n{after:?}");
    spans.into_iter().for_each(|span| give(span, 64 << 10));
    threads.join();
}

/// In the child: hardly any memory was added, and before it has to be, all vanished threads are adopted.
fn expect_adopted(before: &Stats) {
    let after = stats();
    assert!(after.committed <= before.committed + CHUNK + MIB, "{before:?}\n{after:?}");
    let mut added = stats();
    while added.committed <= after.committed + CHUNK {
        (0..1_000).for_each(|_| _ = take(1000));
        added = stats();
    }
    assert_eq!(added.threads, 1, "{before:?}\n{added:?}");
    assert!(added.cached < 3 * MIB, "{before:?}\n{added:?}");
}

/// Blocks of a thread that frees every second: address and size of those that are left.
fn leave_blocks() -> Vec<(usize, usize)> {
    let sizes = class_sizes().flat_map(|size| std::iter::repeat_n(size, 60)).chain([64 << 10, 320 << 10, 8 << 20]);
    let blocks: Vec<_> = sizes.map(|size| (take(size).expose_provenance(), size)).collect();
    for &(block, size) in blocks.iter().step_by(2) {
        give(std::ptr::with_exposed_provenance_mut(block), size);
    }
    blocks.into_iter().skip(1).step_by(2).collect()
}

fn late_frees() {
    let mut threads = parked(PARKED, leave_blocks);
    let blocks: Vec<_> = std::mem::take(&mut threads.results).into_iter().flatten().collect();
    let bytes: u64 = blocks.iter().map(|&(_, size)| size as u64).sum();
    assert!(bytes > 64 * MIB && blocks.len() > 10_000, "{bytes} bytes in {} blocks", blocks.len());
    let free_all = || {
        let before = quiet();
        for &(block, size) in &blocks {
            give(std::ptr::with_exposed_provenance_mut(block), size);
        }
        let after = quiet();
        assert_eq!(after.live, before.live - bytes, "{before:?}\n{after:?}");
        assert_eq!(after.large_blocks, before.large_blocks - PARKED as u64, "{before:?}\n{after:?}");
        after
    };
    wait(fork(|| {
        let free = free_all();
        // As much again, and more, so that all vanished threads are adopted; then it comes home as well.
        let taken: Vec<_> =
            class_sizes().flat_map(|size| (0..(4 << 20) / size / 8).map(move |_| (take(size), size))).collect();
        let large: Vec<_> = (0..20).map(|_| take(8 << 20)).collect();
        large.into_iter().for_each(|block| give(block, 8 << 20));
        taken.into_iter().for_each(|(block, size)| give(block, size));
        let after = quiet();
        assert_eq!((after.live, after.threads, after.cached), (free.live, 1, 0), "{free:?}\n{after:?}");
        assert!(after.slabs < 40, "slabs are withheld: {after:?}");
    }));
    free_all();
    threads.join();
}

fn purge() {
    let held = std::cell::Cell::new(Some(Held::new()));
    let free_and_wait = |idle| held.take().unwrap().free_and_wait(idle);
    // As in a process that has long been running: the thread that gives memory back was there, and sleeps.
    let threads = beside();
    drop(vec![1_u8; 8 << 20]);
    assert!(proc::wait(|| stats().dirty < MIB), "{:?}", stats());
    let pid = fork(|| free_and_wait(on_the_way));
    free_and_wait(asleep);
    wait(pid);
    threads.join();
}

/// What was free at the fork has to go in the child as well, or it would have it alone as soon as the parent has given
/// it back.
fn purge_inherited() {
    let kept = vec![1_u8; 1 << 20];
    let threads = beside();
    let mut before = 0;
    let is_in_memory = || {
        let held = Held::new();
        before = proc::resident();
        drop(held);
        // On a busy machine it may have aged by now.
        proc::resident() > before - 20 * MIB
    };
    assert!(proc::wait(is_in_memory), "{:?}", stats());
    let pid = fork(|| {
        // Little, but something that is not served by the cache alone.
        drop(kept);
        expect_resident_falls_to(before - 94 * MIB, on_the_way);
    });
    expect_resident_falls_to(before - 94 * MIB, asleep);
    wait(pid);
    threads.join();
}

fn copies() {
    let held = [Held::new(), Held::new()];
    let threads = parked(PARKED, fill);
    // SAFETY: sysconf has no conditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    assert!(stats().cached > 3 * MIB && proc::resident() > 200 * MIB, "{:?}", stats());
    let pid = fork(|| {
        // Stacks and the data of libraries are some 40 pages, and a page that the parent writes meanwhile is the child's alone
        // from then on: measured, 59 to 83. To bring 8 caches home would take more than 100.
        let first = proc::private_dirty();
        assert!(first < 96 * page, "{first} bytes are private right after the fork");
        for _ in 0..1_000 {
            take(64);
        }
        let then = proc::private_dirty();
        assert!(then < 120 * page, "{then} bytes are private after some work, {first} before");
    });
    wait(pid);
    drop(held);
    threads.join();
}

/// Counts the processes, as each is a copy of the one before.
static GENERATION: AtomicUsize = AtomicUsize::new(0);

/// A process with parked threads, whose child is such a process, and so on, `more` times.
fn generation(more: usize) {
    let threads = parked(3, fill);
    let number = GENERATION.fetch_add(1, Ordering::Relaxed);
    let before = stats();
    assert!(before.threads >= 4, "generation {number}: {before:?}");
    if more > 0 {
        wait(fork(|| {
            use_every_class();
            let bytes = before.free + before.cached + 2 * CHUNK;
            (0..bytes / 2000).for_each(|_| _ = take(2000));
            let adopted = stats();
            assert_eq!(adopted.threads, 1, "generation {number}: {before:?}\n{adopted:?}");
            generation(more - 1);
        }));
    }
    threads.join();
    magalloc::check();
    assert_eq!(stats().threads, 1);
}

/// Enough to meet the purging thread in some chunk: without care for it, every tenth child misses memory.
const FORKS_AMID_PURGING: usize = 120;

/// Forks while the allocator's own thread has blocks and granules in its hand.
fn amid_purging() {
    let mut random = Random::new(7);
    let mut lights: Vec<Light> = Vec::with_capacity(20_000);
    let before = stats().live;
    for round in 0..FORKS_AMID_PURGING {
        lights.extend((lights.len()..20_000).map(|_| Light::new(1000, 8)));
        let mut number = 0;
        lights.retain(|_| {
            number += 1;
            (number + round) % 16 == 0
        });
        std::thread::sleep(std::time::Duration::from_millis(random.below(2 * DELAY_MS_SHORT as usize) as u64));
        let live = before + lights.len() as u64 * 1024;
        wait(fork(|| {
            let now = stats();
            let parts = now.live + now.cached + now.free + now.unusable + now.metadata;
            assert_eq!((now.live, now.committed), (live, parts), "{now:?}");
            magalloc::check();
        }));
    }
}

/// Forks while another thread is between a map of granules and the account of it, most of the time.
fn accounts() {
    let thread = std::thread::spawn(|| {
        while !STOP.load(Ordering::Relaxed) {
            drop(Vec::<u8>::with_capacity(64 << 20));
        }
    });
    for _ in 0..100 {
        wait(fork(|| {
            magalloc::purge_all();
            assert_eq!(stats().dirty, 0, "{:?}", stats());
        }));
    }
    STOP.store(true, Ordering::Relaxed);
    thread.join().unwrap();
}
