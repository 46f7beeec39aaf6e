//! What the platform calls of the rest: each is a type of the caller's with functions, so that no port needs to know who it
//! is, and each platform can call it in its own way (`extern "C"`, `extern "system"`).

use super::platform::ThreadEnd;

/// What runs at the end of a thread that asked for it.
pub trait EndOfThread {
    /// What it was arranged with.
    fn key() -> &'static ThreadEnd;

    /// Called once, on the ending thread.
    fn end_of_thread();
}

/// What a thread of the allocator's own runs.
pub trait ThreadBody {
    /// Called once, on the new thread, with what `spawn` was given.
    fn run(argument: usize);
}

/// What to call around a fork.
pub trait AroundFork {
    /// In the forking thread, before.
    fn before();

    /// In the same thread, afterwards, also if the fork failed.
    fn in_parent();

    /// In the only thread of the child, before the fork returns there. It may take no lock.
    fn in_child();
}

/// What runs at the end of the process.
pub trait ProcessEnd {
    /// Called once, on the thread that ends the process.
    fn end_of_process();
}

/// What is done when the process is about to be ended from outside (SIGTERM).
pub trait Termination {
    /// Called in a signal handler, on any thread, at any instruction: system calls and atomics only.
    fn before_termination();
}
