//! Whether there is something to purge, and where: `purge::signal` and `chunk::unpurged`.
//!
//! # Modelled    threads that free blocks, note their chunks and raise the purge signal, against the worker, which takes the
//!               alarm, looks at the noted chunks, leaves what is not due yet, and sleeps when all is quiet; against two
//!               threads that purge at once; the worker's end
//! # Asserted    conservation: a free block that was not given back is in a chunk that is noted, and the purge signal is raised
//!               then; nobody sleeps while it is, nor past the end.
//! # Bounds      2 chunks of different groups, of 2 blocks, each of which is a page; 3 threads, 3 preemptions
#![cfg(loom)]

mod common;

use common::{Payload, assert_caught, check, join, spawn};
use loom::sync::Mutex;
use magalloc::chunk::unpurged::Unpurged;
use magalloc::purge::signal::{PurgeRequest, PurgeSignal};
use magalloc::slab::bitmap::FreeWord;
use magalloc::slab::marks::PageMarks;
use magalloc::sync::planted::bug;
use std::sync::Arc;

const CHUNKS: usize = 2;
const BLOCKS: usize = 2;
const PREEMPTIONS: Option<usize> = Some(3);
const LOST: &str = "something free is neither given back nor going to be";
const ASLEEP: &str = "the worker sleeps while the purge signal is raised";
const ENDLESS: &str = "the worker is not told of its end";

/// A chunk, the first of its group.
struct Chunk {
    unpurged: Unpurged,
    free: FreeWord,
    /// Block and page have the same number.
    marks: PageMarks,
    blocks: [Payload; BLOCKS],
}

impl Chunk {
    /// In short what `slab_pages` does. `true`: there is more that will be due.
    fn purge(&self) -> bool {
        let (old, young) = self.marks.age(self.free.look() as u16);
        if old == 0 {
            return young != 0;
        }
        let claimed = self.free.claim_these(old.into());
        for block in (0..BLOCKS).filter(|block| claimed >> block & 1 != 0) {
            self.blocks[block].own(|contents| *contents = 0);
        }
        self.marks.purged(claimed as u16);
        if claimed != 0 {
            let _ = self.free.release(claimed);
        }
        young != 0 || claimed != old.into()
    }
}

struct Heap {
    purge_signal: PurgeSignal,
    chunks: [Chunk; CHUNKS],
    /// What the kernel knows of the worker: does it sleep on the purge signal?
    asleep: Mutex<bool>,
}

impl Heap {
    /// All blocks are in use and were written.
    fn new() -> Arc<Self> {
        let heap = Self {
            purge_signal: PurgeSignal::new(),
            chunks: core::array::from_fn(|_| Chunk {
                unpurged: Unpurged::new(),
                free: FreeWord::new(0),
                marks: PageMarks::new(),
                blocks: core::array::from_fn(|_| Payload::new()),
            }),
            asleep: Mutex::new(false),
        };
        heap.chunks.iter().flat_map(|chunk| &chunk.blocks).for_each(Payload::touch);
        Arc::new(heap)
    }

    /// `Shared::flush` of one block.
    fn free(&self, chunk: usize, block: usize) {
        let chunk = &self.chunks[chunk];
        chunk.blocks[block].touch();
        let _ = chunk.free.release(1 << block);
        if bug("note after the purge signal") {
            self.raise(PurgeRequest::Raised);
            let _ = chunk.unpurged.note(0);
        } else if chunk.unpurged.note(0) {
            self.raise(PurgeRequest::Raised);
        }
    }

    /// `Depot::raise`.
    fn raise(&self, call: PurgeRequest) {
        if self.purge_signal.raise(call) {
            *self.asleep.lock().unwrap() = false;
        }
    }

    /// `platform::wait` while the purge signal is quiet. `true`: asleep.
    fn wait(&self) -> bool {
        let mut asleep = self.asleep.lock().unwrap();
        *asleep = self.purge_signal.call().0.is_none() || bug("sleep without a look");
        *asleep
    }

    /// `Purge::turn`.
    fn epoch(&self) {
        let _ = self.purge_signal.take();
        let mut next = 0;
        while let Some(chunk) = self.next_unpurged(next) {
            self.visit(&self.chunks[chunk]);
            next = chunk + 1;
        }
        if self.next_unpurged(0).is_some() && !bug("what is left is not told") {
            self.raise(PurgeRequest::Raised);
        }
    }

    fn next_unpurged(&self, from: usize) -> Option<usize> {
        (from..CHUNKS).find(|&chunk| self.chunks[chunk].unpurged.chunks() != 0)
    }

    /// `Purge::visit`.
    fn visit(&self, chunk: &Chunk) {
        let late = bug("note taken after the look");
        if late || chunk.unpurged.take(0) {
            let left = chunk.purge();
            if late {
                let _ = chunk.unpurged.take(0);
            }
            if left {
                let _ = chunk.unpurged.note(0);
            }
        }
    }

    /// `global::worker::work`, but for at most two turns.
    fn work(&self) {
        for _ in 0..2 {
            match self.purge_signal.call().0 {
                Some(PurgeRequest::Ended) => return,
                Some(PurgeRequest::Alone) => unreachable!("nobody says so here"),
                Some(PurgeRequest::Raised | PurgeRequest::Urgent) => self.epoch(),
                None if self.wait() => return,
                None => {}
            }
        }
    }

    /// At rest: the worker gives back all that is free, and nobody need wake it.
    fn check(&self) {
        if self.purge_signal.call().0.is_some() {
            assert!(!*self.asleep.lock().unwrap(), "{ASLEEP}");
        }
        while self.purge_signal.call().0.is_some() {
            self.epoch();
        }
        for chunk in &self.chunks {
            let free = chunk.free.look();
            for block in (0..BLOCKS).filter(|block| free >> block & 1 != 0) {
                chunk.blocks[block].own(|contents| assert_eq!(*contents, 0, "{LOST}"));
            }
        }
    }
}

/// Two threads free blocks of one chunk.
fn two_free_in_one_chunk() {
    let heap = Heap::new();
    let frees = [0, 1].map(|block| spawn(&heap, move |heap| heap.free(0, block)));
    heap.work();
    join(frees);
    heap.check();
}

/// Something was freed a turn ago; blocks of that chunk and of another are freed while the worker is at it.
fn two_free_in_two_chunks() {
    let heap = Heap::new();
    heap.free(0, 0);
    heap.epoch();
    let frees = [(0, 1), (1, 0)].map(|(chunk, block)| spawn(&heap, move |heap| heap.free(chunk, block)));
    heap.work();
    join(frees);
    heap.check();
}

/// Two threads do a turn each, as without a worker, while a block is freed.
fn two_purge_at_once() {
    let heap = Heap::new();
    heap.free(0, 0);
    heap.epoch();
    let other = spawn(&heap, Heap::epoch);
    let free = spawn(&heap, |heap| heap.free(0, 1));
    heap.epoch();
    join([other, free]);
    heap.check();
}

/// The worker is told to end while a block is freed.
fn the_worker_ends() {
    let heap = Heap::new();
    let worker = spawn(&heap, Heap::work);
    let free = spawn(&heap, |heap| heap.free(0, 0));
    heap.raise(PurgeRequest::Ended);
    join([worker, free]);
    assert_eq!(heap.purge_signal.call().0, Some(PurgeRequest::Ended), "{ENDLESS}");
    assert!(!*heap.asleep.lock().unwrap(), "{ENDLESS}");
}

#[test]
fn what_two_free_in_one_chunk_is_given_back() {
    check(PREEMPTIONS, two_free_in_one_chunk);
}

#[test]
fn what_two_free_in_two_chunks_is_given_back() {
    check(PREEMPTIONS, two_free_in_two_chunks);
}

#[test]
fn what_two_purges_leave_is_given_back() {
    check(PREEMPTIONS, two_purge_at_once);
}

#[test]
fn the_end_is_never_slept_through() {
    check(PREEMPTIONS, the_worker_ends);
}

#[test]
fn raise_by_load_is_caught() {
    assert_caught("raise by load", LOST, PREEMPTIONS, two_free_in_two_chunks);
}

#[test]
fn relaxed_raise_is_caught() {
    assert_caught("relaxed raise", LOST, PREEMPTIONS, two_free_in_two_chunks);
}

#[test]
fn end_forgotten_is_caught() {
    assert_caught("end forgotten", ENDLESS, PREEMPTIONS, the_worker_ends);
}

#[test]
fn note_after_the_alarm_is_caught() {
    assert_caught("note after the purge signal", LOST, PREEMPTIONS, two_free_in_one_chunk);
}

#[test]
fn note_taken_after_the_look_is_caught() {
    assert_caught("note taken after the look", LOST, PREEMPTIONS, two_free_in_one_chunk);
}

#[test]
fn what_is_left_is_not_told_is_caught() {
    assert_caught("what is left is not told", LOST, PREEMPTIONS, two_free_in_one_chunk);
}

#[test]
fn sleep_without_a_look_is_caught() {
    assert_caught("sleep without a look", ASLEEP, PREEMPTIONS, two_free_in_one_chunk);
}

#[test]
fn note_without_the_fence_is_caught() {
    assert_caught("note without the fence", LOST, PREEMPTIONS, two_free_in_one_chunk);
}

#[test]
fn take_without_the_fence_is_caught() {
    assert_caught("take without the fence", LOST, PREEMPTIONS, two_free_in_one_chunk);
}
