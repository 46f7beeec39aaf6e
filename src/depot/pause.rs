//! A pause after a refusal: how many of the next chances are passed by.
//!
//! ```text
//! # Role        spares the kernel questions that it is going to answer as the last time
//! # Progress    wait-free; hints only: threads may lose each other's notes
//! ```

use crate::sync::{AtomicU32, Ordering};

/// Chances passed by after a refusal; as many again after each further one, up to the most.
const FIRST: u32 = 4;
const MOST: u32 = 64;

/// When not to ask.
#[derive(Debug)]
pub struct Pause {
    /// Chances still to be passed by.
    left: AtomicU32,
    /// Length of the present pause, or of the last; 0 after a question that was granted.
    length: AtomicU32,
}

impl Pause {
    /// None.
    pub const fn new() -> Self {
        Self { left: AtomicU32::new(0), length: AtomicU32::new(0) }
    }

    /// Is this chance to be passed by?
    pub fn passes(&self) -> bool {
        // ordering: Relaxed, here and below: hints; a chance more or less does no harm.
        let left = self.left.load(Ordering::Relaxed);
        if left != 0 {
            // ordering: Relaxed, likewise.
            self.left.store(left - 1, Ordering::Relaxed);
        }
        left != 0
    }

    /// Notes how it went when this chance was not passed by.
    pub fn note(&self, granted: bool) {
        // ordering: Relaxed, likewise.
        let length = if granted { 0 } else { (2 * self.length.load(Ordering::Relaxed)).clamp(FIRST, MOST) };
        // ordering: Relaxed, likewise.
        self.length.store(length, Ordering::Relaxed);
        self.left.store(length, Ordering::Relaxed);
    }
}
