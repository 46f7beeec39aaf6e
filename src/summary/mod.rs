//! A hierarchical bitset that may say too much: where to look for what is rare, without looking everywhere.
//!
//! ```text
//! # Role        answers "which is the lowest place at or after this one where there may be something?" by at most two
//!               words a level, however many places there are. The somethings themselves are elsewhere: slabs in
//!               remote-free queues, partial slabs, free granules, chunks to purge.
//! # Shape       three levels of words; a bit of a level stands for a word of the level below, a bit of the lowest for a
//!               place
//! # Invariants  I1: where there is something, the bits of the place are set at all levels, or a thread is on its way:
//!                   one that put something there and is going to `note` it, or one that is in `clear`.
//!               I2: a set bit promises nothing.
//! # Ordering    SUMMARY: whoever puts something somewhere then looks at the bits; whoever clears a bit then looks whether
//!               there is something. A sequentially consistent fence lies between the two on each side, so one of the two
//!               sees the other. Where a bit is written, it is by a read-modify-write, and so are those above it: whoever
//!               is second sees the other's work.
//! # Progress    `note` is wait-free, `clear` and `next` are lock-free. A thread that is stopped in `clear` withholds what
//!               is at that place until something else is put there.
//! ```
//! # Zeroed memory is an empty set.
//! ```text
//! # Not here    what is looked for
//! # Checked by  loom_tests/summary.rs
//! ```

#[cfg(all(test, not(loom)))]
pub(crate) mod steps;

use crate::config::SUMMARY_WIDTH;
use crate::sync::planted::bug;
use crate::sync::{AtomicU64, Ordering, fence};

/// Levels of words.
const LEVELS: usize = 3;

/// `COLUMNS` sets of `LEAVES * SUMMARY_WIDTH` places. Words of the same places lie side by side, upper levels first: where
/// only low places are used, all sets together touch a few lines.
#[derive(Debug)]
#[repr(C)]
pub struct Summary<const LEAVES: usize, const MIDDLES: usize, const COLUMNS: usize = 1> {
    top: [[AtomicU64; COLUMNS]; 1],
    middles: [[AtomicU64; COLUMNS]; MIDDLES],
    leaves: [[AtomicU64; COLUMNS]; LEAVES],
}

/// One of the sets.
#[derive(Debug)]
pub struct Column<'s, const LEAVES: usize, const MIDDLES: usize, const COLUMNS: usize> {
    summary: &'s Summary<LEAVES, MIDDLES, COLUMNS>,
    column: usize,
}

impl<const LEAVES: usize, const MIDDLES: usize, const COLUMNS: usize> Default for Summary<LEAVES, MIDDLES, COLUMNS> {
    fn default() -> Self {
        Self::new()
    }
}

/// A bit of a level: its word, and its number there.
fn split(bit: usize) -> (usize, u64) {
    (bit / SUMMARY_WIDTH, 1 << (bit % SUMMARY_WIDTH))
}

impl<const LEAVES: usize, const MIDDLES: usize, const COLUMNS: usize> Summary<LEAVES, MIDDLES, COLUMNS> {
    /// Nothing anywhere.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        const { assert!(LEAVES <= MIDDLES * SUMMARY_WIDTH && MIDDLES <= SUMMARY_WIDTH) };
        Self {
            top: [const { [const { AtomicU64::new(0) }; COLUMNS] }; 1],
            middles: [const { [const { AtomicU64::new(0) }; COLUMNS] }; MIDDLES],
            leaves: [const { [const { AtomicU64::new(0) }; COLUMNS] }; LEAVES],
        }
    }

    /// Nothing anywhere.
    #[cfg(loom)]
    pub fn new() -> Self {
        const { assert!(LEAVES <= MIDDLES * SUMMARY_WIDTH && MIDDLES <= SUMMARY_WIDTH) };
        fn words<const WORDS: usize, const COLUMNS: usize>() -> [[AtomicU64; COLUMNS]; WORDS] {
            core::array::from_fn(|_| core::array::from_fn(|_| AtomicU64::new(0)))
        }
        Self { top: words(), middles: words(), leaves: words() }
    }

    /// Set number `column`.
    #[inline]
    pub fn column(&self, column: usize) -> Column<'_, LEAVES, MIDDLES, COLUMNS> {
        Column { summary: self, column }
    }
}

impl<const LEAVES: usize, const MIDDLES: usize> Summary<LEAVES, MIDDLES, 1> {
    /// The set, where there is one.
    #[inline]
    pub fn only(&self) -> Column<'_, LEAVES, MIDDLES, 1> {
        self.column(0)
    }
}

impl<const LEAVES: usize, const MIDDLES: usize, const COLUMNS: usize> Column<'_, LEAVES, MIDDLES, COLUMNS> {
    /// A word of a level, if the level has so many.
    fn word(&self, level: usize, word: usize) -> Option<&AtomicU64> {
        let words: &[[AtomicU64; COLUMNS]] = match level {
            0 => &self.summary.leaves,
            1 => &self.summary.middles,
            _ => &self.summary.top,
        };
        words.get(word).map(|words| &words[self.column])
    }

    /// Notes that there is something at `place`, after it was put there.
    pub fn note(&self, place: usize) {
        if !bug("note without a fence") {
            // ordering: SeqCst [SUMMARY] what was put comes before the looks below; pairs with the fence in `clear`.
            fence(Ordering::SeqCst);
        }
        let mut bit = place;
        for level in 0..LEVELS {
            let (word, mask) = split(bit);
            // ordering: Relaxed; the fence orders it.
            if self.word(level, word).is_some_and(|word| word.load(Ordering::Relaxed) & mask == 0) {
                self.set(level, bit);
                return;
            }
            bit = word;
        }
    }

    /// Sets a bit of `level` and those above it.
    fn set(&self, level: usize, mut bit: usize) {
        for level in level..LEVELS {
            let (word, mask) = split(bit);
            let Some(bits) = self.word(level, word) else { return };
            if bug("bit not set where it is seen") && bits.load(Ordering::Relaxed) & mask != 0 {
                return;
            }
            // ordering: AcqRel [SUMMARY] after what was put below it; pairs with the clearing in `clear`.
            bits.fetch_or(mask, Ordering::AcqRel);
            bit = word;
        }
    }

    /// Clears the bits of `place`, where nothing was found, unless `look` says that something is there (again).
    pub fn clear(&self, place: usize, look: impl FnOnce() -> bool) {
        let (word, mask) = split(place);
        let Some(bits) = self.word(0, word) else { return };
        // ordering: AcqRel [SUMMARY] before the look; pairs with the setting in `set`.
        let rest = bits.fetch_and(!mask, Ordering::AcqRel) & !mask;
        // ordering: SeqCst [SUMMARY] pairs with the fence in `note`.
        fence(Ordering::SeqCst);
        let found = look();
        if bug("cleared without a second look") {
            return;
        }
        if found {
            self.set(0, place);
        } else if rest == 0 {
            self.clear_above(0, word);
        }
    }

    /// Clears the bit that stands for `word` of `level`, which was empty, unless it is not (again); and so on upwards.
    fn clear_above(&self, level: usize, word: usize) {
        let mut below = word;
        for level in level + 1..LEVELS {
            let (word, mask) = split(below);
            let (Some(lower), Some(bits)) = (self.word(level - 1, below), self.word(level, word)) else { return };
            // ordering: AcqRel [SUMMARY], as in `clear`.
            let rest = bits.fetch_and(!mask, Ordering::AcqRel) & !mask;
            // ordering: SeqCst [SUMMARY], as in `clear`.
            fence(Ordering::SeqCst);
            // ordering: Relaxed; the fence orders it, and what is found there is looked for anew.
            let found = lower.load(Ordering::Relaxed) != 0;
            if found && !bug("upper bit cleared without a second look") {
                self.set(level, below);
                return;
            }
            if rest != 0 {
                return;
            }
            below = word;
        }
    }

    /// The lowest place from `from` on where there may be something.
    #[must_use]
    pub fn next(&self, from: usize) -> Option<usize> {
        loop {
            match self.climb(from) {
                Climbed::Found(place) => return Some(place),
                Climbed::End => return None,
                // Whoever emptied the word has not cleared its bit (yet).
                Climbed::Empty { level, word } => self.clear_above(level, word),
            }
        }
    }

    /// Looks upwards for the first level with a bit behind `from`, and from there down to the place.
    fn climb(&self, from: usize) -> Climbed {
        let mut next = from;
        for level in 0..LEVELS {
            let word = next / SUMMARY_WIDTH;
            let Some(bits) = self.look(level, word) else { return Climbed::End };
            let behind = bits >> (next % SUMMARY_WIDTH) << (next % SUMMARY_WIDTH);
            if behind == 0 {
                next = word + 1;
                continue;
            }
            let mut found = word * SUMMARY_WIDTH + behind.trailing_zeros() as usize;
            for level in (0..level).rev() {
                match self.look(level, found) {
                    None => return Climbed::End,
                    Some(0) => return Climbed::Empty { level, word: found },
                    Some(bits) => found = found * SUMMARY_WIDTH + bits.trailing_zeros() as usize,
                }
            }
            return Climbed::Found(found);
        }
        Climbed::End
    }

    /// A word of a level, if the level has so many.
    fn look(&self, level: usize, word: usize) -> Option<u64> {
        #[cfg(all(test, not(loom)))]
        steps::step();
        // ordering: Acquire [SUMMARY] a set bit leads to what was put before it was set.
        self.word(level, word).map(|word| word.load(Ordering::Acquire))
    }

    /// Forgets everything, at the end of the process.
    pub fn reset(&self) {
        while let Some(place) = self.next(0) {
            self.clear(place, || false);
        }
    }
}

/// What a search came upon.
enum Climbed {
    /// A place.
    Found(usize),
    /// A word of that level that is empty, though the bit that stands for it is set.
    Empty { level: usize, word: usize },
    /// Nothing further on.
    End,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use super::steps::steps_of;

    /// 65,536 places.
    type Large = Summary<1024, 16>;

    #[test]
    fn places_are_found_lowest_first() {
        let summary = Large::new();
        let places = [0, 1, 63, 64, 4095, 4096, 40_000, 65_535];
        places.iter().rev().for_each(|&place| summary.only().note(place));
        let mut from = 0;
        let found = std::iter::from_fn(|| {
            let place = summary.only().next(from)?;
            from = place + 1;
            Some(place)
        });
        assert!(found.eq(places));
        assert_eq!(summary.only().next(65_536), None);
        summary.only().reset();
        assert_eq!(summary.only().next(0), None);
        assert_eq!(summary.top[0][0].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_search_looks_at_a_few_words_however_far_it_goes() {
        let summary = Large::new();
        assert!(steps_of(|| assert_eq!(summary.only().next(0), None)) <= LEVELS as u64);
        summary.only().note(65_535);
        assert!(steps_of(|| assert_eq!(summary.only().next(0), Some(65_535))) <= 2 * LEVELS as u64);
    }

    #[test]
    fn what_is_there_again_stays_noted() {
        let summary = Large::new();
        summary.only().note(5000);
        summary.only().clear(5000, || true);
        assert_eq!(summary.only().next(0), Some(5000));
        summary.only().clear(5000, || false);
        assert_eq!(summary.only().next(0), None);
    }

    #[test]
    fn an_upper_bit_that_was_left_behind_misleads_nobody() {
        let summary = Large::new();
        summary.only().note(7);
        summary.only().note(9000);
        // As by a thread that was stopped after the first step of `clear`.
        summary.leaves[0][0].store(0, Ordering::Relaxed);
        assert_eq!(summary.only().next(0), Some(9000));
        summary.only().note(7);
        assert_eq!(summary.only().next(0), Some(7));
    }
}
