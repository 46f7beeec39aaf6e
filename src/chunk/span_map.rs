//! Which granules of a chunk group are in use: spans are claimed and freed with one atomic operation a chunk.
//!
//! ```text
//! # Role        first fit, lowest address first; free neighbours merge by themselves, being neighbouring bits
//! # Invariants  I1: a set bit of `busy` belongs to the thread that set it, until that thread clears it.
//!               I2: a clear bit of `exhausted[level]` promises nothing; a set one says that its chunk had no run for
//!                   even the shortest request of the level, and whoever makes one clears it.
//!               I3: a bit of `dirty` is set before the granule is freed, and cleared only by whoever has claimed it.
//! # Ordering    FREE-SPAN: `free` (Release) -> `claim*` (Acquire): what the last user wrote, to the granules and to
//!               their metadata, happens before what the next one does.
//!               EXHAUSTED: `claim` sets the bit, then looks at `busy` again; `free` clears `busy`, then looks at the bit. A
//!               sequentially consistent fence lies between the two on each side, so one of the two sees the other.
//! # Progress    lock-free
//! ```
//! # Zeroed memory is a map whose granules are all free and were never written.
//! ```text
//! # Not here    commitment (see `depot::spans`), purging (see `depot::dirty`), what a span is used for
//! # Checked by  loom_tests/spans.rs, the tests below
//! ```

use crate::config::{CHUNK_GRANULES, GROUP_CHUNKS};
use crate::sync::planted::bug;
use crate::sync::{AtomicU64, Ordering, fence_after_exchange};

/// Run lengths, in granules, for which a group remembers exhausted chunks: exact where slabs need it.
const RUNS: [u32; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64];

/// Where in a group a claim looks first.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The chunk's number in the group.
    chunk: usize,
    /// Chunks without the wanted run that it passes by without noting it, if it finds one then.
    unnoted: u32,
}

impl Start {
    /// The lowest chunk: the heap stays dense.
    pub const LOWEST: Self = Self { chunk: 0, unnoted: 4 };

    /// A chunk of its own, where many threads claim: to look again at a group costs them less than the line of the notes,
    /// which all of them write.
    pub fn spread(chunk: usize) -> Self {
        Self { chunk, unnoted: GROUP_CHUNKS as u32 }
    }
}

/// How many run lengths there are.
pub const LEVELS: usize = RUNS.len();

/// The level by which a request of so many granules (1 to 64) looks for chunks.
pub fn level_of(granules: usize) -> usize {
    RUNS.iter().position(|&run| run as usize >= granules).unwrap_or(LEVELS - 1)
}

/// The shortest request, in granules, that looks for chunks by `level`.
const fn shortest(level: usize) -> u32 {
    if level == 0 { 1 } else { RUNS[level - 1] + 1 }
}

/// The granules of `GROUP_CHUNKS` chunks.
#[derive(Debug)]
#[repr(C)]
pub struct SpanMap {
    /// Per chunk: granules in use.
    busy: [AtomicU64; GROUP_CHUNKS],
    /// Per chunk: granules that were written since they were last known to be zero, not counting present use.
    dirty: [AtomicU64; GROUP_CHUNKS],
    /// Per chunk: granules that were free and dirty when a purge last looked, and were not freed again since.
    aged: [AtomicU64; GROUP_CHUNKS],
    /// Per run length: chunks without such a run.
    exhausted: [AtomicU64; RUNS.len()],
}

/// A claimed run inside one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The chunk's number in the group.
    pub chunk: usize,
    /// The run's granules, as bits.
    pub mask: u64,
}

impl Default for SpanMap {
    fn default() -> Self {
        Self::new()
    }
}

impl SpanMap {
    /// All free, all zero.
    pub fn new() -> Self {
        Self {
            busy: core::array::from_fn(|_| AtomicU64::new(0)),
            dirty: core::array::from_fn(|_| AtomicU64::new(0)),
            aged: core::array::from_fn(|_| AtomicU64::new(0)),
            exhausted: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Claims the lowest run of `granules` (1 to 64) that starts at a multiple of `align` granules (a power of
    /// two, at most 64), in the first `chunks` chunks; those from its start on come first.
    pub fn claim(&self, granules: usize, align: usize, chunks: usize, start: Start) -> Option<Run> {
        let level = level_of(granules);
        // ordering: Acquire [EXHAUSTED] a clear bit leads to a chunk whose granules were freed before.
        let mut candidates = !self.exhausted[level].load(Ordering::Acquire) & low_bits(chunks);
        let mut passed = 0_u64;
        while candidates != 0 {
            let chunk = first_from(candidates, start.chunk);
            candidates &= !(1 << chunk);
            if let Some(mask) = self.claim_in(chunk, granules as u32, align) {
                if passed.count_ones() > start.unnoted {
                    self.note_exhausted(passed, level);
                }
                return Some(Run { chunk, mask });
            }
            passed |= 1 << chunk;
        }
        self.note_exhausted(passed, level);
        None
    }

    fn claim_in(&self, chunk: usize, granules: u32, align: usize) -> Option<u64> {
        // ordering: Relaxed, corrected by the exchange.
        let mut busy = self.busy[chunk].load(Ordering::Relaxed);
        loop {
            let starts = run_starts(!busy, granules) & multiples(align);
            if starts == 0 {
                return None;
            }
            let mask = low_bits(granules as usize) << starts.trailing_zeros();
            if bug("claim span by store") {
                self.busy[chunk].store(busy | mask, Ordering::Release);
                return Some(mask);
            }
            // ordering: Acquire [FREE-SPAN] pairs with Release in `free`. Relaxed on failure: only a new guess.
            match self.busy[chunk].compare_exchange(busy, busy | mask, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(mask),
                Err(now) => busy = now,
            }
        }
    }

    /// Remembers that these chunks have no run of that level, but for those that have one (again).
    fn note_exhausted(&self, chunks: u64, level: usize) {
        // Of a chunk that has one, a shorter request would find it, or one that is aligned otherwise.
        let noted = self.without_run(chunks, level);
        // Where many threads come for the same run, all but one find none: the first of them notes it.
        // ordering: Relaxed, a hint: what is not noted is only looked at again.
        if noted & !self.exhausted[level].load(Ordering::Relaxed) == 0 {
            return;
        }
        // ordering: AcqRel [EXHAUSTED] before the look below; pairs with the clearing in `free`.
        self.exhausted[level].fetch_or(noted, Ordering::AcqRel);
        if bug("exhausted without a second look") {
            return;
        }
        // ordering: SeqCst [EXHAUSTED] pairs with the fence in `free`.
        fence_after_exchange();
        let freed = noted & !self.without_run(noted, level);
        if freed != 0 {
            // ordering: AcqRel [EXHAUSTED] as in `free`.
            self.exhausted[level].fetch_and(!freed, Ordering::AcqRel);
        }
    }

    /// Those of some chunks that have no run of that level, at some moment.
    fn without_run(&self, chunks: u64, level: usize) -> u64 {
        let (mut rest, mut without) = (chunks, 0_u64);
        while rest != 0 {
            let chunk = rest.trailing_zeros();
            rest &= rest - 1;
            // `busy` sees the granules of every `free` that did not see a bit set before.
            without |= u64::from(longest_run(!self.busy(chunk as usize)) < shortest(level)) << chunk;
        }
        without
    }

    /// The lowest wholly free chunk from `from` on, among the first `chunks`; it may be claimed by others at once.
    pub fn next_free_chunk(&self, from: usize, chunks: usize) -> Option<usize> {
        let level = RUNS.len() - 1;
        // ordering: Acquire [EXHAUSTED] as in `claim`.
        let mut candidates = !self.exhausted[level].load(Ordering::Acquire) & low_bits(chunks) & !low_bits(from);
        while candidates != 0 {
            let chunk = candidates.trailing_zeros() as usize;
            candidates &= candidates - 1;
            let free = !self.busy(chunk);
            if free == u64::MAX {
                return Some(chunk);
            }
            // A chunk that is nearly free stays a candidate, for shorter requests of the level: looking again is cheap.
            if free.count_ones() < shortest(level) {
                self.note_exhausted(1 << chunk, level);
            }
        }
        None
    }

    /// Claims exactly the granules of `mask`; `false` where one of them is in use.
    #[must_use]
    pub fn claim_exact(&self, chunk: usize, mask: u64) -> bool {
        // ordering: Relaxed, corrected by the exchange.
        let mut busy = self.busy[chunk].load(Ordering::Relaxed);
        while busy & mask == 0 {
            // ordering: Acquire [FREE-SPAN] pairs with Release in `free`.
            match self.busy[chunk].compare_exchange(busy, busy | mask, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => busy = now,
            }
        }
        false
    }

    /// Claims those of the granules `among` that are free and dirty, and says which these are.
    #[must_use]
    pub fn claim_dirty(&self, chunk: usize, among: u64) -> u64 {
        let wanted = among & self.free_dirty(chunk);
        if wanted == 0 { 0 } else { self.claim_free(chunk, wanted) }
    }

    /// Claims those of the granules `among` that are free, and says which these are.
    #[must_use]
    pub fn claim_free(&self, chunk: usize, among: u64) -> u64 {
        // ordering: Acquire [FREE-SPAN] pairs with Release in `free`.
        among & !self.busy[chunk].fetch_or(among, Ordering::Acquire)
    }

    /// The granules of `chunk` that are free and dirty, at some moment.
    pub fn free_dirty(&self, chunk: usize) -> u64 {
        // ordering: Relaxed, a guess; whoever claims some of them asks `dirty` again.
        self.dirty[chunk].load(Ordering::Relaxed) & !self.busy[chunk].load(Ordering::Relaxed)
    }

    /// The free and dirty granules of `chunk` that were so at the last call already; remembers those that are now.
    pub fn age(&self, chunk: usize) -> u64 {
        let now = self.free_dirty(chunk);
        // ordering: Relaxed, marks of time. One that comes late, on a granule that was used and freed meanwhile, is
        // later than that freeing, so the granule is a whole turn old when it is looked at next.
        let before = self.aged[chunk].load(Ordering::Relaxed) & now;
        if before != now {
            self.aged[chunk].fetch_or(now, Ordering::Relaxed);
        }
        before
    }

    /// Were those of the granules of `mask` that are free and dirty so at the last `age` already?
    pub fn is_aged(&self, chunk: usize, mask: u64) -> bool {
        // ordering: Relaxed, as in `age`.
        self.free_dirty(chunk) & mask & !self.aged[chunk].load(Ordering::Relaxed) == 0
    }

    /// May one of the first `chunks` chunks have a run for a request of so many granules, at some moment?
    pub fn may_have(&self, granules: usize, chunks: usize) -> bool {
        // ordering: Acquire [EXHAUSTED] as in `claim`.
        !self.exhausted[level_of(granules)].load(Ordering::Acquire) & low_bits(chunks) != 0
    }

    /// Frees claimed granules; `dirty`: they may have been written since they were claimed. Returns the levels, as bits,
    /// for which the chunk has a run now that it did not have.
    pub fn free(&self, chunk: usize, mask: u64, dirty: bool) -> u16 {
        if dirty && !bug("dirty after the free") {
            // ordering: Relaxed; the release of `busy` below publishes it (I3). The load spares a write.
            if self.dirty[chunk].load(Ordering::Relaxed) & mask != mask {
                self.dirty[chunk].fetch_or(mask, Ordering::Relaxed);
            }
        }
        // ordering: Relaxed, as in `age`. The load spares a write.
        if self.aged[chunk].load(Ordering::Relaxed) & mask != 0 {
            self.aged[chunk].fetch_and(!mask, Ordering::Relaxed);
        }
        let order = if bug("relaxed span free") { Ordering::Relaxed } else { Ordering::Release };
        // ordering: Release [FREE-SPAN] pairs with Acquire in the claims.
        let before = self.busy[chunk].fetch_and(!mask, order);
        if dirty && bug("dirty after the free") {
            self.dirty[chunk].fetch_or(mask, Ordering::Relaxed);
        }
        let run_before = longest_run(!before);
        let run_now = longest_run(!(before & !mask));
        let (mut levels, bit) = (0, 1 << chunk);
        if !bug("free without a fence") {
            // ordering: SeqCst [EXHAUSTED] the release of `busy` comes before the looks below; pairs with the fence in
            // `note_exhausted`.
            fence_after_exchange();
        }
        for (level, exhausted) in self.exhausted.iter().enumerate() {
            // A chunk that had such a run before is not exhausted, or its claimant looks again (I2).
            if shortest(level) > run_before && shortest(level) <= run_now {
                // The load spares a write.
                // ordering: Relaxed; the fence orders it. AcqRel [EXHAUSTED] pairs with `note_exhausted`.
                if exhausted.load(Ordering::Relaxed) & bit != 0 {
                    exhausted.fetch_and(!bit, Ordering::AcqRel);
                }
                levels |= 1 << level;
            }
        }
        levels
    }

    /// The dirty ones of the granules of `mask`, which the caller has claimed.
    pub fn dirty(&self, chunk: usize, mask: u64) -> u64 {
        // ordering: Relaxed; the claim was an Acquire of their freeing (I3).
        self.dirty[chunk].load(Ordering::Relaxed) & mask
    }

    /// Notes that the granules of `mask`, which the caller has claimed, are in memory.
    pub fn dirtied(&self, chunk: usize, mask: u64) {
        // ordering: Relaxed; published by the release of `busy` when they are freed.
        self.dirty[chunk].fetch_or(mask, Ordering::Relaxed);
    }

    /// Notes that the granules of `mask`, which the caller has claimed, are zero.
    pub fn cleaned(&self, chunk: usize, mask: u64) {
        // ordering: Relaxed; published by the release of `busy` when they are freed.
        self.dirty[chunk].fetch_and(!mask, Ordering::Relaxed);
    }

    /// Granules of `chunk` in use, at some moment.
    pub fn busy(&self, chunk: usize) -> u64 {
        // ordering: Acquire, so that a walk sees the metadata of what it finds.
        self.busy[chunk].load(Ordering::Acquire)
    }
}

/// The lowest `count` bits (0 to 64).
#[inline]
pub const fn low_bits(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// The lowest bit from number `start` on of some bits; if there is none, the lowest.
#[inline]
pub const fn first_from(bits: u64, start: usize) -> usize {
    let behind = bits >> start << start;
    (if behind != 0 { behind } else { bits }).trailing_zeros() as usize
}

/// Bits at multiples of `step` (a power of two, at most 64).
const fn multiples(step: usize) -> u64 {
    let mut mask = 1;
    let mut width = step;
    while width < CHUNK_GRANULES {
        mask |= mask << width;
        width *= 2;
    }
    mask
}

/// Bits at which a run of `length` set bits of `free` starts; by doubling.
const fn run_starts(free: u64, length: u32) -> u64 {
    let mut starts = free;
    let mut have = 1;
    while have < length {
        let step = if length - have < have { length - have } else { have };
        starts &= starts >> step;
        have += step;
    }
    starts
}

/// Length of the longest run of set bits.
const fn longest_run(free: u64) -> u32 {
    let mut rest = free;
    let mut length = 0;
    while rest != 0 {
        rest &= rest >> 1;
        length += 1;
    }
    length
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn spans_are_claimed_lowest_first_and_merge_when_freed() {
        let map = SpanMap::new();
        let runs: Vec<Run> = (0..8).map(|_| map.claim(8, 1, 1, Start::LOWEST).expect("eight runs of eight fill a chunk")).collect();
        assert_eq!(runs[0], Run { chunk: 0, mask: 0xff });
        assert_eq!(map.claim(1, 1, 1, Start::LOWEST), None);
        map.free(0, runs[3].mask, true);
        map.free(0, runs[5].mask, true);
        assert_eq!(map.claim(16, 1, 1, Start::LOWEST), None);
        map.free(0, runs[4].mask, true);
        assert_eq!(map.claim(24, 1, 1, Start::LOWEST), Some(Run { chunk: 0, mask: 0xff_ffff << 24 }));
    }

    #[test]
    fn aligned_claims_start_at_multiples() {
        let map = SpanMap::new();
        assert_eq!(map.claim(1, 1, 2, Start::LOWEST).map(|run| run.mask), Some(1));
        assert_eq!(map.claim(3, 4, 2, Start::LOWEST).map(|run| run.mask), Some(0b0111_0000));
        assert_eq!(map.claim(1, 64, 2, Start::LOWEST), Some(Run { chunk: 1, mask: 1 }));
        assert_eq!(map.claim(64, 1, 2, Start::LOWEST), None);
        assert_eq!(map.next_free_chunk(0, 2), None);
        map.free(1, 1, false);
        assert_eq!(map.next_free_chunk(0, 2), Some(1));
        assert_eq!(map.claim(64, 64, 2, Start::LOWEST), Some(Run { chunk: 1, mask: u64::MAX }));
    }

    #[test]
    fn a_claim_starts_at_its_chunk_and_leaves_none_out() {
        let map = SpanMap::new();
        let chunks: Vec<usize> = core::iter::from_fn(|| map.claim(32, 1, 4, Start::spread(2))).map(|run| run.chunk).collect();
        assert_eq!(chunks, [2, 2, 3, 3, 0, 0, 1, 1]);
    }

    #[test]
    fn a_hole_is_found_by_every_request_that_it_fits() {
        for hole in 1..=60 {
            let map = SpanMap::new();
            assert!(map.claim_exact(0, !(low_bits(hole) << 2)));
            // A request that does not fit must not hide the hole from one that does.
            assert_eq!(map.claim(hole + 1, 1, 1, Start::LOWEST), None);
            assert_eq!(map.claim(hole, 1, 1, Start::LOWEST), Some(Run { chunk: 0, mask: low_bits(hole) << 2 }));
            map.free(0, low_bits(hole) << 2, true);
            assert_eq!(map.claim(hole + 1, 1, 1, Start::LOWEST), None);
            assert_eq!(map.claim(hole, 1, 1, Start::LOWEST).map(|run| run.mask), Some(low_bits(hole) << 2));
        }
    }

    #[test]
    fn dirt_is_remembered_until_cleaned() {
        let map = SpanMap::new();
        let run = map.claim(4, 1, 1, Start::LOWEST).expect("empty");
        assert_eq!(map.dirty(run.chunk, run.mask), 0);
        map.free(run.chunk, 0b0011, true);
        map.free(run.chunk, 0b1100, false);
        assert_eq!(map.claim_dirty(0, u64::MAX), 0b0011);
        map.cleaned(0, 0b0011);
        map.free(0, 0b0011, false);
        assert_eq!(map.claim_dirty(0, u64::MAX), 0);
    }

    #[test]
    fn granules_age_from_their_last_freeing_on() {
        let map = SpanMap::new();
        let run = map.claim(4, 1, 1, Start::LOWEST).expect("empty");
        assert_eq!(map.age(0), 0);
        map.free(run.chunk, 0b0011, true);
        assert_eq!(map.age(0), 0);
        map.free(run.chunk, 0b0100, true);
        assert_eq!(map.age(0), 0b0011);
        assert!(map.claim_exact(0, 0b0001));
        map.free(0, 0b0001, true);
        assert_eq!(map.age(0), 0b0110);
        assert_eq!(map.age(0), 0b0111);
    }

    #[test]
    fn bit_helpers_agree_with_the_plain_definition() {
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..10_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let free = random | random.rotate_left(3);
            let run_at = |start: u32| (start..64).take_while(|bit| free >> bit & 1 == 1).count() as u32;
            assert_eq!(longest_run(free), (0..64).map(run_at).max().unwrap_or(0));
            for length in [1, 2, 3, 5, 8, 13, 64] {
                let expected = (0..64).filter(|&start| run_at(start) >= length).fold(0, |mask, bit| mask | 1u64 << bit);
                assert_eq!(run_starts(free, length), expected);
            }
        }
        assert_eq!(multiples(16), 1 | 1 << 16 | 1 << 32 | 1 << 48);
    }
}
