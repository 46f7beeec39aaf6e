//! The atomics of the contention count: the machine's own, but a test decides at each operation which of its logical threads
//! goes on, and is told of the operation.
//!
//! ```text
//! # Layout      as the machine's: zeroed memory is as valid, and constants are made the same way
//! # Loops       `fetch_and`, `fetch_or`, `fetch_max` and `fetch_min` are a load and a compare-exchange, as they are on an x86
//!               where their result is used
//! # Not here    the scheduler, and what is counted (see `heap::tests::contention`)
//! ```

#![allow(dead_code, reason = "all atomics have all operations, whichever are used")]

use core::fmt;
use core::panic::Location;
use core::sync::atomic::{self, Ordering};
use std::cell::Cell;

/// An operation on an atomic.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The atomic's address.
    pub address: usize,
    /// What was done.
    pub kind: Kind,
    /// The line of code that did it.
    pub place: &'static Location<'static>,
}

/// What an operation does to its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads it.
    Load,
    /// Writes it: a store, or a read-modify-write.
    Write,
    /// Has it to write it, and does not: a compare-exchange that failed.
    Failed,
}

/// What a test has done around each operation of the calling thread.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    /// Before an operation on an address, which may write: others may go on first.
    pub before: fn(usize, bool),
    /// After it.
    pub after: fn(Access),
    /// The number of the logical thread.
    pub thread: fn() -> usize,
}

std::thread_local! {
    static HOOKS: Cell<Option<Hooks>> = const { Cell::new(None) };
}

/// Sets what is done from now on around each operation of the calling thread.
pub fn set_hooks(hooks: Option<Hooks>) {
    HOOKS.set(hooks);
}

/// The number of the logical thread that runs.
pub fn thread() -> usize {
    HOOKS.get().map_or(0, |hooks| (hooks.thread)())
}

#[track_caller]
fn hooked<T>(address: usize, may_write: bool, operation: impl FnOnce() -> (T, Kind)) -> T {
    let place = Location::caller();
    let Some(hooks) = HOOKS.get() else { return operation().0 };
    (hooks.before)(address, may_write);
    let (result, kind) = operation();
    (hooks.after)(Access { address, kind, place });
    result
}

macro_rules! atomics {
    ($($name:ident $(<$type:ident>)? of $value:ty)*) => {
        $(
            /// The machine's atomic, each operation of which is hooked.
            #[repr(transparent)]
            pub struct $name$(<$type>)?(atomic::$name$(<$type>)?);

            impl$(<$type>)? fmt::Debug for $name$(<$type>)? {
                fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.fmt(formatter)
                }
            }

            impl$(<$type>)? $name$(<$type>)? {
                /// An atomic with that value.
                pub const fn new(value: $value) -> Self {
                    Self(atomic::$name::new(value))
                }

                /// Loads the value.
                #[track_caller]
                pub fn load(&self, order: Ordering) -> $value {
                    hooked(self.address(), false, || (self.0.load(order), Kind::Load))
                }

                /// Stores a value.
                #[track_caller]
                pub fn store(&self, value: $value, order: Ordering) {
                    hooked(self.address(), true, || (self.0.store(value, order), Kind::Write));
                }

                /// Stores a value; returns the one before.
                #[track_caller]
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    hooked(self.address(), true, || (self.0.swap(value, order), Kind::Write))
                }

                /// Stores `new` if the value is `current`.
                #[track_caller]
                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    hooked(self.address(), true, || {
                        let outcome = self.0.compare_exchange(current, new, success, failure);
                        (outcome, if outcome.is_ok() { Kind::Write } else { Kind::Failed })
                    })
                }

                /// Stores what `next` makes of the value, if it makes something of it.
                #[track_caller]
                pub fn fetch_update(
                    &self,
                    success: Ordering,
                    failure: Ordering,
                    mut next: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    let mut value = self.load(failure);
                    loop {
                        let Some(new) = next(value) else { return Err(value) };
                        match self.compare_exchange(value, new, success, failure) {
                            Ok(before) => return Ok(before),
                            Err(now) => value = now,
                        }
                    }
                }

                fn address(&self) -> usize {
                    core::ptr::from_ref(self).addr()
                }
            }
        )*
    };
}

macro_rules! numbers {
    ($($name:ident of $value:ty)*) => {
        $(
            impl $name {
                /// Adds; returns the value before.
                #[track_caller]
                pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    hooked(self.address(), true, || (self.0.fetch_add(value, order), Kind::Write))
                }

                /// Subtracts; returns the value before.
                #[track_caller]
                pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    hooked(self.address(), true, || (self.0.fetch_sub(value, order), Kind::Write))
                }

                /// Clears the bits that `mask` has not; returns the value before.
                #[track_caller]
                pub fn fetch_and(&self, mask: $value, order: Ordering) -> $value {
                    self.fetch(order, |value| value & mask)
                }

                /// Sets bits; returns the value before.
                #[track_caller]
                pub fn fetch_or(&self, mask: $value, order: Ordering) -> $value {
                    self.fetch(order, |value| value | mask)
                }

                /// Makes it at least `least`; returns the value before.
                #[track_caller]
                pub fn fetch_max(&self, least: $value, order: Ordering) -> $value {
                    self.fetch(order, |value| value.max(least))
                }

                /// Makes it at most `most`; returns the value before.
                #[track_caller]
                pub fn fetch_min(&self, most: $value, order: Ordering) -> $value {
                    self.fetch(order, |value| value.min(most))
                }

                #[track_caller]
                fn fetch(&self, order: Ordering, next: impl Fn($value) -> $value) -> $value {
                    let mut value = self.load(Ordering::Relaxed);
                    loop {
                        match self.compare_exchange(value, next(value), order, Ordering::Relaxed) {
                            Ok(before) => return before,
                            Err(now) => value = now,
                        }
                    }
                }
            }
        )*
    };
}

atomics! { AtomicPtr<T> of *mut T AtomicU8 of u8 AtomicU16 of u16 AtomicU32 of u32 AtomicU64 of u64 AtomicUsize of usize }
numbers! { AtomicU8 of u8 AtomicU16 of u16 AtomicU32 of u32 AtomicU64 of u64 AtomicUsize of usize }
