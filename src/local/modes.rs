//! The registry's threads and the switch of modes: who is reached, and what each looks at.
//!
//! ```text
//! # Role        `switch` with the reaches of all records, their caches, and the dummy
//! # Not here    what a mode does (see `mode`), where a view lies (see `global::tls`)
//! ```

use crate::local::cache::{NO_CACHE, Tops};
use crate::local::registry::{LocalIndex, ThreadRegistry};
use crate::local::switch::{OFF, Presence, Switch, View};
use crate::sys::platform;

impl ThreadRegistry {
    /// The number of the mode that is on.
    #[inline]
    pub fn mode(&self) -> u8 {
        self.switch.mode()
    }

    /// Turns a mode on in the place of `from`; when this returns, each thread's next call is slow. See `Switch::turn_on`.
    /// `presence` tells where the thread is that was noted for a local heap, by that one's number.
    pub fn turn_on(&self, mode: u8, from: u8, presence: impl Fn(usize, u64) -> Presence) -> bool {
        self.switch.turn_on(mode, from, &raw const NO_CACHE, || {
            self.all_slabs().enumerate().map(|(number, slabs)| {
                let is_open = slabs.reach.is_open();
                (&slabs.reach, if is_open { presence(number, self.thread_of(number)) } else { Presence::Gone })
            })
        })
    }

    /// Turns `mode` off, if it is on.
    pub fn turn_off(&self, mode: u8) -> bool {
        self.switch.turn_off(mode)
    }

    /// Has the calling thread, which has got local heap `me`, look at its cache, unless a mode is on.
    ///
    /// # Safety
    /// As for `Switch::attach`.
    pub unsafe fn attach(&self, me: LocalIndex, view: &View<Tops>) {
        // SAFETY: the caller's promise.
        unsafe { self.switch.attach(&self.slabs(me).reach, view, self.cache(me).tops(), &raw const NO_CACHE) };
    }

    /// The same for the calling thread, where a mode had turned it away that is off by now. Its slow path finds that out, as
    /// the fast path would have served it.
    #[cold]
    #[inline(never)]
    pub fn settle(&self, me: LocalIndex) {
        if self.switch.mode() == OFF {
            self.switch.settle_reached(&self.slabs(me).reach, self.cache(me).tops(), &raw const NO_CACHE);
        }
    }

    /// Has the calling thread, which has `me`, look at the dummy from now on, for good. Waits for a turn of modes, if there is
    /// one just then, and `may_turn`.
    pub fn detach(&self, me: LocalIndex, view: &View<Tops>, may_turn: bool) {
        self.switch.detach(&self.slabs(me).reach, view, &raw const NO_CACHE, |switch| wait_for_turn(switch, may_turn));
    }

    /// In the child of a fork, whose thread has `me`: as before.
    pub fn reattach(&self, me: LocalIndex) {
        self.switch.reattach(&self.slabs(me).reach, self.cache(me).tops(), &raw const NO_CACHE);
    }

    /// From now on threads end without a word, so no mode can be turned on any more. Waits as `detach` does.
    pub fn shut_switch(&self, may_turn: bool) {
        self.switch.shut(|switch| wait_for_turn(switch, may_turn));
    }
}

/// Lets a turn of modes get on, if there may be one: a child that nobody told of its birth has a copy of its parent's, which
/// never ends.
fn wait_for_turn(switch: &Switch, may_turn: bool) -> bool {
    if may_turn {
        platform::wait_briefly(|| switch.is_at_rest());
    }
    may_turn
}
