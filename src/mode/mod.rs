//! The second path: what a call does when its thread's fast path could not serve it, and what each mode makes of that.
//!
//! ```text
//! # Role        one dispatch of all calls that are slow. With no mode on, the heap serves them: the fast path found no block
//!               or no room. While a mode is on, all calls of all threads come here (see `local::switch`), and the mode does
//!               its part. Off costs no instruction, on what the mode says
//! # Modes       `system`: another allocator serves (`MAGALLOC_DISABLE`); `counting`: allocations and frees are counted;
//!               `checking`: every free is checked at once
//! # A new mode  a number in `Mode`, a file, and its arm in each function of `SecondPath`: the compiler asks for them
//! # Invariants  I1: a block goes back to where it came from, whatever is on by then. The heap's own are known by their
//!                   address.
//! # Not here    how threads are sent here (see `local::switch`), who they are (see `global::thread`)
//! ```

mod checking;
mod counting;
mod system;

pub use counting::{CallCounts, Counters};
pub use system::System;

use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::local::switch::{OFF, Presence};
use crate::sys::Pages;
use crate::units::ClassIndex;

/// What can be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Nothing: the heap serves.
    Off = OFF,
    /// The system's allocator serves. Never turned off: its blocks could not be told from the heap's on the fast path.
    System,
    /// The heap serves, and allocations and frees are counted.
    Counting,
    /// The heap serves without caches.
    Checking,
}

/// The calls that are slow, of a heap.
pub struct SecondPath<'h, P> {
    heap: &'h Heap<P>,
    counters: &'h Counters,
}

impl<P> Clone for SecondPath<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for SecondPath<'_, P> {}

impl<'h, P: Pages> SecondPath<'h, P> {
    /// Those of `heap`.
    #[inline]
    pub const fn new(heap: &'h Heap<P>, counters: &'h Counters) -> Self {
        Self { heap, counters }
    }

    /// What is on, for all threads.
    #[inline]
    pub fn mode(self) -> Mode {
        match self.heap.registry().mode() {
            number if number == Mode::System as u8 => Mode::System,
            number if number == Mode::Counting as u8 => Mode::Counting,
            number if number == Mode::Checking as u8 => Mode::Checking,
            _ => Mode::Off,
        }
    }

    /// Turns `mode` on in the place of `from`, which was on. `false`: not possible at this moment, or for ever. `presence` as
    /// for `ThreadRegistry::turn_on`.
    #[must_use]
    pub fn turn_on(self, mode: Mode, from: Mode, presence: impl Fn(usize, u64) -> Presence) -> bool {
        from != Mode::System && self.heap.registry().turn_on(mode as u8, from as u8, presence)
    }

    /// Turns `mode` off, if it is on.
    #[must_use]
    pub fn turn_off(self, mode: Mode) -> bool {
        mode != Mode::System && self.heap.registry().turn_off(mode as u8)
    }

    /// The allocator that blocks belong to that are not the heap's, if there is one.
    #[inline]
    pub fn other(self) -> Option<System> {
        // SAFETY: whoever turned the mode on had found it before.
        (self.mode() == Mode::System).then(|| unsafe { System::found() })
    }

    /// A block of `class` from what the thread has stashed, with no mode on; null where the rest is to be done, too: see
    /// `LocalHeap::allocate_stashed`.
    #[inline]
    pub fn allocate_stashed(self, local: &LocalHeap<'_, P>, class: ClassIndex) -> *mut u8 {
        if self.mode() == Mode::Off && !self.heap.is_closed() {
            local.allocate_stashed(class)
        } else {
            core::ptr::null_mut()
        }
    }

    /// A block of `class` at a multiple of `align`, which the class has; null at the end of memory.
    #[inline]
    pub fn allocate_small(self, local: Option<&LocalHeap<'_, P>>, class: ClassIndex, align: usize) -> *mut u8 {
        match self.mode() {
            Mode::Off => self.heap.allocate_small(local, class),
            // SAFETY: as in `other`.
            Mode::System => unsafe { System::found() }.allocate_class(class, align),
            Mode::Counting => self.counters.of(local).count_small(class, self.heap.allocate_small(local, class)),
            Mode::Checking => checking::allocate(self.heap, local, class),
        }
    }

    /// Frees a block of `class`.
    #[inline]
    pub fn free_small(self, local: Option<&LocalHeap<'_, P>>, class: ClassIndex, block: *mut u8) {
        match self.mode() {
            Mode::Off => {}
            Mode::System => {
                if !self.heap.owns(block) {
                    // SAFETY: as in `other`.
                    return unsafe { System::found() }.free(block);
                }
            }
            Mode::Counting => self.counters.of(local).count_small_free(class),
            Mode::Checking => return checking::free(self.heap, local, class, block),
        }
        self.heap.free_small(local, class, block);
    }

    /// A block of `size` bytes at `align`, where no class serves; null at the end of memory.
    pub fn allocate_large(self, size: usize, align: usize, zeroed: bool) -> *mut u8 {
        match self.mode() {
            // The free of a large block is checked anyway.
            Mode::Off | Mode::Checking => self.heap.allocate_large(size, align, zeroed),
            Mode::System => {
                // SAFETY: as in `other`.
                let system = unsafe { System::found() };
                if zeroed { system.allocate_zeroed(size, align) } else { system.allocate(size, align) }
            }
            Mode::Counting => self.counters.count_large(self.heap.allocate_large(size, align, zeroed)),
        }
    }

    /// Frees a block that no class serves.
    pub fn free_large(self, block: *mut u8) {
        match self.mode() {
            Mode::Off | Mode::Checking => {}
            Mode::System => {
                if !self.heap.owns(block) {
                    // SAFETY: as in `other`.
                    return unsafe { System::found() }.free(block);
                }
            }
            Mode::Counting => self.counters.count_large_free(),
        }
        self.heap.free_large(block);
    }

    /// Another size for a large block that stays large, as `Heap::resize_large`; null where it would have to be copied.
    pub fn resize_large(self, block: *mut u8, new_size: usize, align: usize) -> *mut u8 {
        match self.mode() {
            Mode::System if !self.heap.owns(block) => core::ptr::null_mut(),
            Mode::Off | Mode::System | Mode::Counting | Mode::Checking => {
                self.heap.resize_large(block, new_size, align)
            }
        }
    }
}
