//! A program that breaks the rules of memory ends: by SIGABRT, with one line on standard error that names the
//! address. Each child says the address that it misuses on standard output, before it does.

use magalloc::Magalloc;
use process::{child, command, give, on_raw_thread, say, take, writes_to_stderr};
use std::sync::atomic::{AtomicUsize, Ordering};

mod process;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new().report_exit(true);

/// Bytes of a granule: 16 KiB on x86, else 64 KiB.
const GRANULE: usize = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) { 16 << 10 } else { 64 << 10 };

/// Sizes of a small and of a large block.
const SMALL: usize = 64;
const LARGE: usize = 200_000;
/// And of one that is a kernel mapping of its own.
const MAPPED: usize = 1100 << 20;

fn main() {
    process::main(
        &[
            ("twice_in_cache", || twice_then(magalloc::flush_thread)),
            ("twice_then_others", twice_then_others),
            ("twice_around_flush", twice_around_flush),
            ("twice_at_thread_end", || on_raw_thread(|| twice_then(|| ()))),
            ("twice_across_threads", twice_across_threads),
            ("twice_far_apart", twice_far_apart),
            ("inside_small", || free_small(said(take(&GLOBAL, SMALL).wrapping_add(8)), SMALL)),
            ("inside_small_odd", || free_small(said(take(&GLOBAL, SMALL).wrapping_add(1)), SMALL)),
            ("behind_last", behind_last),
            ("stack", || free_small(said((&raw const *std::hint::black_box(&[0_u8; SMALL])).cast_mut().cast()), SMALL)),
            ("foreign", || free_small(said(foreign()), SMALL)),
            ("no_address", || free_small(said(std::ptr::without_provenance_mut(16)), SMALL)),
            ("other_class", || free_small(said(take(&GLOBAL, SMALL)), 3 * SMALL)),
            ("large_as_small", || free_small(said(take(&GLOBAL, LARGE)), SMALL)),
            ("freed_memory", || {
                let block = said(take(&GLOBAL, LARGE));
                give(&GLOBAL, block, LARGE);
                free_small(block, SMALL);
            }),
            ("large_twice", large_twice),
            ("mapped_twice", mapped_twice),
            ("large_at_once", || at_once(LARGE)),
            ("mapped_at_once", || at_once(MAPPED)),
            ("inside_mapped", || give(&GLOBAL, said(take(&GLOBAL, MAPPED).wrapping_add(64 << 10)), MAPPED)),
            ("mapped_as_small", || free_small(said(take(&GLOBAL, MAPPED)), SMALL)),
            ("inside_large", || give(&GLOBAL, said(take(&GLOBAL, LARGE).wrapping_add(64 << 10)), LARGE)),
            ("inside_large_near", || give(&GLOBAL, said(take(&GLOBAL, LARGE).wrapping_add(16)), LARGE)),
            ("small_as_large", || give(&GLOBAL, said(take(&GLOBAL, SMALL)), LARGE)),
            ("checked_twice", || checked(|| [one_of_many(); 2].map(|block| give(&GLOBAL, block, SMALL)))),
            ("checked_twice_around_others", checked_twice_around_others),
            ("checked_twice_across_threads", || {
                checked(|| {
                    let block = one_of_many().expose_provenance();
                    let free = move || give(&GLOBAL, std::ptr::with_exposed_provenance_mut(block), SMALL);
                    [(), ()].map(|()| std::thread::spawn(free).join().expect("the thread ends well"))
                });
            }),
            ("checked_inside", || checked(|| give(&GLOBAL, said(take(&GLOBAL, SMALL).wrapping_add(16)), SMALL))),
            ("checked_other_class", || checked(|| give(&GLOBAL, one_of_many(), 3 * SMALL))),
            ("checked_freed_before", checked_freed_before),
            ("checked_and_right", checked_and_right),
            ("foreign_as_large", || give(&GLOBAL, said(foreign()), LARGE)),
        ],
        &[
            ("double_free_in_cache_is_noticed_by_flush", || expect_double_free("twice_in_cache")),
            ("double_free_in_cache_is_noticed_by_further_frees", || expect_double_free("twice_then_others")),
            ("double_free_of_flushed_block_is_noticed", || expect_double_free("twice_around_flush")),
            ("double_free_is_noticed_at_thread_end", || expect_double_free("twice_at_thread_end")),
            ("double_free_across_threads_is_noticed", || expect_double_free("twice_across_threads")),
            ("double_free_among_other_blocks_is_noticed", || expect_double_free("twice_far_apart")),
            ("free_inside_block_is_noticed", || expect_no_block("inside_small", 64, "no block begins there")),
            ("free_of_odd_address_is_noticed", || expect_no_block("inside_small_odd", 64, "no block begins there")),
            ("free_behind_last_block_of_slab_is_noticed", || {
                expect_no_block("behind_last", 48, "no block begins there");
            }),
            ("free_of_stack_is_noticed", || expect_no_block("stack", 64, "that is no memory of this allocator")),
            ("free_of_foreign_block_is_noticed", || {
                expect_no_block("foreign", 64, "that is no memory of this allocator");
            }),
            ("free_of_no_address_is_noticed", || {
                expect_no_block("no_address", 64, "that is no memory of this allocator");
            }),
            ("free_with_layout_of_other_class_is_noticed", || {
                expect_no_block("other_class", 192, "there are blocks of 64");
            }),
            ("free_of_large_block_as_small_is_noticed", || {
                expect_no_block("large_as_small", 64, "a large block is there");
            }),
            ("free_of_freed_memory_is_noticed", || expect_no_block("freed_memory", 64, "no block is there")),
            ("double_free_of_large_block_is_noticed", || expect_no_large("large_twice")),
            ("double_free_of_mapped_block_is_noticed", || expect_no_large("mapped_twice")),
            ("free_of_large_block_by_two_threads_at_once_is_noticed", || expect_no_large("large_at_once")),
            ("free_of_mapped_block_by_two_threads_at_once_is_noticed", || expect_no_large("mapped_at_once")),
            ("free_inside_mapped_block_is_noticed", || expect_no_large("inside_mapped")),
            ("free_of_mapped_block_as_small_is_noticed", || {
                expect_no_block("mapped_as_small", 64, "a large block is there");
            }),
            ("free_inside_large_block_is_noticed", || expect_no_large("inside_large")),
            ("free_near_large_blocks_start_is_noticed", || expect_no_large("inside_large_near")),
            ("free_of_small_block_as_large_is_noticed", || {
                expect_no_large_but("small_as_large", "there are blocks of 64");
            }),
            ("free_of_foreign_block_as_large_is_noticed", || expect_no_large("foreign_as_large")),
            ("checked_frees_notice_at_once", checked_frees_notice_at_once),
            ("checked_frees_that_are_right_are_silent", || {
                let outcome = child("checked_and_right");
                assert!(outcome.code == Some(0) && !outcome.stderr.contains("double"), "{outcome:?}");
            }),
            ("report_is_one_write", report_is_one_write),
        ],
    );
}

#[track_caller]
fn expect_abort(name: &str, line: impl Fn(&str) -> String) {
    let outcome = child(name);
    assert_eq!(outcome.signal, Some(libc::SIGABRT), "{outcome:?}");
    assert!(outcome.stdout.starts_with("0x"), "{outcome:?}");
    assert_eq!(outcome.stderr, line(&outcome.stdout));
}

#[track_caller]
fn expect_double_free(name: &str) {
    expect_abort(name, |address| format!("magalloc: double free of block {address}\n"));
}

#[track_caller]
fn expect_no_block(name: &str, told: usize, found: &str) {
    expect_abort(name, |address| {
        format!("magalloc: free of {address}, which is not a block of that size (of the class of {told}): {found}\n")
    });
}

#[track_caller]
fn expect_no_large(name: &str) {
    expect_no_large_but(name, "freed twice, or never allocated");
}

#[track_caller]
fn expect_no_large_but(name: &str, found: &str) {
    expect_abort(name, |address| format!("magalloc: free of {address}, which is not a live large block: {found}\n"));
}

fn report_is_one_write() {
    for name in ["twice_in_cache", "large_twice", "inside_small"] {
        let writes = writes_to_stderr(&mut command(name));
        assert!(writes.len() == 1 && writes[0].ends_with('\n'), "{writes:?}");
    }
}

/// Says the address. What it needs for that is in use no more when it returns.
fn said(block: *mut u8) -> *mut u8 {
    say(&format!("{:#x}", block.addr()));
    block
}

fn checked_frees_notice_at_once() {
    for name in ["twice", "twice_around_others", "twice_across_threads", "freed_before"] {
        expect_double_free(&format!("checked_{name}"));
    }
    expect_no_block("checked_inside", 64, "no block begins there");
    expect_no_block("checked_other_class", 192, "there are blocks of 64");
}

/// Breaks a rule while frees are checked. Nothing flushes a cache afterwards, and the process would end well.
fn checked<R>(misuse: fn() -> R) {
    // What the cache holds from before must not hide anything.
    let before: Vec<*mut u8> = (0..100).map(|_| take(&GLOBAL, SMALL)).collect();
    before.into_iter().for_each(|block| give(&GLOBAL, block, SMALL));
    assert!(magalloc::set_checking(true));
    misuse();
    // SAFETY: ends the process without a flush.
    unsafe { libc::_exit(0) }
}

fn checked_twice_around_others() {
    checked(|| {
        let block = one_of_many();
        let others: [*mut u8; 100] = std::array::from_fn(|_| take(&GLOBAL, SMALL));
        give(&GLOBAL, block, SMALL);
        others.into_iter().for_each(|other| give(&GLOBAL, other, SMALL));
        give(&GLOBAL, block, SMALL);
    });
}

/// The first free was not checked: the block waits in the cache.
fn checked_freed_before() {
    let block = one_of_many();
    give(&GLOBAL, block, SMALL);
    assert!(magalloc::set_checking(true));
    give(&GLOBAL, block, SMALL);
    // SAFETY: ends the process without a flush.
    unsafe { libc::_exit(0) }
}

/// Blocks of all kinds that come and go as they should, before, during and after the checking.
fn checked_and_right() {
    for round in 0..40 {
        assert!(round % 2 == 0 || magalloc::set_checking(true));
        let kept: Vec<Vec<u8>> = (0..500).map(|number| vec![1; number * 97]).collect();
        std::thread::spawn(move || drop(kept)).join().expect("the thread ends well");
        drop((0..2_000).map(|number| number.to_string()).collect::<Vec<_>>());
        assert!(round % 2 == 0 || magalloc::set_checking(false));
    }
    magalloc::check();
}

/// A block in the midst of others that stay live, so that its slab does.
fn one_of_many() -> *mut u8 {
    let blocks: [*mut u8; 100] = std::array::from_fn(|_| take(&GLOBAL, SMALL));
    said(blocks[50])
}

fn twice_then(noticed_by: fn()) {
    let block = one_of_many();
    give(&GLOBAL, block, SMALL);
    give(&GLOBAL, block, SMALL);
    noticed_by();
}

/// More than a cache holds. The blocks are made before: after the double free, it would be one of them, twice.
fn twice_then_others() {
    let others: Vec<*mut u8> = (0..50_000).map(|_| take(&GLOBAL, SMALL)).collect();
    let block = one_of_many();
    give(&GLOBAL, block, SMALL);
    give(&GLOBAL, block, SMALL);
    others.into_iter().for_each(|other| give(&GLOBAL, other, SMALL));
}

fn twice_around_flush() {
    let block = one_of_many();
    give(&GLOBAL, block, SMALL);
    magalloc::flush_thread();
    give(&GLOBAL, block, SMALL);
    magalloc::flush_thread();
}

fn twice_across_threads() {
    let block = one_of_many().expose_provenance();
    let free = move || give(&GLOBAL, std::ptr::with_exposed_provenance_mut(block), SMALL);
    std::thread::spawn(free).join().unwrap();
    std::thread::spawn(free).join().unwrap();
}

/// The two frees with frees of other blocks of the same word, and of other slabs, between.
fn twice_far_apart() {
    let blocks: [*mut u8; 4_000] = std::array::from_fn(|_| take(&GLOBAL, SMALL));
    let block = said(blocks[1_000]);
    for free in [block, blocks[1_002], blocks[3_000], blocks[1_004], block, blocks[2_000]] {
        give(&GLOBAL, free, SMALL);
    }
    magalloc::flush_thread();
}

fn free_small(block: *mut u8, size: usize) {
    give(&GLOBAL, block, size);
    magalloc::flush_thread();
}

/// A slab of such short blocks is one granule, whose bytes are no multiple of 48: behind the last block, some are left.
fn behind_last() {
    const BYTES: usize = 48;
    let block = take(&GLOBAL, BYTES);
    let slab = block.map_addr(|address| address & !(GRANULE - 1));
    free_small(said(slab.wrapping_add(GRANULE / BYTES * BYTES)), BYTES);
}

/// A block of the C library's allocator.
fn foreign() -> *mut u8 {
    // SAFETY: malloc has no conditions.
    unsafe { libc::malloc(LARGE) }.cast()
}

fn large_twice() {
    let block = said(take(&GLOBAL, LARGE));
    give(&GLOBAL, block, LARGE);
    give(&GLOBAL, block, LARGE);
}

fn mapped_twice() {
    let block = said(take(&GLOBAL, MAPPED));
    give(&GLOBAL, block, MAPPED);
    give(&GLOBAL, block, MAPPED);
}

/// Two threads that free the same block, neither of which waits for the other's free.
fn at_once(size: usize) {
    let block = said(take(&GLOBAL, size)).expose_provenance();
    let ready = AtomicUsize::new(0);
    let free = || {
        ready.fetch_add(1, Ordering::AcqRel);
        while ready.load(Ordering::Acquire) < 2 {
            std::hint::spin_loop();
        }
        give(&GLOBAL, std::ptr::with_exposed_provenance_mut(block), size);
    };
    std::thread::scope(|scope| {
        scope.spawn(free);
        scope.spawn(free);
    });
}
