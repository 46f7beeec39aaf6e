//! Whether the purging thread is there: who may start it, and when it may leave.
//!
//! ```text
//! # States      Absent --claim_start--> Starting --started--> Running --leave--> Left --claim_start--> Starting ...
//!                                           +--refused--> as before    any --stop--> Stopped, for ever
//!               All zero is Absent, as in memory that the kernel wipes in a child.
//! # Invariants  I1: at most one thread is between `started` and `leave`.
//!               I2: a thread's handle is given out once: to the start that comes after it has left, whose thread waits
//!                   for it, or to `stop`. So nobody waits on a path of malloc, and after `stop` no code of ours runs on
//!                   any of these threads once the last one has been waited for.
//! # Ordering    LEAVE: `leave` says so, then looks for work; whoever has work raises the purge signal, then looks whether the
//!               thread is there (`is_running`). All are sequentially consistent, so one of the two sees the other.
//!               HANDLE: `started` (Release) -> `claim_start`, `stop` (Acquire): the handle.
//! # Progress    wait-free
//! # Checked by  loom_tests/worker.rs, capi/tests/regressions.rs
//! ```

use crate::sync::planted::bug;
use crate::sync::{AtomicU8, AtomicUsize, Ordering, const_unless_loom, fence};

/// The state, and the thread that was started last.
#[derive(Debug)]
pub struct WorkerState {
    state: AtomicU8,
    /// What the C library calls the thread; never 0.
    handle: AtomicUsize,
}

const ABSENT: u8 = 0;
const STARTING: u8 = 1;
const RUNNING: u8 = 2;
const LEFT: u8 = 3;
const STOPPED: u8 = 4;

/// The right, and the duty, to start a thread, and to say what became of that.
#[derive(Debug)]
#[must_use]
pub struct Claim {
    /// Handle of the thread that has left, for the new one to wait for; 0 if there is none.
    pub last: usize,
}

impl Default for WorkerState {
    fn default() -> Self {
        Self::new()
    }
}

impl WorkerState {
    const_unless_loom! {
        /// No thread yet.
        pub fn new() -> Self {
            Self { state: AtomicU8::new(ABSENT), handle: AtomicUsize::new(0) }
        }
    }

    /// Is the thread there, or on its way?
    #[inline]
    pub fn is_running(&self) -> bool {
        // ordering: SeqCst [LEAVE] after the purge signal was raised; pairs with `leave`. Costs a load nothing.
        matches!(self.state.load(Ordering::SeqCst), STARTING | RUNNING)
    }

    /// For whoever wants to start the thread. `None`: it is there, another thread starts it, or none is to be started any
    /// more.
    pub fn claim_start(&self) -> Option<Claim> {
        // ordering: Relaxed, a guess that the exchange corrects.
        let before = self.state.load(Ordering::Relaxed);
        if !matches!(before, ABSENT | LEFT) {
            return None;
        }
        if bug("start by store") {
            self.state.store(STARTING, Ordering::Release);
        } else {
            // ordering: Acquire [HANDLE] pairs with Release in `started`. The thread itself starts by a call that orders
            // everything.
            self.state.compare_exchange(before, STARTING, Ordering::Acquire, Ordering::Relaxed).ok()?;
        }
        // ordering: Relaxed; the Acquire above.
        let last = if before == LEFT && !bug("last one forgotten") { self.handle.load(Ordering::Relaxed) } else { 0 };
        Some(Claim { last })
    }

    /// The thread was started.
    pub fn started(&self, claim: Claim, handle: usize) {
        let Claim { last: _ } = claim;
        // ordering: Relaxed; published by the exchange below.
        self.handle.store(handle, Ordering::Relaxed);
        // ordering: Release [HANDLE] pairs with Acquire in `claim_start` and `stop`. If the process ends meanwhile, it
        // stays as it is: nobody waits for the thread then.
        let _ = self.state.compare_exchange(STARTING, RUNNING, Ordering::Release, Ordering::Relaxed);
    }

    /// The thread could not be started.
    pub fn refused(&self, claim: Claim) {
        let before = if claim.last == 0 { ABSENT } else { LEFT };
        // ordering: Release [HANDLE] passes on what the claim acquired.
        let _ = self.state.compare_exchange(STARTING, before, Ordering::Release, Ordering::Relaxed);
    }

    /// For the thread itself: `true` if it must return now; another is started when it is needed. `has_work` is asked
    /// once more in between.
    #[must_use]
    pub fn leave(&self, has_work: impl Fn() -> bool) -> bool {
        // ordering: SeqCst [LEAVE] before the look for work. Whoever raises the purge signal looks here afterwards
        // (`is_running`): one of the two sees the other. AcqRel [HANDLE] passes the handle on.
        if self.state.compare_exchange(RUNNING, LEFT, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return false;
        }
        // ordering: SeqCst [LEAVE] likewise, where the exchange alone is no fence.
        fence(Ordering::SeqCst);
        if bug("leave without a look") || !has_work() {
            return true;
        }
        // Back again, unless somebody was faster and starts another thread.
        // ordering: AcqRel [HANDLE] passes the handle on.
        self.state.compare_exchange(LEFT, RUNNING, Ordering::AcqRel, Ordering::Relaxed).is_err()
    }

    /// No thread is started any more. Returns the handle of the last one, for the caller to wait for.
    pub fn stop(&self) -> Option<usize> {
        // ordering: Acquire [HANDLE] pairs with Release in `started`.
        matches!(self.state.swap(STOPPED, Ordering::Acquire), RUNNING | LEFT).then(|| {
            // ordering: Relaxed; the Acquire above.
            self.handle.load(Ordering::Relaxed)
        })
    }

    /// In the child of a fork, where the thread is not.
    pub fn forget(&self) {
        // ordering: Relaxed; the caller is alone.
        self.state.store(ABSENT, Ordering::Relaxed);
    }
}
