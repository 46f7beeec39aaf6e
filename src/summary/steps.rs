//! Counts, in tests only, how many parts of the heap a search looks at: its cost, whatever the machine does meanwhile.

use std::cell::Cell;

std::thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// The calling thread looks at one more.
pub(crate) fn step() {
    STEPS.set(STEPS.get() + 1);
}

/// How many the calling thread looks at in `work`.
pub(crate) fn steps_of(work: impl FnOnce()) -> u64 {
    let before = STEPS.get();
    work();
    STEPS.get() - before
}
