//! Spans of a chunk (`chunk::span_map`): claims, frees that merge neighbours, and the hint that a chunk is exhausted.
//!
//! # Modelled    claims of one and two granules against frees of the neighbours that make a run of two; the search
//!               for a wholly free chunk against the frees that make one; growing in place (`claim_exact`); a purge
//!               (`age`, `claim_dirty`, `cleaned`) against claims
//! # Asserted    conservation: a granule has one owner at a time; at the end every free run can be claimed in spite
//!               of the hints, up to the whole chunk.
//!               visibility: a granule's next owner comes after its last one; a granule that is not dirty is zero.
//! # Bounds      the last 2 granules of a chunk, the others in use; 3 threads, 4 preemptions, or 3 where all three claim;
//!               2 threads, 4 preemptions
#![cfg(loom)]

mod common;

use common::{Payload, RACE, assert_caught, check, join, spawn};
use magalloc::chunk::span_map::{Run, SpanMap, Start, low_bits};
use std::sync::Arc;

const PREEMPTIONS: Option<usize> = Some(4);
const LOST: &str = "free granules cannot be claimed";
const NOT_ZERO: &str = "a granule said to be zero is not";

/// The granules that the models play with.
const FIRST: u64 = 1 << 62;
const SECOND: u64 = 1 << 63;
const BOTH: u64 = FIRST | SECOND;

struct Chunk {
    spans: SpanMap,
    /// Contents of the two granules.
    granules: [Payload; 2],
}

impl Chunk {
    /// All granules are in use but those of `free`.
    fn new(free: u64) -> Arc<Self> {
        let chunk = Self { spans: SpanMap::new(), granules: [Payload::new(), Payload::new()] };
        assert!(chunk.spans.claim_exact(0, !free));
        Arc::new(chunk)
    }

    fn for_each(&self, mask: u64, work: impl Fn(u64, &mut u64)) {
        for (bit, granule) in [FIRST, SECOND].into_iter().zip(&self.granules) {
            if mask & bit != 0 {
                granule.own(|contents| work(bit, contents));
            }
        }
    }

    fn claim(&self, granules: usize) -> Option<u64> {
        let Run { chunk, mask } = self.spans.claim(granules, 1, 1, Start::LOWEST)?;
        assert!(chunk == 0 && mask & !BOTH == 0, "granules in use were claimed");
        let dirty = self.spans.dirty(0, mask);
        self.for_each(mask, |bit, contents| {
            assert!(dirty & bit != 0 || *contents == 0, "{NOT_ZERO}");
            *contents += 1;
        });
        Some(mask)
    }

    fn free(&self, mask: u64) {
        self.for_each(mask, |_, contents| *contents += 1);
        self.spans.free(0, mask, true);
    }

    /// Uses some granules for a while, if there are any.
    fn use_span(&self, granules: usize) {
        self.claim(granules).into_iter().for_each(|mask| self.free(mask));
    }

    /// What `Depot::purge_due` does.
    fn purge_aged(&self) {
        self.purge(self.spans.age(0));
    }

    /// What `Depot::purge_granules` does.
    fn purge(&self, among: u64) {
        let mask = self.spans.claim_dirty(0, among);
        if mask != 0 {
            self.for_each(mask, |_, contents| *contents = 0);
            self.spans.cleaned(0, mask);
            self.spans.free(0, mask, false);
        }
    }

    /// At rest, with both granules free: they are a run, and the chunk is free when the others are freed too.
    fn check(&self) {
        let run = self.claim(2);
        assert_eq!(run, Some(BOTH), "{LOST}");
        self.spans.free(0, !BOTH, true);
        self.free(BOTH);
        assert_eq!(self.spans.claim(64, 1, 1, Start::LOWEST), Some(Run { chunk: 0, mask: low_bits(64) }), "{LOST}");
    }
}

/// Three threads want a granule, two are free.
fn three_want_one_of_two() {
    let chunk = Chunk::new(BOTH);
    let users = [1, 1].map(|granules| spawn(&chunk, move |chunk| chunk.use_span(granules)));
    chunk.use_span(1);
    join(users);
    chunk.check();
}

/// Two neighbours are freed while a run of two is wanted, which exhausts the chunk for that length.
fn neighbours_merge_while_a_run_is_wanted() {
    let chunk = Chunk::new(0);
    let freers = [FIRST, SECOND].map(|mask| spawn(&chunk, move |chunk| chunk.free(mask)));
    chunk.use_span(2);
    join(freers);
    chunk.check();
}

/// The last two granules of a chunk are freed while another looks for a free chunk.
fn a_chunk_becomes_free() {
    // The chunk is exhausted for its longest runs until both ends are free.
    let ends = [low_bits(16), low_bits(16) << 48];
    let chunk = Chunk::new(!(ends[0] | ends[1]));
    let freers = ends.map(|mask| spawn(&chunk, move |chunk| chunk.free(mask)));
    let seen = chunk.spans.next_free_chunk(0, 1);
    let claimed = seen.is_some_and(|chunk_seen| chunk.spans.claim_exact(chunk_seen, u64::MAX));
    assert_eq!(seen.is_some(), claimed, "a chunk said to be free is not");
    join(freers);
    if claimed {
        chunk.spans.free(0, u64::MAX, true);
    }
    assert_eq!(chunk.spans.next_free_chunk(0, 1), Some(0), "{LOST}");
}

/// A large block grows in place while its neighbour is freed and wanted by another.
fn a_block_grows_in_place() {
    let chunk = Chunk::new(0);
    let freer = spawn(&chunk, |chunk| chunk.free(SECOND));
    let other = spawn(&chunk, |chunk| chunk.use_span(1));
    let mut block = FIRST;
    if chunk.spans.claim_exact(0, SECOND) {
        block = BOTH;
    }
    chunk.free(block);
    join([freer, other]);
    chunk.check();
}

/// A purge runs while one granule is free and dirty, another is freed, and one is wanted.
fn a_purge_meets_a_claim() {
    let chunk = Chunk::new(0);
    chunk.free(FIRST);
    let purger = spawn(&chunk, |chunk| chunk.purge(BOTH));
    let freer = spawn(&chunk, |chunk| chunk.free(SECOND));
    chunk.use_span(1);
    join([purger, freer]);
    chunk.check();
}

/// A purge of what was free a turn ago, while a granule is freed and one is used.
fn a_purge_comes_by_twice() {
    let chunk = Chunk::new(0);
    chunk.free(FIRST);
    chunk.purge_aged();
    let purger = spawn(&chunk, Chunk::purge_aged);
    chunk.free(SECOND);
    chunk.use_span(1);
    join([purger]);
    (0..2).for_each(|_| chunk.purge_aged());
    assert_eq!(chunk.spans.free_dirty(0), 0, "what is free for two turns stays dirty");
    chunk.check();
}

#[test]
fn granules_have_one_owner_at_a_time() {
    check(Some(3), three_want_one_of_two);
}

#[test]
fn a_merged_run_is_never_lost() {
    check(PREEMPTIONS, neighbours_merge_while_a_run_is_wanted);
}

#[test]
fn a_free_chunk_is_found() {
    check(PREEMPTIONS, a_chunk_becomes_free);
}

#[test]
fn growing_in_place_takes_all_or_nothing() {
    check(Some(3), a_block_grows_in_place);
}

#[test]
fn a_clean_granule_is_zero() {
    check(Some(3), a_purge_meets_a_claim);
}

#[test]
fn an_aged_granule_is_given_back() {
    check(PREEMPTIONS, a_purge_comes_by_twice);
}

#[test]
fn claim_span_by_store_is_caught() {
    assert_caught("claim span by store", RACE, PREEMPTIONS, three_want_one_of_two);
}

#[test]
fn relaxed_span_free_is_caught_by_claims() {
    assert_caught("relaxed span free", RACE, PREEMPTIONS, three_want_one_of_two);
}

#[test]
fn relaxed_span_free_is_caught_by_growing() {
    assert_caught("relaxed span free", RACE, PREEMPTIONS, a_block_grows_in_place);
}

#[test]
fn exhausted_without_a_second_look_is_caught() {
    let model = neighbours_merge_while_a_run_is_wanted;
    assert_caught("exhausted without a second look", LOST, PREEMPTIONS, model);
}

#[test]
fn exhausted_without_a_second_look_is_caught_by_chunks() {
    assert_caught("exhausted without a second look", LOST, PREEMPTIONS, a_chunk_becomes_free);
}

#[test]
fn dirty_after_the_free_is_caught() {
    assert_caught("dirty after the free", NOT_ZERO, Some(3), a_purge_meets_a_claim);
}

#[test]
fn free_without_a_fence_is_caught() {
    assert_caught("free without a fence", LOST, PREEMPTIONS, neighbours_merge_while_a_run_is_wanted);
}
