//! Where a thread's place in the heap is kept: two words of thread-local storage, whose first the fast path loads.
//!
//! ```text
//! # Storage     no lazy initialisation, no destructor: valid until the thread's memory is gone (see `sys::local_data`)
//! ```

use crate::local::switch::View;
use crate::local::{LocalIndex, NO_CACHE, Tops};
use core::cell::Cell;

/// How far a thread is.
#[derive(Clone, Copy)]
pub(super) enum State {
    /// No malloc so far, and few frees; or none that could have a cache.
    Fresh {
        /// Frees so far.
        frees: usize,
    },
    /// Being registered: calls from inside are served without a cache.
    Registering,
    /// Has a cache.
    Registered(LocalIndex),
    /// Had one.
    Ended,
    /// The allocator's own: never has one. At its end, the C library may free what other threads left.
    Purger,
}

/// A thread's place.
#[repr(C)]
pub(super) struct Place {
    /// What the fast path looks at; other threads turn it away.
    pub tops: View<Tops>,
    /// The state: up to `FRESH_MAX` the frees of a fresh thread, then its number, or `REGISTERED` + the number of the
    /// cache.
    state: Cell<usize>,
}

/// Frees that a thread without a cache makes before it gets one: at its very end, when it could not give the cache up any
/// more, the C library may free some blocks for it.
pub(super) const FRESH_MAX: usize = 63;
const REGISTERING: usize = 64;
const ENDED: usize = 65;
const PURGER: usize = 66;
const REGISTERED: usize = 67;

impl Place {
    /// That of a thread before its first call.
    const fn initial() -> Self {
        Self { tops: View::new(&raw const NO_CACHE), state: Cell::new(0) }
    }

    /// How far the thread is.
    pub fn state(&self) -> State {
        match self.state.get() {
            frees @ ..=FRESH_MAX => State::Fresh { frees },
            REGISTERING => State::Registering,
            ENDED => State::Ended,
            PURGER => State::Purger,
            // SAFETY: `set_state` was told one that the registry gave.
            number => State::Registered(unsafe { LocalIndex::from_number(number - REGISTERED) }),
        }
    }

    /// Says so.
    pub fn set_state(&self, state: State) {
        self.state.set(match state {
            State::Fresh { frees } => frees.min(FRESH_MAX),
            State::Registering => REGISTERING,
            State::Ended => ENDED,
            State::Purger => PURGER,
            State::Registered(me) => me.get() + REGISTERED,
        });
    }
}

crate::sys::local_data!(Place { tops: &NO_CACHE as Tops, state: 0 });
