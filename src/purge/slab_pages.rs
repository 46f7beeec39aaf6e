//! Giving back the free pages of a slab, whoever holds it: claim every block of a page, drop the page, release.
//!
//! ```text
//! # Role        which pages those are (`take`), and what comes after they were dropped (`finish`). Between the two, the
//!               caller drops the pages of several slabs at once
//! # Invariants  I1: a page is given back only while this thread has every block that touches it.
//!               I2: a slab of which this thread has a block stays what it is: nobody else can claim all its blocks.
//!                   The class that was read before the claim is looked at again after it; blocks that turn out to be
//!                   of another slab go back to that slab, untouched.
//!               I3: what a purge passes over because another one has a block of it, that one finds when it looks again
//!                   after its release.
//! # Progress    lock-free. A thread that is stopped here, or between the two, withholds the blocks of free pages.
//! # Not here    which slabs, when (see `purge`); queueing after the release (see `local::flush`)
//! # Checked by  loom_tests/slab_pages.rs, heap::tests::purging
//! ```

use crate::slab::bitmap::FreeWord;
use crate::slab::marks::{PAGES_MAX, PageMarks};
use crate::config::GRANULE_SHIFT;
use crate::size_class::{SLAB_BLOCKS_MAX, SLAB_GRANULES_MAX, SizeClass};
use crate::sync::planted::bug;
use core::ops::Range;

/// Words of a slab's bitmap at most.
const WORDS_MAX: usize = SLAB_BLOCKS_MAX / 64;

/// Pages of a slab, one bit each.
type PageSet = u128;
const _: () = assert!(SLAB_GRANULES_MAX * PAGES_MAX <= PageSet::BITS as usize);

/// What a purge of a slab needs to reach.
pub trait Parts {
    /// Word `word` of the bitmap.
    fn word(&self, word: usize) -> &FreeWord;
    /// The marks of granule `granule` of the slab.
    fn marks(&self, granule: usize) -> &PageMarks;
    /// Pages, so many, are marked as purged that were not before; while blocks of the slab are claimed.
    fn count_purged(&self, pages: usize);
    /// Is there still a slab of that class at this place? Asked while a block of it is claimed.
    fn is_same(&self) -> bool;
    /// Releases claimed blocks of word `word`, of whatever slab is there.
    fn release(&self, word: usize, mask: u64);
}

/// A slab's class and the size of OS pages: where blocks and pages lie.
#[derive(Clone, Copy, Debug)]
pub struct Geometry<'a> {
    shape: &'a SizeClass,
    page_shift: u32,
}

impl<'a> Geometry<'a> {
    /// For slabs of that class, and OS pages of `1 << page_shift` bytes, at most a granule.
    pub fn new(shape: &'a SizeClass, page_shift: u32) -> Self {
        Self { shape, page_shift }
    }

    /// Pages of a granule.
    fn granule_pages(&self) -> usize {
        1 << (GRANULE_SHIFT - self.page_shift)
    }

    /// The blocks that touch page `page`; none in the tail behind the last block.
    fn blocks_of(&self, page: usize) -> Range<usize> {
        let (bytes, blocks) = (self.shape.bytes as usize, self.shape.blocks as usize);
        let first = (page << self.page_shift) / bytes;
        let last = (((page + 1) << self.page_shift) - 1) / bytes;
        first.min(blocks)..(last + 1).min(blocks)
    }

    /// Calls `mark` with the granule and the pages that blocks `first` to `last` of word `word` touch.
    #[inline]
    pub fn pages_of(&self, word: usize, first: u32, last: u32, mut mark: impl FnMut(usize, u16)) {
        let bytes = self.shape.bytes as usize;
        let first = ((word * 64 + first as usize) * bytes) >> self.page_shift;
        let last = ((word * 64 + last as usize + 1) * bytes - 1) >> self.page_shift;
        let in_granule = self.granule_pages();
        let mut page = first;
        while page <= last {
            let (granule, from) = (page / in_granule, page % in_granule);
            let count = (last - page + 1).min(in_granule - from);
            mark(granule, (((1u32 << count) - 1) << from) as u16);
            page += count;
        }
    }
}

/// What is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Left {
    /// Nothing, before a block of the slab is freed again.
    Nothing,
    /// Pages that are free, but not for long enough, or were in somebody's hand.
    FreePages,
}

/// Pages that the caller gives back, and then `finish`es: it has every block that touches them.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Taken {
    /// Pages whose blocks the caller has.
    whole: PageSet,
    /// Pages that no block touches.
    blockless: PageSet,
    /// Pages that were free; those not among the others are left.
    free: PageSet,
}

impl Taken {
    /// Calls `run` with the first page and the length of each run of pages to give back.
    pub fn for_each_run(&self, mut run: impl FnMut(usize, usize)) {
        let mut rest = self.whole | self.blockless;
        while rest != 0 {
            let first = rest.trailing_zeros();
            let count = (!(rest >> first)).trailing_zeros();
            run(first as usize, count as usize);
            rest &= !((PageSet::MAX >> (PageSet::BITS - count)) << first);
        }
    }
}

/// Takes the free pages of a slab that were free at the last call already; with `force`, all free pages. `Err`: there are
/// none to give back now.
pub fn take(geometry: Geometry<'_>, slab: &impl Parts, force: bool) -> Result<Taken, Left> {
    let free = free_blocks(geometry, slab);
    if free.iter().all(|&word| word == 0) {
        return Err(Left::Nothing);
    }
    let (wanted, young, blockless) = due_pages(geometry, slab, &free, force);
    if wanted == 0 {
        return Err(if young == 0 { Left::Nothing } else { Left::FreePages });
    }
    let claimed = claim_blocks(geometry, slab, wanted);
    let mut whole = 0;
    if claimed.iter().any(|&taken| taken != 0) && (slab.is_same() || bug("class not looked at again")) {
        whole = for_each_page(wanted)
            .filter(|&page| bug("page without all blocks") || is_set(&claimed, geometry.blocks_of(page)))
            .fold(0, |pages, page| pages | 1 << page);
    }
    let kept = blocks_on(geometry, whole);
    for (word, &taken) in claimed.iter().enumerate() {
        if taken & !kept[word] != 0 {
            slab.release(word, taken & !kept[word]);
        }
    }
    if whole == 0 { Err(Left::FreePages) } else { Ok(Taken { whole, blockless, free: wanted | young }) }
}

/// After the pages were given back, or refused (`gone` is `false`): releases their blocks.
pub fn finish(geometry: Geometry<'_>, slab: &impl Parts, taken: Taken, gone: bool) -> Left {
    let dropped = taken.whole | taken.blockless;
    if gone && !bug("purged after the release") {
        note_purged(geometry, slab, dropped);
    }
    for (word, &blocks) in blocks_on(geometry, taken.whole).iter().enumerate() {
        if blocks != 0 {
            slab.release(word, blocks);
        }
    }
    if bug("purged after the release") {
        note_purged(geometry, slab, dropped);
    }
    // Another purge may have passed over a page because a block of it was in this one's hand.
    let (old, new, _) = match bug("no look after the release") {
        true => (0, 0, 0),
        false => due_pages(geometry, slab, &free_blocks(geometry, slab), false),
    };
    // What was refused is not asked for again before a block is freed: locked memory stays locked for long.
    if (taken.free | old | new) & !dropped == 0 { Left::Nothing } else { Left::FreePages }
}

/// The free blocks of all words, each at some moment.
fn free_blocks(geometry: Geometry<'_>, slab: &impl Parts) -> [u64; WORDS_MAX] {
    let mut free = [0; WORDS_MAX];
    for (word, bits) in free.iter_mut().enumerate().take(geometry.shape.words()) {
        *bits = slab.word(word).look();
    }
    free
}

/// Free pages that are due, free pages that are not, and unpurged pages that no block touches.
fn due_pages(
    geometry: Geometry<'_>,
    slab: &impl Parts,
    free: &[u64; WORDS_MAX],
    force: bool,
) -> (PageSet, PageSet, PageSet) {
    let in_granule = geometry.granule_pages();
    let (mut wanted, mut young, mut blockless) = (0, 0, 0);
    for granule in 0..geometry.shape.granules as usize {
        let (mut free_pages, mut without_blocks) = (0u16, 0u16);
        for page in 0..in_granule {
            let blocks = geometry.blocks_of(granule * in_granule + page);
            if blocks.is_empty() {
                without_blocks |= 1 << page;
            } else if is_set(free, blocks) {
                free_pages |= 1 << page;
            }
        }
        let shift = granule * in_granule;
        let marks = slab.marks(granule);
        blockless |= PageSet::from(without_blocks & !marks.purged_pages()) << shift;
        if free_pages != 0 {
            let (old, new) = marks.age(free_pages);
            wanted |= PageSet::from(if force { old | new } else { old }) << shift;
            young |= PageSet::from(if force { 0 } else { new }) << shift;
        }
    }
    (wanted, young, blockless)
}

/// The blocks that touch the pages.
fn blocks_on(geometry: Geometry<'_>, pages: PageSet) -> [u64; WORDS_MAX] {
    let mut blocks = [0u64; WORDS_MAX];
    for page in for_each_page(pages) {
        for_each_word(geometry.blocks_of(page), |word, mask| blocks[word] |= mask);
    }
    blocks
}

/// Claims what is free of the blocks that touch the pages.
fn claim_blocks(geometry: Geometry<'_>, slab: &impl Parts, pages: PageSet) -> [u64; WORDS_MAX] {
    let mut claimed = blocks_on(geometry, pages);
    for (word, blocks) in claimed.iter_mut().enumerate() {
        if *blocks != 0 {
            *blocks = slab.word(word).claim_these(*blocks);
        }
    }
    claimed
}

fn note_purged(geometry: Geometry<'_>, slab: &impl Parts, pages: PageSet) {
    let in_granule = geometry.granule_pages();
    for granule in 0..geometry.shape.granules as usize {
        let of_granule = (pages >> (granule * in_granule)) & ((1 << in_granule) - 1);
        if of_granule != 0 {
            slab.count_purged(slab.marks(granule).purged(of_granule as u16));
        }
    }
}

fn for_each_page(mut pages: PageSet) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let page = pages.trailing_zeros();
        pages &= pages.wrapping_sub(1);
        (page < PageSet::BITS).then_some(page as usize)
    })
}

/// Are the bits of all `blocks` set?
fn is_set(words: &[u64; WORDS_MAX], blocks: Range<usize>) -> bool {
    let mut all = true;
    for_each_word(blocks, |word, mask| all &= words[word] & mask == mask);
    all
}

/// Calls `part` with each word of `blocks`, and their bits there.
fn for_each_word(blocks: Range<usize>, mut part: impl FnMut(usize, u64)) {
    let mut block = blocks.start;
    while block < blocks.end {
        let (word, from) = (block / 64, block % 64);
        let count = (blocks.end - block).min(64 - from);
        part(word, (u64::MAX >> (64 - count)) << from);
        block += count;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::size_class::{all, shape};

    #[test]
    fn blocks_and_pages_touch_each_other_both_ways() {
        for page_shift in [12, 14, 16].into_iter().filter(|&shift| shift <= GRANULE_SHIFT) {
            for class in all() {
                let shape = shape(class);
                let geometry = Geometry::new(shape, page_shift);
                let pages = shape.granules as usize * geometry.granule_pages();
                let bytes = shape.bytes as usize;
                for block in 0..shape.blocks as usize {
                    let mut touched = Vec::new();
                    geometry.pages_of(block / 64, block as u32 % 64, block as u32 % 64, |granule, mask| {
                        let first = granule * geometry.granule_pages();
                        touched.extend((0..16).filter(|bit| mask >> bit & 1 != 0).map(|bit| first + bit));
                    });
                    let expected = (block * bytes) >> page_shift..=(block * bytes + bytes - 1) >> page_shift;
                    assert!(touched.iter().copied().eq(expected), "block {block} of {bytes} bytes");
                    for page in touched {
                        assert!(geometry.blocks_of(page).contains(&block));
                    }
                }
                let touching: usize = (0..pages).map(|page| geometry.blocks_of(page).len()).sum();
                assert!(touching >= shape.blocks as usize);
            }
        }
    }
}
