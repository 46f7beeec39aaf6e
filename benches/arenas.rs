//! Arenas and pools beside bumpalo, typed-arena and slab: the same work by both, by turns, in one process.
//!
//! `cargo bench --bench arenas` prints a table: nanoseconds per operation, median of each, and their ratio; less than 1 is
//! faster than the other. A word as argument chooses the rows that contain it; `--test` runs each once.

use magalloc::{Arena, Handle, Pool, SharedArena};
use std::hint::black_box;
use std::time::{Duration, Instant};

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

/// Operations of a round: the work that is repeated.
const COUNT: usize = 1_000;
/// How long a sample takes at least, and how many each side has.
const SAMPLE: Duration = Duration::from_millis(4);
const SAMPLES: usize = 41;

struct Bench {
    words: Vec<String>,
    is_test: bool,
}

impl Bench {
    /// Times rounds of `COUNT` operations by turns, ours and theirs.
    fn row(&self, name: &str, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
        if !self.words.is_empty() && !self.words.iter().any(|word| name.contains(word.as_str())) {
            return;
        }
        if self.is_test {
            ours();
            theirs();
            return println!("{name}: ok");
        }
        let mut rounds = 1;
        while time(rounds, &mut theirs) < SAMPLE {
            rounds *= 2;
        }
        let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
        for _ in 0..SAMPLES {
            our_times.push(time(rounds, &mut ours));
            their_times.push(time(rounds, &mut theirs));
        }
        let [our, their] = [our_times, their_times].map(|mut times| {
            times.sort_unstable();
            times[SAMPLES / 2].as_nanos() as f64 / (rounds * COUNT) as f64
        });
        println!("{name:<44} {our:>8.2} {their:>8.2} {:>8.3}", our / their);
    }
}

fn time(rounds: usize, work: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    (0..rounds).for_each(|_| work());
    start.elapsed()
}

fn main() {
    let (flags, words): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word.starts_with('-'));
    let bench = Bench { words, is_test: flags.iter().any(|flag| flag == "--test") };
    println!("{:<44} {:>8} {:>8} {:>8}", "ns per operation", "ours", "theirs", "ratio");
    arenas(&bench);
    lists(&bench);
    pools(&bench);
}

/// Values and texts, and a reset for each round.
fn arenas(bench: &Bench) {
    let (mut arena, mut bump) = (Arena::new(), bumpalo::Bump::new());
    macro_rules! row {
        ($name:literal, $ours:expr, $theirs:expr) => {
            bench.row(
                concat!("bumpalo: ", $name),
                || {
                    let take = $ours;
                    for index in 0..COUNT {
                        take(&arena, index);
                    }
                    arena.reset();
                },
                || {
                    let take = $theirs;
                    for index in 0..COUNT {
                        take(&bump, index);
                    }
                    bump.reset();
                },
            );
        };
    }
    row!(
        "values of 8 bytes",
        |arena: &Arena, index: usize| {
            black_box(arena.alloc(index as u64).unwrap());
        },
        |bump: &bumpalo::Bump, index: usize| {
            black_box(bump.alloc(index as u64));
        }
    );
    row!(
        "values of 48 bytes",
        |arena: &Arena, index: usize| {
            black_box(arena.alloc([index as u64; 6]).unwrap());
        },
        |bump: &bumpalo::Bump, index: usize| {
            black_box(bump.alloc([index as u64; 6]));
        }
    );
    row!(
        "values of 1 byte and of 16 by turns",
        |arena: &Arena, index: usize| {
            black_box(arena.alloc(index as u8).unwrap());
            black_box(arena.alloc([index as u64; 2]).unwrap());
        },
        |bump: &bumpalo::Bump, index: usize| {
            black_box(bump.alloc(index as u8));
            black_box(bump.alloc([index as u64; 2]));
        }
    );
    const TEXT: &str = "a text of some length, of which each piece takes more or less";
    row!(
        "texts of up to 63 bytes",
        |arena: &Arena, index: usize| {
            black_box(arena.alloc_str(&TEXT[..index % 61]).unwrap());
        },
        |bump: &bumpalo::Bump, index: usize| {
            black_box(bump.alloc_str(&TEXT[..index % 61]));
        }
    );
    row!(
        "slices of up to 100 numbers",
        |arena: &Arena, index: usize| {
            black_box(arena.alloc_slice_fill_with(index % 100, |at| at as u32).unwrap());
        },
        |bump: &bumpalo::Bump, index: usize| {
            black_box(bump.alloc_slice_fill_with(index % 100, |at| at as u32));
        }
    );
    bench.row(
        "bumpalo: an arena made for 1,000 values",
        || {
            let arena = Arena::new();
            (0..COUNT).for_each(|index| assert!(black_box(arena.alloc([index; 3]).is_ok())));
        },
        || {
            let bump = bumpalo::Bump::new();
            (0..COUNT).for_each(|index| assert!(black_box(bump.try_alloc([index; 3]).is_ok())));
        },
    );
    let mut shared = SharedArena::new();
    bench.row(
        "bumpalo: values of 8 bytes, ours shared",
        || {
            (0..COUNT).for_each(|index| assert!(black_box(shared.alloc(index as u64).is_ok())));
            shared.reset();
        },
        || {
            (0..COUNT).for_each(|index| assert!(black_box(bump.try_alloc(index as u64).is_ok())));
            bump.reset();
        },
    );
}

/// A list of links, as a tree or a graph has them.
fn lists(bench: &Bench) {
    struct Node<'a>(u64, Option<&'a Node<'a>>);
    fn sum(mut next: Option<&Node<'_>>) -> u64 {
        let mut sum = 0;
        while let Some(node) = next {
            sum += node.0;
            next = node.1;
        }
        sum
    }
    bench.row(
        "typed-arena: a list of 1,000",
        || {
            let arena = Arena::new();
            let mut last = None;
            for index in 0..COUNT {
                last = Some(&*arena.alloc(Node(index as u64, last)).unwrap());
            }
            black_box(sum(last));
        },
        || {
            let arena = typed_arena::Arena::new();
            let mut last = None;
            for index in 0..COUNT {
                last = Some(&*arena.alloc(Node(index as u64, last)));
            }
            black_box(sum(last));
        },
    );
}

/// Objects that come and go.
fn pools(bench: &Bench) {
    type Object = [u64; 6];
    let (mut pool, mut slab) = (Pool::<Object>::new(), slab::Slab::<Object>::new());
    let mut handles: Vec<Handle<Object>> = Vec::with_capacity(COUNT);
    let mut keys: Vec<usize> = Vec::with_capacity(COUNT);
    bench.row(
        "slab: insert and remove",
        || {
            for index in 0..COUNT as u64 {
                let handle = black_box(pool.insert([index; 6]).unwrap());
                black_box(pool.remove(handle));
            }
        },
        || {
            for index in 0..COUNT as u64 {
                let key = black_box(slab.insert([index; 6]));
                black_box(slab.try_remove(key));
            }
        },
    );
    bench.row(
        "slab: insert all, remove all",
        || {
            (0..COUNT as u64).for_each(|index| handles.push(pool.insert([index; 6]).unwrap()));
            handles.drain(..).for_each(|handle| assert!(black_box(pool.remove(handle).is_some())));
        },
        || {
            (0..COUNT as u64).for_each(|index| keys.push(slab.insert([index; 6])));
            keys.drain(..).for_each(|key| assert!(black_box(slab.try_remove(key).is_some())));
        },
    );
    handles.extend((0..COUNT as u64).map(|index| pool.insert([index; 6]).unwrap()));
    keys.extend((0..COUNT as u64).map(|index| slab.insert([index; 6])));
    // The same for both: places far apart, one after the other.
    let order: Vec<usize> = (0..COUNT).map(|index| index * 617 % COUNT).collect();
    bench.row(
        "slab: find, in mixed order",
        || _ = black_box(order.iter().map(|at| pool.get(handles[*at]).unwrap()[0]).sum::<u64>()),
        || _ = black_box(order.iter().map(|at| slab.get(keys[*at]).unwrap()[0]).sum::<u64>()),
    );
    bench.row(
        "slab: walk over all",
        || _ = black_box(pool.iter().map(|(_, object)| object[0]).sum::<u64>()),
        || _ = black_box(slab.iter().map(|(_, object)| object[0]).sum::<u64>()),
    );
}
