//! Data-parallel programs on rayon: blocks are allocated by the thread that has stolen the work, and freed by another.

use super::text::{FixedHasher, mix, mix_bytes, push_word, word};
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;
use ::rayon::prelude::*;
use ::rayon::{ThreadPool, ThreadPoolBuilder, join};
use std::collections::HashMap;

/// Clones, sorts and groups strings.
pub const RAYON_SORT: Workload = Workload {
    name: "rayon-sort",
    stands_for: "clones, sorts and groups 100,000 strings in parallel: a query without an index (rayon)",
    operations: "strings",
    threads_per_core: 1,
    shown: Shown::Row,
    run: sort,
};

/// Builds, reads and drops trees of boxes.
pub const RAYON_TREE: Workload = Workload {
    name: "rayon-tree",
    stands_for: "builds, reads and drops trees of boxes by halves in parallel: divide and conquer (rayon)",
    operations: "nodes",
    threads_per_core: 1,
    shown: Shown::Row,
    run: tree,
};

/// Counts words.
pub const RAYON_WORDS: Workload = Workload {
    name: "rayon-words",
    stands_for: "counts the words of pieces of a text in maps and merges the maps: map-reduce (rayon)",
    operations: "words",
    threads_per_core: 1,
    shown: Shown::Row,
    run: count_words,
};

/// Of one round of sorting.
const STRINGS: usize = 100_000;
const SORT_ROUNDS: usize = 22;

/// Levels of a tree, below which parts are not worth a task of their own.
const LEVELS: u32 = 17;
const SERIAL_LEVELS: u32 = 8;
const TREE_ROUNDS: usize = 280;

/// Bytes of text that are counted, and of a piece.
const TEXT: usize = 1 << 20;
const PIECE: usize = 16 << 10;
/// Words that the text is made of, some of them much more frequent than others.
const VOCABULARY: usize = 20_000;
const COUNT_ROUNDS: usize = 48;

fn pool(parameters: &Parameters) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(parameters.threads).build().expect("threads can be started")
}

fn sort(parameters: &Parameters) -> Outcome {
    let rounds = parameters.scaled(SORT_ROUNDS);
    let mut random = Random::new(parameters.seed);
    let source: Vec<String> = (0..STRINGS).map(|_| word(&mut random)).collect();
    let mut checksum = 0;
    pool(parameters).install(|| {
        for round in 0..rounds {
            // Each round sorts others, a part of which is equal.
            let part = move |text: &String| format!("{}{:03}", &text[round % 2..], text.len() * round % 7);
            let mut strings: Vec<String> = source.par_iter().map(part).collect();
            strings.par_sort();
            strings.dedup();
            let groups: Vec<&[String]> = strings.chunk_by(|one, other| one[..2] == other[..2]).collect();
            let joined: Vec<(String, Vec<String>)> =
                groups.par_iter().map(|group| (group[0][..2].to_owned(), group.to_vec())).collect();
            checksum = joined.iter().fold(checksum, |sum, (name, group)| {
                let sum = mix(mix_bytes(sum, name.as_bytes()), group.len() as u64);
                group.iter().fold(sum, |sum, text| mix_bytes(sum, text.as_bytes()))
            });
            joined.into_par_iter().for_each(drop);
            strings.into_par_iter().for_each(drop);
        }
    });
    Outcome::new((rounds * STRINGS) as u64, checksum)
}

/// A node that has two children or none.
struct Tree {
    value: u64,
    children: Option<(Box<Tree>, Box<Tree>)>,
}

fn tree(parameters: &Parameters) -> Outcome {
    let rounds = parameters.scaled(TREE_ROUNDS);
    let mut random = Random::new(parameters.seed);
    let (mut checksum, mut operations) = (0, 0);
    pool(parameters).install(|| {
        for _ in 0..rounds {
            let tree = build(LEVELS, random.number());
            let (sum, nodes) = read(&tree, LEVELS);
            checksum = mix(checksum, sum);
            operations += nodes;
            release(*tree, LEVELS);
        }
    });
    Outcome::new(operations, checksum)
}

/// A tree of at most `levels`. Values and shape follow from `value`, that of its root.
fn build(levels: u32, value: u64) -> Box<Tree> {
    // Branches end early now and then, so that halves are not of the same size.
    let ends = levels == 1 || value.is_multiple_of(32) && levels < LEVELS - 2;
    let children = (!ends).then(|| {
        let [left, right] = [1, 2].map(|side| mix(value, side));
        fork(levels, || build(levels - 1, left), || build(levels - 1, right))
    });
    Box::new(Tree { value, children })
}

/// The sum of a tree, in which the place of each value counts, and the number of its nodes.
fn read(tree: &Tree, levels: u32) -> (u64, u64) {
    tree.children.as_ref().map_or((tree.value, 1), |(left, right)| {
        let ((left, some), (right, others)) = fork(levels, || read(left, levels - 1), || read(right, levels - 1));
        (mix(mix(tree.value, left), right), some + others + 1)
    })
}

/// Drops a tree, its halves in parallel.
fn release(tree: Tree, levels: u32) {
    if let Some((left, right)) = tree.children {
        fork(levels, || release(*left, levels - 1), || release(*right, levels - 1));
    }
}

/// Both, in parallel if there are enough levels below.
fn fork<A: Send, B: Send>(levels: u32, one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B + Send) -> (A, B) {
    if levels > SERIAL_LEVELS { join(one, other) } else { (one(), other()) }
}

type Counts = HashMap<String, u32, FixedHasher>;

fn count_words(parameters: &Parameters) -> Outcome {
    let rounds = parameters.scaled(COUNT_ROUNDS);
    let mut random = Random::new(parameters.seed);
    let text = text(&mut random, TEXT);
    let pieces = pieces(&text, PIECE);
    let (mut checksum, mut operations) = (0, 0);
    pool(parameters).install(|| {
        for round in 0..rounds {
            // Each round counts another part of the text.
            let counts = count(&pieces[round % 8..]);
            // Maps have an order that depends on how they grew: the sum must not.
            let total: u32 = counts.values().sum();
            checksum = mix(checksum, counts.par_iter().map(|(word, &count)| product(word, count)).reduce(|| 0, add));
            operations += u64::from(total);
        }
    });
    Outcome::new(operations, checksum)
}

fn add(one: u64, other: u64) -> u64 {
    one.wrapping_add(other)
}

fn product(word: &str, count: u32) -> u64 {
    mix_bytes(0, word.as_bytes()).wrapping_mul(u64::from(count))
}

/// At least `length` bytes of words.
fn text(random: &mut Random, length: usize) -> String {
    let vocabulary: Vec<String> = (0..VOCABULARY).map(|_| word(random)).collect();
    let mut text = String::with_capacity(length + 64);
    while text.len() < length {
        if random.percent(2) {
            // A name, a number, a slip: there is always something new.
            push_word(&mut text, random);
        }
        let below = random.between(1, VOCABULARY);
        let below = random.between(1, below);
        text.push_str(&vocabulary[random.below(below)]);
        text.push(' ');
    }
    text
}

/// Parts of at least `length` bytes, each of whole words.
fn pieces(text: &str, length: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let least = length.min(rest.len());
        let end = rest.as_bytes()[least..].iter().position(|&byte| byte == b' ').map_or(rest.len(), |end| least + end);
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    pieces
}

/// Counts the pieces by halves; the larger map takes the other.
fn count(pieces: &[&str]) -> Counts {
    if let [piece] = pieces {
        let mut counts = Counts::default();
        for word in piece.split_ascii_whitespace() {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
        return counts;
    }
    let (left, right) = pieces.split_at(pieces.len() / 2);
    let (left, right) = join(|| count(left), || count(right));
    let (mut counts, others) = if left.len() < right.len() { (right, left) } else { (left, right) };
    for (word, count) in others {
        *counts.entry(word).or_default() += count;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::{LEVELS, RAYON_SORT, RAYON_TREE, RAYON_WORDS, build, count, pieces, read, text};
    use crate::random::Random;
    use crate::workloads::Parameters;
    use std::collections::BTreeMap;

    #[test]
    fn same_checksum_with_any_threads() {
        for workload in [RAYON_SORT, RAYON_TREE, RAYON_WORDS] {
            let run = |threads, seed| (workload.run)(&Parameters { scale: 0.001, threads, seed });
            let first = run(1, 3);
            assert!(first.operations > 0);
            assert_eq!(run(1, 3).checksum, first.checksum, "{}", workload.name);
            // The work is the same for any number of threads.
            assert_eq!(run(2, 3).checksum, first.checksum, "{}", workload.name);
            assert_eq!(run(5, 3).checksum, first.checksum, "{}", workload.name);
            assert_ne!(run(1, 4).checksum, first.checksum, "{}", workload.name);
        }
    }

    #[test]
    fn words_of_a_known_text() {
        let text = "to be or not to be that is the question to ask";
        for length in [1, 5, 100] {
            let counts = count(&pieces(text, length));
            assert_eq!(counts["to"], 3);
            assert_eq!(counts["be"], 2);
            assert_eq!(counts["ask"], 1);
            assert_eq!(counts.len(), 9);
        }
    }

    #[test]
    fn words_are_counted_as_by_one_thread() {
        let text = text(&mut Random::new(1), 100_000);
        let mut expected = BTreeMap::new();
        text.split(' ')
            .filter(|word| !word.is_empty())
            .for_each(|word| *expected.entry(word.to_owned()).or_default() += 1);
        assert_eq!(count(&pieces(&text, 1_000)).into_iter().collect::<BTreeMap<_, _>>(), expected);
    }

    #[test]
    fn trees_have_their_levels() {
        let tree = build(LEVELS, 1);
        let (_, nodes) = read(&tree, LEVELS);
        assert!(nodes % 2 == 1 && nodes < 1 << LEVELS && nodes > 1 << (LEVELS - 3), "{nodes}");
    }
}
