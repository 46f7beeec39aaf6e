//! Giving back the free pages of a slab (`slab::page_purge`, `slab::marks`), whoever holds it.
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

use common::{Payload, RACE, assert_caught, check, join, spawn};
use loom::thread::JoinHandle;
use magalloc::chunk_group::partial_set::{PartialSet, Place};
use magalloc::chunk_group::unpurged::Unpurged;
use magalloc::owner::notify::NotifyStack;
use magalloc::size_class::{self, class_of, shape};
use magalloc::slab::bitmap::{FreeWord, Released};
use magalloc::slab::marks::PageMarks;
use magalloc::slab::page_purge::{Geometry, Left, Parts, finish, take};
use magalloc::slab::{GranuleUse, Slab, UseCell};
use magalloc::sync::planted::bug;
use magalloc::sync::{Ordering, fence};
use magalloc::units::{ClassIndex, GranuleIndex, SlabId};
use std::sync::Arc;

const PREEMPTIONS: Option<usize> = Some(3);
const FORGOTTEN: &str = "a free block is where nobody will find it";
const NOT_ZERO: &str = "a page that is marked as purged was written";
const STAYS: &str = "an empty slab stays in the depot";
const MISSED: &str = "a page is free, and no purge will look at it";

const KIB: usize = 1 << 10;
const GRANULE_BYTES: usize = 64 * KIB;
/// Granules of a slab at most, here.
const GRANULES: usize = 4;
/// Words of its bitmap.
const WORDS: usize = 2;
/// The memory that the models use is told apart in pieces: pages and whatever is claimed at once are some of them.
const PIECE_BYTES: usize = 8 * KIB;
/// The first granule of a slab, and a block that reaches beyond it.
const PIECES: usize = 9;
/// What users write.
const PATTERN: u64 = 0x5eed;
const PLACE: Place = Place { chunk: 0, granule: 5 };

/// Blocks of one word that lie side by side.
#[derive(Clone, Copy)]
struct Blocks {
    word: usize,
    mask: u64,
}

/// A place in memory, the slab that is there, and where it may be queued.
struct Site {
    page_shift: u32,
    descriptor: Slab,
    /// Marks of the granules behind the first one.
    marks_behind: [PageMarks; GRANULES - 1],
    /// What the granule map says.
    granule_use: UseCell,
    words: [FreeWord; WORDS],
    memory: [Payload; PIECES],
    /// What only the slab's holder touches.
    held: Payload,
    /// The owner's.
    notified: NotifyStack,
    partial: PartialSet<1>,
    unpurged: Unpurged,
}

fn class_of_bytes(bytes: usize) -> ClassIndex {
    class_of(bytes, 1).expect("a size that has a class")
}

/// The partial set of a model has one class.
fn first_class() -> ClassIndex {
    size_class::all().next().expect("there are classes")
}

impl Site {
    /// A slab of blocks of `bytes`, of which `free` are free; all were written. The caller is its holder.
    fn new<const N: usize>(bytes: usize, page_bytes: usize, free: [Blocks; N]) -> Arc<Self> {
        let site = Self {
            page_shift: page_bytes.ilog2(),
            descriptor: Slab::new(),
            marks_behind: core::array::from_fn(|_| PageMarks::new()),
            granule_use: UseCell::default(),
            words: core::array::from_fn(|_| FreeWord::new(0)),
            memory: core::array::from_fn(|_| Payload::new()),
            held: Payload::new(),
            notified: NotifyStack::new(),
            partial: PartialSet::new(),
            unpurged: Unpurged::new(),
        };
        site.memory.iter().for_each(|piece| piece.own(|contents| *contents = PATTERN));
        site.begin(class_of_bytes(bytes), free);
        Arc::new(site)
    }

    /// `Depot::new_slab`, for whoever has the span.
    fn begin<const N: usize>(&self, class: ClassIndex, free: [Blocks; N]) {
        self.held.touch();
        self.descriptor.begin(shape(class).granules.into());
        self.descriptor.begin_inside(0, 0);
        self.marks_behind.iter().for_each(|marks| marks.begin(0));
        self.set_use(GranuleUse::Slab(class));
        for Blocks { word, mask } in free {
            // `FreeWord::fill`, but as an exchange: a late purge may be exchanging the word just now (see the README).
            let _ = self.words[word].release(mask);
        }
    }

    fn set_use(&self, granule_use: GranuleUse) {
        self.granule_use.set(granule_use);
    }

    fn class(&self) -> Option<ClassIndex> {
        match self.granule_use.get() {
            GranuleUse::Slab(class) => Some(class),
            GranuleUse::Other | GranuleUse::Large => None,
        }
    }

    /// The class, for who has a block or is the holder.
    fn sure_class(&self) -> ClassIndex {
        self.class().expect("a slab of which one has a block stays a slab")
    }

    fn marks(&self, granule: usize) -> &PageMarks {
        if granule == 0 { &self.descriptor.marks } else { &self.marks_behind[granule - 1] }
    }

    fn has_free(&self) -> bool {
        self.words.iter().any(|word| word.look() != 0)
    }

    fn is_free(&self, class: ClassIndex) -> bool {
        let shape = shape(class);
        (0..shape.words()).all(|word| self.words[word].look() == shape.word_mask(word))
    }

    fn pieces(&self, from: usize, to: usize) -> &[Payload] {
        &self.memory[from / PIECE_BYTES..to.div_ceil(PIECE_BYTES).min(PIECES)]
    }

    fn pieces_of(&self, blocks: Blocks) -> &[Payload] {
        let bytes = shape(self.sure_class()).bytes as usize;
        let first = blocks.word * 64 + blocks.mask.trailing_zeros() as usize;
        self.pieces(first * bytes, (first + blocks.mask.count_ones() as usize) * bytes)
    }

    /// A user writes the blocks that it has.
    fn write(&self, blocks: Blocks) {
        self.pieces_of(blocks).iter().for_each(|piece| piece.own(|contents| *contents = PATTERN));
    }

    /// A user reads what it wrote.
    fn read(&self, blocks: Blocks) {
        self.pieces_of(blocks).iter().for_each(|piece| piece.own(|contents| assert_eq!(*contents, PATTERN)));
    }

    /// The holder takes at most `most` blocks of each word, and uses them: `claim_into`, `SlabRef::note_used`.
    fn claim(&self, most: u32) -> Vec<Blocks> {
        self.held.touch();
        let words = self.words.iter().enumerate().map(|(word, free)| Blocks { word, mask: free.claim(most) });
        let taken: Vec<Blocks> = words.filter(|blocks| blocks.mask != 0).collect();
        for &blocks in &taken {
            let (first, last) = (blocks.mask.trailing_zeros(), 63 - blocks.mask.leading_zeros());
            let geometry = Geometry::new(shape(self.sure_class()), self.page_shift);
            geometry.pages_of(blocks.word, first, last, |granule, pages| {
                let _ = self.marks(granule).used(pages);
            });
            self.write(blocks);
        }
        taken
    }

    /// The holder takes `most` blocks at once until it may let go, as a refill does, and releases all again.
    fn use_all(&self, most: u32) {
        let mut taken = self.claim(most);
        while self.descriptor.leave_queue(|| self.has_free()) {
            taken.extend(self.claim(most));
        }
        for blocks in taken {
            self.read(blocks);
            self.release(blocks);
        }
    }

    /// `Owners::release_blocks`, for a thread that is not the owner.
    fn release(&self, Blocks { word, mask }: Blocks) {
        let class = self.sure_class();
        let now = match self.words[word].release(mask) {
            Released::First { now } => {
                if self.descriptor.enter_queue() {
                    self.held.touch();
                    let id = SlabId::new(0, GranuleIndex::new(PLACE.granule));
                    self.notified.push(id, |next| self.descriptor.set_link(next)).expect("never closed here");
                }
                now
            }
            Released::More { now } => now,
            Released::DoubleFree { .. } => panic!("a block was released twice"),
        };
        if now == shape(class).word_mask(word) {
            self.descriptor.after_full_word();
            if self.is_free(class) {
                self.retire_if_partial();
            }
        }
    }

    /// `Depot::retire_if_partial`.
    fn retire_if_partial(&self) {
        if self.partial.take_this(PLACE) {
            self.give();
        }
    }

    /// `Depot::give_slab`, for the holder.
    fn give(&self) {
        self.held.touch();
        let class = self.sure_class();
        if self.is_free(class) && self.claim_whole() {
            self.set_use(GranuleUse::Other);
            return;
        }
        self.partial.put(PLACE, first_class());
        if self.is_free(class) {
            self.retire_if_partial();
        }
    }

    /// `SlabRef::claim_whole`, for the holder.
    fn claim_whole(&self) -> bool {
        let shape = shape(self.sure_class());
        for word in 0..shape.words() {
            let taken = self.words[word].claim_all();
            if taken != shape.word_mask(word) {
                for (back, mask) in (0..word).map(|back| (back, shape.word_mask(back))).chain([(word, taken)]) {
                    if mask != 0 {
                        let _ = self.words[back].release(mask);
                    }
                }
                if !bug("given back without a turn") {
                    self.descriptor.after_full_word();
                }
                return false;
            }
        }
        true
    }

    /// `Purge::purge_slabs` of a slab that was found as one of `class`.
    fn purge(&self, class: ClassIndex) -> Left {
        let (geometry, visit) = (Geometry::new(shape(class), self.page_shift), Visit { site: self, class });
        let taken = match take(geometry, &visit, true) {
            Ok(taken) => taken,
            Err(left) => return left,
        };
        taken.for_each_run(|first, count| {
            let pieces = self.pieces(first << self.page_shift, (first + count) << self.page_shift);
            pieces.iter().for_each(|piece| piece.own(|contents| *contents = 0));
        });
        finish(geometry, &visit, taken, true)
    }

    /// `SlabRef::note_unpurged`, after a release.
    fn note(&self) {
        // As on x86, where the release is one (see `Unpurged`).
        fence(Ordering::SeqCst);
        let _ = self.unpurged.note(0);
    }

    /// `Purge::visit`.
    fn visit(&self) {
        if self.unpurged.take(0) {
            fence(Ordering::SeqCst);
            if self.purge(self.sure_class()) == Left::FreePages {
                self.note();
            }
        }
    }

    /// At rest: a page of the first granule that is marked as purged is zero.
    fn check_marks(&self) {
        let page_bytes = 1 << self.page_shift;
        let purged = self.descriptor.marks.purged_pages();
        for page in (0..GRANULE_BYTES / page_bytes).filter(|page| purged >> page & 1 != 0) {
            for piece in self.pieces(page * page_bytes, (page + 1) * page_bytes) {
                piece.own(|contents| assert_eq!(*contents, 0, "{NOT_ZERO}"));
            }
        }
    }

    /// At rest: these blocks are free, and the slab is on the notify stack.
    fn check<const N: usize>(&self, free: [Blocks; N]) {
        self.check_marks();
        let pushed = self.notified.take_all();
        assert!(pushed.is_some() && self.descriptor.is_queued(), "{FORGOTTEN}");
        assert_eq!(self.descriptor.link(), None, "the slab is in the queue twice");
        for Blocks { word, mask } in free {
            assert_eq!(self.words[word].look(), mask, "blocks are lost");
        }
    }

    /// At rest: the slab, all of whose blocks were released, was retired.
    fn check_retired(&self) {
        assert!(self.partial.members(PLACE.chunk) == 0 && self.class().is_none(), "{STAYS}");
        self.check_marks();
    }
}

/// What a purge sees of the slab.
struct Visit<'s> {
    site: &'s Site,
    class: ClassIndex,
}

impl Parts for Visit<'_> {
    fn word(&self, word: usize) -> &FreeWord {
        &self.site.words[word]
    }

    fn marks(&self, granule: usize) -> &PageMarks {
        self.site.marks(granule)
    }

    fn is_same(&self) -> bool {
        self.site.class() == Some(self.class)
    }

    fn release(&self, word: usize, mask: u64) {
        self.site.release(Blocks { word, mask });
    }
}

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
        site.set_use(GranuleUse::Other);
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
