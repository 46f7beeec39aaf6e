//! Documents for the load, each a function of its seed, so that a client that remembers the seed
//! can check every byte of what the service gives back.

use serde_json::{Value, json};

/// Values of the field `city`, by which the load searches.
pub(crate) const CITIES: [&str; 8] = ["Accra", "Bergen", "Cusco", "Dakar", "Erfurt", "Fukuoka", "Gdansk", "Hobart"];

const WORDS: [&str; 12] =
    ["block", "chunk", "depot", "epoch", "fence", "heap", "magazine", "owner", "page", "slab", "span", "thread"];

/// A small pseudo-random generator (splitmix64). Good enough to mix a load, and repeatable.
pub(crate) struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number of 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound - 1`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of `items`.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// The value of the field `token`, which no other document has.
pub(crate) fn token(seed: u64) -> String {
    format!("{seed:016x}")
}

/// The document of `seed`: many small pieces, mostly short texts, a few long ones. All numbers
/// are integers, which JSON carries exactly.
pub(crate) fn document(seed: u64) -> Value {
    let mut random = Random::new(seed);
    let tags: Vec<&str> = (0..random.below(6)).map(|_| random.pick(&WORDS)).collect();
    let length = match random.below(100) {
        0..80 => 40 + random.below(360),
        80..98 => 400 + random.below(3_600),
        _ => 16_000 + random.below(48_000),
    };
    json!({
        "token": token(seed),
        "city": random.pick(&CITIES),
        "tags": tags,
        "count": random.next(),
        "place": { "x": random.below(1_000), "y": random.below(1_000), "name": random.pick(&WORDS) },
        "text": text(&mut random, length),
    })
}

fn text(random: &mut Random, length: usize) -> String {
    let mut text = String::new();
    while text.len() < length {
        text.push_str(random.pick(&WORDS));
        text.push(' ');
    }
    text
}
