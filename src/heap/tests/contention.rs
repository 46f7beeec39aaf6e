//! The contention count: how often a malloc and a free of many threads want a cache line that another thread has.
//!
//! ```text
//! # Role        runs the allocator itself on 4 to 192 logical threads, of which a seeded scheduler lets another one go on at
//!               each atomic operation, and counts what that costs them: the same on any machine, however busy
//! # Counted     a line is shared where another thread has read or written it since this one last did. Of operations on
//!               shared lines: writes (read-modify-writes and stores), reads, and compare-exchanges that failed (retries)
//! # Run by      ci/contention.sh: `RUSTFLAGS="--cfg magalloc_scheduled" cargo test --lib contention`
//! # Not here    what an operation costs on a machine; memory orders (see loom_tests)
//! ```

use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::options::Options;
use crate::size_class::class_of;
use crate::sync::scheduled::{Access, Hooks, Kind, set_hooks};
use crate::sys::fake::FakePages;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

/// Threads at most.
const THREADS_MAX: usize = 192;
/// Words of a coroutine's stack.
const STACK_WORDS: usize = 16 << 10;
/// log2 of the bytes of a cache line.
const LINE_SHIFT: u32 = 6;
/// Lines of code that are printed for a run.
const LINES_PRINTED: usize = 12;
/// See `before`.
const HITS: usize = 16;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn with_seed(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
}

/// Which threads have a cache line: as readers, or one alone that may write it.
#[derive(Clone, Copy, Default)]
struct Line([u64; THREADS_MAX / 64]);

impl Line {
    fn only(thread: usize) -> Self {
        let mut line = Self::default();
        line.0[thread / 64] = 1 << (thread % 64);
        line
    }

    fn is_empty(self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    fn has(self, thread: usize) -> bool {
        self.0[thread / 64] >> (thread % 64) & 1 != 0
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    writes: u64,
    reads: u64,
    retries: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.retries += other.retries;
    }
}

/// Spreads the numbers of lines.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_usize(byte.into()));
    }

    fn write_usize(&mut self, number: usize) {
        self.0 = (self.0 ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(20);
    }
}

/// The machine that the logical threads run on.
struct Machine {
    random: Random,
    running: usize,
    lines: HashMap<usize, Line, BuildHasherDefault<Spread>>,
    /// Addresses that do not count: the kernel's.
    kernel: Range<usize>,
    /// By line of code.
    counts: HashMap<(&'static str, u32), Counts>,
}

thread_local! {
    static MACHINE: RefCell<Option<Machine>> = const { RefCell::new(None) };
}

/// Not where another thread may go on meanwhile.
fn with_machine<T>(look: impl FnOnce(&mut Machine) -> T) -> T {
    MACHINE.with_borrow_mut(|machine| look(machine.as_mut().expect("there is one while threads run")))
}

/// Before an operation, another thread goes on, or this one. An operation on a line that the thread has takes a hundredth of
/// the time of another: so only at one of `HITS` of these. Not while the thread is in the kernel, which has locks.
fn before(address: usize, may_write: bool) {
    let switches = with_machine(|machine| machine.switches(address, may_write));
    if switches {
        switch();
    }
}

/// Lets another logical thread go on.
#[expect(deprecated, reason = "what it should be instead is a parameter, which a hook has not")]
fn switch() {
    generator::yield_with(());
}

fn after(access: Access) {
    with_machine(|machine| machine.count(access));
}

impl Machine {
    fn switches(&mut self, address: usize, may_write: bool) -> bool {
        if self.kernel.contains(&address) {
            return false;
        }
        let line = self.lines.get(&(address >> LINE_SHIFT)).copied().unwrap_or_default();
        let is_hit = if may_write { line.0 == Line::only(self.running).0 } else { line.has(self.running) };
        !is_hit || self.random.below(HITS) == 0
    }

    fn count(&mut self, access: Access) {
        if self.kernel.contains(&access.address) {
            return;
        }
        let line = self.lines.entry(access.address >> LINE_SHIFT).or_default();
        let mut counts = Counts { retries: u64::from(access.kind == Kind::Failed), ..Counts::default() };
        let (only, before) = (Line::only(self.running), *line);
        match access.kind {
            Kind::Load => {
                counts.reads = u64::from(!before.is_empty() && !before.has(self.running));
                line.0.iter_mut().zip(only.0).for_each(|(word, only)| *word |= only);
            }
            Kind::Write | Kind::Failed => {
                counts.writes = u64::from(!before.is_empty() && before.0 != only.0);
                *line = only;
            }
        }
        if counts.writes + counts.reads + counts.retries != 0 {
            self.counts.entry((access.place.file(), access.place.line())).or_default().add(counts);
        }
    }
}

/// What the threads do.
#[derive(Clone, Copy)]
struct Work {
    name: &'static str,
    /// Of so many blocks, one is freed by another thread.
    handed_over: usize,
    /// Of so many blocks, one is a large one.
    large: usize,
}

#[derive(Clone, Copy)]
struct Block {
    start: *mut u8,
    bytes: usize,
}

/// What all threads of a run share.
struct Run<'h> {
    heap: &'h Heap<FakePages>,
    work: Work,
    /// Blocks on their way to a thread that frees them.
    inboxes: Vec<RefCell<Vec<Block>>>,
    /// Pairs of a malloc and a free so far, in this part of the run.
    pairs: Cell<usize>,
    is_counting: Cell<bool>,
    is_over: Cell<bool>,
}

impl Run<'_> {
    fn allocate(&self, local: &LocalHeap<'_, FakePages>, bytes: usize) -> Block {
        let start = match class_of(bytes, 8) {
            Some(class) => {
                let popped = local.pop(class);
                if popped.is_null() { self.heap.allocate_small(Some(local), class) } else { popped }
            }
            None => self.heap.allocate_large(bytes, 8, false),
        };
        assert!(!start.is_null());
        // Two threads with the same block would see it.
        // SAFETY: a block of at least 8 bytes.
        unsafe { start.cast::<usize>().write_unaligned(start.addr() ^ bytes) };
        Block { start, bytes }
    }

    fn free(&self, local: &LocalHeap<'_, FakePages>, block: Block) {
        // SAFETY: a live block, as in `allocate`.
        assert_eq!(unsafe { block.start.cast::<usize>().read_unaligned() }, block.start.addr() ^ block.bytes);
        // SAFETY: likewise.
        unsafe { block.start.cast::<usize>().write_unaligned(0) };
        match class_of(block.bytes, 8) {
            Some(class) if local.push(class, block.start) => {}
            Some(class) => self.heap.free_small(Some(local), class, block.start),
            None => self.heap.free_large(block.start),
        }
    }

    /// What thread number `me` does.
    fn live(&self, me: usize, seed: u64) {
        const BLOCKS: usize = 64;
        let mut random = Random::with_seed(seed ^ (me as u64 + 1) << 32);
        let local = self.heap.register().expect("memory");
        let mut blocks: Vec<Option<Block>> = vec![None; BLOCKS];
        for pair in 0.. {
            if pair == ALONE {
                switch();
            }
            if self.is_over.get() {
                break;
            }
            let bytes = match random.below(self.work.large) {
                0 => (33 << 10) + random.below(96 << 10),
                _ => {
                    let most = 16 << random.below(7);
                    8 + random.below(most)
                }
            };
            let block = self.allocate(&local, bytes);
            let old = blocks[random.below(BLOCKS)].replace(block);
            if let Some(old) = old {
                if random.below(self.work.handed_over) == 0 {
                    self.inboxes[random.below(self.inboxes.len())].borrow_mut().push(old);
                } else {
                    self.free(&local, old);
                }
            }
            while let Some(block) = self.take_from_inbox(me) {
                self.free(&local, block);
            }
            self.pairs.set(self.pairs.get() + 1);
        }
        blocks.into_iter().flatten().for_each(|block| self.free(&local, block));
        self.heap.unregister(&local);
    }

    fn take_from_inbox(&self, me: usize) -> Option<Block> {
        self.inboxes[me].borrow_mut().pop()
    }
}

/// What a coroutine has, which never goes to another thread of the machine.
struct OnThisThread<T>(T);

// SAFETY: see above.
unsafe impl<T> Send for OnThisThread<T> {}

impl<T: Copy> OnThisThread<T> {
    fn get(&self) -> T {
        self.0
    }
}

/// Says which seed it was, where a run fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed: TEST_SEED={}", self.0);
        }
    }
}

/// Pairs of a malloc and a free that each thread does alone, one thread after the other: so that caches and slabs are there.
const ALONE: usize = 1000;
/// Pairs that all threads do together before anything is counted, and again while it is.
const TOGETHER: usize = 150_000;

/// What `threads` count that have been at it for a while.
fn count(work: Work, threads: usize, seed: u64) -> Counted {
    let heap = Box::new(Heap::new(FakePages::new()));
    heap.configure(&Options::new());
    let pages = core::ptr::from_ref(heap.depot().os.pages()).addr();
    let kernel = pages..pages + size_of::<FakePages>();
    let machine = Machine {
        random: Random::with_seed(!seed),
        running: 0,
        lines: HashMap::default(),
        kernel,
        counts: HashMap::new(),
    };
    MACHINE.set(Some(machine));
    let run = Run {
        heap: &heap,
        work,
        inboxes: (0..threads).map(|_| RefCell::default()).collect(),
        pairs: Cell::new(0),
        is_counting: Cell::new(false),
        is_over: Cell::new(false),
    };
    let run_now = &run;
    let mut coroutines: Vec<_> = (0..threads)
        .map(|me| {
            let run = OnThisThread(run_now);
            generator::Gn::<()>::new_opt(STACK_WORDS, move || run.get().live(me, seed))
        })
        .collect();
    let told = Told(seed);
    for coroutine in &mut coroutines {
        let _ = coroutine.resume();
    }
    run.pairs.set(0);
    let mut counted = None;
    let (mut random, mut alive) = (Random::with_seed(seed), (0..threads).collect::<Vec<_>>());
    set_hooks(Some(Hooks { before, after, thread: || with_machine(|machine| machine.running) }));
    while !alive.is_empty() {
        let index = random.below(alive.len());
        let running = alive[index];
        with_machine(|machine| machine.running = running);
        let _ = coroutines[running].resume();
        if coroutines[running].is_done() {
            alive.swap_remove(index);
        }
        if run.pairs.get() >= TOGETHER {
            run.pairs.set(0);
            if run.is_counting.replace(true) {
                counted = Some(with_machine(|machine| Counted(core::mem::take(&mut machine.counts))));
                run.is_over.set(true);
            }
            with_machine(|machine| machine.counts.clear());
        }
    }
    set_hooks(None);
    MACHINE.set(None);
    let blocks: Vec<Block> = run.inboxes.iter().flat_map(RefCell::take).collect();
    let local = heap.register().expect("memory");
    blocks.into_iter().for_each(|block| run.free(&local, block));
    heap.unregister(&local);
    assert_eq!(heap.stats().live, 0);
    heap.check();
    drop(told);
    // SAFETY: the heap is this test's, and its blocks are not used any more.
    let (mapped, unmapped) = unsafe { heap.release() };
    assert_eq!(mapped, unmapped);
    counted.expect("all threads have lived")
}

/// What was counted in a run, by line of code.
struct Counted(HashMap<(&'static str, u32), Counts>);

impl Counted {
    /// Operations on shared lines that write, and that read, and retries, of a malloc and a free.
    fn per_pair(&self) -> [f64; 3] {
        let mut sum = Counts::default();
        self.0.values().for_each(|&counts| sum.add(counts));
        [sum.writes, sum.reads, sum.retries].map(|count| count as f64 / TOGETHER as f64)
    }

    /// The contention count.
    fn contention(&self) -> f64 {
        let [writes, _, retries] = self.per_pair();
        writes + retries
    }

    /// Prints the lines of code that have most of it, with writes, reads and retries of 1000 pairs.
    fn print_lines(&self) {
        let mut lines: Vec<_> = self.0.iter().collect();
        lines.sort_by_key(|(place, counts)| (core::cmp::Reverse(counts.writes + counts.retries), **place));
        let per_1000 = |count| count as f64 * 1000.0 / TOGETHER as f64;
        for ((file, line), Counts { writes, reads, retries }) in lines.into_iter().take(LINES_PRINTED) {
            let [writes, reads, retries] = [*writes, *reads, *retries].map(per_1000);
            println!("    {writes:6.1} {reads:6.1} {retries:6.1}  {file}:{line}");
        }
    }
}

/// Expects that the contention count of `work` on many threads is at most `most` times that of four, in the mean of some
/// seeds. Of four threads, each finds what all of them share with another one three times of four; of many, nearly always.
#[track_caller]
fn expect_growth(work: Work, most: f64) {
    let seeds = std::env::var("TEST_SEED").map_or(vec![1, 2, 3], |seed| vec![seed.parse().expect("a number")]);
    let mean = |threads| {
        let contention = |&seed| {
            let counted = count(work, threads, seed);
            let (sum, [writes, reads, retries]) = (counted.contention(), counted.per_pair());
            println!(
                "{}, {threads} threads, TEST_SEED={seed}: {sum:.3} = writes {writes:.3} + retries {retries:.3}; reads {reads:.3}",
                work.name
            );
            if Some(&seed) == seeds.first() {
                counted.print_lines();
            }
            sum
        };
        seeds.iter().map(contention).sum::<f64>() / seeds.len() as f64
    };
    let few = mean(4);
    for threads in [64, THREADS_MAX] {
        let many = mean(threads);
        println!("{}: {many:.3} with {threads} threads, {:.2} times as much as with 4", work.name, many / few);
        assert!(many <= few * most, "{many} instead of {few}, of {threads} threads, with TEST_SEED={seeds:?}");
    }
}

const MIXED: Work = Work { name: "mixed", handed_over: 8, large: 64 };

#[test]
fn contention_of_mixed_blocks_grows_less_than_threads() {
    // Above 32 local heaps each slab goes to the depot and comes back: kept, they would hold 180 MiB more in 200 threads that
    // were busy once.
    expect_growth(MIXED, 3.0);
}

#[test]
fn contention_of_large_blocks_does_not_grow_with_threads() {
    expect_growth(Work { name: "large", handed_over: usize::MAX, large: 4 }, 1.5);
}

/// Of four threads with small blocks of their own hardly any operation is on a shared line: there is nothing to grow from.
#[test]
fn small_blocks_of_many_threads_hardly_contend() {
    for (handed_over, most) in [(usize::MAX, 0.1), (8, 0.2)] {
        let counted = count(Work { name: "small", handed_over, large: usize::MAX }, THREADS_MAX, 1);
        println!("small, one of {handed_over} handed over: {:.3}", counted.contention());
        counted.print_lines();
        assert!(counted.contention() <= most, "{}", counted.contention());
    }
}

/// Without this, a scheduler that never switches would pass.
#[test]
fn the_same_seed_counts_the_same_and_another_one_does_not() {
    let [one, again, other] = [1, 1, 2].map(|seed| count(MIXED, 16, seed).per_pair());
    assert_eq!(one, again);
    assert_ne!(one, other);
    assert!(one.iter().all(|&count| count > 0.0), "{one:?}");
}
