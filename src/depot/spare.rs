//! A stack of numbers, for spare magazines: the only structure with a single pop.
//!
//! ```text
//! # Role        keeps the numbers of things that nobody uses; links lie in an array beside them, never in the things
//! # Invariants  I1: a number is on the stack at most once; whoever pops it has it.
//!               I2: each push changes the tag. A pop that read `top` and its link succeeds only if the head, tag
//!                   included, is what it read; the link of a number changes only after that number was popped and
//!                   pushed again, which changed the tag. So the link that it installs is the right one. The tag has
//!                   32 bits: the argument fails only if exactly a multiple of 2^32 pushes fall between one thread's
//!                   load and its exchange and leave the same number on top.
//! # Ordering    HAND-OVER: `push` (Release) -> `pop` (Acquire)
//! # Progress    lock-free
//! # Checked by  loom_tests/spare_stack.rs
//! ```

use crate::sync::planted::bug;
use crate::sync::{AtomicU32, AtomicU64, Ordering, const_unless_loom};

/// The head of the stack: number + 1 in the low half, tag in the high half.
#[derive(Debug)]
pub struct SpareStack(AtomicU64);

#[derive(Clone, Copy)]
struct Head(u64);

impl Head {
    fn top(self) -> Option<u32> {
        (self.0 as u32).checked_sub(1)
    }

    fn raw_top(self) -> u32 {
        self.0 as u32
    }

    fn with_top(self, raw: u32) -> Self {
        Self(self.0 >> 32 << 32 | u64::from(raw))
    }

    fn next_tag(self) -> Self {
        if bug("no tag") { self } else { Self(self.0.wrapping_add(1 << 32)) }
    }
}

impl Default for SpareStack {
    fn default() -> Self {
        Self::new()
    }
}

impl SpareStack {
    const_unless_loom! {
        /// An empty stack.
        pub fn new() -> Self {
            Self(AtomicU64::new(0))
        }
    }

    /// Puts `number` on the stack; `link` gives the link of a number.
    pub fn push<'a>(&self, number: u32, link: impl Fn(u32) -> &'a AtomicU32) {
        // ordering: Relaxed, corrected by the exchange.
        let mut head = Head(self.0.load(Ordering::Relaxed));
        loop {
            // ordering: Relaxed; published by the exchange.
            link(number).store(head.raw_top(), Ordering::Relaxed);
            let next = head.next_tag().with_top(number + 1);
            let order = if bug("relaxed spare") { Ordering::Relaxed } else { Ordering::Release };
            // ordering: Release [HAND-OVER] pairs with Acquire in `pop`.
            match self.0.compare_exchange(head.0, next.0, order, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = Head(now),
            }
        }
    }

    /// Takes the number on top.
    pub fn pop<'a>(&self, link: impl Fn(u32) -> &'a AtomicU32) -> Option<u32> {
        // ordering: Acquire [HAND-OVER] the link of the top was written before it was pushed.
        let mut head = Head(self.0.load(Ordering::Acquire));
        loop {
            let top = head.top()?;
            // ordering: Relaxed; may be stale, then the tag differs (I2).
            let next = head.with_top(link(top).load(Ordering::Relaxed));
            // ordering: Acquire [HAND-OVER] pairs with Release in `push`; a pop keeps the release sequence going.
            match self.0.compare_exchange(head.0, next.0, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(top),
                Err(now) => head = Head(now),
            }
        }
    }

    /// Forgets everything, at the end of the process.
    pub fn reset(&self) {
        // ordering: Relaxed; the caller is alone.
        self.0.store(0, Ordering::Relaxed);
    }
}
