//! A shared library with its own copy of the allocator is opened, used and closed: its memory and its thread are gone
//! then, and the program, which uses another allocator, goes on.

use parked::parked;
use process::{command, say};
use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Barrier, OnceLock};
use std::time::Duration;

mod parked;
mod proc;
mod process;

/// A second copy of the allocator in the process: the library's finds its thread among the process's. That thread stays
/// as long as there is something to give back: here to the end.
static OTHER: magalloc::Magalloc = magalloc::Magalloc::new().purge_delay_ms(u32::MAX);

fn main() {
    let tests: &[process::Named] = &[
        ("closed_library_leaves_nothing_behind", closed_library_leaves_nothing_behind),
        ("threads_may_outlive_the_library", threads_may_outlive_the_library),
        ("reloads_beside_other_threads_leave_no_address_space", || ends_well("reloads")),
        ("live_blocks_outlive_the_library", || ends_well("live_blocks")),
        ("library_left_open_unmaps_all_at_exit", || with_library("left_open").expect_unmapped(0, "main\n")),
        ("copies_do_not_harm_each_other", copies_do_not_harm_each_other),
        ("end_of_the_process_is_no_unloading_to_a_thread", end_of_the_process_is_no_unloading_to_a_thread),
        ("exit_in_vfork_is_no_unloading", exit_in_vfork_is_no_unloading),
    ];
    let skipped: &[process::Named] = &[("skipped", || process::skip("this C library never unloads a library"))];
    process::main(
        &[
            ("rounds", rounds),
            ("survivors", survivors),
            ("reloads", reloads),
            ("live_blocks", live_blocks),
            ("left_open", left_open),
            ("other_copy", other_copy),
            ("only_thread", only_thread),
            ("vfork", vfork),
        ],
        if cfg!(target_env = "gnu") { tests } else { skipped },
    );
}

const NAME: &str = "magalloc_in_library";
/// Tells the children where it is.
const PATH: &str = "TEST_LIBRARY";

/// Builds the library, once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let project = Path::new(env!("CARGO_TARGET_TMPDIR")).join(NAME);
        std::fs::create_dir_all(&project).unwrap();
        // The versions that are there.
        std::fs::copy(root.join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
        let manifest = format!(
            "[package]\nname = {NAME:?}\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
             [lib]\ncrate-type = [\"cdylib\"]\npath = {:?}\n\n\
             [dependencies]\nmagalloc = {{ path = {root:?} }}\nlibc = \"0.2\"\n\n\
             [workspace]\n\n[profile.dev]\ndebug = false\nincremental = false\n",
            root.join("tests/dlclose/library.rs")
        );
        std::fs::write(project.join("Cargo.toml"), manifest).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--offline", "--target-dir", "target"]).current_dir(&project);
        let built = cargo.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        project.join("target/debug").join(format!("lib{NAME}.so"))
    })
}

/// Runs the child `name`, which finds the library. The C library's own heaps are kept from multiplying.
fn with_library(name: &str) -> process::Outcome {
    process::run(command(name).env(PATH, library()).env("MALLOC_ARENA_MAX", "1"))
}

/// The library while it is open.
struct Library(*mut c_void);

impl Library {
    fn open() -> Self {
        let path = CString::new(std::env::var_os(PATH).unwrap().as_bytes()).unwrap();
        // SAFETY: the path ends with a zero; what the library runs when it is opened is harmless.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "{path:?} cannot be opened");
        Self(handle)
    }

    /// One of its functions.
    fn function(&self, name: &CStr) -> extern "C" fn(usize) -> usize {
        // SAFETY: the handle is open, the name ends with a zero.
        let function = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!function.is_null(), "{name:?} is not there");
        // SAFETY: all functions of the library have this type.
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(usize) -> usize>(function) }
    }

    fn call(&self, name: &CStr, argument: usize) -> usize {
        self.function(name)(argument)
    }

    /// Uses it so that its allocator has a thread of its own, as it has beside two threads only: once more, if that has
    /// come and gone before the look.
    fn use_memory(&self) {
        let (tasks, use_memory) = (proc::tasks(), self.function(c"use_memory"));
        let thread = parked(1, move || use_memory(1));
        let has_thread = || {
            assert!(use_memory(50) > 50);
            proc::tasks() == tasks + 2
        };
        assert!(proc::wait(has_thread), "{} threads", proc::tasks());
        thread.join();
    }

    /// Closes it; nothing of its file is mapped then.
    fn close(self) {
        // SAFETY: the handle is open, and nobody uses the library any more.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
        assert!(!maps().contains(NAME), "{}", maps());
    }
}

fn maps() -> String {
    std::fs::read_to_string("/proc/self/maps").unwrap()
}

/// A thread that was joined may be counted for a moment.
#[track_caller]
fn expect_tasks(count: u64) {
    assert!(proc::wait(|| proc::tasks() == count), "{} threads, not {count}", proc::tasks());
}

/// The C library has forgotten what to call in children.
fn fork() {
    // SAFETY: the child calls nothing but `_exit`.
    match unsafe { libc::fork() } {
        // SAFETY: ends the child at once.
        0 => unsafe { libc::_exit(0) },
        pid => {
            let mut status = -1;
            // SAFETY: `status` is valid.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert_eq!(status, 0);
        }
    }
}

const ROUNDS: usize = 20;
/// Rounds until the number of mappings is settled.
const FIRST_ROUNDS: usize = 4;
/// Mappings of stacks that the C library may keep, more or less of them at times.
const STACK_MAPPINGS: usize = 8;
/// Bytes of address space by which all else may differ.
const MAPPED_MORE: u64 = 16 << 20;

fn rounds() {
    let (mut mappings, mut mapped) = (0, 0);
    for round in 0..ROUNDS {
        let before = proc::mapped();
        let library = Library::open();
        library.use_memory();
        assert!(proc::mapped() > before + (40 << 20));
        assert_eq!(library.call(c"use_threads", 3), 3);
        assert_eq!(library.call(c"threads", 0), 1);
        // Within each phase of its purging.
        std::thread::sleep(Duration::from_micros(1_300 * round as u64));
        library.close();
        expect_tasks(1);
        fork();
        let now = maps().lines().count();
        if round == FIRST_ROUNDS {
            (mappings, mapped) = (now, proc::mapped());
        }
        assert!(round <= FIRST_ROUNDS || proc::mapped() < mapped + MAPPED_MORE, "{}", maps());
        assert!(round <= FIRST_ROUNDS || now <= mappings + STACK_MAPPINGS, "{mappings} became {now}: {}", maps());
        // Opened and closed without a call.
        Library::open().close();
    }
    say("main\n");
}

fn closed_library_leaves_nothing_behind() {
    let outcome = with_library("rounds");
    outcome.expect(0, "main\n", &outcome.stderr);
    let reports: Vec<_> = outcome.stderr.split_inclusive('\n').map(process::report_line).collect();
    assert_eq!(reports.len(), ROUNDS, "{outcome:?}");
    assert!(reports.iter().all(|report| report.is_some_and(|(unmapped, mapped)| unmapped == mapped && mapped > 0)));
}

/// Threads of the program that have used the library, and end when it is long gone.
fn survivors() {
    const THREADS: usize = 3;
    for _ in 0..5 {
        let library = Library::open();
        library.use_memory();
        let use_memory = library.function(c"use_memory");
        let barrier = Arc::new(Barrier::new(THREADS + 1));
        let threads = [1, 2, 3].map(|mebibytes| {
            let barrier = Arc::clone(&barrier);
            std::thread::spawn(move || {
                use_memory(mebibytes);
                barrier.wait();
                barrier.wait();
            })
        });
        barrier.wait();
        assert_eq!(library.call(c"threads", 0), 1 + THREADS);
        library.close();
        expect_tasks(1 + THREADS as u64);
        fork();
        barrier.wait();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    say("main\n");
}

fn threads_may_outlive_the_library() {
    ends_well("survivors");
}

/// Runs the child `name`, whose library may report what it likes.
fn ends_well(name: &str) {
    let outcome = with_library(name);
    outcome.expect(0, "main\n", &outcome.stderr);
}

/// Runs `reload` many times beside a thread that has used the library before, and one that never does. Returns by how many
/// bytes the address space has grown.
fn beside_threads(reload: impl Fn(Library)) -> u64 {
    const ROUNDS: usize = 60;
    let barrier = Arc::new(Barrier::new(2));
    let idle = Arc::clone(&barrier);
    let idle = std::thread::spawn(move || idle.wait());
    let mut mapped = 0;
    for round in 0..ROUNDS {
        let library = Library::open();
        let use_memory = library.function(c"use_memory");
        let user_barrier = Arc::new(Barrier::new(2));
        let user = Arc::clone(&user_barrier);
        let user = std::thread::spawn(move || {
            use_memory(2);
            user.wait();
            user.wait();
        });
        user_barrier.wait();
        reload(library);
        user_barrier.wait();
        user.join().unwrap();
        if round == FIRST_ROUNDS {
            mapped = proc::mapped();
        }
    }
    let grown = proc::mapped().saturating_sub(mapped);
    barrier.wait();
    idle.join().unwrap();
    grown
}

fn reloads() {
    let grown = beside_threads(|library| {
        library.call(c"use_memory", 10);
        library.close();
    });
    assert!(grown < MAPPED_MORE, "{grown} bytes: {}", maps());
    say("main\n");
}

/// The program has a block of the library's and reads it; no more of the library's memory stays than lies around it.
fn live_blocks() {
    const BYTES: usize = 100_000;
    let grown = beside_threads(|library| {
        library.call(c"use_memory", 10);
        let block = library.call(c"leak", BYTES);
        library.close();
        // SAFETY: `leak` has made a block of so many bytes, which nobody frees.
        let block = unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(block), BYTES) };
        assert!(block.iter().all(|&byte| byte == 7));
    });
    assert!(grown < 60 * (2 << 20), "{grown} bytes: {}", maps());
    say("main\n");
}

fn left_open() {
    let library = Library::open();
    library.use_memory();
    say("main\n");
}

/// The library's copy cannot know whose thread the other copy's is, so it may keep its address space.
fn other_copy() {
    // Beside it, both copies have threads of their own.
    let thread = parked(1, || process::use_memory(&OTHER));
    let has_thread = || {
        process::use_memory(&OTHER);
        proc::tasks() == 3
    };
    assert!(proc::wait(has_thread), "{} threads", proc::tasks());
    for _ in 0..5 {
        let library = Library::open();
        assert!(library.call(c"use_memory", 50) > 50);
        assert_eq!(library.call(c"use_threads", 3), 3);
        library.close();
        // Those of the copy that stays may have left.
        assert!(proc::wait(|| proc::tasks() <= 3), "{} threads", proc::tasks());
        process::use_memory(&OTHER);
        fork();
    }
    thread.join();
    magalloc::check();
    say("main\n");
}

fn copies_do_not_harm_each_other() {
    let outcome = with_library("other_copy");
    outcome.expect(0, "main\n", &outcome.stderr);
}

/// As `with_library`, but the library is there from the program's start.
fn with_library_at_start(name: &str) -> process::Outcome {
    process::run(command(name).env(PATH, library()).env("LD_PRELOAD", library()))
}

/// The main thread ends the process while the only thread that ever had a cache is in the library.
fn only_thread() {
    let use_memory = Library::open().function(c"use_memory");
    let (to, from) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        loop {
            use_memory(2);
            let _ = to.send(());
        }
    });
    from.recv().unwrap();
    say("main\n");
}

fn end_of_the_process_is_no_unloading_to_a_thread() {
    with_library_at_start("only_thread").expect_kept(0, "main\n");
}

/// A program error, see `tests/exit.rs`.
fn vfork() {
    extern "C" fn body(_: *mut c_void) -> libc::c_int {
        // SAFETY: that is what is tested.
        unsafe { libc::exit(3) }
    }
    const BYTES: usize = 100_000;
    let library = Library::open();
    let block = std::ptr::with_exposed_provenance::<u8>(library.call(c"leak", BYTES));
    let mut stack = vec![0_u8; 1 << 20];
    let end = stack.as_mut_ptr_range().end.cast();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is the child's until it has ended, before which this thread does not go on.
    let pid = unsafe { libc::clone(body, end, flags, std::ptr::null_mut()) };
    let mut status = -1;
    // SAFETY: `status` is valid.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 3 << 8);
    // SAFETY: `leak` has made a block of so many bytes, which nobody frees.
    assert!(unsafe { std::slice::from_raw_parts(block, BYTES) }.iter().all(|&byte| byte == 7));
    assert!(library.call(c"use_memory", 4) > 4);
    say("main\n");
}

fn exit_in_vfork_is_no_unloading() {
    with_library_at_start("vfork").expect(0, "main\n", "");
}
