//! Ordinary parallel programs on rayon with the allocator as the global one: trees, sorts, maps, strings. Their results
//! are compared with what is known without them.

mod common;

use common::Random;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

/// A binary tree, one allocation for each node and one for its name.
struct Tree {
    name: String,
    children: Option<Box<[Tree; 2]>>,
}

impl Tree {
    fn grow(depth: u32, number: usize) -> Self {
        let children = (depth > 0).then(|| {
            let (left, right) =
                rayon::join(|| Self::grow(depth - 1, 2 * number), || Self::grow(depth - 1, 2 * number + 1));
            Box::new([left, right])
        });
        Self { name: format!("node {number}"), children }
    }

    /// Sum of the numbers in the names.
    fn sum(&self) -> usize {
        let number: usize = self.name["node ".len()..].parse().expect("a number");
        let below = self.children.as_ref().map_or(0, |children| {
            let (left, right) = rayon::join(|| children[0].sum(), || children[1].sum());
            left + right
        });
        number + below
    }
}

/// Numbers that are no multiples of each other, as texts of different lengths.
fn texts(count: usize) -> Vec<String> {
    let mut random = Random::new();
    (0..count).map(|_| format!("{:0width$x}", random.next(), width = 1 + random.below(60))).collect()
}

#[test]
fn parallel_trees_are_complete() {
    for depth in [3, 10, 14] {
        let tree = Tree::grow(depth, 1);
        let nodes = (1 << (depth + 1)) - 1;
        assert_eq!(tree.sum(), nodes * (nodes + 1) / 2);
        // Taken apart by many threads.
        let mut level = vec![tree];
        while !level.is_empty() {
            level =
                level.into_par_iter().filter_map(|tree| tree.children).flat_map_iter(|children| *children).collect();
        }
    }
}

#[test]
fn parallel_sorts_agree_with_sequential_ones() {
    let texts = texts(40_000);
    let mut expected = texts.clone();
    expected.sort();
    let mut sorted = texts.clone();
    sorted.par_sort();
    assert_eq!(sorted, expected);
    let mut unstable = texts;
    unstable.par_sort_unstable_by(|left, right| right.cmp(left));
    unstable.reverse();
    assert_eq!(unstable, expected);
}

#[test]
fn parallel_maps_hold_every_entry() {
    let texts = texts(30_000);
    let hashed: HashMap<String, Vec<usize>> = texts
        .par_iter()
        .enumerate()
        .fold(HashMap::new, |mut map: HashMap<String, Vec<usize>>, (index, text)| {
            map.entry(text[..1].to_owned() + &text[text.len() / 2..]).or_default().push(index);
            map
        })
        .reduce(HashMap::new, |mut left, right| {
            for (key, indices) in right {
                left.entry(key).or_default().extend(indices);
            }
            left
        });
    let mut indices: Vec<_> = hashed.par_iter().flat_map_iter(|(_, indices)| indices.iter().copied()).collect();
    indices.par_sort_unstable();
    assert!(indices.into_iter().eq(0..texts.len()));
    for (key, indices) in hashed {
        for index in indices {
            let text = &texts[index];
            assert_eq!(key, text[..1].to_owned() + &text[text.len() / 2..]);
        }
    }
}

#[test]
fn parallel_ordered_maps_agree_with_sequential_ones() {
    let texts = texts(20_000);
    let expected: BTreeMap<&str, usize> = texts.iter().map(|text| (text.as_str(), text.len())).collect();
    let maps: Vec<BTreeMap<String, usize>> =
        texts.par_chunks(777).map(|chunk| chunk.iter().map(|text| (text.clone(), text.len())).collect()).collect();
    let merged = maps.into_par_iter().reduce(BTreeMap::new, |mut left, mut right| {
        left.append(&mut right);
        left
    });
    assert!(merged.iter().map(|(text, len)| (text.as_str(), len)).eq(expected.iter().map(|(text, len)| (*text, len))));
    // Half of the nodes go, by many threads.
    merged.into_par_iter().filter(|(text, _)| text.len() % 2 == 0).for_each(drop);
}

#[test]
fn parallel_string_work_gives_the_known_text() {
    let lines = 20_000;
    let text: String = (0..lines).into_par_iter().map(|line| format!("line {line} of the text\n")).collect();
    let upper: Vec<String> = text.par_lines().map(|line| line.replace("the text", "it").to_uppercase()).collect();
    assert_eq!(upper.len(), lines);
    let wrong = upper.par_iter().enumerate().find_any(|(line, text)| **text != format!("LINE {line} OF IT"));
    assert_eq!(wrong, None);
    let joined = upper.par_chunks(100).map(|chunk| chunk.join("|")).collect::<Vec<_>>().join("|");
    assert_eq!(joined.split('|').count(), lines);
}
