//! Ranges of metadata: type-stable arrays in address space of their own, which grow at the end and never shrink.
//!
//! ```text
//! # Role        records and magazines live here: an element, once made, stays what it is until the process ends
//! # Invariants  I1: `committed` bytes from the base on are readable and writable.
//!               I2: elements below `next` are made, and committed.
//!               I3: base and length are published in one word, so nobody sees one without the other.
//! # Ordering    PUBLISH-RANGE: the exchange of `base` (Release) -> `base` (Acquire): an element's zeroed memory
//!               needs no more than the address.
//! # Progress    lock-free: two threads may both reserve or commit; a reservation too many is released, a commit
//!               too many changes nothing
//! # Checked by  loom_tests/commit.rs (`Commit`), heap::out_of_memory
//! ```

use crate::config::{RANGE_BYTES_MIN, RANGE_COMMIT_STEP, RANGE_SCARCE_SHARE};
use crate::sync::planted::bug;
use crate::sync::{AtomicUsize, Ordering, const_unless_loom};

/// How far something is committed: grows, never shrinks; anyone may push it on.
#[derive(Debug)]
pub struct Commit(AtomicUsize);

impl Default for Commit {
    fn default() -> Self {
        Self::new()
    }
}

impl Commit {
    const_unless_loom! {
        /// Nothing committed.
        pub fn new() -> Self {
            Self(AtomicUsize::new(0))
        }
    }

    /// The first `bytes` committed.
    pub fn from(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    /// Sees to it that at least `bytes` are committed, through `commit(from, to)`, which is idempotent. `false`:
    /// it was refused, and what was committed still is.
    pub fn ensure(&self, bytes: usize, commit: impl FnOnce(usize, usize) -> bool) -> bool {
        // ordering: Acquire [COMMIT] pairs with Release below: the pages are there.
        let before = self.0.load(Ordering::Acquire);
        if before >= bytes {
            return true;
        }
        if bug("announce before commit") {
            self.0.fetch_max(bytes, Ordering::Release);
            return commit(before, bytes);
        }
        if !commit(before, bytes) {
            return false;
        }
        let order = if bug("relaxed commit") { Ordering::Relaxed } else { Ordering::Release };
        // ordering: Release [COMMIT] pairs with Acquire above.
        self.0.fetch_max(bytes, order);
        true
    }

    /// Bytes committed, at some moment.
    pub fn bytes(&self) -> usize {
        // ordering: Relaxed, a statistic.
        self.0.load(Ordering::Relaxed)
    }

    /// Forgets everything, at the end of the process.
    pub fn reset(&self) {
        // ordering: Relaxed; the caller is alone.
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(not(loom))]
pub use range::Range;

#[cfg(not(loom))]
mod range {
    use super::{AtomicUsize, Commit, Ordering, RANGE_BYTES_MIN, RANGE_COMMIT_STEP, RANGE_SCARCE_SHARE};
    use crate::os::{Os, Space};
    use crate::sync::AtomicPtr;
    use crate::sys::Pages;
    use core::marker::PhantomData;
    use core::ptr::NonNull;

    /// An array of `T` that grows. Zeroed memory must be a valid `T` that nobody has used yet.
    #[derive(Debug)]
    pub struct Range<T> {
        /// The first byte, tagged with log2 of the length and who releases it in the low bits (I3); null until the
        /// first `grow`.
        base: AtomicPtr<u8>,
        commit: Commit,
        next: AtomicUsize,
        preferred_bytes: usize,
        element: PhantomData<T>,
    }

    /// Low bits of the base that carry the length: a reservation starts at a page.
    const LENGTH_TAG: usize = 63;
    /// Set where the range is a part of the annex.
    const ANNEX_TAG: usize = 64;
    const TAG: usize = LENGTH_TAG | ANNEX_TAG;

    impl<T: Sync> Range<T> {
        /// An empty range, of `preferred_bytes` (a power of two) where address space is plentiful.
        pub const fn new(preferred_bytes: usize) -> Self {
            assert!(preferred_bytes.is_power_of_two());
            let preferred_bytes = if preferred_bytes < RANGE_BYTES_MIN { RANGE_BYTES_MIN } else { preferred_bytes };
            Self {
                base: AtomicPtr::new(core::ptr::null_mut()),
                commit: Commit::new(),
                next: AtomicUsize::new(0),
                preferred_bytes,
                element: PhantomData,
            }
        }

        /// Elements made so far; those below this number exist.
        pub fn len(&self) -> usize {
            // ordering: Acquire [GROW] pairs with Release in `grow`: the elements below are committed.
            self.next.load(Ordering::Acquire)
        }

        /// Element `index`.
        ///
        /// # Safety
        /// `index` is below a length that the caller has seen, or came from `grow`.
        #[inline]
        pub unsafe fn get(&self, index: usize) -> NonNull<T> {
            // ordering: Relaxed; the caller learnt of the element after its range was published.
            let base = self.base.load(Ordering::Relaxed).map_addr(|address| address & !TAG);
            // SAFETY: I2: the element lies in the committed part of the range, so `base` is not null.
            unsafe { NonNull::new_unchecked(base.cast::<T>().add(index)) }
        }

        /// Number of the element at `address`, if the range has one there.
        pub fn index_of(&self, element: NonNull<T>) -> usize {
            // ordering: Relaxed, as in `get`.
            let base = self.base.load(Ordering::Relaxed).addr() & !TAG;
            (element.addr().get() - base) / size_of::<T>()
        }

        /// Makes one more element, zeroed, and returns its number; `None` at the end of the range or of memory.
        pub fn grow<P: Pages>(&self, os: &Os<P>) -> Option<usize> {
            let (base, bytes) = self.reservation(os)?;
            loop {
                // ordering: Relaxed, corrected by the exchange.
                let index = self.next.load(Ordering::Relaxed);
                let end = (index + 1) * size_of::<T>();
                if end > bytes {
                    return None;
                }
                let step_end = end.next_multiple_of(RANGE_COMMIT_STEP).min(bytes);
                let committed = self.commit.ensure(step_end, |from, to| {
                    // SAFETY: `from` is at most the range's length.
                    let start = unsafe { base.add(from) };
                    // SAFETY: the part lies in our reservation.
                    unsafe { os.commit(start, to - from) }
                });
                if !committed {
                    return None;
                }
                // ordering: Release [GROW] the commitment; pairs with Acquire in `len`.
                if self.next.compare_exchange(index, index + 1, Ordering::Release, Ordering::Relaxed).is_ok() {
                    return Some(index);
                }
            }
        }

        /// Base and length, reserved now if they were not.
        fn reservation<P: Pages>(&self, os: &Os<P>) -> Option<(NonNull<u8>, usize)> {
            // ordering: Acquire [PUBLISH-RANGE] pairs with Release below.
            if let Some(known) = untag(self.base.load(Ordering::Acquire)) {
                return Some((known.start, known.bytes));
            }
            let share = if os.is_scarce() { RANGE_SCARCE_SHARE } else { 1 };
            let mut bytes = (self.preferred_bytes / share).max(RANGE_BYTES_MIN);
            let (start, space) = loop {
                if let Some(reserved) = os.reserve_part(bytes) {
                    break reserved;
                }
                if bytes == RANGE_BYTES_MIN {
                    // Perhaps another thread has what there was to have.
                    // ordering: Acquire [PUBLISH-RANGE] pairs with Release below.
                    return untag(self.base.load(Ordering::Acquire)).map(|range| (range.start, range.bytes));
                }
                bytes = (bytes / RANGE_SCARCE_SHARE).max(RANGE_BYTES_MIN);
            };
            let tag = bytes.ilog2() as usize | if space == Space::OfAnnex { ANNEX_TAG } else { 0 };
            let tagged = start.as_ptr().map_addr(|address| address | tag);
            // ordering: Release [PUBLISH-RANGE] on success; Acquire on failure, the other's range is used.
            let published = self.base.compare_exchange(
                core::ptr::null_mut(),
                tagged,
                Ordering::Release,
                Ordering::Acquire,
            );
            match published {
                Ok(_) => Some((start, bytes)),
                Err(other) => {
                    if space == Space::Own {
                        // SAFETY: our own reservation, which nobody has seen.
                        unsafe { os.release(start, bytes) };
                    }
                    untag(other).map(|range| (range.start, range.bytes))
                }
            }
        }

        /// Bytes of address space and bytes committed.
        pub fn extent(&self) -> (usize, usize) {
            // ordering: Relaxed, a statistic.
            let mapped = untag(self.base.load(Ordering::Relaxed)).map_or(0, |range| range.bytes);
            (mapped, self.commit.bytes())
        }

        /// Gives everything back. The range is empty afterwards and could be used again.
        ///
        /// # Safety
        /// Nobody uses the range or any element of it, now or later.
        pub unsafe fn release<P: Pages>(&self, os: &Os<P>) {
            // ordering: Relaxed; the caller is alone.
            let base = self.base.swap(core::ptr::null_mut(), Ordering::Relaxed);
            self.next.store(0, Ordering::Relaxed);
            self.commit.reset();
            if let Some(Extent { start, bytes, space: Space::Own }) = untag(base) {
                // SAFETY: the whole reservation; nobody uses it.
                unsafe { os.release(start, bytes) };
            }
        }
    }

    /// What the base says.
    struct Extent {
        start: NonNull<u8>,
        bytes: usize,
        space: Space,
    }

    fn untag(tagged: *mut u8) -> Option<Extent> {
        let bytes = 1usize << (tagged.addr() & LENGTH_TAG);
        let space = if tagged.addr() & ANNEX_TAG == 0 { Space::Own } else { Space::OfAnnex };
        NonNull::new(tagged.map_addr(|address| address & !TAG)).map(|start| Extent { start, bytes, space })
    }
}
