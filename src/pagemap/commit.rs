//! Commitment of a region's chunks: their memory and metadata, mapped as spans are claimed.
//!
//! ```text
//! # Role        maps whole steps of chunks, as many as lie side by side with one call, or two; ends the region where
//!               others' memory is in the way
//! # Invariants  region I2
//! # Ordering    MAP-ONCE, GIVE-UP: see `meta`
//! # Progress    as in `meta`: who finds another thread at it waits briefly, once
//! # Checked by  loom_tests/commit.rs (`MappedSet`), heap::tests::out_of_memory, tests/limits.rs
//! ```

use super::region::{META_STRIDE, Region};
use crate::chunk::span_map::low_bits;
use crate::config::{CHUNK_BYTES, COMMIT_CHUNKS, GROUP_CHUNKS};
use crate::metadata::{MappedSet, Missing};
use crate::options::HugePages;
use crate::os::Os;
use crate::sync::Ordering;
use crate::sys::{HugeAdvice, NotMapped, Pages, platform};
use core::cell::Cell;
use core::ops::Range;

/// The chunks `within` a group, as bits.
fn chunk_bits(within: &Range<usize>) -> u64 {
    low_bits(within.len()) << (within.start % GROUP_CHUNKS)
}

/// The parts of `chunks` that lie in one group each.
fn by_group(chunks: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut next = chunks.start;
    core::iter::from_fn(move || {
        let from = next;
        next = (from + GROUP_CHUNKS - from % GROUP_CHUNKS).min(chunks.end);
        (from < chunks.end).then_some(from..next)
    })
}

/// What the kernel is advised about chunks when they are committed.
pub fn advice_at_commit(huge_pages: HugePages) -> Option<HugeAdvice> {
    match huge_pages {
        // A small heap, too, or a system that makes huge pages unasked gives it memory that nobody counts.
        HugePages::Auto | HugePages::Never => Some(HugeAdvice::Never),
        // As spans are claimed, see `depot::huge_pages`.
        HugePages::System | HugePages::Always => None,
    }
}

impl Region {
    pub(super) fn committed_in(&self, chunk: usize) -> &MappedSet {
        &self.group(chunk / GROUP_CHUNKS).committed
    }

    /// Commits those chunks that are not, and their neighbours up to whole steps, backed by huge pages as `huge_pages`
    /// says; with one call, or two, for as many as lie side by side.
    ///
    /// # Errors
    /// Some may have been committed nevertheless. Where others' memory is in the way, the region ends before it now.
    pub fn commit<P: Pages>(&self, os: &Os<P>, chunks: Range<usize>, huge_pages: HugePages) -> Result<(), Missing> {
        if chunks.clone().all(|chunk| self.is_committed(chunk)) {
            return Ok(());
        }
        // ordering: Relaxed, both; for the child of a fork only, in which the caller's thread is not.
        self.committing.fetch_add(1, Ordering::Relaxed);
        let outcome = self.commit_missing(os, chunks, huge_pages);
        self.committing.fetch_sub(1, Ordering::Relaxed);
        outcome
    }

    fn commit_missing<P: Pages>(&self, os: &Os<P>, chunks: Range<usize>, huge_pages: HugePages) -> Result<(), Missing> {
        let end = chunks.end.next_multiple_of(COMMIT_CHUNKS).min(self.chunks);
        let mut from = chunks.start - chunks.start % COMMIT_CHUNKS;
        let mut most = usize::MAX;
        let mut has_waited = false;
        loop {
            from = (from..end).find(|&chunk| !self.is_committed(chunk)).unwrap_or(end);
            if from == end {
                return Ok(());
            }
            let run = self.claim_run(from..end.min(from.saturating_add(most)));
            if run.is_empty() {
                // Another thread is at it.
                if has_waited {
                    return Err(Missing::Busy);
                }
                has_waited = true;
                let step = chunk_bits(&(from..from + 1));
                platform::wait_briefly(|| !self.committed_in(from).is_busy(step));
                continue;
            }
            let is_step = run.len() <= COMMIT_CHUNKS;
            let mapped = Cell::new(self.map_run(os, &run));
            let is_free = || mapped.get() != Err(NotMapped::Taken);
            if is_step && !is_free() {
                // For a moment only, perhaps.
                platform::wait_briefly(|| {
                    mapped.set(self.map_run(os, &run));
                    is_free()
                });
            }
            match mapped.get() {
                Ok(()) => self.announce_run(os, &run, huge_pages),
                Err(why) => {
                    by_group(run.clone()).for_each(|part| self.committed_in(part.start).give_up(chunk_bits(&part)));
                    if why == NotMapped::Taken && !is_step {
                        // Whose memory it is shows step by step.
                        most = (run.len() / 2).next_multiple_of(COMMIT_CHUNKS);
                        continue;
                    }
                    if why == NotMapped::Taken {
                        self.end_at(from);
                    }
                    return Err(why.into());
                }
            }
        }
    }

    /// Claims the first of `chunks` and as many behind it as nobody has committed or is about to: whole steps.
    fn claim_run(&self, chunks: Range<usize>) -> Range<usize> {
        let mut end = chunks.start;
        for part in by_group(chunks.clone()) {
            let (set, wanted) = (self.committed_in(part.start), chunk_bits(&part));
            let claimed = set.claim(wanted);
            let first = part.start % GROUP_CHUNKS;
            let count = (!(claimed >> first)).trailing_zeros().min(part.len() as u32) as usize;
            end += count;
            set.give_up(claimed & !(low_bits(count) << first));
            if count < part.len() {
                break;
            }
        }
        chunks.start..end
    }

    /// Maps the memory and the metadata of claimed chunks: both or none.
    fn map_run<P: Pages>(&self, os: &Os<P>, run: &Range<usize>) -> Result<(), NotMapped> {
        if !os.may_grow() {
            return Err(NotMapped::Refused);
        }
        let (heap, bytes) = (self.chunk_start(run.start), run.len() * CHUNK_BYTES);
        let (meta, meta_bytes) = (self.chunk_meta_start(run.end - 1).cast::<u8>(), run.len() * META_STRIDE);
        if run.start == 0 {
            return os.commit(meta, meta_bytes + bytes);
        }
        os.commit(heap, bytes)?;
        os.commit(meta, meta_bytes).inspect_err(|_| {
            // SAFETY: mapped just now, and not announced.
            unsafe { os.uncommit(heap, bytes) };
        })
    }

    fn announce_run<P: Pages>(&self, os: &Os<P>, run: &Range<usize>, huge_pages: HugePages) {
        if let Some(advice) = advice_at_commit(huge_pages) {
            // SAFETY: mapped just now.
            unsafe { os.advise(self.chunk_start(run.start), run.len() * CHUNK_BYTES, advice) };
        }
        let used = run.end.next_multiple_of(GROUP_CHUNKS).min(self.chunks);
        // ordering: Relaxed, see `bytes_used`.
        self.bytes_used.fetch_max(used * CHUNK_BYTES, Ordering::Relaxed);
        by_group(run.clone()).for_each(|part| self.committed_in(part.start).announce(chunk_bits(&part)));
        // ordering: Relaxed, a statistic.
        self.committed_count.fetch_add(run.len(), Ordering::Relaxed);
    }

    /// In the child of a fork: whoever was mapping is not here.
    pub fn forget_claims(&self) {
        self.dense.forget_claims();
        // ordering: Relaxed; the caller is alone.
        if self.committing.swap(0, Ordering::Relaxed) != 0 {
            (0..self.dense.end()).for_each(|group| self.group(group).committed.forget_claims());
            // ordering: Relaxed; the caller is alone.
            self.committed_count.store(self.committed_chunks().count(), Ordering::Relaxed);
        }
    }
}
