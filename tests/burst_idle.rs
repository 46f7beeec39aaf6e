//! A burst, most of it freed, and then silence: what remains resident is what lives, and the pages that it shares.
//!
//! Resident memory is a process's, so each scenario is one. The global allocator is the system's: what the test itself
//! needs lies elsewhere, and is resident before the burst begins.

mod common;
mod process;
mod watched;

use common::Random;
use magalloc::Magalloc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use watched::{
    Held, holds_within, mib, page_bytes, passes, resident, resident_since, resident_vec, wait_until, work_until,
};

/// By default a thread of the allocator's own gives memory back.
static DEFAULT: Magalloc = Magalloc::new();
/// Threads that allocate and free give memory back on the way.
static ON_THE_WAY: Magalloc = Magalloc::new().background_thread(false);
/// Nobody gives memory back unasked.
static NEVER: Magalloc = Magalloc::new().purge_delay_ms(u32::MAX).background_thread(false);
/// The same, with a thread that has nothing to do.
static NOT_YET: Magalloc = Magalloc::new().purge_delay_ms(u32::MAX);

/// Twice the default purge delay: by then an idle machine has given everything back.
const TWO_DELAYS: Duration = Duration::from_millis(2 * 1000);

/// Threads that share the burst.
const THREADS: usize = 4;
/// Bytes of the burst of each.
const BURST_BYTES: usize = (1 << 30) / THREADS;
/// Sizes of the mixed burst, in bytes.
const SIZE_MIN: usize = 16;
const SIZE_MAX: usize = 1024;
/// One in so many blocks or runs survives.
const SURVIVES_ONE_IN: usize = 100;
/// Neighbours of a run.
const RUN_BLOCKS: usize = 1000;
/// Sizes of neighbours, in turn: each is all of its class.
const RUN_SIZES: [usize; 4] = [64, 256, 512, 1024];
/// Blocks of a burst of either kind at most.
const BLOCKS_MAX: usize = BURST_BYTES / 400;

/// What may remain beside a share of what lives: caches, metadata.
const SLACK: u64 = 2 << 20;

/// What a thread has.
struct Blocks {
    held: Vec<Held>,
    random: Random,
}

/// Something for each thread to do with its blocks.
type Order = fn(&Magalloc, &mut Blocks);

fn allocate_mixed(allocator: &Magalloc, blocks: &mut Blocks) {
    let mut bytes: usize = blocks.held.iter().map(|held| held.size()).sum();
    while bytes < BURST_BYTES {
        let size = SIZE_MIN + blocks.random.below(SIZE_MAX - SIZE_MIN + 1);
        blocks.held.push(Held::new(allocator, size));
        bytes += size;
    }
}

fn allocate_runs(allocator: &Magalloc, blocks: &mut Blocks) {
    let mut bytes = 0;
    while bytes < BURST_BYTES {
        for index in 0..RUN_BLOCKS {
            let size = RUN_SIZES[index % RUN_SIZES.len()];
            blocks.held.push(Held::new(allocator, size));
            bytes += size;
        }
    }
}

fn free_at_random(allocator: &Magalloc, blocks: &mut Blocks) {
    shuffle(&mut blocks.held, &mut blocks.random);
    let survivors = blocks.held.len() / SURVIVES_ONE_IN;
    blocks.held.drain(survivors..).for_each(|held| held.free(allocator));
}

/// Run by run: what stays in a thread's cache is of few of them.
fn free_runs(allocator: &Magalloc, blocks: &mut Blocks) {
    let survives = |run: usize| run.is_multiple_of(SURVIVES_ONE_IN);
    let mut runs: Vec<usize> = (0..blocks.held.len() / RUN_BLOCKS).filter(|run| !survives(*run)).collect();
    shuffle(&mut runs, &mut blocks.random);
    for run in runs {
        blocks.held[run * RUN_BLOCKS..][..RUN_BLOCKS].iter().for_each(|held| held.free(allocator));
    }
    let mut index = 0;
    blocks.held.retain(|_| {
        index += 1;
        survives((index - 1) / RUN_BLOCKS)
    });
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for index in (1..items.len()).rev() {
        items.swap(index, random.below(index + 1));
    }
}

fn free_all(allocator: &Magalloc, blocks: &mut Blocks) {
    blocks.held.drain(..).for_each(|held| held.free(allocator));
}

fn verify(_: &Magalloc, blocks: &mut Blocks) {
    blocks.held.iter().for_each(|held| held.verify());
}

fn flush(_: &Magalloc, _: &mut Blocks) {
    magalloc::flush_thread();
}

/// Threads that sleep, unless they have an order.
struct Crew {
    allocator: &'static Magalloc,
    order: Mutex<Option<Order>>,
    begin: Barrier,
    end: Barrier,
    blocks: [Mutex<Blocks>; THREADS],
}

impl Crew {
    /// Runs `main` beside the threads. All memory that the test itself needs is resident then.
    fn run(allocator: &'static Magalloc, main: impl FnOnce(&Self)) {
        watched::end_on_panic();
        let random = Random::new();
        let blocks = |thread| {
            Mutex::new(Blocks { held: resident_vec(BLOCKS_MAX, Held::NONE), random: random.fork(thread as u64) })
        };
        let crew = Self {
            allocator,
            order: Mutex::new(None),
            begin: Barrier::new(THREADS + 1),
            end: Barrier::new(THREADS + 1),
            blocks: std::array::from_fn(blocks),
        };
        thread::scope(|scope| {
            for blocks in &crew.blocks {
                scope.spawn(|| crew.obey(blocks));
            }
            main(&crew);
            *crew.order.lock().unwrap() = None;
            crew.begin.wait();
        });
    }

    fn obey(&self, blocks: &Mutex<Blocks>) {
        loop {
            self.begin.wait();
            let order = *self.order.lock().unwrap();
            let Some(order) = order else { return };
            order(self.allocator, &mut blocks.lock().unwrap());
            self.end.wait();
        }
    }

    /// Has every thread carry out `order`; afterwards all sleep.
    fn all(&self, order: Order) {
        *self.order.lock().unwrap() = Some(order);
        self.begin.wait();
        self.end.wait();
    }

    /// What lives; `pages` is where to collect them.
    fn living(&self, mut pages: Vec<usize>) -> Living {
        let (capacity, page_bytes) = (pages.capacity(), page_bytes());
        let mut bytes = 0;
        for blocks in &self.blocks {
            for held in &blocks.lock().unwrap().held {
                bytes += held.size() as u64;
                pages.extend(held.pages(page_bytes));
            }
        }
        assert_eq!(pages.capacity(), capacity, "the pages were resident before");
        pages.sort_unstable();
        pages.dedup();
        Living { bytes, page_bytes: (pages.len() * page_bytes) as u64 }
    }
}

/// What survived the burst.
struct Living {
    bytes: u64,
    /// Bytes of the pages in which a byte of it lies.
    page_bytes: u64,
}

/// A kind of burst.
struct Burst {
    allocate: Order,
    free: Order,
    /// Resident bytes that may remain.
    allowed: fn(&Living) -> u64,
}

/// Survivors lie anywhere.
const RANDOM: Burst =
    Burst { allocate: allocate_mixed, free: free_at_random, allowed: |living| living.page_bytes * 115 / 100 + SLACK };
/// Survivors lie together.
const CLUSTERED: Burst =
    Burst { allocate: allocate_runs, free: free_runs, allowed: |living| living.bytes * 110 / 100 + SLACK };

/// A burst that is over.
struct Silence<'c> {
    crew: &'c Crew,
    living: Living,
    resident_before: u64,
    begin: Instant,
    allowed: u64,
}

impl Silence<'_> {
    fn resident(&self) -> u64 {
        resident_since(self.resident_before)
    }

    fn is_small(&self) -> bool {
        self.resident() <= self.allowed
    }

    /// The survivors are whole, and little else remains.
    #[track_caller]
    fn expect_small(&self, is_small: bool) {
        println!("{self}");
        self.crew.all(verify);
        assert!(is_small, "{self}\n{:?}", magalloc::stats());
    }
}

impl std::fmt::Display for Silence<'_> {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [resident, allowed, live, pages] =
            [self.resident(), self.allowed, self.living.bytes, self.living.page_bytes].map(mib);
        write!(to, "after {} ms {resident:.1} MiB are resident, ", self.begin.elapsed().as_millis())?;
        write!(to, "{allowed:.1} allowed: {live:.1} live, in pages of {pages:.1}")
    }
}

/// Runs a burst, and `then` when it is over.
fn after(allocator: &'static Magalloc, burst: &Burst, then: impl FnOnce(&Silence)) {
    Crew::run(allocator, |crew| {
        let pages = resident_vec(THREADS * 2 * (BLOCKS_MAX / SURVIVES_ONE_IN + RUN_BLOCKS), usize::MAX);
        let resident_before = resident();
        crew.all(burst.allocate);
        let peak = resident_since(resident_before);
        crew.all(burst.free);
        let living = crew.living(pages);
        let silence =
            Silence { crew, resident_before, begin: Instant::now(), allowed: (burst.allowed)(&living), living };
        assert!(peak > (THREADS * BURST_BYTES) as u64, "{} MiB at the peak", mib(peak));
        then(&silence);
    });
}

/// The same burst again finds its place in the memory that was given back.
fn burst_again(silence: &Silence, burst: &Burst) {
    let before = magalloc::stats().committed;
    silence.crew.all(burst.allocate);
    silence.crew.all(verify);
    let after = magalloc::stats().committed;
    assert!(after <= before + before / 20, "{before} bytes committed, then {after}");
    silence.crew.all(free_all);
}

/// The program sleeps; a thread of the allocator's own does not.
fn asleep(burst: &Burst) {
    after(&DEFAULT, burst, |silence| {
        silence.expect_small(wait_until(|| silence.is_small()));
    });
}

fn asleep_then_again() {
    after(&DEFAULT, &RANDOM, |silence| {
        silence.expect_small(wait_until(|| silence.is_small()));
        burst_again(silence, &RANDOM);
        // And once more, now that nothing lives.
        assert!(wait_until(|| silence.is_small()), "{silence}");
    });
}

/// One thread goes on with a little work.
fn at_work(burst: &Burst) {
    after(&ON_THE_WAY, burst, |silence| {
        let work = || {
            // More than a cache holds of that size.
            let mut blocks = [Held::NONE; 1000];
            blocks.iter_mut().for_each(|block| *block = Held::new(&ON_THE_WAY, 200));
            blocks.into_iter().for_each(|block| block.free(&ON_THE_WAY));
        };
        silence.expect_small(work_until(|| silence.is_small(), work));
        magalloc::flush_thread();
        magalloc::check();
    });
}

/// On demand, from a thread that had no part in it.
fn on_demand(burst: &Burst) {
    after(&NEVER, burst, |silence| {
        // What is in other threads' caches stays.
        silence.crew.all(flush);
        assert!(!silence.is_small(), "{silence}");
        magalloc::purge_all();
        silence.expect_small(silence.is_small());
        burst_again(silence, burst);
        silence.crew.all(flush);
        magalloc::purge_all();
        magalloc::check();
        assert_eq!((magalloc::stats().live, magalloc::stats().slabs), (0, 0), "{:?}", magalloc::stats());
        assert!(silence.is_small(), "{silence}");
    });
}

/// A burst that fits into few pages: all of them are free afterwards, and soon in use again.
fn small_burst(random: &mut Random) {
    let size = SIZE_MIN + random.below(SIZE_MAX - SIZE_MIN + 1);
    let mut blocks = [Held::NONE; 100];
    blocks.iter_mut().for_each(|block| *block = Held::new(&NEVER, size));
    // Also verifies.
    blocks.into_iter().for_each(|block| block.free(&NEVER));
    // Else the next one would find them in the cache.
    magalloc::flush_thread();
}

/// Purges find pages that are free and a moment later are not.
fn purged_at_work() {
    const THREADS: u64 = 2;
    /// Calls of the kernel that gave pages back, while the threads work.
    const PURGES: u64 = 300;
    watched::end_on_panic();
    let (random, is_over) = (Random::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (mut random, is_over) = (random.fork(thread), &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    small_burst(&mut random);
                }
            });
        }
        while magalloc::stats().purges < PURGES {
            magalloc::purge_all();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    magalloc::check();
}

/// The threads of a burst have ended, and the one that is left never had a cache.
fn threads_ended() {
    watched::end_on_panic();
    let resident_before = resident();
    let burst = || {
        let mut blocks: Vec<Held> = (0..BURST_BYTES / SIZE_MAX / 4).map(|_| Held::new(&DEFAULT, SIZE_MAX)).collect();
        blocks.drain(..).for_each(|held| held.free(&DEFAULT));
    };
    thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(burst))));
    let is_small = || resident_since(resident_before) <= 2 * SLACK;
    assert!(wait_until(is_small), "{} MiB are resident", mib(resident_since(resident_before)));
    assert_eq!(magalloc::stats().threads, 0);
}

/// A delay that never ends: what the other scenarios find small is not.
fn too_early() {
    after(&NOT_YET, &RANDOM, |silence| {
        assert!(!holds_within(TWO_DELAYS, || silence.is_small()), "{silence}");
        silence.crew.all(verify);
        assert_eq!(magalloc::stats().purges, 0);
    });
}

fn main() {
    process::main(
        &[
            ("random", asleep_then_again),
            ("clustered", || asleep(&CLUSTERED)),
            ("random_at_work", || at_work(&RANDOM)),
            ("clustered_at_work", || at_work(&CLUSTERED)),
            ("random_on_demand", || on_demand(&RANDOM)),
            ("clustered_on_demand", || on_demand(&CLUSTERED)),
            ("purged_at_work", purged_at_work),
            ("too_early", too_early),
            ("threads_ended", threads_ended),
        ],
        &[
            ("idle_program_keeps_pages_of_scattered_survivors_only", || passes("random")),
            ("idle_program_keeps_clustered_survivors_only", || passes("clustered")),
            ("working_program_gives_back_beside_scattered_survivors", || passes("random_at_work")),
            ("working_program_gives_back_beside_clustered_survivors", || passes("clustered_at_work")),
            ("purge_all_gives_back_beside_scattered_survivors", || passes("random_on_demand")),
            ("purge_all_gives_back_beside_clustered_survivors", || passes("clustered_on_demand")),
            ("blocks_in_use_are_whole_while_others_purge", || passes("purged_at_work")),
            ("nothing_is_given_back_before_the_delay", || passes("too_early")),
            ("memory_of_ended_threads_is_given_back", || passes("threads_ended")),
        ],
    );
}
