//! Refill: where a thread's blocks come from.
//!
//! ```text
//! # Role        current slab and short list per class; next slab: own list, own remote-free queue, the depot's partial
//!               slabs, then new memory
//! # Invariants  I1: whoever becomes a slab's holder by `enter_queue` reads its class anew: between the release that
//!                   led there and the entering, the slab may have been retired and its granule become another slab.
//!                   What it holds then is that slab, rightly.
//! # Bound       `OWNER_LIST_MAX` slabs and the current one per class; what is more goes to the depot, and all of it where
//!               there are more than `SLAB_OWNERS_MAX` local heaps: else each would withhold slabs of every class
//! # Not here    the local heaps themselves (see `registry`), giving blocks back (see `flush`)
//! ```

use crate::config::{OWNER_LIST_MAX, POPULATE_BYTES_FIRST};
use crate::depot::Depot;
use crate::depot::magazines::Slot;
use crate::pagemap::SlabRef;
use crate::local::Shared;
use crate::local::registry::LocalIndex;
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

impl<'h, P: Pages> Shared<'h, P> {
    /// Moves blocks of `class` to `slots`: whole words while fewer than `want` are there, at most all. Returns
    /// their number, 0 is out of memory, and how dense they were. A pop from the end of the slots sees each word in
    /// address order.
    ///
    /// What other threads withhold is taken before new memory is used, and again where there is none.
    pub fn fill(
        self,
        me: LocalIndex,
        class: ClassIndex,
        slots: &mut [Slot],
        want: usize,
    ) -> (usize, Density) {
        let own = self.registry.slabs(me);
        let (mut taken, mut density) = (0, Density::default());
        loop {
            let current = own.current(class).take().and_then(|id| self.depot.regions.slab(id));
            let Some(slab) = current.or_else(|| self.next_slab(me, class, taken > 0)) else {
                return (taken, density);
            };
            taken += claim_into(self.depot, &slab, &mut slots[taken..], want - taken, &mut density);
            if taken >= want && !self.registry.share_slabs() {
                own.current(class).put(Some(slab.id()));
                return (taken, density);
            }
            if taken >= want {
                put_back(self.depot, slab);
                return (taken, density);
            }
            if slab.descriptor().leave_queue(|| slab.has_free()) {
                self.receive(me, slab.id());
            }
        }
    }

    /// The slab to go on with; new memory only if `enough` says that there is nothing to hand out yet.
    fn next_slab(
        self,
        me: LocalIndex,
        class: ClassIndex,
        enough: bool,
    ) -> Option<SlabRef<'h>> {
        let own = self.registry.slabs(me);
        let own = own.list_pop(self.depot, class).or_else(|| {
            self.take_own_remote_frees(me);
            own.list_pop(self.depot, class)
        });
        let mut slab = own.or_else(|| self.depot.take_partial(class));
        if slab.is_none() && !enough {
            slab = self.last_slab(class);
        }
        let slab = slab?;
        slab.descriptor().set_owner(me.get() as u32);
        slab.descriptor().set_cursor(0);
        Some(slab)
    }

    /// A slab for who has nowhere else to turn: what others withhold, then new memory.
    pub(super) fn last_slab(
        self,
        class: ClassIndex,
    ) -> Option<SlabRef<'h>> {
        if self.registry.adopts_lost_now() {
            self.adopt_lost();
        }
        self.flush_parked();
        self.flush_remote_frees();
        self.take_idle_slabs(class);
        if let Some(slab) = self.depot.take_partial(class).or_else(|| self.depot.new_slab(class)) {
            return Some(slab);
        }
        self.adopt_lost();
        self.take_stashes();
        self.flush_remote_frees();
        // What a purge has in flight comes back when it is through with its chunk.
        platform::wait_briefly(|| self.depot.in_flight.is_empty());
        self.depot.take_partial(class).or_else(|| self.depot.new_slab(class))
    }

    /// Sorts the slabs that others put on the remote-free queue.
    fn take_own_remote_frees(self, me: LocalIndex) {
        let mut next = self.registry.slabs(me).remote_frees.take_all();
        while let Some(slab) = next.and_then(|id| self.depot.regions.slab(id)) {
            next = slab.descriptor().link();
            self.keep_or_give(me, slab);
        }
    }

    /// Takes in a slab that the caller has just become the holder of.
    pub(super) fn receive(self, me: LocalIndex, id: SlabId) {
        // The class is read anew: I1. A held slab has one.
        if let Some(slab) = self.depot.regions.slab(id) {
            self.keep_or_give(me, slab);
        }
    }

    fn keep_or_give(self, me: LocalIndex, slab: SlabRef<'_>) {
        let own = self.registry.slabs(me);
        if own.list_len(slab.class) < OWNER_LIST_MAX && !self.registry.share_slabs() {
            slab.descriptor().set_owner(me.get() as u32);
            own.list_push(&slab);
        } else {
            self.depot.give_slab(slab);
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
        depot.counts.purged_in_slabs.sub(untouched);
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

impl<P: Pages> Shared<'_, P> {
    /// Takes one block of `class` without a local heap: for threads that have none, before or after their time. Null at the
    /// end of memory.
    pub fn take_one(self, class: ClassIndex) -> *mut u8 {
        let mut block: Slot = core::ptr::null_mut();
        loop {
            let Some(slab) = self.depot.take_partial(class).or_else(|| self.last_slab(class)) else {
                return core::ptr::null_mut();
            };
            slab.descriptor().set_cursor(0);
            let slots = core::slice::from_mut(&mut block);
            let taken = claim_into(self.depot, &slab, slots, 1, &mut Density::default());
            put_back(self.depot, slab);
            if taken == 1 {
                self.depot.counts.beside(class).taken.add(1);
                return block;
            }
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
