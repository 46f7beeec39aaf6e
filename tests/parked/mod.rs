//! Threads that have done something and wait, until the test lets them end.

// Each test uses its own part of this.
#![allow(dead_code)]

use std::hint::black_box;
use std::sync::{Arc, Barrier, mpsc};
use std::thread::JoinHandle;

/// The threads.
pub struct Parked<T> {
    threads: Vec<JoinHandle<()>>,
    barrier: Arc<Barrier>,
    /// What they returned.
    pub results: Vec<T>,
}

/// Starts `count` threads that run `body` and then wait.
pub fn parked<T: Send + 'static>(count: usize, body: impl Fn() -> T + Clone + Send + 'static) -> Parked<T> {
    let barrier = Arc::new(Barrier::new(count + 1));
    let (to, from) = mpsc::channel();
    let threads = (0..count).map(|_| {
        let (barrier, to, body) = (Arc::clone(&barrier), to.clone(), body.clone());
        std::thread::spawn(move || {
            to.send(body()).unwrap();
            drop(to);
            // Once when all have done it, once at the end.
            barrier.wait();
            barrier.wait();
        })
    });
    let threads = threads.collect();
    barrier.wait();
    drop(to);
    Parked { threads, results: from.into_iter().collect(), barrier }
}

/// A thread that has a cache and waits: beside it there is a purging thread, where there is something to purge.
pub fn beside() -> Parked<()> {
    parked(1, || drop(black_box(vec![1_u8; 100])))
}

impl<T> Parked<T> {
    /// Lets the threads end.
    pub fn join(self) -> Vec<T> {
        self.barrier.wait();
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.results
    }
}
