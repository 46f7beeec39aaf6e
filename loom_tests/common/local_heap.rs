//! One local heap, its slabs and the depot, for models in which a thread ends or is gone: what `ThreadRegistry` and `Depot` do, in a
//! few lines each.

use super::Payload;
use magalloc::chunk::partial_set::{PartialSet, Place};
use magalloc::local::index_set::IndexSet;
use magalloc::local::remote_free::RemoteFreeQueue;
use magalloc::size_class;
use magalloc::slab::Slab;
use magalloc::slab::bitmap::{FreeWord, Released};
use magalloc::sync::planted::bug;
use magalloc::units::{ClassIndex, GranuleIndex, SlabId};

const SLABS: usize = 3;
const WORDS: usize = 2;
/// The message where a slab is lost.
pub const FORGOTTEN: &str = "a free block is where nobody will find it";

/// A slab of `WORDS` words with one block each.
struct TestSlab {
    descriptor: Slab,
    words: [FreeWord; WORDS],
    blocks: [Payload; WORDS],
    /// What only the holder touches.
    held: Payload,
}

impl TestSlab {
    fn has_free(&self) -> bool {
        self.words.iter().any(|word| word.look() != 0)
    }
}

/// The local heap with number 0, its slabs, and the depot.
pub struct Heap {
    slabs: [TestSlab; SLABS],
    pub remote_frees: RemoteFreeQueue,
    /// The slabs in the local heap's list, as bits; only for the local heap's thread.
    list: Payload,
    abandoned: IndexSet,
    partial: PartialSet<1>,
}

fn class() -> ClassIndex {
    size_class::all().next().expect("there are classes")
}

impl Heap {
    /// The calling thread is the local heap. Slabs 0 and 1 are exhausted and in no queue; slab 2 is in its list, with a
    /// free block.
    pub fn new() -> Self {
        let heap = Self {
            slabs: core::array::from_fn(|slab| TestSlab {
                descriptor: Slab::new(),
                words: core::array::from_fn(|word| FreeWord::new(u64::from(slab == 2 && word == 1))),
                blocks: core::array::from_fn(|_| Payload::new()),
                held: Payload::new(),
            }),
            remote_frees: RemoteFreeQueue::new(),
            list: Payload::new(),
            abandoned: IndexSet::new(),
            partial: PartialSet::new(),
        };
        for slab in &heap.slabs {
            slab.descriptor.begin(1);
        }
        for slab in &heap.slabs[..2] {
            assert!(!slab.descriptor.leave_queue(|| slab.has_free()));
        }
        heap.list.own(|slabs| *slabs = 0b100);
        heap
    }

    /// The slabs of a chain, for their holder.
    pub fn chain(&self, first: Option<SlabId>) -> Vec<usize> {
        let mut slabs = Vec::new();
        let mut next = first;
        while let Some(id) = next {
            let slab = id.granule().get();
            self.slabs[slab].held.touch();
            next = self.slabs[slab].descriptor.link();
            assert!(slabs.len() < SLABS, "a slab is in a queue twice");
            slabs.push(slab);
        }
        slabs
    }

    fn list(&self) -> Vec<usize> {
        let bits = self.list.own(core::mem::take);
        (0..SLABS).filter(|slab| bits >> slab & 1 != 0).collect()
    }

    /// `Depot::give_slab`, for the holder of a slab that is not empty.
    pub fn give(&self, slab: usize) {
        self.slabs[slab].held.touch();
        self.partial.put(Place { chunk: 0, granule: slab }, class());
    }

    /// `Shared::flush` of one block, by a thread that is not the local heap.
    pub fn free(&self, slab: usize, block: usize) {
        if self.release(slab, block) {
            let id = SlabId::new(0, GranuleIndex::new(slab));
            let pushed = self.remote_frees.push(id, |next| self.slabs[slab].descriptor.set_link(next));
            if pushed.is_err() && !bug("closed is forgotten") {
                self.give(slab);
            }
        }
    }

    /// The same by the local heap.
    pub fn free_own(&self, slab: usize, block: usize) {
        if self.release(slab, block) {
            self.list.own(|slabs| *slabs |= 1 << slab);
        }
    }

    /// `true`: the caller is the slab's holder now.
    fn release(&self, slab: usize, block: usize) -> bool {
        let slab = &self.slabs[slab];
        slab.blocks[block].touch();
        let is_holder = matches!(slab.words[block].release(1), Released::First { .. }) && slab.descriptor.enter_queue();
        if is_holder {
            slab.held.touch();
        }
        is_holder
    }

    /// `Shared::abandon`.
    pub fn end(&self) {
        if bug("number given up too early") {
            self.abandoned.put(0);
        }
        let pushed = if bug("end without closing") { self.remote_frees.take_all() } else { self.remote_frees.close() };
        self.chain(pushed).into_iter().chain(self.list()).for_each(|slab| self.give(slab));
        self.abandoned.put(0);
    }

    /// `Shared::adopt`, and a refill that looks at what was pushed. Is the calling thread the local heap now?
    pub fn begin(&self) -> bool {
        if self.abandoned.take(1).is_none() {
            return false;
        }
        assert!(self.list().is_empty(), "an abandon has slabs");
        self.remote_frees.open();
        let pushed = self.chain(self.remote_frees.take_all());
        self.list.own(|slabs| *slabs = pushed.iter().fold(0, |slabs, slab| slabs | 1 << slab));
        true
    }

    /// At rest: every slab with a free block is in one place, and all `blocks` are there.
    pub fn check(&self, adopted: bool, blocks: u32) {
        let pushed = self.chain(self.remote_frees.close());
        assert!(adopted || pushed.is_empty(), "a slab is on a closed stack");
        let given = core::iter::from_fn(|| {
            Some(self.partial.take(class(), |_| Some(class()), |place, class| self.partial.put(place, class))?.granule)
        });
        let mut seen = [false; SLABS];
        for slab in pushed.into_iter().chain(self.list()).chain(given) {
            assert!(!seen[slab], "a slab is in two places");
            seen[slab] = true;
            self.slabs[slab].held.touch();
        }
        for (slab, seen) in self.slabs.iter().zip(seen) {
            assert_eq!(slab.has_free(), seen, "{FORGOTTEN}");
            assert_eq!(slab.descriptor.is_queued(), seen, "the flag of a slab is wrong");
        }
        let free: u32 = self.slabs.iter().flat_map(|slab| &slab.words).map(|word| word.claim_all().count_ones()).sum();
        assert_eq!(free, blocks, "blocks are lost");
    }
}
