//! Slabs that a local heap keeps for its next refills, and that another thread may take.
//!
//! ```text
//! # Role        a word that says the first slab of a chain, or none. Its local heap takes what is there, and puts back what it
//!               goes on with; who would map memory takes it from a thread that does not use it
//! # Invariants  I1: whoever has taken a chain holds all slabs in it.
//!               I2: only who has the local heap puts, and only after a take: nothing is there then, whatever others do.
//! # Ordering    KEPT: put (Release) -> take (Acquire): the links of the chain, and what was written of its slabs.
//! # Progress    wait-free. A thread that is stopped, or vanishes in a fork, between a take and a put withholds the chain
//! # Checked by  loom_tests/kept.rs
//! ```

use crate::sync::planted::bug;
use crate::sync::{AtomicU32, Ordering, const_unless_loom};
use crate::units::SlabId;

/// The word. Zeroed memory has none.
#[derive(Debug)]
pub struct Kept(AtomicU32);

impl Default for Kept {
    fn default() -> Self {
        Self::new()
    }
}

impl Kept {
    const_unless_loom! {
        /// None.
        pub fn new() -> Self {
            Self(AtomicU32::new(0))
        }
    }

    /// Takes all that is there.
    #[inline]
    #[must_use]
    pub fn take(&self) -> Option<SlabId> {
        // ordering: Relaxed, spares an exchange; only who has the local heap puts, and it knows what it did.
        let first = self.0.load(Ordering::Relaxed);
        if first == 0 {
            return None;
        }
        if bug("take by load") {
            self.0.store(0, Ordering::Relaxed);
            return SlabId::from_raw(first);
        }
        let order = if bug("relaxed take") { Ordering::Relaxed } else { Ordering::Acquire };
        // ordering: Acquire [KEPT] pairs with Release in `put`.
        SlabId::from_raw(self.0.swap(0, order))
    }

    /// Puts a chain there, for who has the local heap: nothing is there (I2).
    #[inline]
    pub fn put(&self, first: Option<SlabId>) {
        // ordering: Release [KEPT] pairs with Acquire in `take`. An exchange, as a store is to loom as if a take that comes
        // later could miss it.
        self.0.swap(SlabId::raw_option(first), Ordering::Release);
    }
}
