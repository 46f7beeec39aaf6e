//! Purging: what is free goes back to the kernel, a while after it became free.
//!
//! ```text
//! # Role        turns and ticks: when to look, and the walk over the chunks where something was freed
//! # Turn        half a purge delay. What is free in a turn is marked as aged; what is aged and still free in the next
//!               one is given back. So memory goes back between half and one delay after it became free, a long
//!               turn's between a quarter and one.
//! # Who         a thread of the allocator's own (see `global::worker`), which does whole turns; without one, whoever
//!               comes by on a slow path, a few chunks at a time (`tick`)
//! # Cost        only chunks in which something was freed since they were dealt with are looked at; where nothing is
//!               left to give back, and no thread has a stash, nothing is looked at, and nobody wakes
//! # Progress    lock-free: any number of threads may be in here. One that is stopped withholds the blocks of
//!               some slabs' free pages (a batch) or one chunk's granules, and the note of that chunk; a fork, and a
//!               request that finds no memory, then waits 10 ms in vain
//! # Stack       what a thread of the program does here takes less than 2.5 KiB, all calls included (ci/stack.sh)
//! # Not here    the pages of granules (see `depot::dirty`), those of a slab (see `purge::slab_pages`)
//! # Checked by  heap::tests::purging, tests/burst_idle.rs, loom_tests/slab_pages.rs, loom_tests/purge_signal.rs
//! ```

use crate::config::{CHUNK_BYTES, CHUNK_GRANULES, GRANULE_BYTES, GROUP_CHUNKS, REGIONS_MAX};
use crate::depot::groups::Wanted;
use crate::depot::huge_pages::HugePageEnd;
use crate::local::Shared;
use crate::pagemap::{Region, SlabRef};
use crate::purge::pace::{self, Due, Seen, Ticks};
use crate::purge::signal::PurgeRequest;
use crate::purge::slab_pages::{self, Left, Parts, Taken};
use crate::size_class::shape;
use crate::slab::SpanKind;
use crate::slab::bitmap::FreeWord;
use crate::slab::marks::PageMarks;
use crate::sys::{PageRun, Pages};
use crate::units::{ClassIndex, GranuleIndex};
use core::ptr::NonNull;

/// Chunks that a thread on its way through a slow path looks at: 16 MiB, some 50 us.
const TICK_CHUNKS: usize = (16 << 20) / CHUNK_BYTES;
/// Slabs whose pages the purging thread gives back at once, and runs of pages in one call, at most: each call of the
/// kernel interrupts the other processors that run the program, which takes longer than all else it does. 6 KiB of that
/// thread's own stack.
const OWN_SLABS: usize = (1 << 20) / GRANULE_BYTES;
const OWN_RUNS: usize = 64;
/// The same for a thread of the program, on whose stack there may be little room (a coroutine's has 8 KiB or less): a
/// quarter of a KiB. A program with one thread has no other processor to interrupt.
const PASSING_SLABS: usize = 2;
const PASSING_RUNS: usize = 4;

/// A place in the walk.
#[derive(Clone, Copy)]
struct Cursor {
    region: usize,
    chunk: usize,
}

impl Cursor {
    /// `Ticks::START`.
    const START: Self = Self { region: 0, chunk: 0 };

    fn from_word(word: u64) -> Self {
        Self { region: (word >> 32) as usize, chunk: word as u32 as usize }
    }

    fn word(self) -> u64 {
        (self.region as u64) << 32 | self.chunk as u64
    }
}

/// A heap, as seen by whoever purges it.
pub struct Purge<'h, P> {
    /// What all local heaps share.
    pub shared: Shared<'h, P>,
    /// The heap's ticks.
    pub ticks: &'h Ticks,
}

impl<P: Pages> Purge<'_, P> {
    /// Milliseconds of a turn.
    pub fn epoch_ms(&self) -> u64 {
        pace::epoch_ms(self.shared.depot.settings.purge_delay_ms())
    }

    /// What a purge of the purging thread's, or a tick, is to know.
    pub fn seen(&self, request: Option<PurgeRequest>, threads: u32, stays: bool) -> Seen {
        let (depot, epoch_ms) = (self.shared.depot, self.epoch_ms());
        let pressed_epoch_ms = depot.pressed_epoch_ms(epoch_ms);
        Seen { now: depot.os.now_ms(), request, threads, stays, epoch_ms, pressed_epoch_ms }
    }

    /// Does a turn, or what is left of it until `stop` says so, on a thread of the program. Returns how many chunks it
    /// looked at.
    pub fn epoch(&self, due: Due, stop: impl Fn() -> bool) -> u64 {
        self.epoch_until::<PASSING_SLABS, PASSING_RUNS>(due, stop)
    }

    /// The same on the purging thread.
    pub fn epoch_of_own(&self, due: Due, stop: impl Fn() -> bool) -> u64 {
        self.epoch_until::<OWN_SLABS, OWN_RUNS>(due, stop)
    }

    #[inline(never)]
    fn epoch_until<const SLABS: usize, const RUNS: usize>(&self, due: Due, stop: impl Fn() -> bool) -> u64 {
        self.begin_epoch(due);
        let (mut cursor, mut chunks) = (Cursor::START, 0);
        while let Some(next) = self.visit_next::<SLABS, RUNS>(cursor, due) {
            if stop() {
                break;
            }
            cursor = next;
            chunks += 1;
        }
        self.raise_if_unpurged();
        chunks
    }

    /// On the way through a slow path, where no other thread purges: looks at a few chunks if it is time to.
    pub fn tick(&self) {
        let depot = self.shared.depot;
        let seen = self.seen(depot.purge_signal.call().0, 0, false);
        if !self.ticks.claim(&seen) {
            return;
        }
        let mut cursor = Cursor::from_word(self.ticks.begin(seen.now));
        if cursor.word() == Ticks::START {
            self.begin_epoch(Due::Aged);
        }
        for _ in 0..TICK_CHUNKS {
            let next = self.visit_next::<PASSING_SLABS, PASSING_RUNS>(cursor, Due::Aged);
            cursor = next.unwrap_or(Cursor::START);
            if next.is_none() {
                break;
            }
        }
        self.ticks.end(cursor.word(), seen.now, seen.epoch_ms);
        self.raise_if_unpurged();
    }

    /// What a turn begins with: caches that nobody uses, before the chunks where their blocks are.
    fn begin_epoch(&self, due: Due) {
        self.shared.depot.next_epoch();
        let _ = self.shared.depot.purge_signal.take();
        self.shared.adopt_lost();
        match due {
            Due::Aged => self.shared.take_idle_stashes(),
            Due::All => self.shared.take_stashes(),
        }
        // Of threads that work now and may idle at the next turn; or a fork came between.
        if self.shared.has_stashes() {
            self.shared.depot.raise(self.shared.depot.due_request());
        }
    }

    /// Raises the purge signal if there is anything left to do.
    pub fn raise_if_unpurged(&self) {
        if self.next_unpurged(Cursor::START).is_some() {
            self.shared.depot.raise(self.shared.depot.due_request());
        }
    }

    /// Looks at the first noted chunk from `cursor` on. Returns the place behind it; `None` where there was none, or a
    /// fork is under way.
    fn visit_next<const SLABS: usize, const RUNS: usize>(&self, cursor: Cursor, due: Due) -> Option<Cursor> {
        let (region, chunk) = self.next_unpurged(cursor)?;
        let in_flight = &self.shared.depot.in_flight;
        let walk = in_flight.take_up()?;
        self.visit::<SLABS, RUNS>(region, chunk, due);
        in_flight.put_down(walk);
        Some(Cursor { region: region.number(), chunk: chunk + 1 })
    }

    fn next_unpurged(&self, cursor: Cursor) -> Option<(&Region, usize)> {
        (cursor.region..REGIONS_MAX).map_while(|number| self.shared.depot.regions.get(number)).find_map(|region| {
            let from = if region.number() == cursor.region { cursor.chunk } else { 0 };
            let groups = &self.shared.depot.groups;
            let mut next = from / GROUP_CHUNKS;
            while let Some(group) = groups.next(Wanted::UNPURGED, region, next) {
                let skip = from.saturating_sub(group * GROUP_CHUNKS) as u32;
                let unpurged = &region.group(group).unpurged;
                let chunks = unpurged.chunks() & u64::MAX.checked_shl(skip).unwrap_or(0);
                if chunks != 0 {
                    return Some((region, group * GROUP_CHUNKS + chunks.trailing_zeros() as usize));
                }
                groups.clear(Wanted::UNPURGED, region, group, |group| region.group(group).unpurged.chunks() != 0);
                next = group + 1;
            }
            None
        })
    }

    /// Gives back what is due in a chunk, and notes it again if there is more that will be.
    fn visit<const SLABS: usize, const RUNS: usize>(&self, region: &Region, chunk: usize, due: Due) {
        let depot = self.shared.depot;
        let group = region.group(chunk / GROUP_CHUNKS);
        if !group.unpurged.take(chunk % GROUP_CHUNKS) {
            return; // another thread is at it
        }
        // Of a huge page that is kept whole, no pages go.
        let in_slabs = !depot.settings.keeps_huge_pages_whole() && self.purge_slabs::<SLABS, RUNS>(region, chunk, due);
        let in_granules = depot.purge_due(region, chunk, due);
        if in_slabs || in_granules {
            let _ = depot.note_unpurged_in(region, chunk);
        } else if group.spans.busy(chunk % GROUP_CHUNKS) == 0 {
            depot.purge_chunk_meta(region, chunk);
        }
    }

    /// Gives back the free pages of a chunk's slabs that are due. `true`: others are left that will be.
    fn purge_slabs<const SLABS: usize, const RUNS: usize>(&self, region: &Region, chunk: usize, due: Due) -> bool {
        let mut left = false;
        let mut batch = Batch::<P, SLABS, RUNS>::new(self.shared);
        let mut next = 0;
        while next < CHUNK_GRANULES {
            let granule = GranuleIndex::new(chunk * CHUNK_GRANULES + next);
            next += 1;
            if let SpanKind::Slab(class) = region.span_kind(granule)
                && region.descriptor(granule).back() == 0
                // Else the two were read of different slabs: none of that class fits here.
                && next - 1 + usize::from(shape(class).granules) <= CHUNK_GRANULES
            {
                let slab = SlabRef::new(region, granule, class);
                let parts = SlabParts { shared: self.shared, slab };
                left |= match slab_pages::take(slab.geometry(), &parts, due == Due::All) {
                    Ok(taken) => {
                        self.shared.depot.end_huge_page(region, chunk, HugePageEnd::Split);
                        batch.add(slab, taken)
                    }
                    Err(left) => left == Left::FreePages,
                };
                next += usize::from(slab.shape().granules) - 1;
            }
        }
        left | batch.give_back()
    }
}

/// Slabs whose free pages were taken, and are going to be given back in as few calls as their runs allow.
struct Batch<'p, 'h, P, const SLABS: usize, const RUNS: usize> {
    shared: Shared<'h, P>,
    slabs: [Option<(SlabRef<'p>, Taken)>; SLABS],
    slab_count: usize,
    runs: [PageRun; RUNS],
    run_count: usize,
    /// Did the kernel take all runs of these slabs so far?
    gone: bool,
}

impl<'p, 'h, P: Pages, const SLABS: usize, const RUNS: usize> Batch<'p, 'h, P, SLABS, RUNS> {
    fn new(shared: Shared<'h, P>) -> Self {
        let none = PageRun { start: NonNull::dangling(), bytes: 0 };
        Self { shared, slabs: [None; SLABS], slab_count: 0, runs: [none; RUNS], run_count: 0, gone: true }
    }

    /// Adds a slab, whose pages `taken` are the caller's. `true`: others were given back, and have free pages left.
    fn add(&mut self, slab: SlabRef<'p>, taken: Taken) -> bool {
        let left = self.slab_count == SLABS && self.give_back();
        let page_shift = slab.region().page_shift();
        taken.for_each_run(|first, count| {
            debug_assert!((first + count) << page_shift <= slab.shape().granules as usize * GRANULE_BYTES);
            if self.run_count == RUNS {
                self.drop_pages();
            }
            // SAFETY: slab_pages I1: every block that touches these pages is this thread's, and they lie in the slab.
            let start = unsafe { slab.base().add(first << page_shift) };
            self.runs[self.run_count] = PageRun { start, bytes: count << page_shift };
            self.run_count += 1;
        });
        self.slabs[self.slab_count] = Some((slab, taken));
        self.slab_count += 1;
        left
    }

    /// Drops the pages of the runs that there are.
    fn drop_pages(&mut self) {
        // SAFETY: slab_pages I1, as in `add`; the slabs' chunk is committed.
        self.gone &= unsafe { self.shared.depot.os.purge_runs(&self.runs[..self.run_count]) };
        self.run_count = 0;
    }

    /// Gives back what there is. `true`: some of the slabs have free pages left.
    fn give_back(&mut self) -> bool {
        if self.slab_count == 0 {
            return false;
        }
        self.drop_pages();
        let mut left = false;
        for (slab, taken) in self.slabs[..self.slab_count].iter().flatten() {
            let parts = SlabParts { shared: self.shared, slab: *slab };
            left |= slab_pages::finish(slab.geometry(), &parts, *taken, self.gone) == Left::FreePages;
        }
        (self.slab_count, self.gone) = (0, true);
        left
    }
}

/// A slab that is being purged. It may have become another one since it was found.
struct SlabParts<'p, 'h, P> {
    shared: Shared<'h, P>,
    slab: SlabRef<'p>,
}

impl<P> SlabParts<'_, '_, P> {
    /// Class of the slab that is here now.
    fn class_now(&self) -> Option<ClassIndex> {
        let (region, granule) = (self.slab.region(), self.slab.granule);
        match region.span_kind(granule) {
            SpanKind::Slab(class) if region.descriptor(granule).back() == 0 => Some(class),
            _ => None,
        }
    }
}

impl<P: Pages> Parts for SlabParts<'_, '_, P> {
    fn word(&self, word: usize) -> &FreeWord {
        self.slab.word(word)
    }

    fn marks(&self, granule: usize) -> &PageMarks {
        &self.slab.region().descriptor(self.slab.granule.offset(granule)).marks
    }

    fn count_purged(&self, pages: usize) {
        self.shared.depot.counts.purged_in_slabs.add(pages << self.slab.region().page_shift());
    }

    fn is_same(&self) -> bool {
        self.class_now() == Some(self.slab.class)
    }

    fn release(&self, word: usize, mask: u64) {
        // While this thread has a block of it, there is a slab here.
        if let Some(class) = self.class_now() {
            let slab = SlabRef::new(self.slab.region(), self.slab.granule, class);
            self.shared.release_blocks(None, &slab, word, mask);
        }
    }
}
