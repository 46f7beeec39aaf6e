//! Documents of JSON: parsed, changed, written again. What a web service does with the bodies of requests.

use super::text::{mix, mix_bytes, push_word, words};
use super::{Outcome, Parameters, Shown, Workload, latency_histogram};
use crate::random::Random;
use hdrhistogram::Histogram;
use serde_json::Value;
use std::fmt::Write;
use std::thread;
use std::time::Instant;

/// Parses documents of 1 to 30 KB into trees, changes them, and serialises them.
pub const JSON: Workload = Workload {
    name: "json",
    stands_for: "parses documents of 1 to 30 KB, changes and serialises them: bodies of requests (serde_json)",
    operations: "documents",
    threads_per_core: 1,
    shown: Shown::Row,
    run,
};

/// Texts that a thread parses again and again.
const TEXTS: usize = 64;
/// Parsed documents that a thread keeps: requests in flight.
const IN_FLIGHT: usize = 24;
/// Documents of one thread at full length.
const DOCUMENTS: usize = 5_000;

fn run(parameters: &Parameters) -> Outcome {
    let documents = parameters.scaled(DOCUMENTS);
    let parts: Vec<(u64, Histogram<u64>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..parameters.threads as u64)
            .map(|index| {
                let random = Random::new(parameters.seed.wrapping_add(index));
                scope.spawn(move || serve(random, documents))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let mut latencies = latency_histogram();
    let mut checksum = 0;
    for (sum, part) in &parts {
        checksum = mix(checksum, *sum);
        latencies.add(part).expect("the same bounds");
    }
    Outcome { latencies: Some(latencies), ..Outcome::new((documents * parameters.threads) as u64, checksum) }
}

/// What one thread does.
fn serve(mut random: Random, documents: usize) -> (u64, Histogram<u64>) {
    let mut latencies = latency_histogram();
    let texts: Vec<String> = (0..TEXTS).map(|_| document(&mut random)).collect();
    let mut in_flight: Vec<Value> = vec![Value::Null; IN_FLIGHT];
    let mut sum = 0;
    for _ in 0..documents {
        let text = &texts[random.below(TEXTS)];
        let place = random.below(IN_FLIGHT);
        let start = Instant::now();
        let mut value: Value = serde_json::from_str(text).expect("the text was generated as JSON");
        change(&mut value, &mut random);
        let written = serde_json::to_string(&value).expect("a tree of values can be written");
        sum = mix_bytes(sum, written.as_bytes());
        // The document that leaves is dropped within the request, as in a service.
        in_flight[place] = value;
        drop(written);
        latencies.record(start.elapsed().as_nanos() as u64).expect("no request takes a minute");
    }
    (sum, latencies)
}

/// A document of 1 to 30 KB; small ones are more frequent.
fn document(random: &mut Random) -> String {
    let least = random.between(1_000, 29_000);
    let length = least.min(random.between(1_000, 29_000));
    let mut text = String::from("{\"id\":1,\"items\":[");
    let mut first = true;
    while text.len() < length {
        if !std::mem::take(&mut first) {
            text.push(',');
        }
        push_object(&mut text, random, 4);
    }
    text.push_str("]}");
    text
}

/// Appends an object with at most `depth` levels.
fn push_object(text: &mut String, random: &mut Random, depth: usize) {
    text.push('{');
    // The number keeps the names of an object's members distinct.
    for member in 0..random.between(2, 6) {
        if member > 0 {
            text.push(',');
        }
        text.push('"');
        push_word(text, random);
        write!(text, "{member}\":").expect("a string takes everything");
        push_value(text, random, depth - 1);
    }
    text.push('}');
}

fn push_value(text: &mut String, random: &mut Random, depth: usize) {
    let kinds = if depth == 0 { 8 } else { 11 };
    match random.below(kinds) {
        0..=3 => {
            let length = random.between(1, 40);
            text.push('"');
            text.push_str(&words(random, length));
            // A third of the strings have something that the parser must replace.
            text.push_str(if random.percent(33) { "\\n\\u00e9\"" } else { "\"" });
        }
        4..=5 => write!(text, "{}", random.below(1_000_000)).expect("a string takes everything"),
        6 => write!(text, "-{}.{}", random.below(1000), random.between(1, 9)).expect("a string takes everything"),
        7 => text.push_str(["true", "false", "null"][random.below(3)]),
        8..=9 => push_object(text, random, depth),
        _ => {
            text.push('[');
            for element in 0..random.between(1, 8) {
                if element > 0 {
                    text.push(',');
                }
                push_value(text, random, depth - 1);
            }
            text.push(']');
        }
    }
}

/// Changes a part of all numbers, strings, arrays and objects below `value`.
fn change(value: &mut Value, random: &mut Random) {
    match value {
        Value::Null => *value = Value::from("nothing"),
        Value::Bool(state) => *state = !*state,
        Value::Number(number) => {
            if let Some(whole) = number.as_u64() {
                *number = (whole + 1).into();
            }
        }
        Value::String(text) => {
            if random.percent(25) {
                text.push_str(", and what was appended");
            }
        }
        Value::Array(elements) => {
            elements.iter_mut().for_each(|element| change(element, random));
            if random.percent(25) {
                let copy = elements[random.below(elements.len())].clone();
                elements.push(copy);
            }
        }
        Value::Object(members) => {
            members.values_mut().for_each(|member| change(member, random));
            if random.percent(25) {
                members.insert("seen".to_owned(), Value::from(words(random, 12)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{JSON, change, document};
    use crate::random::Random;
    use crate::workloads::Parameters;
    use serde_json::{Value, json};

    #[test]
    fn same_checksum_with_any_threads() {
        for threads in [1, 2, 5] {
            let parameters = Parameters { scale: 0.001, threads, seed: 3 };
            let first = (JSON.run)(&parameters);
            assert_eq!(first.operations, 5 * threads as u64);
            assert_eq!(first.latencies.expect("requests are timed").len(), first.operations);
            assert_eq!((JSON.run)(&parameters).checksum, first.checksum);
            assert_ne!((JSON.run)(&Parameters { seed: 99, ..parameters }).checksum, first.checksum);
        }
    }

    #[test]
    fn documents_have_their_sizes() {
        let mut random = Random::new(5);
        for _ in 0..200 {
            let text = document(&mut random);
            assert!((1_000..=32_000).contains(&text.len()), "{}", text.len());
            let value: Value = serde_json::from_str(&text).expect("it is JSON");
            assert_eq!(value["id"], 1);
        }
    }

    #[test]
    fn change_reaches_the_leaves() {
        let mut value = json!({ "a": [[1, 2.5], null], "b": true });
        change(&mut value, &mut Random::new(1));
        assert_eq!(value["a"][0][0], 2);
        assert_eq!(value["a"][0][1], 2.5);
        assert_eq!(value["a"][1], "nothing");
        assert_eq!(value["b"], false);
    }
}
