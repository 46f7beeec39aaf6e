//! Options that are changed while the program runs: what they bound is bounded from then on.
//!
//! Without libtest (`harness = false`): what is held is the process's.

mod common;

use common::{Block, MAGALLOC, layout};
use magalloc::{OptionError, option, set_option, stats};
use std::alloc::GlobalAlloc;

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new().environment(false);

const MIB: u64 = 1 << 20;

/// Can a block of so many MiB be had?
fn can_have(mib: u64) -> bool {
    let layout = layout((mib * MIB) as usize, 8);
    // SAFETY: a valid layout.
    let block = unsafe { MAGALLOC.alloc(layout) };
    if !block.is_null() {
        // SAFETY: live, and given up.
        unsafe { MAGALLOC.dealloc(block, layout) };
    }
    !block.is_null()
}

fn hard_limit_binds_and_is_lifted() {
    let kept: Vec<Block> = (0..40).map(|_| Block::new(MIB as usize, 8)).collect();
    assert!(can_have(60));
    // A failed assertion needs memory: the limit is lifted first.
    let under = |limit: &str| {
        set_option("HARD_LIMIT", limit).unwrap();
        let found = (option("HARD_LIMIT"), can_have(60), can_have(10));
        set_option("HARD_LIMIT", "none").unwrap();
        found
    };
    assert_eq!(under("64M"), (Some(64 * MIB), false, true));
    // Below what is held.
    assert_eq!(under("1M"), (Some(MIB), false, false));
    kept.iter().for_each(Block::verify);
    assert_eq!((option("HARD_LIMIT"), can_have(60)), (Some(u64::MAX), true));
}

fn free_memory_beyond_a_new_bound_goes_back_at_once() {
    let kept: Vec<Block> = (0..100).map(|_| Block::new(MIB as usize, 8)).collect();
    for (name, tight, loose) in [("DIRTY_BYTES_MAX", "1M", "1G"), ("SOFT_LIMIT", "50M", "none")] {
        // Above what any bound beside those keeps.
        set_option("PURGE_DELAY_MS", "4294967295").unwrap();
        drop((0..30).map(|_| Block::new(MIB as usize, 8)).collect::<Vec<_>>());
        let before = stats().dirty;
        assert!(before > 20 * MIB, "{before} bytes are dirty");
        set_option(name, tight).unwrap();
        let after = stats().dirty;
        // A part of what is in use, and a step of giving back, may stay.
        assert!(after <= 8 * MIB, "{name}: {before} bytes were dirty, {after} are");
        set_option(name, loose).unwrap();
    }
    set_option("PURGE_DELAY_MS", "1000").unwrap();
    assert_eq!(option("PURGE_DELAY_MS"), Some(1000));
    drop(kept);
}

fn modes_are_options() {
    for (name, other) in [("CHECK_FREES", "COUNTING"), ("COUNTING", "CHECK_FREES")] {
        assert_eq!((set_option(name, "1"), option(name), option(other)), (Ok(()), Some(1), Some(0)));
        // As it is already; and two at a time.
        assert_eq!((set_option(name, "1"), set_option(other, "1")), (Ok(()), Err(OptionError::NotNow)));
        assert_eq!((set_option(name, "0"), option(name)), (Ok(()), Some(0)));
    }
}

fn what_cannot_be_changed_is_told() {
    assert_eq!(set_option("SPEED", "1"), Err(OptionError::UnknownName));
    assert_eq!(set_option("SOFT_LIMIT", "70"), Err(OptionError::BadValue));
    assert_eq!(set_option("HUGE_PAGES", "never"), Err(OptionError::NotNow));
    assert_eq!(set_option("DISABLE", "1"), Err(OptionError::NotNow));
    assert_eq!(option("HUGE_PAGES"), None);
}

fn main() {
    common::run(&[
        ("hard_limit_binds_and_is_lifted", hard_limit_binds_and_is_lifted),
        ("free_memory_beyond_a_new_bound_goes_back_at_once", free_memory_beyond_a_new_bound_goes_back_at_once),
        ("modes_are_options", modes_are_options),
        ("what_cannot_be_changed_is_told", what_cannot_be_changed_is_told),
    ]);
}
