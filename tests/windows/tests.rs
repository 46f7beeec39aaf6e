//! The tests, and the programs that they run.

use super::GLOBAL;
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// For what comes about by itself within seconds, but on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names the program that a child is to be.
const CHILD: &str = "WINDOWS_TEST";

type Named = (&'static str, fn());

const PROGRAMS: &[Named] = &[
    ("burst", burst),
    ("threads", threads),
    ("exit", exit),
    ("double_free", double_free),
    ("disabled", disabled),
    ("vanish", vanish),
    ("destructors", destructors),
    ("reserve", reserve),
];

const TESTS: &[Named] = &[
    ("a_burst_goes_back_while_the_program_is_idle", || child("burst").expect(0, "")),
    ("a_thousand_threads_come_and_go", || child("threads").expect(0, "")),
    ("all_is_given_back_at_the_end", || {
        let report = child("exit").with("MAGALLOC_REPORT_EXIT", "1").run().expect_code(0);
        let figures: Vec<usize> = report.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert!(matches!(figures[..], [unmapped, mapped] if unmapped == mapped && mapped > 30 * MIB), "{report}");
    }),
    ("nothing_is_unmapped_where_the_user_says_so", || {
        let report =
            child("exit").with("MAGALLOC_REPORT_EXIT", "1").with("MAGALLOC_AT_EXIT", "none").run().expect_code(0);
        assert!(report.starts_with("magalloc: exit: unmapped 0 of "), "{report}");
    }),
    ("a_record_of_statistics_is_appended", || {
        let path = std::env::temp_dir().join(format!("magalloc-gr\u{fc}n-{}", std::process::id()));
        for _ in 0..2 {
            child("exit").with("MAGALLOC_STATS_FILE", path.to_str().unwrap()).run().expect_code(0);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().filter(|line| *line == "magalloc-stats 1").count(), 2, "{text}");
        assert!(text.lines().any(|line| line.starts_with("program ") && line.ends_with(".exe")), "{text}");
    }),
    ("a_variable_that_is_none_of_ours_is_told_of", || {
        let said = child("disabled").with("MAGALLOC_SPEED", "1").with("MAGALLOC_DISABLE", "1").run().expect_code(0);
        assert_eq!(said, "magalloc: MAGALLOC_SPEED is no option; it is ignored\n");
    }),
    ("a_double_free_ends_the_process_with_a_line", || {
        let Output { status, stderr, .. } = child("double_free").run().0;
        let said = String::from_utf8(stderr).unwrap();
        assert!(said.starts_with("magalloc: ") && said.contains("double free"), "{said}");
        assert!(!status.success());
    }),
    ("the_processs_heap_serves_where_this_one_is_disabled", || {
        child("disabled").with("MAGALLOC_DISABLE", "1").expect(0, "");
    }),
    ("a_thread_that_was_terminated_is_found", || child("vanish").expect(0, "")),
    ("thread_local_destructors_are_served_before_the_threads_end", || child("destructors").expect(0, "")),
    ("a_place_takes_no_charge", || child("reserve").expect(0, "")),
];

pub fn main() {
    if let Ok(name) = std::env::var(CHILD) {
        let (_, program) = PROGRAMS.iter().find(|(program, _)| *program == name).unwrap();
        return program();
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
    for (name, test) in TESTS.iter().filter(|(name, _)| is_wanted(name)) {
        test();
        println!("test {name} ... ok");
    }
}

struct Child(Command);

fn child(name: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(CHILD, name);
    Child(command)
}

struct Ended(Output);

impl Child {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    fn run(mut self) -> Ended {
        Ended(self.0.output().unwrap())
    }

    #[track_caller]
    fn expect(self, code: i32, said: &str) {
        assert_eq!(self.run().expect_code(code), said);
    }
}

impl Ended {
    /// What it wrote to standard error.
    #[track_caller]
    fn expect_code(self, code: i32) -> String {
        let said = String::from_utf8(self.0.stderr).unwrap();
        assert_eq!(self.0.status.code(), Some(code), "{said}");
        said
    }
}

#[repr(C)]
#[derive(Default)]
struct ProcessMemory {
    bytes: u32,
    page_faults: u32,
    peak_resident: usize,
    resident: usize,
    quotas: [usize; 4],
    page_file: [usize; 2],
}

/// `MEMORY_BASIC_INFORMATION` of 64 bits.
#[repr(C)]
#[derive(Default)]
struct Pages {
    start: usize,
    reservation: usize,
    reservation_access: [u32; 2],
    bytes: usize,
    state: u32,
    access: u32,
    kind: [u32; 2],
}

#[link(name = "kernel32")]
unsafe extern "system" {
    fn GetCurrentProcess() -> *mut c_void;
    fn GetModuleHandleW(name: *const u16) -> *mut u8;
    fn K32GetProcessMemoryInfo(process: *mut c_void, memory: *mut ProcessMemory, bytes: u32) -> i32;
    fn GetCurrentThread() -> *mut c_void;
    fn VirtualQuery(address: *const c_void, pages: *mut Pages, bytes: usize) -> usize;
    fn TerminateThread(thread: *mut c_void, code: u32) -> i32;
}

fn memory() -> ProcessMemory {
    let bytes = size_of::<ProcessMemory>() as u32;
    let mut memory = ProcessMemory { bytes, ..ProcessMemory::default() };
    // SAFETY: `memory` is valid, and as long as is said.
    assert_ne!(unsafe { K32GetProcessMemoryInfo(GetCurrentProcess(), &raw mut memory, bytes) }, 0);
    memory
}

/// Bytes of the process's own that are committed, page by page: wine does not count the charge.
fn charge() -> usize {
    const COMMITTED: u32 = 0x1000;
    const PRIVATE: u32 = 0x20000;
    let (mut next, mut charge) = (0, 0);
    loop {
        let mut pages = Pages::default();
        // SAFETY: `pages` is valid and as long as is said; any address is allowed.
        if unsafe { VirtualQuery(std::ptr::without_provenance(next), &raw mut pages, size_of::<Pages>()) } == 0 {
            return charge;
        }
        if pages.state == COMMITTED && pages.kind[0] == PRIVATE {
            charge += pages.bytes;
        }
        next = pages.start + pages.bytes;
    }
}

/// Waits until `is_so`, for a long time at most.
#[track_caller]
fn wait_until(what: impl Fn() -> String, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{}", what());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn blocks(count: usize, bytes: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![number as u8 | 1; bytes]).collect()
}

/// What wine 8 leaves out: Windows has the loader call the program's callbacks at the process's end, with all other threads
/// gone. A second time, where it does, finds nothing to do.
fn end_as_windows_does() -> ! {
    // SAFETY: the program's own image, with its headers as "PE Format" says, of 64 bits; they stay.
    unsafe {
        let image = GetModuleHandleW(std::ptr::null());
        let headers = image.add(image.add(0x3c).cast::<u32>().read() as usize);
        // Behind the signature, the file's header and 112 bytes are the directories; the tenth has the callbacks.
        let directory = image.add(headers.add(4 + 20 + 112 + 9 * 8).cast::<u32>().read() as usize);
        let mut next =
            directory.cast::<*const Option<unsafe extern "system" fn(*mut u8, u32, *mut u8)>>().add(3).read();
        // DLL_PROCESS_DETACH is 0.
        while let Some(callback) = next.read() {
            callback(image, 0, std::ptr::null_mut());
            next = next.add(1);
        }
    }
    std::process::exit(0);
}

/// Memory falls to what is live, with small and with large blocks, in the allocator's account and in the system's.
fn burst() {
    let before = memory().resident;
    let live = blocks(MIB, 64);
    let live_bytes = magalloc::stats().live as usize;
    assert!(live_bytes >= 64 * MIB);
    std::thread::scope(|scope| {
        for size in [100, 3000, 100_000] {
            scope.spawn(move || drop(blocks(100 * MIB / size, size)));
        }
    });
    let at_peak = memory().resident - before;
    assert!(at_peak > 2 * live_bytes, "{at_peak}");
    // Two threads with caches, which do nothing: the purging thread's part.
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (_end, wait) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        ready.send(Box::new(1)).unwrap();
        wait.recv()
    });
    is_ready.recv().unwrap();
    drop(blocks(1000, 30_000));
    let resident = || memory().resident.saturating_sub(before);
    wait_until(
        || format!("{live_bytes} live, {} resident, {:?}", resident(), magalloc::stats()),
        || resident() * 10 <= live_bytes * 13,
    );
    assert!(magalloc::stats().resident as usize * 10 <= live_bytes * 13);
    assert!(live.iter().enumerate().all(|(number, block)| block.iter().all(|&byte| byte == number as u8 | 1)));
    magalloc::check();
}

/// What they had is had again; none stays registered.
fn threads() {
    let work = |number: usize| {
        let kept = blocks(100, 200 + number % 50);
        assert!(kept.iter().enumerate().all(|(number, block)| block.iter().all(|&byte| byte == number as u8 | 1)));
        kept.into_iter().step_by(10).collect::<Vec<_>>()
    };
    let round = |count: usize| {
        let threads: Vec<_> = (0..count).map(|number| std::thread::spawn(move || work(number))).collect();
        // Freed by this thread.
        threads.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    };
    (0..5).for_each(|_| round(20));
    let after_some = magalloc::stats().mapped;
    (0..50).for_each(|_| round(20));
    let stats = magalloc::stats();
    assert!(stats.mapped <= after_some + (4 << 20), "{after_some} {stats:?}");
    assert_eq!(stats.threads, 1);
    magalloc::purge_all();
    assert!(magalloc::stats().resident < 2 << 20, "{:?}", magalloc::stats());
    magalloc::check();
}

fn exit() {
    let _live = blocks(1000, 30_000);
    let mapping = vec![1_u8; (1 << 30) + 1];
    std::thread::spawn(move || drop(mapping)).join().unwrap();
    end_as_windows_does();
}

fn double_free() {
    let layout = Layout::from_size_align(64, 8).unwrap();
    let (block, _neighbour) =
        (std::hint::black_box(Box::into_raw(Box::new([0_u8; 64]))).cast::<u8>(), Box::new([0_u8; 64]));
    for _ in 0..2 {
        // SAFETY: none: the second time it is none of the program's.
        unsafe { GLOBAL.dealloc(block, layout) };
        magalloc::flush_thread();
    }
}

/// Blocks of all sizes and alignments come from the process's heap.
fn disabled() {
    assert!(magalloc::stats().disabled);
    let mut kept: Vec<(*mut u8, Layout)> = Vec::new();
    for align in (0..=16).map(|shift| 1 << shift) {
        for size in [1, 8, 100, 5000, 100_000] {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: a size that is not 0.
            let block = unsafe { GLOBAL.alloc_zeroed(layout) };
            assert!(!block.is_null() && block.addr().is_multiple_of(align));
            // SAFETY: a block of that size.
            assert!(unsafe { std::slice::from_raw_parts(block, size) }.iter().all(|&byte| byte == 0));
            // SAFETY: likewise.
            unsafe { block.write_bytes(align.ilog2() as u8, size) };
            // SAFETY: a live block of that layout; the new size is not 0.
            let longer = unsafe { GLOBAL.realloc(block, layout, 3 * size) };
            assert!(!longer.is_null() && longer.addr().is_multiple_of(align));
            kept.push((longer, Layout::from_size_align(3 * size, align).unwrap()));
        }
    }
    for (block, layout) in kept {
        // SAFETY: a live block, of which a third was written.
        let written = unsafe { std::slice::from_raw_parts(block, layout.size() / 3) };
        assert!(written.iter().all(|&byte| byte == layout.align().ilog2() as u8));
        // SAFETY: a live block of that layout.
        unsafe { GLOBAL.dealloc(block, layout) };
    }
    assert_eq!(magalloc::stats().slabs, 0);
}

/// One that ended without a word: nothing waits for it, and what it had comes home.
fn vanish() {
    std::thread::spawn(|| {
        drop(blocks(100, 100));
        // SAFETY: the calling thread, which holds no lock.
        unsafe { TerminateThread(GetCurrentThread(), 0) };
    });
    wait_until(|| "it came".into(), || magalloc::stats().threads >= 2);
    // Something to purge, by a thread of its own, which looks after the others.
    let found = || {
        std::thread::scope(|scope| {
            scope.spawn(|| drop(blocks(300, 30_000)));
        });
        magalloc::stats().threads == 1
    };
    wait_until(|| format!("{:?}", magalloc::stats()), found);
    magalloc::check();
}

struct Last(Vec<u8>);

impl Drop for Last {
    fn drop(&mut self) {
        assert!(self.0.iter().all(|&byte| byte == 5));
        drop(std::mem::replace(&mut self.0, vec![6; 5000]));
        blocks(1000, 1000);
        // The thread still has its cache, beside the first one's.
        assert_eq!(magalloc::stats().threads, 2);
    }
}

thread_local! {
    static LAST: Last = Last(vec![5; 500]);
}

fn destructors() {
    magalloc::flush_thread();
    for _ in 0..10 {
        std::thread::spawn(|| LAST.with(|last| assert_eq!(last.0.len(), 500))).join().unwrap();
    }
    assert_eq!(magalloc::stats().threads, 1);
}

/// What is not used yet is not committed: neither of the heap's gigabytes, nor of its tables.
fn reserve() {
    drop(blocks(10, 10));
    let before = charge();
    // The program with its libraries and stacks; places have GiBs.
    assert!(before < 512 * MIB, "{before}");
    let stats = magalloc::stats();
    assert!(stats.committed < 8 << 20 && stats.mapped < 16 << 20, "{stats:?}");
    let block = vec![1_u8; 40 * MIB];
    let grown = charge() - before;
    assert!((40 * MIB..50 * MIB).contains(&grown), "{grown}");
    drop(block);
}
