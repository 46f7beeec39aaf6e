//! Sizes of blocks as programs ask for them.
//!
//! The brackets follow what published profiles of object-oriented programs and of servers have in common: most blocks
//! are smaller than 100 bytes, their number falls with the size by about a half for each doubling, and the few large
//! ones are much of the bytes. Within a bracket all sizes are as likely. Three of four are multiples of 8, as structs
//! are; the others, as text, are not.

use crate::random::Random;

/// Sizes between `least` and `least + width - 1`.
#[derive(Clone, Copy)]
struct Bracket {
    least: u32,
    width: u32,
}

/// One bracket for each percent of the blocks: a size is drawn without a search.
type Brackets = [Bracket; 100];

/// The brackets of `(percent, least, most)`.
const fn brackets(shape: &[(usize, u32, u32)]) -> Brackets {
    let mut brackets = [Bracket { least: 0, width: 0 }; 100];
    let mut filled = 0;
    let mut row = 0;
    while row < shape.len() {
        let (percent, least, most) = shape[row];
        let end = filled + percent;
        while filled < end {
            brackets[filled] = Bracket { least, width: most - least + 1 };
            filled += 1;
        }
        row += 1;
    }
    assert!(filled == brackets.len(), "the percentages add up to 100");
    brackets
}

/// 8 B to 1 KiB, about 90 B on average.
static SMALL: Brackets =
    brackets(&[(16, 8, 16), (28, 17, 32), (26, 33, 64), (15, 65, 128), (8, 129, 256), (5, 257, 512), (2, 513, 1024)]);

/// 16 B to 32 KiB, about 1 KiB on average; four fifths of the bytes are in blocks of more than 1 KiB.
static WIDE: Brackets =
    brackets(&[(40, 16, 64), (30, 65, 256), (17, 257, 1024), (9, 1025, 4096), (3, 4097, 16_384), (1, 16_385, 32_768)]);

/// A size of an object program's small blocks: 8 to 1,024.
#[inline]
pub fn small(random: &mut Random) -> usize {
    draw(random, &SMALL)
}

/// A size of a program that has strings, tables and buffers as well: 16 to 32,768.
#[inline]
pub fn wide(random: &mut Random) -> usize {
    draw(random, &WIDE)
}

/// 1 to 1,000, and the smaller the likelier: half of them are below 126.
#[inline]
pub fn falling(random: &mut Random) -> usize {
    // The cube of a number of 21 bits has 63; its upper 32 are scaled to the range.
    let part = random.number() >> 43;
    let cube = (part * part * part) >> 31;
    1 + ((cube * 1000) >> 32) as usize
}

#[inline]
fn draw(random: &mut Random, brackets: &Brackets) -> usize {
    // One number is enough for both: its upper half chooses the bracket, the other one the size within.
    let number = random.number();
    let bracket = brackets[(((number >> 32) * brackets.len() as u64) >> 32) as usize];
    let offset = ((number & 0xFFFF_FFFF) * u64::from(bracket.width)) >> 32;
    let size = bracket.least as usize + offset as usize;
    // The lowest bits have next to no weight in the size.
    let rounded = if number & 3 == 0 { 0 } else { 7 };
    (size + rounded) & !rounded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many drawn sizes in order.
    fn drawn(draw: fn(&mut Random) -> usize) -> Vec<usize> {
        let mut random = Random::new(1);
        let mut sizes: Vec<usize> = (0..1_000_000).map(|_| draw(&mut random)).collect();
        sizes.sort_unstable();
        sizes
    }

    fn average(sizes: &[usize]) -> usize {
        sizes.iter().sum::<usize>() / sizes.len()
    }

    #[test]
    fn small_sizes_are_as_described() {
        let sizes = drawn(small);
        assert_eq!((sizes[0], sizes[sizes.len() - 1]), (8, 1024));
        assert!((85..100).contains(&average(&sizes)), "{}", average(&sizes));
        assert!((32..64).contains(&sizes[sizes.len() / 2]));
    }

    #[test]
    fn wide_sizes_are_as_described() {
        let sizes = drawn(wide);
        assert_eq!((sizes[0], sizes[sizes.len() - 1]), (16, 32_768));
        assert!((900..1100).contains(&average(&sizes)), "{}", average(&sizes));
        let large: usize = sizes.iter().filter(|size| **size > 1024).sum();
        assert!((75..85).contains(&(large * 100 / sizes.iter().sum::<usize>())));
    }

    #[test]
    fn falling_sizes_are_as_described() {
        let sizes = drawn(falling);
        assert_eq!(sizes[0], 1);
        assert!((990..=1000).contains(&sizes[sizes.len() - 1]));
        assert!((120..=130).contains(&sizes[sizes.len() / 2]));
    }
}
