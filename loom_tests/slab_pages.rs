//! Giving back the free pages of a slab (`purge::slab_pages`, `slab::marks`), whoever holds it.
//!
//! # Modelled    a purge against the slab's holder, who claims, writes, lets go and releases, and against others who
//!               release; pages with blocks of one word and of two; a slab that becomes another one, of the same class
//!               or another, between a purge's look and its claim; a slab whose last block comes home, or that is given
//!               to the depot, while a purge has some of its blocks; two purges of pages that share a block
//! # Asserted    conservation: only who has all blocks of a page drops it; at the end every block is free, the slab is
//!               where it will be found, and an empty one is retired; a page that is marked as purged was not written
//!               since; a free page that is not marked will be looked at.
//!               visibility: a block's next owner, and the purge of its page, come after its last owner.
//! # Bounds      1 slab of 1 or 2 words, 1 or 2 of its pages, 2 or 3 threads, 3 preemptions
#![cfg(loom)]

mod common;
#[path = "common/site.rs"]
mod site;

use common::{RACE, assert_caught, check, join, spawn};
use loom::thread::JoinHandle;
use magalloc::slab::SpanKind;
use site::{Blocks, FORGOTTEN, KIB, MISSED, NOT_ZERO, PLACE, STAYS, Site, class_of_bytes, first_class};
use std::sync::Arc;

const PREEMPTIONS: Option<usize> = Some(3);
/// A purge of the slab, found by its class.
fn spawn_purge(site: &Arc<Site>) -> JoinHandle<()> {
    let class = site.sure_class();
    spawn(site, move |site| {
        let _ = site.purge(class);
    })
}

/// Two blocks make a page. One is free and wanted by the holder, the other is in use and released.
fn a_page_of_two_blocks_is_used() {
    let [first, second] = [0b01, 0b10].map(|mask| Blocks { word: 0, mask });
    let site = Site::new(32 * KIB, 64 * KIB, [first]);
    let purger = spawn_purge(&site);
    let releaser = spawn(&site, move |site| {
        site.read(second);
        site.release(second);
    });
    site.use_all(1);
    join([purger, releaser]);
    site.check([Blocks { word: 0, mask: 0b11 }]);
}

/// The blocks of a page are in two words; those of the page before it are in use.
fn a_page_of_two_words_is_used() {
    let blocks = [Blocks { word: 0, mask: u64::MAX << 51 }, Blocks { word: 1, mask: (1 << 38) - 1 }];
    let site = Site::new(640, 32 * KIB, blocks);
    let purger = spawn_purge(&site);
    site.use_all(64);
    join([purger]);
    site.check(blocks);
}

/// The holder has the other blocks of its slab. If it gets these two as well, it retires the slab, and its granules
/// become a slab of blocks of `bytes`, of which two are free again and the third is in use.
fn the_slab_becomes_another(bytes: usize) {
    let [both, third] = [0b11, 0b100].map(|mask| Blocks { word: 0, mask });
    let site = Site::new(32 * KIB, 64 * KIB, [both]);
    let purger = spawn_purge(&site);
    let taken = site.words[0].claim_all();
    if taken == both.mask {
        site.set_use(SpanKind::Other);
        site.begin(class_of_bytes(bytes), [both]);
        site.write(third);
    } else if taken != 0 {
        let _ = site.words[0].release(taken);
    }
    site.use_all(64);
    site.read(third);
    join([purger]);
    site.check([both]);
}

fn the_slab_becomes_one_of_another_class() {
    the_slab_becomes_another(24 * KIB);
}

/// The two words of a slab in the depot, each of which is a page.
const BOTH_WORDS: [Blocks; 2] = [Blocks { word: 0, mask: u64::MAX }, Blocks { word: 1, mask: u64::MAX }];

/// The depot has the slab. A purge has one word while the blocks of the other come home.
fn the_last_blocks_come_home() {
    let [first, second] = BOTH_WORDS;
    let site = Site::new(512, 32 * KIB, [first]);
    site.partial.put(PLACE, first_class());
    let purger = spawn_purge(&site);
    site.release(second);
    join([purger]);
    site.check_retired();
}

/// The holder gives the slab, which is empty, to the depot while a purge has some of it.
fn the_slab_is_given_to_the_depot() {
    let site = Site::new(512, 32 * KIB, BOTH_WORDS);
    let purger = spawn_purge(&site);
    site.give();
    join([purger]);
    site.check_retired();
}

/// The second of three blocks lies on two pages. Two purges look at a chunk in which the third block is released.
fn two_pages_share_a_block() {
    let [free, third] = [0b011, 0b100].map(|mask| Blocks { word: 0, mask });
    let site = Site::new(24 * KIB, 32 * KIB, [free]);
    assert!(site.unpurged.note(0));
    let purgers = [(); 2].map(|()| spawn(&site, Site::visit));
    site.release(third);
    site.note();
    join(purgers);
    site.check_marks();
    assert_eq!(site.words[0].look(), 0b111, "blocks are lost");
    let purged = site.descriptor.marks.purged_pages();
    assert!(purged & 0b11 == 0b11 || site.unpurged.chunks() != 0, "{MISSED}");
}

#[test]
fn a_page_is_purged_only_while_nobody_uses_it() {
    check(PREEMPTIONS, a_page_of_two_blocks_is_used);
}

#[test]
fn a_page_with_blocks_in_two_words_is_purged_only_while_nobody_uses_it() {
    check(PREEMPTIONS, a_page_of_two_words_is_used);
}

#[test]
fn a_slab_of_another_class_is_left_alone() {
    check(PREEMPTIONS, the_slab_becomes_one_of_another_class);
}

#[test]
fn a_slab_of_the_same_class_is_as_good() {
    check(PREEMPTIONS, || the_slab_becomes_another(32 * KIB));
}

#[test]
fn a_slab_emptied_during_a_purge_does_not_stay() {
    check(PREEMPTIONS, the_last_blocks_come_home);
}

#[test]
fn a_slab_given_during_a_purge_does_not_stay() {
    check(PREEMPTIONS, the_slab_is_given_to_the_depot);
}

#[test]
fn a_page_passed_over_is_looked_at_again() {
    check(PREEMPTIONS, two_pages_share_a_block);
}

#[test]
fn mark_kept_when_used_is_caught() {
    assert_caught("mark kept when used", NOT_ZERO, PREEMPTIONS, a_page_of_two_blocks_is_used);
}

#[test]
fn purged_after_the_release_is_caught() {
    assert_caught("purged after the release", NOT_ZERO, PREEMPTIONS, a_page_of_two_blocks_is_used);
}

#[test]
fn page_without_all_blocks_is_caught() {
    assert_caught("page without all blocks", RACE, PREEMPTIONS, a_page_of_two_blocks_is_used);
}

#[test]
fn page_without_all_blocks_is_caught_by_two_words() {
    assert_caught("page without all blocks", RACE, PREEMPTIONS, a_page_of_two_words_is_used);
}

#[test]
fn no_look_after_the_release_is_caught() {
    assert_caught("no look after the release", MISSED, PREEMPTIONS, two_pages_share_a_block);
}

#[test]
fn given_back_without_a_turn_is_caught() {
    assert_caught("given back without a turn", STAYS, PREEMPTIONS, the_slab_is_given_to_the_depot);
}

#[test]
fn relaxed_release_is_caught() {
    assert_caught("relaxed release", RACE, PREEMPTIONS, a_page_of_two_blocks_is_used);
}

#[test]
fn leave_without_a_look_is_caught() {
    assert_caught("leave without a look", FORGOTTEN, PREEMPTIONS, a_page_of_two_blocks_is_used);
}

#[test]
fn class_not_looked_at_again_is_caught() {
    assert_caught("class not looked at again", RACE, PREEMPTIONS, the_slab_becomes_one_of_another_class);
}

#[test]
fn look_at_once_is_caught() {
    assert_caught("look at once", STAYS, PREEMPTIONS, the_last_blocks_come_home);
}
