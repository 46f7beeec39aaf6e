//! Whether the purging thread is there: `purge::worker_state` with `purge::signal`.
//!
//! # Modelled    threads that have something to purge: they raise the purge signal, and start the worker unless it is there; the
//!               worker, which purges, leaves when all is quiet, and goes back to work if the purge signal was raised meanwhile;
//!               the one after it; the end, which stops all
//! # Asserted    conservation: what somebody raised the purge signal for is purged, or a worker is still going to; at most one
//!               worker works at a time; each worker's handle is waited for once. Visibility: what a start wrote for who
//!               waits is there for the wait.
//! # Bounds      2 threads that raise, 3 preemptions. A worker runs on the thread that started it, after whatever that did
#![cfg(loom)]

mod common;

use common::{Payload, assert_caught, check, join, spawn};
use loom::sync::Mutex;
use magalloc::purge::signal::{PurgeRequest, PurgeSignal};
use magalloc::purge::worker_state::WorkerState;
use magalloc::sync::{AtomicU32, Ordering, fence};
use std::sync::Arc;

const PREEMPTIONS: Option<usize> = Some(3);
const LOST: &str = "the purge signal is raised, and nobody is there";
const TWO: &str = "two workers at a time";
const WAITED: &str = "a handle is not waited for once";

struct Process {
    worker: WorkerState,
    purge_signal: PurgeSignal,
    /// Workers between their start and their leaving.
    working: AtomicU32,
    /// What belongs to the handles, and how many were made.
    handles: [Payload; 4],
    made: AtomicU32,
    /// Handles that were waited for.
    waited: Mutex<Vec<usize>>,
}

impl Process {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            worker: WorkerState::new(),
            purge_signal: PurgeSignal::new(),
            working: AtomicU32::new(0),
            handles: core::array::from_fn(|_| Payload::new()),
            made: AtomicU32::new(0),
            waited: Mutex::new(Vec::new()),
        })
    }

    /// `Depot::raise` after a free, and `global::worker::attend`.
    fn free(&self) {
        let _ = self.purge_signal.raise(PurgeRequest::Raised);
        // Both are sequentially consistent in the code, which loom takes for less.
        fence(Ordering::SeqCst);
        if !self.worker.is_running() {
            self.start();
        }
    }

    /// `global::worker::start`, and then the worker.
    fn start(&self) {
        let Some(claim) = self.worker.claim_start() else { return };
        let handle = 1 + self.made.fetch_add(1, Ordering::Relaxed) as usize;
        self.handles[handle - 1].touch();
        let last = claim.last;
        self.worker.started(claim, handle);
        self.work(last);
    }

    /// `global::worker::work`.
    fn work(&self, last: usize) {
        assert_eq!(self.working.fetch_add(1, Ordering::AcqRel), 0, "{TWO}");
        self.wait(last);
        loop {
            match self.purge_signal.call().0 {
                Some(PurgeRequest::Ended) => break,
                Some(_) => {
                    let _ = self.purge_signal.take();
                }
                None => {
                    self.working.fetch_sub(1, Ordering::AcqRel);
                    if self.worker.leave(|| !self.purge_signal.is_quiet_at_last()) {
                        return;
                    }
                    self.working.fetch_add(1, Ordering::AcqRel);
                    loom::thread::yield_now();
                }
            }
        }
        self.working.fetch_sub(1, Ordering::AcqRel);
    }

    /// `platform::join`.
    fn wait(&self, handle: usize) {
        if handle != 0 {
            self.handles[handle - 1].touch();
            self.waited.lock().unwrap().push(handle);
        }
    }

    /// `global::worker::end`.
    fn end(&self) {
        let _ = self.purge_signal.raise(PurgeRequest::Ended);
        if let Some(handle) = self.worker.stop() {
            self.wait(handle);
        }
    }

    /// At rest.
    fn check(&self) {
        assert!(self.purge_signal.call().0.is_none() || self.worker.is_running(), "{LOST}");
        self.end();
        let (made, mut waited) = (self.made.load(Ordering::Relaxed) as usize, self.waited.lock().unwrap().clone());
        waited.sort_unstable();
        assert_eq!(waited, (1..=made).collect::<Vec<_>>(), "{WAITED}");
    }
}

/// Two threads have something to purge, each once; the second may find the first one's worker leaving.
fn two_raise() {
    let process = Process::new();
    let frees = [(), ()].map(|()| spawn(&process, Process::free));
    join(frees);
    process.check();
}

/// One of them twice: a worker has left before, and the next one waits for it.
fn one_raises_again() {
    let process = Process::new();
    process.free();
    let frees = [(), ()].map(|()| spawn(&process, Process::free));
    join(frees);
    process.check();
}

/// A child, which begins anew, does not wait for the parent's worker.
fn a_child_begins_anew() {
    let process = Process::new();
    process.free();
    process.worker.forget();
    process.waited.lock().unwrap().push(1);
    let frees = [(), ()].map(|()| spawn(&process, Process::free));
    join(frees);
    process.check();
}

#[test]
fn what_two_raise_for_is_purged() {
    check(PREEMPTIONS, two_raise);
}

#[test]
fn the_next_worker_waits_for_the_last() {
    check(PREEMPTIONS, one_raises_again);
}

#[test]
fn a_child_has_a_worker_of_its_own() {
    check(PREEMPTIONS, a_child_begins_anew);
}

#[test]
fn leave_without_a_look_is_caught() {
    assert_caught("leave without a look", LOST, PREEMPTIONS, two_raise);
}

#[test]
fn start_by_store_is_caught() {
    assert_caught("start by store", TWO, PREEMPTIONS, two_raise);
}

#[test]
fn last_one_forgotten_is_caught() {
    assert_caught("last one forgotten", WAITED, PREEMPTIONS, one_raises_again);
}
