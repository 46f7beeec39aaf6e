//! What the models share: a bounded model run, the proof that a planted bug is caught, threads, payloads, and a local heap.
#![allow(dead_code, reason = "no model uses all of it")]

pub mod local_heap;

use loom::cell::UnsafeCell;
use loom::thread::{self, JoinHandle};
use magalloc::sync::planted::with_bug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// loom's message where two threads touch a payload and neither comes before the other.
pub const RACE: &str = "Causality violation";

/// Explores the interleavings of `model` with at most `preemptions` preemptions; `None` is all of them.
pub fn check(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
}

/// Runs the same model with a bug planted, and wants it to fail with a message that contains `message`.
pub fn assert_caught(
    bug: &'static str,
    message: &str,
    preemptions: Option<usize>,
    model: impl Fn() + Send + Sync + 'static,
) {
    let outcome = catch_unwind(AssertUnwindSafe(|| with_bug(bug, || check(preemptions, model))));
    let Err(panic) = outcome else { panic!("the model does not see the planted bug {bug:?}") };
    let said = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(said), _) => said.as_str(),
        (_, Some(said)) => said,
        _ => "",
    };
    assert!(said.contains(message), "{bug:?} fails for another reason: {said}");
}

/// A thread that works on what all threads of a model share.
pub fn spawn<T: 'static, R: 'static>(shared: &Arc<T>, work: impl FnOnce(&T) -> R + 'static) -> JoinHandle<R> {
    let shared = Arc::clone(shared);
    thread::spawn(move || work(&shared))
}

/// Waits for the threads; what they return.
pub fn join<R, const N: usize>(threads: [JoinHandle<R>; N]) -> [R; N] {
    threads.map(|thread| thread.join().unwrap())
}

/// Contents of something that has one owner at a time: a block, a span, a descriptor. loom fails the model if an
/// owner's access does not come after all that the last owner did.
pub struct Payload(UnsafeCell<u64>);

// SAFETY: loom runs one thread at a time, and refuses an access that is not ordered with the others.
unsafe impl Sync for Payload {}

impl Payload {
    /// Contents nobody has touched.
    pub fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    /// What the local heap of the thing does with it.
    pub fn own<R>(&self, work: impl FnOnce(&mut u64) -> R) -> R {
        self.0.with_mut(|contents| {
            // SAFETY: loom has just checked that no other access is under way.
            work(unsafe { &mut *contents })
        })
    }

    /// Touches the thing as its local heap, and counts that.
    pub fn touch(&self) {
        self.own(|count| *count += 1);
    }
}
