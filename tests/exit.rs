//! The end of a process, in every way that a program has: all memory is unmapped, or kept where
//! another thread still runs; nothing is served wrongly before, between or after.

use magalloc::Magalloc;
use process::{child, command, give, is_child, say, take, use_memory, writes_to_stderr};
use std::hint::black_box;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Barrier};

mod process;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new().report_exit(true);

fn main() {
    process::main(
        &[
            ("returns", returns),
            ("exit_in_main", || finish(7)),
            ("exit_in_thread", exit_in_thread),
            ("detached", detached),
            ("joined", joined),
            ("handlers", handlers),
            ("late", late),
            ("fini", || use_memory(&GLOBAL)),
            ("stdio_small", || stdio(4 << 10)),
            ("stdio_large", || stdio(1 << 20)),
            ("fork", fork),
            ("vfork", vfork),
            ("vfork_without_purging_thread", vfork),
            ("vfork_in_fork", vfork_in_fork),
        ],
        &[
            ("return_from_main_unmaps_all", || child("returns").expect_unmapped(0, "")),
            ("exit_in_main_unmaps_all", || child("exit_in_main").expect_unmapped(7, "")),
            ("exit_in_other_thread_keeps_code", || child("exit_in_thread").expect_kept(8, "")),
            ("detached_threads_do_not_disturb_the_end", || repeat(100, || child("detached").expect_kept(0, ""))),
            ("thread_joined_just_before_is_gone", || repeat(50, || child("joined").expect_unmapped(0, ""))),
            ("atexit_handlers_are_served", || child("handlers").expect_unmapped(0, "main\ninit\n")),
            ("fini_array_is_served", || child("fini").expect_unmapped(0, "fini\n")),
            ("calls_after_the_end_are_served", calls_after_the_end_are_served),
            ("stdio_buffer_in_small_block_is_written_out", || child("stdio_small").expect_unmapped(0, &numbers(100))),
            ("stdio_buffer_in_large_block_is_written_out", || child("stdio_large").expect_unmapped(0, &numbers(9_000))),
            ("fork_among_threads_works_at_once", fork_among_threads_works_at_once),
            ("report_is_one_write", report_is_one_write),
            ("exit_in_vfork_leaves_the_parents_memory", exit_in_vfork_leaves_the_parents_memory),
        ],
    );
}

fn repeat(times: usize, mut body: impl FnMut()) {
    (0..times).for_each(|_| body());
}

fn returns() {
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| use_memory(&GLOBAL))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    use_memory(&GLOBAL);
}

fn finish(code: i32) {
    use_memory(&GLOBAL);
    std::process::exit(code);
}

fn exit_in_thread() {
    std::thread::spawn(|| finish(8));
    loop {
        std::thread::park();
    }
}

/// Threads that allocate without end. Returns when each has begun.
fn start_busy_threads(count: usize) {
    let begun = Arc::new(Barrier::new(count + 1));
    for _ in 0..count {
        let begun = Arc::clone(&begun);
        std::thread::spawn(move || {
            drop(black_box(vec![1; 100]));
            begun.wait();
            loop {
                for size in [10, 100, 1_000, 50_000] {
                    drop(black_box(vec![1_u8; size]));
                }
            }
        });
    }
    begun.wait();
}

fn detached() {
    start_busy_threads(3);
}

fn joined() {
    std::thread::spawn(|| use_memory(&GLOBAL)).join().unwrap();
}

extern "C" fn handler_of_main() {
    use_memory(&GLOBAL);
    say("main\n");
}

extern "C" fn handler_of_init() {
    use_memory(&GLOBAL);
    say("init\n");
}

/// Before `main`, and before std is up.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

extern "C" fn at_start() {
    if is_child(c"vfork_without_purging_thread") {
        process::set_option(c"MAGALLOC_BACKGROUND_THREAD", c"0");
    }
    if is_child(c"handlers") {
        use_memory(&GLOBAL);
        // SAFETY: registers a function that lives as long as the process.
        assert_eq!(unsafe { libc::atexit(handler_of_init) }, 0);
    }
}

#[used]
#[unsafe(link_section = ".fini_array")]
static AT_END: extern "C" fn() = at_end;

extern "C" fn at_end() {
    if is_child(c"fini") {
        use_memory(&GLOBAL);
        say("fini\n");
    }
    if is_child(c"late") {
        // SAFETY: registers a function that lives as long as the process, and as no library's: one of the program's
        // would be called before `.fini_array` is through.
        assert_eq!(unsafe { __cxa_atexit(late_handler, std::ptr::null_mut(), std::ptr::null_mut()) }, 0);
    }
}

static EARLY: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

unsafe extern "C" {
    fn __cxa_atexit(
        handler: extern "C" fn(*mut libc::c_void),
        argument: *mut libc::c_void,
        library: *mut libc::c_void,
    ) -> libc::c_int;
}

fn late() {
    EARLY.store(take(&GLOBAL, 64), Ordering::Relaxed);
}

/// The allocator's own handler was registered after this one, so it has run: everything is unmapped.
extern "C" fn late_handler(_argument: *mut libc::c_void) {
    give(&GLOBAL, EARLY.load(Ordering::Relaxed), 64);
    for size in [1, 64, 30_000, 5 << 20] {
        // Anew from the kernel, to which the process leaves them.
        give(&GLOBAL, take(&GLOBAL, size), size);
    }
    magalloc::flush_thread();
    say("late\n");
}

fn calls_after_the_end_are_served() {
    if cfg!(not(target_env = "gnu")) {
        return process::skip("this C library accepts no handler so late");
    }
    child("late").expect_unmapped(0, "late\n");
}

fn handlers() {
    // SAFETY: as above.
    assert_eq!(unsafe { libc::atexit(handler_of_main) }, 0);
}

fn numbers(count: usize) -> String {
    (0..count).map(|number| format!("number {number}\n")).collect()
}

/// Text that waits in a buffer of ours when `main` returns.
fn stdio(buffer_bytes: usize) {
    unsafe extern "C" {
        static stdout: *mut libc::FILE;
    }
    // SAFETY: stdio is up, and nobody writes the variable.
    let stream = unsafe { stdout };
    let buffer = take(&GLOBAL, buffer_bytes);
    // SAFETY: the buffer is as long and is never freed.
    assert_eq!(unsafe { libc::setvbuf(stream, buffer.cast(), libc::_IOFBF, buffer_bytes) }, 0);
    for number in 0..if buffer_bytes > 4 << 10 { 9_000 } else { 100 } {
        // SAFETY: the format takes an int.
        assert!(unsafe { libc::printf(c"number %d\n".as_ptr(), number) } > 0);
    }
}

/// Waits for a child. Its status.
fn wait(pid: libc::pid_t) -> libc::c_int {
    let mut status = -1;
    // SAFETY: `status` is valid.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status
}

const FORKS: usize = 200;

/// The child of each fork has one thread, whatever the others were doing; so it unmaps everything.
fn fork() {
    start_busy_threads(3);
    for _ in 0..FORKS {
        // SAFETY: the child calls nothing but the allocator and exit.
        match unsafe { libc::fork() } {
            0 => finish(0),
            pid => assert_eq!(wait(pid), 0),
        }
    }
}

fn fork_among_threads_works_at_once() {
    let outcome = child("fork");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), ""), "{outcome:?}");
    let reports: Vec<_> =
        outcome.stderr.split_inclusive('\n').map(|line| process::report_line(line).expect(line)).collect();
    assert_eq!(reports.len(), FORKS + 1);
    assert!(reports[..FORKS].iter().all(|(unmapped, mapped)| unmapped == mapped && *mapped > 0), "{reports:?}");
    assert_eq!(reports[FORKS].0, 0);
}

fn report_is_one_write() {
    let writes = writes_to_stderr(command("returns").env("MAGALLOC_STATS_FILE", "/no/such/folder/file"));
    let [refused, report] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(refused, "magalloc: the statistics cannot be appended to /no/such/folder/file\n");
    assert!(process::report_line(report).is_some(), "{report:?}");
}

/// A program error: a child of `vfork` has to end by `_exit`. It runs the parent's handlers, but nothing of ours.
fn vfork() {
    let kept: Vec<Vec<u8>> = [1, 100, 30_000, 100_000, 9 << 20].map(|size| vec![0x5a; size]).into();
    assert_eq!(wait(exit_in_vfork()), 3 << 8);
    assert!(kept.iter().all(|block| block.iter().all(|&byte| byte == 0x5a)));
    drop(kept);
    use_memory(&GLOBAL);
    std::thread::spawn(|| use_memory(&GLOBAL)).join().unwrap();
    magalloc::check();
    say("parent\n");
}

/// A child as `posix_spawn` makes it: like that of `vfork`, on a stack of its own.
fn exit_in_vfork() -> libc::pid_t {
    extern "C" fn body(_: *mut libc::c_void) -> libc::c_int {
        // SAFETY: that is what is tested.
        unsafe { libc::exit(3) }
    }
    let mut stack = vec![0_u8; 1 << 20];
    let end = stack.as_mut_ptr_range().end.cast();
    // SAFETY: the stack is the child's until it has ended, before which this thread does not go on.
    let pid =
        unsafe { libc::clone(body, end, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, std::ptr::null_mut()) };
    assert!(pid > 0, "{}", std::io::Error::last_os_error());
    pid
}

fn vfork_in_fork() {
    // SAFETY: the child is a process of one thread.
    match unsafe { libc::fork() } {
        0 => vfork(),
        pid => assert_eq!(wait(pid), 0),
    }
}

fn exit_in_vfork_leaves_the_parents_memory() {
    for (name, reports) in [("vfork", 0), ("vfork_without_purging_thread", 0), ("vfork_in_fork", 1)] {
        let outcome = child(name);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "parent\n"), "{outcome:?}");
        // glibc runs a process's handlers once, and the child has; musl comes by a second time.
        let lines: Vec<_> = outcome.stderr.split_inclusive('\n').map(process::report_line).collect();
        assert!((reports..=reports + 1).contains(&lines.len()), "{outcome:?}");
        assert!(lines.iter().all(|line| line.is_some_and(|(unmapped, mapped)| unmapped == mapped)), "{outcome:?}");
    }
}
