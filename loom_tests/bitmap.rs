//! Free bitmap: claim and release (`slab::bitmap`).
//!
//! # Modelled    one word; users who claim, write to their blocks and release them; a flusher of several blocks
//! # Asserted    conservation: at the end every block is free, none was claimed twice, one releaser per emptied word
//!               is told `First`, a double free is seen exactly once.
//!               visibility: a block's next owner comes after its last one.
//! # Bounds      2 blocks, 3 threads, 4 preemptions
#![cfg(loom)]

mod common;

use common::{Payload, RACE, assert_caught, check};
use loom::thread;
use magalloc::slab::bitmap::{FreeWord, Released};
use std::sync::Arc;

const BLOCKS: usize = 2;
const PREEMPTIONS: Option<usize> = Some(4);
const ALL: u64 = (1 << BLOCKS) - 1;

struct Word {
    free: FreeWord,
    blocks: [Payload; BLOCKS],
}

impl Word {
    fn new(free: u64) -> Arc<Self> {
        Arc::new(Self { free: FreeWord::new(free), blocks: core::array::from_fn(|_| Payload::new()) })
    }

    fn touch(&self, mask: u64) {
        (0..BLOCKS).filter(|block| mask >> block & 1 != 0).for_each(|block| self.blocks[block].touch());
    }

    /// Claims, works with the blocks, releases them. Returns how many it got.
    fn use_blocks(&self, most: u32) -> u64 {
        let mask = self.free.claim(most);
        self.touch(mask);
        if mask != 0 {
            assert!(!matches!(self.free.release(mask), Released::DoubleFree { .. }), "a block was claimed twice");
        }
        mask.count_ones().into()
    }

    /// At rest: every block is free, and its contents tell of every use.
    fn check(&self, uses: u64) {
        assert_eq!(self.free.claim_all(), ALL, "a block is lost");
        let seen: u64 = self.blocks.iter().map(|block| block.own(|count| *count)).sum();
        assert_eq!(seen, uses, "what an owner wrote is lost");
    }
}

fn three_users_share_two_blocks() {
    let word = Word::new(ALL);
    let users = [1, 1].map(|most| {
        let word = Arc::clone(&word);
        thread::spawn(move || word.use_blocks(most))
    });
    let own = word.use_blocks(64);
    let uses = own + users.map(|user| user.join().unwrap()).iter().sum::<u64>();
    word.check(uses);
}

fn a_refill_meets_two_releases() {
    let word = Word::new(0);
    let releasers = [0b01, 0b10].map(|mask| {
        let word = Arc::clone(&word);
        thread::spawn(move || {
            word.touch(mask);
            word.free.release(mask)
        })
    });
    let claimed = word.free.claim(1);
    word.touch(claimed);
    let rest = word.free.claim_all();
    word.touch(rest);
    assert_eq!(claimed & rest, 0, "a block was claimed twice");
    let told = releasers.map(|releaser| releaser.join().unwrap());
    let firsts = told.iter().filter(|told| matches!(told, Released::First { .. })).count();
    assert!(firsts >= 1, "nobody was told that the word has free blocks again");
    if claimed | rest == 0 {
        assert_eq!(firsts, 1, "two were told to queue the slab");
    }
    let left = word.free.claim_all();
    assert_eq!(claimed | rest | left, ALL, "a block is lost");
    word.touch(left);
    word.blocks.iter().for_each(|block| block.own(|count| assert_eq!(*count, 2)));
}

#[test]
fn blocks_have_one_owner_at_a_time() {
    check(PREEMPTIONS, three_users_share_two_blocks);
}

#[test]
fn a_refill_sees_what_the_releasers_wrote() {
    check(PREEMPTIONS, a_refill_meets_two_releases);
}

#[test]
fn a_double_free_is_seen_once() {
    check(PREEMPTIONS, || {
        let word = Word::new(0);
        let other = Arc::clone(&word);
        let other = thread::spawn(move || other.free.release(0b01));
        let told = [word.free.release(0b11), other.join().unwrap()];
        let seen = told.iter().filter(|told| matches!(told, Released::DoubleFree { blocks: 0b01 })).count();
        assert_eq!(seen, 1);
        word.check(0);
    });
}

#[test]
fn claim_without_taking_is_caught() {
    assert_caught("claim without taking", RACE, PREEMPTIONS, three_users_share_two_blocks);
}

#[test]
fn relaxed_release_is_caught_by_the_users() {
    assert_caught("relaxed release", RACE, PREEMPTIONS, three_users_share_two_blocks);
}

#[test]
fn relaxed_release_is_caught_by_a_refill() {
    assert_caught("relaxed release", RACE, PREEMPTIONS, a_refill_meets_two_releases);
}
