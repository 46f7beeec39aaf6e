//! Text for the workloads, and how results are summed up: the same in every run.

use crate::random::Random;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

/// Makes the order of a map the same in every run; the standard library's default is seeded by the process.
pub type FixedHasher = BuildHasherDefault<DefaultHasher>;

const ONSETS: [&str; 16] = ["b", "br", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v"];
const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ai", "ea", "ou"];
const CODAS: [&str; 8] = ["", "", "", "l", "n", "r", "s", "nd"];

/// Appends a word of one to four syllables, 2 to 20 letters of a to z.
pub fn push_word(text: &mut String, random: &mut Random) {
    for _ in 0..=random.below(4) {
        text.push_str(ONSETS[random.below(ONSETS.len())]);
        text.push_str(VOWELS[random.below(VOWELS.len())]);
        text.push_str(CODAS[random.below(CODAS.len())]);
    }
}

/// A word.
pub fn word(random: &mut Random) -> String {
    let mut text = String::new();
    push_word(&mut text, random);
    text
}

/// Words with a blank between each two, at least `length` bytes of them.
pub fn words(random: &mut Random, length: usize) -> String {
    let mut text = String::with_capacity(length + 24);
    while text.len() < length {
        if !text.is_empty() {
            text.push(' ');
        }
        push_word(&mut text, random);
    }
    text
}

/// A sum that `value` has gone into. The order matters.
#[inline]
pub fn mix(sum: u64, value: u64) -> u64 {
    (sum ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// A sum that the length and all of `bytes` have gone into.
pub fn mix_bytes(sum: u64, bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let whole = chunks.iter().fold(mix(sum, bytes.len() as u64), |sum, chunk| mix(sum, u64::from_le_bytes(*chunk)));
    rest.iter().fold(whole, |sum, &byte| mix(sum, u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::{mix_bytes, words};
    use crate::random::Random;

    #[test]
    fn words_by_seed() {
        let text = words(&mut Random::new(1), 1000);
        assert!(text.len() >= 1000 && text.len() < 1021);
        assert!(text.split(' ').all(|word| (2..=20).contains(&word.len())));
        assert_eq!(text, words(&mut Random::new(1), 1000));
        assert_ne!(text, words(&mut Random::new(2), 1000));
    }

    #[test]
    fn every_byte_and_its_place_count() {
        let bytes: Vec<u8> = (0..19).collect();
        let sum = mix_bytes(0, &bytes);
        for place in 0..bytes.len() {
            let mut other = bytes.clone();
            other[place] ^= 0x80;
            assert_ne!(mix_bytes(0, &other), sum);
        }
        assert_ne!(mix_bytes(0, &bytes[..18]), sum);
    }
}
