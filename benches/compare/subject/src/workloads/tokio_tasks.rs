//! Tasks of an asynchronous runtime that send each other strings: blocks are made by one thread, freed by another.

use super::text::{mix, mix_bytes, words};
use super::{Outcome, Parameters, Shown, Workload, latency_histogram};
use crate::random::Random;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Clients ask servers, which start a task for each request.
pub const TOKIO_TASKS: Workload = Workload {
    name: "tokio-tasks",
    stands_for: "clients send strings to servers, which start a task for each and answer: a service (tokio)",
    operations: "requests",
    threads_per_core: 1,
    shown: Shown::Row,
    run,
};

/// Tasks that ask, for each thread. One serves for each thread.
const CLIENTS: usize = 16;
/// Requests of a client at full length.
const REQUESTS: usize = 8_000;
/// Requests that wait for one server.
const QUEUE: usize = 32;
/// One request of so many is divided among several tasks.
const DIVIDED: usize = 16;

/// A string to be changed.
struct Request {
    text: String,
    reply: oneshot::Sender<String>,
}

fn run(parameters: &Parameters) -> Outcome {
    let requests = parameters.scaled(REQUESTS);
    let clients = CLIENTS * parameters.threads;
    let runtime =
        Builder::new_multi_thread().worker_threads(parameters.threads).build().expect("threads can be started");
    let mut latencies = latency_histogram();
    let mut checksum = 0;
    runtime.block_on(async {
        let servers: Vec<mpsc::Sender<Request>> = (0..parameters.threads).map(|_| start_server()).collect();
        let clients: Vec<JoinHandle<(u64, Vec<Duration>)>> = (0..clients as u64)
            .map(|index| {
                let random = Random::new(parameters.seed.wrapping_add(index));
                tokio::spawn(ask(random, servers.clone(), requests))
            })
            .collect();
        for client in clients {
            let (sum, durations) = client.await.expect("a client does not panic");
            checksum = mix(checksum, sum);
            for duration in durations {
                latencies.record(duration.as_nanos() as u64).expect("no request takes a minute");
            }
        }
    });
    Outcome { latencies: Some(latencies), ..Outcome::new((requests * clients) as u64, checksum) }
}

/// Starts a task that serves as long as there is a sender.
fn start_server() -> mpsc::Sender<Request> {
    let (sender, mut receiver) = mpsc::channel::<Request>(QUEUE);
    tokio::spawn(async move {
        while let Some(request) = receiver.recv().await {
            tokio::spawn(answer(request));
        }
    });
    sender
}

/// Answers one request.
async fn answer(request: Request) {
    let words: Vec<&str> = request.text.split(' ').collect();
    let answer = if words.len().is_multiple_of(DIVIDED) {
        let tasks: Vec<JoinHandle<String>> = words.chunks(4).map(|part| tokio::spawn(change(part.join(" ")))).collect();
        let mut answer = String::new();
        for task in tasks {
            answer.push_str(&task.await.expect("a part does not panic"));
        }
        answer
    } else {
        change(words.join(" ")).await
    };
    request.reply.send(answer).expect("the client waits for it");
}

/// The words backwards, in upper case.
async fn change(text: String) -> String {
    let mut changed = String::new();
    for word in text.rsplit(' ') {
        changed.push_str(&word.to_uppercase());
        changed.push('.');
    }
    changed
}

/// What a client does. Returns the sum of the answers, and how long each took.
async fn ask(mut random: Random, servers: Vec<mpsc::Sender<Request>>, requests: usize) -> (u64, Vec<Duration>) {
    let mut durations = Vec::with_capacity(requests);
    let mut sum = 0;
    for _ in 0..requests {
        let length = random.between(10, 300);
        let text = words(&mut random, length);
        let server = &servers[random.below(servers.len())];
        let start = Instant::now();
        let (reply, answer) = oneshot::channel();
        assert!(server.send(Request { text, reply }).await.is_ok(), "servers live as long as clients");
        let answer = answer.await.expect("each request is answered");
        durations.push(start.elapsed());
        sum = mix_bytes(sum, answer.as_bytes());
    }
    (sum, durations)
}

#[cfg(test)]
mod tests {
    use super::{CLIENTS, Request, TOKIO_TASKS, start_server};
    use crate::workloads::Parameters;
    use tokio::runtime::Builder;
    use tokio::sync::oneshot;

    #[test]
    fn same_checksum_with_any_threads() {
        for threads in [1, 2, 5] {
            let run = |seed| (TOKIO_TASKS.run)(&Parameters { scale: 0.002, threads, seed });
            let first = run(3);
            assert_eq!(first.operations, (16 * CLIENTS * threads) as u64);
            assert_eq!(first.latencies.expect("requests are timed").len(), first.operations);
            assert_eq!(run(3).checksum, first.checksum);
            assert_ne!(run(99).checksum, first.checksum);
        }
    }

    #[test]
    fn answers_are_backwards_in_each_part() {
        let answer = |text: String| {
            Builder::new_multi_thread().worker_threads(2).build().expect("threads can be started").block_on(async {
                let (reply, answer) = oneshot::channel();
                assert!(start_server().send(Request { text, reply }).await.is_ok());
                answer.await.expect("the server answers")
            })
        };
        assert_eq!(answer("a b cd".to_owned()), "CD.B.A.");
        let numbers: Vec<String> = (0..16).map(|number| number.to_string()).collect();
        assert_eq!(answer(numbers.join(" ")), "3.2.1.0.7.6.5.4.11.10.9.8.15.14.13.12.");
    }
}
