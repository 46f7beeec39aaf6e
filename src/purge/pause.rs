//! A pause after a refusal: how many of the next chances are passed by.
//!
//! ```text
//! # Role        spares the kernel questions that it is going to answer as the last time
//! # Progress    wait-free; hints only: threads may lose each other's notes
//! ```

use crate::sync::{AtomicU8, AtomicU32, Ordering};

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

/// Whether reused memory is made zero by giving its pages back. How long that takes tells how much the program has written,
/// but not where a memset came before: that brings in everything. So after a pause the first time says nothing.
#[derive(Debug)]
pub struct Zeroing {
    pause: Pause,
    /// 1 if memory was made zero by giving its pages back when it last was.
    tells: AtomicU8,
}

impl Zeroing {
    /// Nothing known.
    pub const fn new() -> Self {
        Self { pause: Pause::new(), tells: AtomicU8::new(0) }
    }

    /// Is a memset cheaper this time, as far as is known?
    pub fn by_memset(&self) -> bool {
        let passes = self.pause.passes();
        if passes {
            // ordering: Relaxed, a hint.
            self.tells.store(0, Ordering::Relaxed);
        }
        passes
    }

    /// Notes how it went when pages were given back: few of them, or many.
    pub fn note(&self, few: bool) {
        // ordering: Relaxed, a hint.
        if self.tells.swap(1, Ordering::Relaxed) != 0 {
            self.pause.note(few);
        }
    }
}
