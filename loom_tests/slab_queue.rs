//! Who queues a slab: `Slab::{enter_queue, leave_queue}` with the bitmap and the remote-free queue.
//!
//! # Modelled    releases into an exhausted slab against its holder, who claims, finds nothing more, and lets go;
//!               two slabs pushed on one stack; a releaser so late that the slab it entered for has been retired
//!               and its granule is another slab (invariant I3 of `local::fill`)
//! # Asserted    conservation: one holder at a time; a slab with a free block is in a place where it will be found;
//!               every block is claimed once.
//!               visibility: a slab's next holder comes after its last one, a block's next owner likewise.
//! # Bounds      1 or 2 slabs of 2 words, 3 threads, 4 preemptions
#![cfg(loom)]

mod common;

use common::{Payload, RACE, assert_caught, check};
use loom::thread;
use magalloc::local::remote_free::RemoteFreeQueue;
use magalloc::slab::Slab;
use magalloc::slab::bitmap::{FreeWord, Released};
use magalloc::sync::planted::bug;
use magalloc::sync::{AtomicU8, Ordering};
use magalloc::units::{GranuleIndex, SlabId};
use std::sync::Arc;

const SLABS: usize = 2;
const WORDS: usize = 2;
const PREEMPTIONS: Option<usize> = Some(4);
const FORGOTTEN: &str = "a free block is where nobody will find it";

/// A slab of `WORDS` words with one block each.
struct TestSlab {
    descriptor: Slab,
    /// What the page map says: 0 is no slab.
    class: AtomicU8,
    words: [FreeWord; WORDS],
    blocks: [Payload; WORDS],
    /// What only the holder touches; here the class by which it was queued.
    held: Payload,
}

impl TestSlab {
    /// A slab whose blocks are all in use; the caller is its holder.
    fn new() -> Self {
        let slab = Self {
            descriptor: Slab::new(),
            class: AtomicU8::new(0),
            words: core::array::from_fn(|_| FreeWord::new(0)),
            blocks: core::array::from_fn(|_| Payload::new()),
            held: Payload::new(),
        };
        slab.become_class(1);
        slab
    }

    /// What `Depot::new_slab` does; only for whoever has the span.
    fn become_class(&self, class: u8) {
        self.descriptor.begin(1);
        self.set_class(class);
    }

    fn class(&self) -> u8 {
        // Relaxed, as in the page map.
        self.class.load(Ordering::Relaxed)
    }

    fn set_class(&self, class: u8) {
        self.class.store(class, Ordering::Relaxed);
    }

    fn has_free(&self) -> bool {
        self.words.iter().any(|word| word.look() != 0)
    }

    /// Claims what is free, for the holder. Returns how many blocks that is.
    fn claim(&self) -> u64 {
        self.held.own(|_| ());
        let mut taken = 0;
        for (word, block) in self.words.iter().zip(&self.blocks) {
            if word.claim_all() != 0 {
                block.touch();
                taken += 1;
            }
        }
        taken
    }

    /// Lets go. `true`: a block came back and the caller is the holder again.
    fn leave(&self) -> bool {
        self.held.own(|_| ());
        self.descriptor.leave_queue(|| self.has_free())
    }
}

/// One local heap's remote-free queue, and slabs whose free blocks it is told of.
struct Heap {
    slabs: [TestSlab; SLABS],
    remote_frees: RemoteFreeQueue,
}

impl Heap {
    fn new() -> Arc<Self> {
        Arc::new(Self { slabs: core::array::from_fn(|_| TestSlab::new()), remote_frees: RemoteFreeQueue::new() })
    }

    /// A free by a thread that is not the local heap: what `Shared::flush` and `queue` do.
    fn free(&self, slab: usize, block: usize) {
        let descriptor = &self.slabs[slab].descriptor;
        let class_before = self.slabs[slab].class();
        self.slabs[slab].blocks[block].touch();
        if let Released::First { .. } = self.slabs[slab].words[block].release(1)
            && descriptor.enter_queue()
        {
            let late = if bug("class read before entering") { class_before } else { self.slabs[slab].class() };
            self.slabs[slab].held.own(|class| *class = late.into());
            let id = SlabId::new(0, GranuleIndex::new(slab));
            self.remote_frees.push(id, |next| descriptor.set_link(next)).expect("never closed here");
        }
    }

    /// The slabs that the local heap is told of; it is their holder now.
    fn remote_frees(&self) -> Vec<&TestSlab> {
        let mut slabs = Vec::new();
        let mut next = self.remote_frees.take_all();
        while let Some(id) = next {
            let slab = &self.slabs[id.granule().get()];
            slab.held.own(|class| {
                assert_eq!(*class, slab.class().into(), "queued by the class of an earlier slab");
            });
            assert!(slab.descriptor.is_queued(), "a queue has a slab that nobody holds");
            next = slab.descriptor.link();
            assert!(slabs.len() < SLABS, "a slab is in the queue twice");
            slabs.push(slab);
        }
        slabs
    }

    /// Claims from all of `slabs` until it may let go of them.
    fn exhaust(slabs: Vec<&TestSlab>) -> u64 {
        let mut taken = 0;
        for slab in slabs {
            taken += slab.claim();
            while slab.leave() {
                taken += slab.claim();
            }
        }
        taken
    }

    /// At rest: whatever is free can be reached from the local heap.
    fn check(&self, taken: u64, blocks: u64) {
        let taken = taken + Self::exhaust(self.remote_frees());
        assert!(self.slabs.iter().all(|slab| !slab.has_free()), "{FORGOTTEN}");
        assert!(self.slabs.iter().all(|slab| !slab.descriptor.is_queued()), "an exhausted slab stays queued");
        assert_eq!(taken, blocks, "blocks were claimed twice, or not at all");
    }
}

fn spawn_free(heap: &Arc<Heap>, slab: usize, block: usize) -> thread::JoinHandle<()> {
    let heap = Arc::clone(heap);
    thread::spawn(move || heap.free(slab, block))
}

/// The local heap exhausts its slab while two others release its blocks.
fn a_holder_lets_go_while_blocks_come_home() {
    let heap = Heap::new();
    assert!(!heap.slabs[1].leave());
    let releasers = [0, 1].map(|block| spawn_free(&heap, 0, block));
    let mut taken = Heap::exhaust(vec![&heap.slabs[0]]);
    taken += Heap::exhaust(heap.remote_frees());
    releasers.into_iter().for_each(|releaser| releaser.join().unwrap());
    heap.check(taken, 2);
}

/// Two slabs are pushed while the local heap takes what is there.
fn two_slabs_are_pushed_on_one_stack() {
    let heap = Heap::new();
    assert!(!heap.slabs[0].leave() && !heap.slabs[1].leave());
    let releasers = [0, 1].map(|slab| spawn_free(&heap, slab, 0));
    let taken = Heap::exhaust(heap.remote_frees());
    releasers.into_iter().for_each(|releaser| releaser.join().unwrap());
    heap.check(taken, 2);
}

/// The local heap retires the slab as soon as both blocks are home, makes the granule a slab of another class with one
/// block, and frees that block. A releaser may still be on its way to queue the first slab.
fn a_releaser_comes_so_late_that_the_slab_is_another() {
    let heap = Heap::new();
    let slab = &heap.slabs[0];
    assert!(!slab.leave() && !heap.slabs[1].leave());
    let releasers = [0, 1].map(|block| spawn_free(&heap, 0, block));
    let mut expected = 2;
    let mut taken = 0;
    for slab in heap.remote_frees() {
        let claimed = slab.claim();
        taken += claimed;
        if claimed == 2 {
            slab.set_class(0);
            slab.become_class(2);
            slab.words[0].fill(1);
            expected += 1;
            taken += slab.claim();
            expected += 1;
            if slab.leave() {
                taken += Heap::exhaust(vec![slab]);
            }
            heap.free(0, 0);
        } else if slab.leave() {
            taken += Heap::exhaust(vec![slab]);
        }
    }
    releasers.into_iter().for_each(|releaser| releaser.join().unwrap());
    heap.check(taken, expected);
}

#[test]
fn a_free_block_is_never_forgotten() {
    check(PREEMPTIONS, a_holder_lets_go_while_blocks_come_home);
}

#[test]
fn every_pushed_slab_is_taken_once() {
    check(PREEMPTIONS, two_slabs_are_pushed_on_one_stack);
}

#[test]
fn a_late_releaser_rightly_holds_the_new_slab() {
    check(PREEMPTIONS, a_releaser_comes_so_late_that_the_slab_is_another);
}

#[test]
fn leave_without_a_look_is_caught() {
    assert_caught("leave without a look", FORGOTTEN, PREEMPTIONS, a_holder_lets_go_while_blocks_come_home);
}

#[test]
fn relaxed_queue_swaps_are_caught() {
    assert_caught("relaxed queue swaps", RACE, PREEMPTIONS, a_holder_lets_go_while_blocks_come_home);
}

#[test]
fn enter_by_load_is_caught() {
    assert_caught("enter by load", FORGOTTEN, PREEMPTIONS, a_holder_lets_go_while_blocks_come_home);
}

#[test]
fn relaxed_notify_is_caught() {
    assert_caught("relaxed notify", RACE, PREEMPTIONS, two_slabs_are_pushed_on_one_stack);
}

#[test]
fn class_read_before_entering_is_caught() {
    let late = a_releaser_comes_so_late_that_the_slab_is_another;
    assert_caught("class read before entering", "class of an earlier slab", PREEMPTIONS, late);
}
