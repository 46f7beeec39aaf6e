//! Under a limit of its own the allocator says no, loses nothing by it, and goes on when memory is freed; above a soft
//! one it keeps nothing back.
//!
//! A scenario is a process, because resident memory is, and because the options of its first call hold. The global
//! allocator is the system's: what the test itself needs is not limited.

mod common;
mod process;
mod watched;

use common::Random;
use magalloc::{Magalloc, SoftLimit, stats};
use process::{give, layout};
use std::alloc::GlobalAlloc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use watched::{Held, mib, passes, resident, resident_since, resident_vec};

/// The limit of each kind, in bytes.
const LIMIT: usize = 64 << 20;

static HARD: Magalloc = Magalloc::new().hard_limit(LIMIT);
const SOFT_OPTIONS: Magalloc = Magalloc::new().soft_limit(SoftLimit::Bytes(LIMIT)).purge_delay_ms(u32::MAX);
static SOFT: Magalloc = SOFT_OPTIONS;
/// Threads that allocate and free must do it.
static SOFT_ALONE: Magalloc = SOFT_OPTIONS.background_thread(false);
static SOFT_SHARE: Magalloc = Magalloc::new().soft_limit(SoftLimit::CgroupPercent(50));
/// None, for the same measurements.
static NONE: Magalloc = Magalloc::new().purge_delay_ms(u32::MAX).background_thread(false);

/// Share of the limit that must be had as blocks, in percent.
const HAD_PERCENT: usize = 80;
/// What may be resident beside what is counted: some 2 % of metadata, and caches.
const BESIDE: u64 = LIMIT as u64 / 50 + (1 << 20);

/// Sizes whose blocks waste little: a small one, one that few blocks of fill a page, one of several pages, and a span.
const SIZES: [usize; 4] = [128, 1000, 10_000, 250_000];

/// Takes blocks into `held` until there are no more. Returns their bytes.
fn take_all(held: &mut Vec<Held>, size: usize) -> usize {
    let (before, room) = (held.len(), held.capacity() - held.len());
    held.extend(std::iter::from_fn(|| Held::try_new(&HARD, size)).take(room));
    let taken = held.len() - before;
    assert!(taken < room, "more than the limit\n{:?}", stats());
    taken * size
}

fn free_all(held: &mut Vec<Held>, allocator: &Magalloc) {
    held.drain(..).for_each(|block| block.free(allocator));
}

/// Room for all blocks of `size` bytes that the limit allows, resident already.
fn room(size: usize) -> Vec<Held> {
    resident_vec(LIMIT / size + 100, Held::NONE)
}

#[track_caller]
fn expect_most_was_had(bytes: usize) {
    assert!(bytes >= LIMIT / 100 * HAD_PERCENT, "{bytes} of {LIMIT} bytes\n{:?}", stats());
}

#[track_caller]
fn expect_within_limit(resident_before: u64) {
    let (stats, resident) = (stats(), resident_since(resident_before));
    assert!(stats.live + stats.cached <= LIMIT as u64, "{stats:?}");
    assert!(stats.resident <= LIMIT as u64, "{stats:?}");
    assert!(resident <= LIMIT as u64 + BESIDE, "{resident} bytes are resident\n{stats:?}");
}

/// All is free, nothing is lost.
#[track_caller]
fn expect_empty() {
    magalloc::purge_all();
    let stats = stats();
    assert_eq!((stats.live, stats.cached, stats.slabs, stats.large_blocks), (0, 0, 0, 0), "{stats:?}");
    magalloc::check();
}

fn exhaust(size: usize) {
    watched::end_on_panic();
    let mut held = room(size);
    let mut rooms = SIZES.map(room);
    let resident_before = resident();
    let bytes = take_all(&mut held, size);
    println!("{size} bytes: had {:.1} of {:.1} MiB", mib(bytes as u64), mib(LIMIT as u64));
    expect_most_was_had(bytes);
    expect_within_limit(resident_before);
    assert!(Held::try_new(&HARD, 2 * LIMIT).is_none());
    for _ in 0..3 {
        // Each second one is freed, and can be had again.
        let mut number = 0;
        let free_each_second = |block: &Held| {
            number += 1;
            number % 2 == 0 || {
                block.free(&HARD);
                false
            }
        };
        let before = held.len();
        held.retain(free_each_second);
        let freed = before - held.len();
        let again = take_all(&mut held, size) / size;
        assert!(again >= freed / 100 * 99, "{freed} were freed, {again} had again\n{:?}", stats());
        expect_within_limit(resident_before);
    }
    free_all(&mut held, &HARD);
    // The same memory serves every size.
    for (held, size) in rooms.iter_mut().zip(SIZES) {
        expect_most_was_had(take_all(held, size));
        expect_within_limit(resident_before);
        free_all(held, &HARD);
    }
    expect_empty();
}

/// A block that cannot grow stays what it is.
fn grow() {
    watched::end_on_panic();
    let mut size = LIMIT / 4;
    let block = Held::try_new(&HARD, size).expect("a quarter of the limit");
    let mut start = block.start();
    for (wanted, is_had) in [(LIMIT / 2, true), (LIMIT * 2, false), (LIMIT / 8 * 7, true), (LIMIT + 1, false)] {
        // SAFETY: a live block of that layout; the new size is not 0.
        let grown = unsafe { HARD.realloc(start, layout(size), wanted) };
        assert_eq!(!grown.is_null(), is_had, "{wanted} bytes\n{:?}", stats());
        if is_had {
            (start, size) = (grown, wanted);
        }
        // SAFETY: the block has more bytes than it had at first, which were written.
        let bytes = unsafe { std::slice::from_raw_parts(start, LIMIT / 4) };
        assert!(bytes.iter().all(|byte| *byte == block.value()));
    }
    // SAFETY: the size is not 0.
    assert!(unsafe { HARD.alloc_zeroed(layout(LIMIT / 4)) }.is_null());
    give(&HARD, start, size);
    // SAFETY: the size is not 0.
    let zeroed = unsafe { HARD.alloc_zeroed(layout(LIMIT / 8 * 7)) };
    assert!(!zeroed.is_null(), "{:?}", stats());
    // SAFETY: the block has that many bytes, which the allocator has zeroed.
    let bytes = unsafe { std::slice::from_raw_parts(zeroed, LIMIT / 8 * 7) };
    assert!(bytes[0] == 0 && bytes[1..] == bytes[..bytes.len() - 1]);
    give(&HARD, zeroed, LIMIT / 8 * 7);
    expect_empty();
}

/// What a thread at the limit was given.
#[derive(Debug, Default)]
struct Given {
    bytes: usize,
    refusals: usize,
}

/// Takes blocks of all kinds until there are no more, frees half of them, at random, and so on.
fn live_at_limit(mut random: Random, mut held: Vec<Held>, enough: impl Fn(&Given) -> bool) -> Given {
    let capacity = held.capacity();
    let mut given = Given::default();
    while !enough(&given) {
        let end = if random.below(50) == 0 { 500_000 } else { 4_000 };
        match Held::try_new(&HARD, 1 + random.size_below(end)) {
            Some(block) => {
                given.bytes += block.size();
                held.push(block);
            }
            None => {
                given.refusals += 1;
                for _ in 0..held.len() / 2 {
                    held.swap_remove(random.below(held.len())).free(&HARD);
                }
            }
        }
    }
    free_all(&mut held, &HARD);
    assert_eq!(held.capacity(), capacity, "room was made before");
    given
}

fn threads_at_limit() {
    const THREADS: usize = 4;
    /// Each thread goes on until it had that many bytes, and was refused that often.
    const BYTES: usize = 4 * LIMIT;
    const REFUSALS: usize = 10;
    watched::end_on_panic();
    let random = Random::new();
    // More than there can be of blocks of the average size.
    let mut rooms: Vec<_> = (0..THREADS).map(|_| room(200)).collect();
    let resident_before = resident();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (random, room) = (random.fork(thread as u64), rooms.pop().expect("one for each"));
                // Without progress this is a hang, which the kernel ends.
                let is_done = |given: &Given| given.bytes >= BYTES && given.refusals >= REFUSALS;
                scope.spawn(move || live_at_limit(random, room, is_done))
            })
            .collect();
        let watch = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let resident = resident_since(resident_before);
                assert!(
                    resident <= LIMIT as u64 + THREADS as u64 * BESIDE,
                    "{resident} bytes are resident\n{:?}",
                    stats()
                );
                thread::sleep(Duration::from_millis(20));
            }
        });
        for thread in threads {
            let given = thread.join().expect("the thread ends well");
            println!("given {:.1} MiB, refused {} times", mib(given.bytes as u64), given.refusals);
        }
        is_over.store(true, Ordering::Relaxed);
        watch.join().expect("within the limit");
    });
    expect_empty();
    for size in SIZES {
        let mut held = room(size);
        expect_most_was_had(take_all(&mut held, size));
        free_all(&mut held, &HARD);
    }
    expect_empty();
}

/// A burst of four times the limit, all freed; then a little more is allocated. Returns what is resident at the peak,
/// and then.
fn resident_after_burst(allocator: &Magalloc, size: usize) -> (u64, u64) {
    watched::end_on_panic();
    let mut held = resident_vec(4 * LIMIT / size, Held::NONE);
    let mut more = Vec::with_capacity(100);
    let resident_before = resident();
    held.extend((0..4 * LIMIT / size).map(|_| Held::try_new(allocator, size).expect("no hard limit")));
    let peak = resident_since(resident_before);
    free_all(&mut held, allocator);
    let freed = resident_since(resident_before);
    more.extend((0..100).map(|index| Held::try_new(allocator, 100 + index * 100).expect("no hard limit")));
    let end = resident_since(resident_before);
    println!("{size} bytes: resident {:.1} MiB, {:.1} when freed, at the end {:.1}", mib(peak), mib(freed), mib(end));
    free_all(&mut more, allocator);
    (peak, end)
}

fn soft(allocator: &Magalloc, size: usize) {
    let (peak, resident) = resident_after_burst(allocator, size);
    assert!(peak >= 4 * LIMIT as u64 / 100 * 95, "{peak} bytes at the peak");
    assert!(resident <= LIMIT as u64 + BESIDE, "{resident} bytes are resident\n{:?}", stats());
}

/// What the scenarios with a limit find small is not small without one.
fn not_limited(size: usize) {
    let (_, resident) = resident_after_burst(&NONE, size);
    assert!(resident >= 2 * LIMIT as u64, "{resident} bytes are resident\n{:?}", stats());
}

/// The limit of this process's control group, if it has one, is far above.
fn share() {
    for size in SIZES {
        resident_after_burst(&SOFT_SHARE, size);
    }
    magalloc::flush_thread();
    assert_eq!((stats().live, stats().cached), (0, 0), "{:?}", stats());
}

/// One thread uses and frees a MiB of each size: its cache and its slabs are all that is left of it, and they are in
/// nobody's way.
fn own_leftovers() {
    let mut held = room(SIZES[0]);
    for size in common::class_sizes() {
        held.extend((0..(1 << 20) / size).map(|_| Held::new(&HARD, size)));
        free_all(&mut held, &HARD);
    }
    assert!(stats().slabs > 100, "{:?}", stats());
    let most = Held::try_new(&HARD, LIMIT / 100 * 95);
    assert!(most.is_some(), "{:?}", stats());
    most.into_iter().for_each(|block| block.free(&HARD));
    held.extend((0..LIMIT / 100 * 90 / SIZES[1]).map(|_| Held::new(&HARD, SIZES[1])));
    free_all(&mut held, &HARD);
}

fn main() {
    process::main(
        &[
            ("exhaust_small", || exhaust(SIZES[0])),
            ("exhaust_medium", || exhaust(SIZES[1])),
            ("exhaust_pages", || exhaust(SIZES[2])),
            ("exhaust_large", || exhaust(SIZES[3])),
            ("grow", grow),
            ("threads_at_limit", threads_at_limit),
            ("own_leftovers", own_leftovers),
            ("soft_small", || soft(&SOFT, SIZES[1])),
            ("soft_large", || soft(&SOFT, SIZES[3])),
            ("soft_alone_small", || soft(&SOFT_ALONE, SIZES[1])),
            ("soft_alone_large", || soft(&SOFT_ALONE, SIZES[3])),
            ("not_limited_small", || not_limited(SIZES[1])),
            ("not_limited_large", || not_limited(SIZES[3])),
            ("share", share),
        ],
        &[
            ("small_blocks_come_back_at_the_hard_limit", || passes("exhaust_small")),
            ("medium_blocks_come_back_at_the_hard_limit", || passes("exhaust_medium")),
            ("blocks_of_pages_come_back_at_the_hard_limit", || passes("exhaust_pages")),
            ("large_blocks_come_back_at_the_hard_limit", || passes("exhaust_large")),
            ("block_that_cannot_grow_stays_what_it_is", || passes("grow")),
            ("threads_at_the_hard_limit_make_progress", || passes("threads_at_limit")),
            ("what_the_same_thread_freed_can_be_had_in_any_size", || passes("own_leftovers")),
            ("small_blocks_beyond_the_soft_limit_are_given_back", || passes("soft_small")),
            ("large_blocks_beyond_the_soft_limit_are_given_back", || passes("soft_large")),
            ("small_blocks_beyond_the_soft_limit_are_given_back_on_the_way", || passes("soft_alone_small")),
            ("large_blocks_beyond_the_soft_limit_are_given_back_on_the_way", || passes("soft_alone_large")),
            ("nothing_is_given_back_without_a_limit", || {
                passes("not_limited_small");
                passes("not_limited_large");
            }),
            ("share_of_a_control_group_without_limit_is_none", || passes("share")),
        ],
    );
}
