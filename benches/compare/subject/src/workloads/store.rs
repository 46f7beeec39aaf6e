//! A key-value store with expiry, as Redis is used: a session store or a cache.

use super::text::{FixedHasher, mix, mix_bytes};
use super::{Outcome, Parameters, Shown, Workload, latency_histogram};
use crate::random::Random;
use hdrhistogram::Histogram;
use std::collections::{BTreeSet, HashMap};
use std::thread;
use std::time::Instant;

/// Gets, sets, appends and deletes, with a steady population, of which most expires at once in the end.
pub const STORE: Workload = Workload {
    name: "store",
    stands_for: "key-value store with expiry, values of 10 B to 4 KB, each thread its shard; a wave of expiry (Redis, Dragonfly)",
    operations: "requests",
    threads_per_core: 1,
    shown: Shown::RowAndMemory,
    run,
};

/// Entries in all shards together when the population is steady.
const POPULATION: usize = 100_000;
/// Requests to one shard at full length.
const REQUESTS: usize = 1_100_000;
/// Of 100 requests as long as the population is steady: how many set a key. The others get, append, delete and scan.
const SETS: usize = 30;
/// The same after the wave, when there is almost nobody left who logs in.
const SETS_AFTER_WAVE: usize = 3;
/// Entries that expire with one request, at most: as in Redis, no request waits for all.
const EXPIRED_AT_ONCE: usize = 20;

fn run(parameters: &Parameters) -> Outcome {
    run_population(parameters, POPULATION)
}

fn run_population(parameters: &Parameters, population: usize) -> Outcome {
    let requests = parameters.scaled(REQUESTS);
    let parts: Vec<(Shard, u64, Histogram<u64>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..parameters.threads as u64)
            .map(|index| {
                let random = Random::new(parameters.seed.wrapping_add(index));
                let shard = Shard::new(random, population / parameters.threads);
                scope.spawn(move || serve(shard, requests))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let mut latencies = latency_histogram();
    let mut checksum = 0;
    for (shard, sum, part) in &parts {
        checksum = mix(mix(checksum, *sum), shard.entries.len() as u64);
        latencies.add(part).expect("the same bounds");
    }
    let shards: Vec<Shard> = parts.into_iter().map(|(shard, ..)| shard).collect();
    Outcome {
        operations: (requests * parameters.threads) as u64,
        checksum,
        latencies: Some(latencies),
        kept: Some(Box::new(shards)),
    }
}

/// What one thread does: fills its shard, works on it, lets most of it expire, and goes on.
fn serve(mut shard: Shard, requests: usize) -> (Shard, u64, Histogram<u64>) {
    let mut latencies = latency_histogram();
    shard.fill();
    let wave = requests * 4 / 5;
    let mut sum = 0;
    // The end of a request is the start of the next: two readings of the clock would be a tenth of one.
    let mut last = Instant::now();
    for request in 0..requests {
        if request == wave {
            shard.now += shard.lifetime * 9 / 5;
        }
        let sets = if request < wave { SETS } else { SETS_AFTER_WAVE };
        sum = mix(sum, shard.request(sets));
        let now = Instant::now();
        latencies.record((now - last).as_nanos() as u64).expect("no request takes a minute");
        last = now;
    }
    (shard, sum, latencies)
}

/// A fourth of the keys is longer than the others.
fn key(number: usize) -> String {
    if number.is_multiple_of(4) { format!("user:{number}:profile:settings") } else { format!("session:{number:08x}") }
}

struct Entry {
    value: Vec<u8>,
    deadline: u64,
}

/// The part of the store that one thread has.
struct Shard {
    random: Random,
    entries: HashMap<String, Entry, FixedHasher>,
    /// The same keys by the time at which they expire.
    deadlines: BTreeSet<(u64, String)>,
    /// The time, in requests.
    now: u64,
    /// Entries live for up to twice this long.
    lifetime: u64,
    population: usize,
}

impl Shard {
    fn new(random: Random, population: usize) -> Self {
        let population = population.max(1);
        // As many are set in the lifetime as there are.
        let lifetime = (population * 100 / SETS) as u64;
        Self { random, entries: HashMap::default(), deadlines: BTreeSet::new(), now: 0, lifetime, population }
    }

    /// Brings the shard to its steady population: half of all keys.
    fn fill(&mut self) {
        for number in 0..2 * self.population {
            if self.random.percent(50) {
                self.set(key(number));
            }
        }
    }

    /// One request; `sets` of 100 set a key. Returns what it saw.
    fn request(&mut self, sets: usize) -> u64 {
        self.now += 1;
        self.expire();
        let key = self.key();
        match self.random.below(100) {
            kind if kind < sets => {
                self.set(key);
                0
            }
            kind if kind < sets + 4 => u64::from(self.delete(&key)),
            kind if kind < sets + 12 => self.append(&key),
            kind if kind < sets + 14 => self.next_to_expire(),
            _ => self.get(&key),
        }
    }

    /// A key, of twice as many as are in the shard: a quarter of the requests goes to a hundredth of them.
    fn key(&mut self) -> String {
        let range = if self.random.percent(25) { self.population / 50 + 1 } else { self.population * 2 };
        key(self.random.below(range))
    }

    /// 10 B to 4 KB, small ones more frequent.
    fn value(&mut self) -> Vec<u8> {
        let octaves = self.random.below(9).min(self.random.below(9));
        let size = (self.random.between(10, 16) << octaves).min(4_096);
        vec![self.now as u8; size]
    }

    fn set(&mut self, key: String) {
        let deadline = self.now + self.random.between(1, 2 * self.lifetime as usize) as u64;
        let entry = Entry { value: self.value(), deadline };
        self.deadlines.insert((deadline, key.clone()));
        match self.entries.get_mut(&key) {
            Some(present) => {
                let replaced = std::mem::replace(present, entry);
                // The same deadline by chance: then there is one member for both.
                if replaced.deadline != deadline {
                    self.deadlines.remove(&(replaced.deadline, key));
                }
            }
            None => {
                self.entries.insert(key, entry);
            }
        }
    }

    fn delete(&mut self, key: &str) -> bool {
        match self.entries.remove_entry(key) {
            Some((key, entry)) => self.deadlines.remove(&(entry.deadline, key)),
            None => false,
        }
    }

    fn append(&mut self, key: &str) -> u64 {
        let length = self.random.between(8, 64);
        let byte = self.now as u8;
        match self.entries.get_mut(key) {
            Some(entry) if entry.value.len() + length <= 4_096 => {
                entry.value.resize(entry.value.len() + length, byte);
                entry.value.len() as u64
            }
            _ => 0,
        }
    }

    /// Copies the value, as into a reply.
    fn get(&self, key: &str) -> u64 {
        let reply = self.entries.get(key).map(|entry| entry.value.clone());
        reply.map_or(0, |value| mix_bytes(1, &value))
    }

    /// Copies the keys that expire next, as a range of a sorted set.
    fn next_to_expire(&self) -> u64 {
        let keys: Vec<String> = self.deadlines.iter().take(10).map(|(_, key)| key.clone()).collect();
        keys.iter().fold(0, |sum, key| mix_bytes(sum, key.as_bytes()))
    }

    /// Removes some of those whose time is over.
    fn expire(&mut self) {
        for _ in 0..EXPIRED_AT_ONCE {
            match self.deadlines.first() {
                Some((deadline, _)) if *deadline <= self.now => {
                    let (_, key) = self.deadlines.pop_first().expect("there is a first");
                    self.entries.remove(&key);
                }
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SETS, Shard, run_population};
    use crate::random::Random;
    use crate::workloads::Parameters;

    #[test]
    fn same_checksum_with_any_threads() {
        for threads in [1, 2, 5] {
            let parameters = Parameters { scale: 0.01, threads, seed: 3 };
            let first = run_population(&parameters, 5_000);
            assert_eq!(first.operations, 11_000 * threads as u64);
            assert_eq!(first.latencies.expect("requests are timed").len(), first.operations);
            assert_eq!(run_population(&parameters, 5_000).checksum, first.checksum);
            assert_ne!(run_population(&Parameters { seed: 99, ..parameters }, 5_000).checksum, first.checksum);
        }
    }

    #[test]
    fn population_is_steady_and_the_wave_takes_most() {
        let mut shard = Shard::new(Random::new(1), 2_000);
        shard.fill();
        for _ in 0..30_000 {
            shard.request(SETS);
            assert_eq!(shard.entries.len(), shard.deadlines.len());
            assert!((1_000..3_000).contains(&shard.entries.len()), "{}", shard.entries.len());
        }
        let before = shard.entries.len();
        shard.now += shard.lifetime * 9 / 5;
        for _ in 0..before {
            shard.request(0);
        }
        assert!(shard.entries.len() < before / 10, "{} of {before}", shard.entries.len());
        assert_eq!(shard.entries.len(), shard.deadlines.len());
    }

    #[test]
    fn a_value_is_there_until_its_deadline() {
        let mut shard = Shard::new(Random::new(1), 10);
        shard.set("a".to_owned());
        assert_ne!(shard.get("a"), 0);
        let length = shard.entries["a"].value.len() as u64;
        assert!(shard.append("a") > length);
        shard.now = shard.entries["a"].deadline;
        shard.expire();
        assert_eq!(shard.get("a"), 0);
        assert!(shard.deadlines.is_empty());
        shard.set("b".to_owned());
        assert!(shard.delete("b") && !shard.delete("b"));
    }
}
