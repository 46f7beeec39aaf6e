//! Partial slabs that no local heap holds, by class, lowest address first.
//!
//! ```text
//! # Role        a set, not a stack: any thread can take out any member, so a slab whose last block came home leaves
//!               at once, and nothing is linked, so there is no ABA
//! # Invariants  I1: a set bit of `slabs` is a queued slab whose holder is this set; whoever clears it is its holder.
//!               I2: a clear bit of `hint[class]` says that the chunk had no member of the class, and whoever puts
//!                   one in sets it.
//! # Ordering    HAND-OVER: `put` (Release) -> `take*` (AcqRel): what the last holder wrote to the descriptor.
//!               LAST-BLOCK: a block's release, then `take_this` (AcqRel); `put` (AcqRel), then a look at the blocks.
//!               Whichever is second sees the other's work, so an empty slab does not stay here.
//!               HINT: `take` clears the hint, then looks again; `put` adds the member, then sets the hint. Both are
//!               read-modify-writes, so whichever is second sees the other's work.
//! # Progress    `put` is wait-free, `take` and `take_this` are lock-free
//! ```
//! # Zeroed memory is an empty set.
//! ```text
//! # Checked by  loom_tests/partial_set.rs
//! ```

use crate::config::{CHUNK_GRANULES, GROUP_CHUNKS};
use crate::sync::planted::bug;
use crate::sync::{AtomicU64, Ordering};
use crate::units::ClassIndex;

/// The partial slabs of a chunk group.
#[derive(Debug)]
#[repr(C)]
pub struct PartialSet<const CLASSES: usize> {
    /// Per chunk: first granules of the members.
    slabs: [AtomicU64; GROUP_CHUNKS],
    /// Per class: chunks that may have a member of it.
    hint: [AtomicU64; CLASSES],
}

/// A slab's place in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The chunk's number in the group.
    pub chunk: usize,
    /// The slab's first granule in the chunk.
    pub granule: usize,
}

impl<const CLASSES: usize> Default for PartialSet<CLASSES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const CLASSES: usize> PartialSet<CLASSES> {
    /// An empty set.
    pub fn new() -> Self {
        Self {
            slabs: core::array::from_fn(|_| AtomicU64::new(0)),
            hint: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Puts a slab of `class` in; the caller was its holder.
    pub fn put(&self, place: Place, class: ClassIndex) {
        let order = match () {
            () if bug("relaxed put") => Ordering::Relaxed,
            () if bug("put without acquire") => Ordering::Release,
            () => Ordering::AcqRel,
        };
        // ordering: AcqRel. Release [HAND-OVER] pairs with AcqRel in `take_this`. Acquire [LAST-BLOCK]: whoever looks
        // at the slab after this sees the blocks of every `take_this` that came too early to find it here.
        self.slabs[place.chunk].fetch_or(1 << place.granule, order);
        // ordering: AcqRel [HINT] after the member; pairs with the clearing in `take`.
        self.hint[class.get()].fetch_or(1 << place.chunk, Ordering::AcqRel);
    }

    /// Takes the lowest slab of `class`; the caller is its holder then. `class_of` tells a member's class.
    /// `give_back` gets a slab of another class, taken by mistake, from its holder.
    pub fn take(
        &self,
        class: ClassIndex,
        class_of: impl Fn(Place) -> Option<ClassIndex>,
        give_back: impl Fn(Place, ClassIndex),
    ) -> Option<Place> {
        loop {
            // ordering: Acquire [HINT] a set bit leads to a member that was put before.
            let hint = self.hint[class.get()].load(Ordering::Acquire);
            if hint == 0 {
                return None;
            }
            let chunk = hint.trailing_zeros() as usize;
            if let Some(place) = self.take_in(chunk, class, &class_of, &give_back) {
                return Some(place);
            }
            // ordering: AcqRel [HINT] before the look below; pairs with the setting in `put`.
            self.hint[class.get()].fetch_and(!(1 << chunk), Ordering::AcqRel);
            if bug("hint cleared without a second look") {
                continue;
            }
            if let Some(place) = self.take_in(chunk, class, &class_of, &give_back) {
                // ordering: AcqRel [HINT] there may be more where this one was.
                self.hint[class.get()].fetch_or(1 << chunk, Ordering::AcqRel);
                return Some(place);
            }
        }
    }

    fn take_in(
        &self,
        chunk: usize,
        class: ClassIndex,
        class_of: &impl Fn(Place) -> Option<ClassIndex>,
        give_back: &impl Fn(Place, ClassIndex),
    ) -> Option<Place> {
        // ordering: Acquire [HAND-OVER] a member's class was written before it was put.
        let mut members = self.slabs[chunk].load(Ordering::Acquire);
        while members != 0 {
            let place = Place { chunk, granule: members.trailing_zeros() as usize };
            members &= members - 1;
            if class_of(place) == Some(class) && self.take_this(place) {
                // Between the look and the taking, the slab may have been retired and its granule become another
                // slab. Its class can be trusted only now that it is ours.
                if bug("class not looked at again") {
                    return Some(place);
                }
                match class_of(place) {
                    Some(now) if now == class => return Some(place),
                    Some(other) => give_back(place, other),
                    None => {}
                }
            }
        }
        None
    }

    /// Takes that slab; `false` where it is not in the set.
    #[must_use]
    pub fn take_this(&self, place: Place) -> bool {
        let bit = 1 << place.granule;
        if bug("take by load") {
            // ordering: none that would help.
            return self.slabs[place.chunk].load(Ordering::Acquire) & bit != 0;
        }
        // ordering: AcqRel. Acquire [HAND-OVER] pairs with Release in `put`; Release [LAST-BLOCK] pairs with Acquire there.
        self.slabs[place.chunk].fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// May there be a slab of `class`, at some moment?
    pub fn may_have(&self, class: ClassIndex) -> bool {
        // ordering: Acquire [HINT] as in `take`.
        self.hint[class.get()].load(Ordering::Acquire) != 0
    }

    /// Members in `chunk`, at some moment.
    pub fn members(&self, chunk: usize) -> u64 {
        // ordering: Acquire, as in `take`.
        self.slabs[chunk].load(Ordering::Acquire)
    }
}

const _: () = assert!(CHUNK_GRANULES <= u64::BITS as usize);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn members_are_taken_lowest_first_by_class() {
        let set = PartialSet::<2>::new();
        let mut classes = crate::size_class::all();
        let (wanted, other) = (classes.next().expect("a class"), classes.next().expect("another"));
        let place = |chunk, granule| Place { chunk, granule };
        let class_of = |place: Place| Some(if place.granule == 7 { other } else { wanted });
        for (chunk, granule) in [(3, 1), (0, 9), (0, 7), (5, 0), (0, 2)] {
            set.put(place(chunk, granule), class_of(place(chunk, granule)).expect("a class"));
        }
        let taken = std::iter::from_fn(|| set.take(wanted, class_of, |_, _| panic!("nothing of another class")));
        assert!(taken.eq([place(0, 2), place(0, 9), place(3, 1), place(5, 0)]));
        assert_eq!(set.members(0), 1 << 7);
    }
}
