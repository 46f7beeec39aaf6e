//! Refill: where a thread's blocks come from.
//!
//! ```text
//! # Role        current slab and short list per class; next slab: own list, own notifications, the depot's partial
//!               slabs, then new memory
//! # Invariants  I1: whoever becomes a slab's holder by `enter_queue` reads its class anew: between the release that
//!                   led there and the entering, the slab may have been retired and its granule become another slab.
//!                   What it holds then is that slab, rightly.
//! # Bound       `OWNER_LIST_MAX` slabs and the current one per class; what is more goes to the depot, and all of it where
//!               there are more than `SLAB_OWNERS_MAX` owners: else each would withhold slabs of every class
//! # Not here    the owners themselves (see `owners`), giving blocks back (see `dissolve`)
//! ```

use crate::config::{OWNER_LIST_MAX, POPULATE_BYTES_FIRST};
use crate::depot::Depot;
use crate::depot::magazines::Slot;
use crate::granule_map::SlabRef;
use crate::owner::owners::{OwnerIndex, Owners};
use crate::sys::{Pages, platform};
use crate::units::{ClassIndex, SlabId};

/// How dense the free blocks of words were that a refill came upon; of those that were in use in part, because a word
/// that was not says nothing of what gathers in one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Density {
    words: u32,
    blocks: u32,
}

impl Density {
    /// Free blocks of a word, in the mean; `None` where there was no such word.
    pub fn per_word(self) -> Option<u8> {
        self.blocks.checked_div(self.words).map(|blocks| blocks as u8)
    }

    /// Counts a word of which `blocks` were claimed, `most` at most, and which has `all`. Not where it may have been
    /// claimed in parts.
    fn count(&mut self, blocks: u64, most: u32, all: u64) {
        if most >= all.count_ones() && blocks != all {
            self.words += 1;
            self.blocks += blocks.count_ones();
        }
    }
}

impl Owners {
    /// Moves blocks of `class` to `slots`: whole words while fewer than `want` are there, at most all. Returns
    /// their number, 0 is out of memory, and how dense they were. A pop from the end of the slots sees each word in
    /// address order.
    ///
    /// `reclaim` is asked before new memory is used, and again where there is none.
    pub fn refill<P: Pages>(
        &self,
        depot: &Depot<P>,
        me: OwnerIndex,
        class: ClassIndex,
        slots: &mut [Slot],
        want: usize,
        reclaim: &impl Reclaim,
    ) -> (usize, Density) {
        let owner = self.owner(me);
        let (mut taken, mut density) = (0, Density::default());
        loop {
            let current = owner.current(class).and_then(|id| depot.regions.slab(id));
            let Some(slab) = current.or_else(|| self.next_slab(depot, me, class, taken > 0, reclaim)) else {
                return (taken, density);
            };
            taken += claim_into(depot, &slab, &mut slots[taken..], want - taken, &mut density);
            if taken >= want && !self.share_slabs() {
                owner.set_current(class, Some(slab.id()));
                return (taken, density);
            }
            owner.set_current(class, None);
            if taken >= want {
                put_back(depot, slab);
                return (taken, density);
            }
            if slab.descriptor().leave_queue(|| slab.has_free()) {
                self.receive(depot, me, slab.id());
            }
        }
    }

    /// The slab to go on with; new memory only if `enough` says that there is nothing to hand out yet.
    fn next_slab<'h, P: Pages>(
        &self,
        depot: &'h Depot<P>,
        me: OwnerIndex,
        class: ClassIndex,
        enough: bool,
        reclaim: &impl Reclaim,
    ) -> Option<SlabRef<'h>> {
        let owner = self.owner(me);
        let own = owner.list_pop(depot, class).or_else(|| {
            self.take_notified(depot, me);
            owner.list_pop(depot, class)
        });
        let mut slab = own.or_else(|| depot.take_partial(class));
        if slab.is_none() && !enough {
            slab = self.last_slab(depot, class, reclaim);
        }
        let slab = slab?;
        slab.descriptor().set_owner(me.0);
        slab.descriptor().set_cursor(0);
        Some(slab)
    }

    /// A slab for who has nowhere else to turn: what others withhold, then new memory.
    pub(super) fn last_slab<'h, P: Pages>(
        &self,
        depot: &'h Depot<P>,
        class: ClassIndex,
        reclaim: &impl Reclaim,
    ) -> Option<SlabRef<'h>> {
        if self.adopts_gone_now() {
            reclaim.adopt_gone();
        }
        reclaim.empty_resting();
        self.fetch_notified(depot);
        if let Some(slab) = depot.take_partial(class).or_else(|| depot.new_slab(class)) {
            return Some(slab);
        }
        reclaim.adopt_gone();
        reclaim.take_stashes();
        self.fetch_notified(depot);
        // What a purge has in hand comes back when it is through with its chunk.
        platform::wait_briefly(|| depot.hand.is_empty());
        depot.take_partial(class).or_else(|| depot.new_slab(class))
    }

    /// Sorts the slabs that others put on the notify stack.
    fn take_notified<P: Pages>(&self, depot: &Depot<P>, me: OwnerIndex) {
        let mut next = self.owner(me).notified.take_all();
        while let Some(slab) = next.and_then(|id| depot.regions.slab(id)) {
            next = slab.descriptor().link();
            self.keep_or_give(depot, me, slab);
        }
    }

    /// Takes in a slab that the caller has just become the holder of.
    pub(super) fn receive<P: Pages>(&self, depot: &Depot<P>, me: OwnerIndex, id: SlabId) {
        // The class is read anew: I1. A held slab has one.
        if let Some(slab) = depot.regions.slab(id) {
            self.keep_or_give(depot, me, slab);
        }
    }

    fn keep_or_give<P: Pages>(&self, depot: &Depot<P>, me: OwnerIndex, slab: SlabRef<'_>) {
        let owner = self.owner(me);
        if owner.list_len(slab.class) < OWNER_LIST_MAX && !self.share_slabs() {
            slab.descriptor().set_owner(me.0);
            owner.list_push(&slab);
        } else {
            depot.give_slab(slab);
        }
    }
}

/// Moves free blocks of `slab`, which the caller holds, to `slots`. Returns their number; adds to `density` what it found.
fn claim_into<P: Pages>(
    depot: &Depot<P>,
    slab: &SlabRef<'_>,
    slots: &mut [Slot],
    want: usize,
    density: &mut Density,
) -> usize {
    let words = slab.shape().words();
    let bytes = slab.shape().bytes as usize;
    let base = slab.base().as_ptr();
    let mut word = slab.descriptor().cursor();
    let (mut taken, mut untouched) = (0, 0);
    let (mut from, mut to) = (usize::MAX, 0);
    while word < words && taken < want {
        let most = (slots.len() - taken).min(64) as u32;
        let bits = slab.word(word).claim(most);
        if bits == 0 {
            word += 1;
            continue;
        }
        density.count(bits, most, slab.shape().word_mask(word));
        // SAFETY: the word's first block lies in the slab.
        let first = unsafe { base.add(word * 64 * bytes) };
        let purged = slab.note_used(word, bits);
        if purged != 0 {
            untouched += purged;
            from = from.min((word * 64 + bits.trailing_zeros() as usize) * bytes);
            to = (word * 64 + 64 - bits.leading_zeros() as usize) * bytes;
        }
        let end = taken + bits.count_ones() as usize;
        // SAFETY: the claim was bounded by the slots, so there is one for each bit, and each bit that was set is a
        // block of the slab.
        unsafe { write_blocks(slots[taken..end].as_mut_ptr(), first, bytes, bits) };
        taken = end;
    }
    slab.descriptor().set_cursor(word);
    if untouched != 0 {
        bring_in(depot, slab, from..to, untouched);
    }
    taken
}

/// Brings the pages of blocks in that were claimed, bytes `range` of the slab, where `untouched` bytes of them are not
/// in memory. They go to a magazine, and from there to the program, which would have the kernel bring each in.
fn bring_in<P: Pages>(depot: &Depot<P>, slab: &SlabRef<'_>, range: core::ops::Range<usize>, untouched: usize) {
    let page = 1 << slab.region().page_shift();
    if untouched > page && slab.shape().bytes as usize <= page && depot.budget.held() > POPULATE_BYTES_FIRST {
        let from = range.start & !(page - 1);
        // SAFETY: the blocks lie in the slab.
        let start = unsafe { slab.base().add(from) };
        // SAFETY: a slab is committed, and a multiple of pages.
        unsafe { depot.os.populate(start, range.end.next_multiple_of(page) - from) };
    }
}

/// Writes the blocks of a claimed word, the lowest to the last slot.
///
/// # Safety
/// `slots` is valid for as many writes as `bits` has bits; each bit is a block of `bytes` from `first` on.
#[inline]
unsafe fn write_blocks(slots: *mut Slot, first: *mut u8, bytes: usize, mut bits: u64) {
    if bits == u64::MAX {
        for number in 0..64 {
            // SAFETY: 64 slots and 64 blocks.
            unsafe { slots.add(63 - number).write(first.add(number * bytes)) };
        }
        return;
    }
    // SAFETY: the end of the slots.
    let mut slot = unsafe { slots.add(bits.count_ones() as usize) };
    while bits != 0 {
        let number = bits.trailing_zeros() as usize;
        bits &= bits - 1;
        // SAFETY: one slot for each bit.
        slot = unsafe { slot.sub(1) };
        // SAFETY: a block of the slab.
        unsafe { slot.write(first.add(number * bytes)) };
    }
}

/// Where there may be blocks in caches that nobody is going to use soon. The caches lie above this module.
pub trait Reclaim {
    /// Brings home what threads had that this process, the child of a fork, does not have.
    fn adopt_gone(&self);
    /// Brings home what threads left that have ended.
    fn empty_resting(&self);
    /// Brings home what can be had from the caches of other threads.
    fn take_stashes(&self);
}

/// Gives a slab that the caller holds, and from which it has taken what it wanted, to the depot.
fn put_back<P: Pages>(depot: &Depot<P>, slab: SlabRef<'_>) {
    if slab.has_free() {
        depot.give_slab(slab);
    } else if slab.descriptor().leave_queue(|| slab.has_free())
        && let Some(slab) = depot.regions.slab(slab.id())
    {
        depot.give_slab(slab);
    }
}

/// Takes one block of `class` without an owner: for threads that have none, before or after their time.
pub(crate) fn take_one<P: Pages>(
    depot: &Depot<P>,
    owners: &Owners,
    class: ClassIndex,
    reclaim: &impl Reclaim,
) -> *mut u8 {
    let mut block: Slot = core::ptr::null_mut();
    loop {
        let Some(slab) = depot.take_partial(class).or_else(|| owners.last_slab(depot, class, reclaim)) else {
            return core::ptr::null_mut();
        };
        slab.descriptor().set_cursor(0);
        let taken = claim_into(depot, &slab, core::slice::from_mut(&mut block), 1, &mut Density::default());
        put_back(depot, slab);
        if taken == 1 {
            return block;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Density;

    #[test]
    fn only_words_in_use_in_part_say_how_dense_free_blocks_are() {
        let mut density = Density::default();
        assert_eq!(density.per_word(), None);
        density.count(u64::MAX, 64, u64::MAX);
        density.count(0xff, 20, 0xff);
        // These may be the rest of more.
        density.count(0b111, 8, u64::MAX);
        assert_eq!(density.per_word(), None);
        density.count(0b11, 64, u64::MAX);
        density.count(0xffff, 64, u64::MAX);
        assert_eq!(density.per_word(), Some(9));
    }
}
