//! What Windows has not: forks, a signal that asks a process to end, a loader that calls malloc.

use crate::sys::{AroundFork, Termination};

/// There are no forks.
#[must_use]
pub fn around_forks<F: AroundFork>() -> bool {
    // Named so that the compiler knows of a use; nobody calls them.
    let _: [fn(); 3] = [F::before, F::in_parent, F::in_child];
    false
}

/// Does `work`. No handler interrupts a thread here.
pub fn without_signals<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// A value. No child has a copy of it.
#[derive(Debug)]
pub struct Wiped<T>(T);

impl<T> Wiped<T> {
    /// The value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Nothing to do.
    pub fn arrange(&'static self) {}
}

impl<T> core::ops::Deref for Wiped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Nothing calls `T`: a console's events come on a thread of their own, and services have their own word for it.
pub fn before_termination<T: Termination>() {
    // As in `around_forks`.
    let _: fn() = T::before_termination;
}

/// As little.
pub fn after_all<T: Termination>() {}
