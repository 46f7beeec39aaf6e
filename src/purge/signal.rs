//! Whether there is anything to give back: the word that the purging thread sleeps on.
//!
//! ```text
//! # Invariants  I1: if a chunk is noted as unpurged, the purge signal is raised, or whoever noted it is about to raise it, or
//!                   whoever took the purge signal has not looked at the chunk yet.
//! # Ordering    ALARM: a note (`Unpurged::note`), then `raise` (AcqRel) -> `take` (AcqRel), then a look at the notes.
//!               Both are read-modify-writes: a `raise` that comes after a `take` leaves the purge signal raised, one that
//!               comes before is seen by it.
//! # Progress    lock-free
//! # Checked by  loom_tests/purge_signal.rs
//! ```

use crate::sync::planted::bug;
use crate::sync::{AtomicU32, Ordering, const_unless_loom};

/// The word: 0 is quiet.
#[derive(Debug)]
pub struct PurgeSignal(AtomicU32);

/// What the purge signal may say, the stronger the higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PurgeRequest {
    /// Fewer than two threads have a cache: for the purging thread, which must not be what keeps the process alive, nor
    /// what makes a process of one thread one of two.
    Alone = 1,
    /// There is something that will be due after the purge delay.
    Raised = 2,
    /// The same, but the soft limit presses: it is due the sooner, the more it is exceeded by.
    Urgent = 4,
    /// The heap is about to go; nothing else is said any more.
    Ended = 8,
}

impl PurgeRequest {
    /// The strongest call in a word.
    fn strongest(word: u32) -> Option<Self> {
        [Self::Ended, Self::Urgent, Self::Raised, Self::Alone].into_iter().find(|&call| word & call as u32 != 0)
    }
}

impl Default for PurgeSignal {
    fn default() -> Self {
        Self::new()
    }
}

impl PurgeSignal {
    const_unless_loom! {
        /// Quiet.
        pub fn new() -> Self {
            Self(AtomicU32::new(0))
        }
    }

    /// Raises the purge signal. `true`: it said less before, so whoever sleeps on it must be woken.
    #[must_use]
    pub fn raise(&self, call: PurgeRequest) -> bool {
        if bug("raise by load") && self.0.load(Ordering::Acquire) >= call as u32 {
            return false;
        }
        let order = if bug("relaxed raise") { Ordering::Relaxed } else { Ordering::SeqCst };
        // ordering: SeqCst. AcqRel [ALARM] pairs with `take`; the rest is for [LEAVE], see `is_quiet_at_last`. Not spared
        // where the bit is set already: a `take` may come between a look and the caller's going on.
        self.0.fetch_or(call as u32, order) < call as u32
    }

    /// Takes what the purge signal said and quiets it, but for an end, and what is the purging thread's to know.
    pub fn take(&self) -> Option<PurgeRequest> {
        let kept = if bug("end forgotten") { 0 } else { PurgeRequest::Ended as u32 | PurgeRequest::Alone as u32 };
        // ordering: AcqRel [ALARM] pairs with `raise`: all that was noted before is seen by the look that follows.
        PurgeRequest::strongest(self.0.fetch_and(kept, Ordering::AcqRel))
    }

    /// Was it said that threads with caches have become few? Not any more then.
    pub fn take_alone(&self) -> bool {
        let alone = PurgeRequest::Alone as u32;
        // ordering: Relaxed, a hint; AcqRel [ALARM] before the look whether it is so.
        self.0.load(Ordering::Relaxed) & alone != 0 && self.0.fetch_and(!alone, Ordering::AcqRel) & alone != 0
    }

    /// Was it said anew? For the purging thread, before it leaves though there may be something to do.
    pub fn says_alone_at_last(&self) -> bool {
        // ordering: SeqCst [LEAVE] as in `is_quiet_at_last`.
        self.0.load(Ordering::SeqCst) & PurgeRequest::Alone as u32 != 0
    }

    /// Does the purge signal say nothing? For the purging thread, before it leaves.
    pub fn is_quiet_at_last(&self) -> bool {
        // ordering: SeqCst [LEAVE] after the thread said that it leaves; pairs with `raise`, after which others look
        // whether there is a thread (`WorkerState::is_running`).
        self.0.load(Ordering::SeqCst) == 0
    }

    /// What the purge signal says, at some moment, and the word for `platform::wait`.
    #[inline]
    pub fn call(&self) -> (Option<PurgeRequest>, u32) {
        // ordering: Relaxed, a hint.
        let word = self.0.load(Ordering::Relaxed);
        (PurgeRequest::strongest(word), word)
    }

    /// The word to sleep on.
    pub fn word(&self) -> &AtomicU32 {
        &self.0
    }
}
