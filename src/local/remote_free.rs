//! The stack on which anyone puts slabs for a local heap: push, and take all. Closed while the local heap has no thread.
//!
//! ```text
//! # Invariants  I1: a pushed slab is queued and was held by the pusher; the stack holds it until somebody takes it.
//!               I2: nothing is ever pushed on a closed stack: a slab for a local heap without a thread goes to the depot.
//! # Ordering    HAND-OVER: `push` (Release) -> `take_all`, `close` (Acquire): the link and all the pusher did.
//! # ABA         none: a push installs itself in front of whatever is there, and taking takes everything that hangs on
//!               the head, whoever else took and pushed meanwhile.
//! # Progress    `push` and `take_all` are lock-free, the others are wait-free
//! # Checked by  loom_tests/slab_queue.rs, loom_tests/abandon_adopt.rs, loom_tests/thread_exit.rs
//! ```

use crate::sync::planted::bug;
use crate::sync::{AtomicU32, CachePadded, Ordering};
use crate::units::SlabId;

/// No local heap's thread takes slabs from this stack.
const CLOSED: u32 = u32::MAX;

/// The stack. A line of its own: other threads write it.
#[derive(Debug)]
pub struct RemoteFreeQueue(CachePadded<AtomicU32>);

/// The stack has no local heap; the caller keeps the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Closed;

impl Default for RemoteFreeQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl RemoteFreeQueue {
    /// An open, empty stack.
    pub fn new() -> Self {
        Self(CachePadded::new(AtomicU32::new(0)))
    }

    /// Pushes a slab that the caller holds. `set_link` stores its link.
    ///
    /// # Errors
    /// `Closed`: not pushed.
    pub fn push(&self, slab: SlabId, set_link: impl Fn(Option<SlabId>)) -> Result<(), Closed> {
        // ordering: Relaxed, corrected by the exchange.
        let mut head = self.0.load(Ordering::Relaxed);
        loop {
            if head == CLOSED {
                return Err(Closed);
            }
            set_link(SlabId::from_raw(head));
            let order = if bug("relaxed notify") { Ordering::Relaxed } else { Ordering::Release };
            // ordering: Release [HAND-OVER] pairs with Acquire in `take_all` and `close`.
            match self.0.compare_exchange(head, slab.raw(), order, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => head = now,
            }
        }
    }

    /// Takes all slabs, newest first: for the local heap, or for anyone who needs what an idle local heap does not fetch.
    #[must_use]
    pub fn take_all(&self) -> Option<SlabId> {
        // ordering: Relaxed, corrected by the exchange.
        let mut head = self.0.load(Ordering::Relaxed);
        while head != 0 && head != CLOSED {
            if bug("take without the mark") {
                return SlabId::from_raw(self.0.swap(0, Ordering::Acquire));
            }
            // ordering: Acquire [HAND-OVER] pairs with Release in `push`. An exchange, because a swap of another
            // thread's stack could open it again.
            match self.0.compare_exchange(head, 0, Ordering::Acquire, Ordering::Relaxed) {
                Ok(taken) => return SlabId::from_raw(taken),
                Err(now) => head = now,
            }
        }
        None
    }

    /// Closes the stack and takes all slabs, when the local heap's thread ends.
    #[must_use]
    pub fn close(&self) -> Option<SlabId> {
        if bug("close without taking") {
            self.0.store(CLOSED, Ordering::Release);
            return None;
        }
        // ordering: Acquire [HAND-OVER] pairs with Release in `push`.
        match self.0.swap(CLOSED, Ordering::Acquire) {
            CLOSED => None,
            head => SlabId::from_raw(head),
        }
    }

    /// Opens a closed stack, when a thread adopts the local heap.
    pub fn open(&self) {
        // ordering: Relaxed; nothing was pushed while it was closed (I2), so there is nothing to publish.
        self.0.store(0, Ordering::Relaxed);
    }
}
