//! Memory that is mapped as it is used: what grows at its end (`Frontier`), what is mapped in any order (`MappedSet`), and
//! the type-stable arrays of metadata (`GrowableArray`).
//!
//! ```text
//! # Role        records and magazines live in ranges: an element, once made, stays what it is until the process ends
//! # Once        nothing is ever mapped twice: a second mapping of what is in use would empty it. A thread claims a part,
//!               maps it, and announces it; another thread that wants the same part waits for the announcement. As only
//!               one of ours asks the kernel, what the kernel finds there is a stranger's for certain.
//! # Invariants  I1: what is announced is mapped, readable and writable; what is not claimed is not mapped by us.
//!               I2: elements below `next` are made, and mapped.
//! # Ordering    MAP-ONCE: announcing (Release) -> seeing it (Acquire): the pages are there, and what was written before.
//!               GIVE-UP: giving a claim up (Release) -> claiming (Acquire): what was mapped of it is unmapped.
//! # Progress    a thread stopped between claim and announcement (some microseconds) makes others who want that part wait
//!               for 10 ms, and then do without it: no lock
//! # Checked by  loom_tests/commit.rs (`Frontier`, `MappedSet`), heap::tests::out_of_memory
//! ```

use crate::sync::planted::bug;
use crate::sync::{AtomicU64, AtomicUsize, Ordering, const_unless_loom};
use crate::sys::NotMapped;

/// Why something is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Another thread is mapping it.
    Busy,
    /// The kernel's answer.
    Not(NotMapped),
}

impl From<NotMapped> for Missing {
    fn from(why: NotMapped) -> Self {
        Missing::Not(why)
    }
}

/// How far something is mapped: grows, by one thread at a time, and never shrinks.
#[derive(Debug)]
pub struct Frontier {
    /// As far as somebody maps just now; the same as `mapped` while nobody does.
    claimed: AtomicUsize,
    mapped: AtomicUsize,
}

impl Default for Frontier {
    fn default() -> Self {
        Self::new()
    }
}

impl Frontier {
    const_unless_loom! {
        /// Nothing is mapped.
        pub fn new() -> Self {
            Self { claimed: AtomicUsize::new(0), mapped: AtomicUsize::new(0) }
        }
    }

    /// Mapped up to `end`.
    pub fn from(end: usize) -> Self {
        Self { claimed: AtomicUsize::new(end), mapped: AtomicUsize::new(end) }
    }

    /// Sees to it that all up to `end` is mapped, through `map(from, end)`, which maps all of that or nothing.
    ///
    /// # Errors
    /// What is mapped still is, and nothing else.
    pub fn ensure(
        &self,
        end: usize,
        map: impl FnOnce(usize, usize) -> Result<(), NotMapped>,
    ) -> Result<(), Missing> {
        // ordering: Acquire [MAP-ONCE] pairs with Release below: the pages are there.
        let from = self.mapped.load(Ordering::Acquire);
        if from >= end {
            return Ok(());
        }
        // ordering: Acquire [GIVE-UP] pairs with Release below. Nobody who claims this part can have mapped it: the claim
        // moves on with an announcement, and never back behind one.
        let claim = self.claimed.compare_exchange(from, end, Ordering::Acquire, Ordering::Relaxed);
        if claim.is_err() && !bug("map without a claim") {
            return Err(Missing::Busy);
        }
        let order = if bug("relaxed announcement") { Ordering::Relaxed } else { Ordering::Release };
        if bug("announce before mapping") {
            self.mapped.store(end, order);
        }
        if let Err(why) = map(from, end) {
            if !bug("keep the claim of what was refused") {
                // More than `from` is mapped in the child of a fork in a signal handler that came amid this and mapped some.
                // ordering: Release [GIVE-UP] pairs with Acquire above. Relaxed: nobody else maps meanwhile.
                self.claimed.store(from.max(self.mapped.load(Ordering::Relaxed)), Ordering::Release);
            }
            return Err(why.into());
        }
        // ordering: Release [MAP-ONCE] pairs with Acquire above, and in `end`.
        self.mapped.store(end, order);
        // In the child of a fork in a signal handler that came amid this, the claim is forgotten, and nobody could claim again.
        // ordering: Relaxed, both; else the claim is there, or further, and the caller sees so as it made it.
        if self.claimed.load(Ordering::Relaxed) < end {
            self.claimed.store(end, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Mapped as far as here.
    #[inline]
    pub fn end(&self) -> usize {
        // ordering: Acquire [MAP-ONCE] pairs with Release in `ensure`.
        self.mapped.load(Ordering::Acquire)
    }

    /// Is anybody mapping?
    pub fn is_busy(&self) -> bool {
        // ordering: Relaxed, a reason to wait.
        self.claimed.load(Ordering::Relaxed) != self.mapped.load(Ordering::Relaxed)
    }

    /// In the child of a fork: whoever was mapping is not here.
    pub fn forget_claims(&self) {
        // ordering: Relaxed; the caller is alone.
        self.claimed.store(self.mapped.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Forgets everything, at the end of the process.
    pub fn reset(&self) {
        // ordering: Relaxed; the caller is alone.
        self.mapped.store(0, Ordering::Relaxed);
        self.claimed.store(0, Ordering::Relaxed);
    }
}

/// Which of 64 parts are mapped. Zeroed memory is none.
#[derive(Debug)]
pub struct MappedSet {
    /// Those that are mapped, or that somebody maps just now.
    claimed: AtomicU64,
    mapped: AtomicU64,
}

impl Default for MappedSet {
    fn default() -> Self {
        Self::new()
    }
}

impl MappedSet {
    const_unless_loom! {
        /// None is.
        pub fn new() -> Self {
            Self { claimed: AtomicU64::new(0), mapped: AtomicU64::new(0) }
        }
    }

    /// Those that are mapped.
    #[inline]
    pub fn mapped(&self) -> u64 {
        // ordering: Acquire [MAP-ONCE] pairs with Release in `announce`.
        self.mapped.load(Ordering::Acquire)
    }

    /// Those of `parts` that the caller alone may map now, and must announce or give up. The others are mapped, or another
    /// thread is at it.
    #[must_use]
    pub fn claim(&self, parts: u64) -> u64 {
        if bug("map without a claim") {
            return parts & !self.mapped();
        }
        // ordering: Acquire [GIVE-UP] pairs with Release in `give_up`.
        parts & !self.claimed.fetch_or(parts, Ordering::Acquire)
    }

    /// The claimed `parts` are mapped.
    pub fn announce(&self, parts: u64) {
        let order = if bug("relaxed announcement") { Ordering::Relaxed } else { Ordering::Release };
        // ordering: Release [MAP-ONCE] pairs with Acquire in `mapped`.
        self.mapped.fetch_or(parts, order);
    }

    /// The claimed `parts` are not mapped.
    pub fn give_up(&self, parts: u64) {
        if !bug("keep the claim of what was refused") {
            // ordering: Release [GIVE-UP] pairs with Acquire in `claim`.
            self.claimed.fetch_and(!parts, Ordering::Release);
        }
    }

    /// Is anybody mapping one of `parts`?
    pub fn is_busy(&self, parts: u64) -> bool {
        // ordering: Relaxed, a reason to wait.
        (self.claimed.load(Ordering::Relaxed) & !self.mapped.load(Ordering::Relaxed)) & parts != 0
    }

    /// In the child of a fork: whoever was mapping is not here.
    pub fn forget_claims(&self) {
        // ordering: Relaxed; the caller is alone.
        self.claimed.store(self.mapped.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(not(loom))]
pub use growable_array::GrowableArray;

#[cfg(not(loom))]
mod growable_array {
    use super::{AtomicUsize, Frontier, Missing, Ordering};
    use crate::config::{PLACES_MAX, RANGE_BYTES_MIN, RANGE_COMMIT_STEP, RANGE_SCARCE_SHARE};
    use crate::os::Os;
    use crate::sync::AtomicPtr;
    use crate::sys::{NotMapped, Pages, platform};
    use core::marker::PhantomData;
    use core::ptr::NonNull;

    /// An array of `T` that grows. Zeroed memory must be a valid `T` that nobody has used yet.
    #[derive(Debug)]
    pub struct GrowableArray<T> {
        /// The first byte; null until something is mapped there. Set by whoever maps the first step.
        base: AtomicPtr<u8>,
        /// Bytes that its place has; set with the base.
        bytes: AtomicUsize,
        frontier: Frontier,
        next: AtomicUsize,
        preferred_bytes: usize,
        element: PhantomData<T>,
    }

    impl<T: Sync> GrowableArray<T> {
        /// An empty range, of `preferred_bytes` (a power of two) where there is room.
        pub const fn new(preferred_bytes: usize) -> Self {
            assert!(preferred_bytes.is_power_of_two());
            let preferred_bytes = if preferred_bytes < RANGE_BYTES_MIN { RANGE_BYTES_MIN } else { preferred_bytes };
            Self {
                base: AtomicPtr::new(core::ptr::null_mut()),
                bytes: AtomicUsize::new(0),
                frontier: Frontier::new(),
                next: AtomicUsize::new(0),
                preferred_bytes,
                element: PhantomData,
            }
        }

        /// Elements made so far; those below this number exist.
        pub fn len(&self) -> usize {
            // ordering: Acquire [GROW] pairs with Release in `grow`: the elements below are mapped.
            self.next.load(Ordering::Acquire)
        }

        /// Element `index`.
        ///
        /// # Safety
        /// `index` is below a length that the caller has seen, or came from `grow`.
        #[inline]
        pub unsafe fn get(&self, index: usize) -> NonNull<T> {
            // ordering: Relaxed; the caller learnt of the element after the base was set.
            let base = self.base.load(Ordering::Relaxed);
            // SAFETY: I2: the element lies in the mapped part of the range, so `base` is not null.
            unsafe { NonNull::new_unchecked(base.cast::<T>().add(index)) }
        }

        /// The number of `element`, which `get` gave; of any other address it says nothing.
        pub fn index_of(&self, element: NonNull<T>) -> usize {
            // ordering: Relaxed, as in `get`.
            element.addr().get().wrapping_sub(self.base.load(Ordering::Relaxed).addr()) / size_of::<T>()
        }

        /// Makes one more element, zeroed, and returns its number; `None` at the end of the range or of memory.
        pub fn grow<P: Pages>(&self, os: &Os<P>) -> Option<usize> {
            loop {
                // ordering: Relaxed, corrected by the exchange.
                let index = self.next.load(Ordering::Relaxed);
                let end = (index + 1) * size_of::<T>();
                self.ensure(os, end.next_multiple_of(RANGE_COMMIT_STEP)).ok()?;
                // ordering: Release [GROW] that it is mapped; pairs with Acquire in `len`.
                if self.next.compare_exchange(index, index + 1, Ordering::Release, Ordering::Relaxed).is_ok() {
                    return Some(index);
                }
            }
        }

        /// Sees to it that the first `end` bytes are mapped.
        fn ensure<P: Pages>(&self, os: &Os<P>, end: usize) -> Result<(), Missing> {
            let map = || self.frontier.ensure(end, |from, end| self.map(os, from, end));
            match map() {
                Err(Missing::Busy) => {
                    platform::wait_briefly(|| !self.frontier.is_busy());
                    map()
                }
                done => done,
            }
        }

        /// For whoever has claimed that part.
        fn map<P: Pages>(&self, os: &Os<P>, from: usize, end: usize) -> Result<(), NotMapped> {
            // ordering: Relaxed, both; they were set before `from` was announced.
            let (base, bytes) = (self.base.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
            match NonNull::new(base) {
                None => self.map_first(os, end),
                Some(_) if end > bytes => Err(NotMapped::Refused),
                // SAFETY: within the range's place.
                Some(base) => os.commit(unsafe { base.add(from) }, end - from),
            }
        }

        /// The same for the first part, where a place is to be found, too.
        fn map_first<P: Pages>(&self, os: &Os<P>, end: usize) -> Result<(), NotMapped> {
            let mut bytes = self.preferred_bytes;
            for _ in 0..PLACES_MAX {
                let Some(base) = os.place(bytes) else {
                    if bytes == RANGE_BYTES_MIN {
                        break;
                    }
                    bytes = (bytes / RANGE_SCARCE_SHARE).max(RANGE_BYTES_MIN);
                    continue;
                };
                match os.commit(base, end) {
                    Ok(()) => {
                        // ordering: Relaxed, both; published with the frontier.
                        self.base.store(base.as_ptr(), Ordering::Relaxed);
                        self.bytes.store(bytes, Ordering::Relaxed);
                        return Ok(());
                    }
                    Err(NotMapped::Taken) => {}
                    Err(NotMapped::Refused) => {
                        // SAFETY: placed just now.
                        unsafe { os.unplace(base, bytes) };
                        break;
                    }
                }
            }
            Err(NotMapped::Refused)
        }

        /// Bytes mapped.
        pub fn committed(&self) -> usize {
            self.frontier.end()
        }

        /// In the child of a fork: whoever was mapping is not here.
        pub fn forget_claims(&self) {
            self.frontier.forget_claims();
        }

        /// Unmaps everything. The range is empty afterwards and could be used again.
        ///
        /// # Safety
        /// Nobody uses the range or any element of it, now or later.
        pub unsafe fn release<P: Pages>(&self, os: &Os<P>) {
            let mapped = self.frontier.end();
            // ordering: Relaxed; the caller is alone.
            let base = self.base.swap(core::ptr::null_mut(), Ordering::Relaxed);
            // ordering: Relaxed, likewise.
            self.next.store(0, Ordering::Relaxed);
            self.frontier.reset();
            if let Some(base) = NonNull::new(base) {
                // SAFETY: I1: all that was mapped, and nothing else; nobody uses it.
                unsafe { os.uncommit(base, mapped) };
                // ordering: Relaxed, as above.
                let bytes = self.bytes.load(Ordering::Relaxed);
                // SAFETY: `map_first` placed it; that was all of it.
                unsafe { os.unplace(base, bytes) };
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_a_forks_child_forgets_amid_a_mapping_grows_on() {
        // The fork is in a signal handler; its child returns to what was interrupted.
        let frontier = Frontier::new();
        let interrupted = frontier.ensure(10, |_, _| {
            frontier.forget_claims();
            Ok(())
        });
        assert_eq!((interrupted, frontier.end(), frontier.is_busy()), (Ok(()), 10, false));
        let interrupted = frontier.ensure(20, |_, _| {
            frontier.forget_claims();
            frontier.ensure(30, |_, _| Ok(())).expect("mapped by the handler");
            Err(NotMapped::Taken)
        });
        assert_eq!((interrupted, frontier.end()), (Err(Missing::Not(NotMapped::Taken)), 30));
        assert_eq!(frontier.ensure(40, |_, _| Ok(())), Ok(()));
    }
}
