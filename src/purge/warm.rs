//! Warm memory: free memory that the program takes again soon, kept beyond the share of the heap that any program keeps.
//!
//! ```text
//! # Role        learns how much to keep from what is taken: memory that was given back and is wanted again within
//!               `REGRET_MS` was given back too early. Where a thread gives back by age even while the program sleeps,
//!               nothing has to be learnt: all that the bound allows stays until it has aged
//! # Accounting  `kept` grows by the bytes that were given back too early. In a window of epochs it loses half of
//!               what no request has drawn on, or three quarters of all if hardly anything was drawn
//! # Aged        a part of it stays beyond its age, but not where a thread would have to look after it until it goes
//! # Bound       memory in use and warm memory together are at most an eighth more than what was in use at most in this
//!               window and the one before: a program that grows keeps nothing warm, its peak is its own
//! # Progress    wait-free; every word is a hint, and threads may lose each other's notes
//! # Not here    the share of the heap, and giving back (see `depot::dirty`)
//! ```

use crate::sync::{AtomicU8, AtomicU32, AtomicUsize, Ordering, const_unless_loom};

/// Milliseconds within which memory that was given back is missed if it is wanted again.
const REGRET_MS: u32 = 3_000;
/// Epochs in a window: 2 s by default, so that a buffer of which one comes a second is used in each.
const WINDOW_EPOCHS: u32 = 4;
/// Memory in use and warm memory are at most the most that was in use lately, and this share of it more: sizes and
/// lifetimes at random leave holes, which the next request does not always fit into.
const PEAK_SHARE: usize = 8;
/// Of what a program's heap goes up and down by, as much as this share of what is in use stays unasked: it costs no
/// peak, and of a heap that is freed as a whole nothing stays.
const WAVE_SHARE: usize = 2;
/// Bytes that aged memory may be at most and stay.
const AGED_BYTES_MAX: usize = 32 << 20;
/// A window in which less than this share of what is kept was drawn on is one in which nobody wanted it.
const DRAWN_SHARE: usize = 8;
/// What is left of it then: of 32 MiB nothing after four windows, so that an idle program's goes soon.
const IDLE_SHARE: usize = 4;
/// Less than this many bytes are not worth keeping: a quarter of a chunk.
const KEPT_BYTES_MIN: usize = 256 << 10;

/// What is known of it.
#[derive(Debug)]
pub struct Warm {
    /// Bytes to keep.
    kept: AtomicUsize,
    /// The most bytes in use in this window, and in the one before.
    peak: AtomicUsize,
    peak_before: AtomicUsize,
    /// The fewest and the most free dirty bytes in this window: as much as lies between has been drawn on.
    dirty_low: AtomicUsize,
    dirty_high: AtomicUsize,
    /// Turns of this window so far.
    epochs: AtomicU32,
    /// Bytes of aged memory that this epoch may still leave as they are: the lowest, which are taken first.
    aged_left: AtomicUsize,
    /// When memory was last given back, in milliseconds of the clock, cut to 32 bits; 0 is never.
    given_ms: AtomicU32,
    /// 1 while a thread of the allocator's own comes whenever something is free, and gives it back when it has aged.
    watched: AtomicU8,
}

impl Default for Warm {
    fn default() -> Self {
        Self::new()
    }
}

impl Warm {
    const_unless_loom! {
        /// Nothing is known.
        pub fn new() -> Self {
            Self {
                kept: AtomicUsize::new(0),
                peak: AtomicUsize::new(0),
                peak_before: AtomicUsize::new(0),
                dirty_low: AtomicUsize::new(0),
                dirty_high: AtomicUsize::new(0),
                epochs: AtomicU32::new(0),
                aged_left: AtomicUsize::new(0),
                given_ms: AtomicU32::new(0),
                watched: AtomicU8::new(0),
            }
        }
    }

    /// Bytes to keep while `in_use` are in use.
    pub fn bytes(&self, in_use: usize) -> usize {
        let peak = self.peak();
        // ordering: Relaxed, as in `kept`.
        let kept =
            if self.watched.load(Ordering::Relaxed) != 0 { usize::MAX } else { self.kept().max(in_use / WAVE_SHARE) };
        kept.min((peak + peak / PEAK_SHARE).saturating_sub(in_use))
    }

    /// Bytes to keep near a limit while `in_use` are in use: what was given back too early, as far as no more is held than was
    /// in use lately; `unwatched_max` at most where no thread would give it back if the program stopped.
    pub fn again(&self, in_use: usize, unwatched_max: usize) -> usize {
        // ordering: Relaxed, as in `kept`.
        let most = if self.watched.load(Ordering::Relaxed) != 0 { usize::MAX } else { unwatched_max };
        self.kept().min(self.peak().saturating_sub(in_use)).min(most)
    }

    /// Says whether a thread of the allocator's own gives back what has aged.
    pub fn set_watched(&self, watched: bool) {
        // ordering: Relaxed, as in `kept`.
        self.watched.store(watched.into(), Ordering::Relaxed);
    }

    /// Bytes to keep at most.
    pub fn kept(&self) -> usize {
        // ordering: Relaxed, here and in the whole module: hints that publish nothing.
        self.kept.load(Ordering::Relaxed)
    }

    /// May `bytes` of aged memory stay, in this epoch? To be asked from the lowest address on.
    #[must_use]
    pub fn keeps_aged(&self, bytes: usize) -> bool {
        // ordering: Relaxed, as in `kept`.
        let left = self.aged_left.load(Ordering::Relaxed);
        let keeps = bytes <= left;
        // ordering: Relaxed, likewise. Else nothing: what lies higher is taken later.
        self.aged_left.store(if keeps { left - bytes } else { 0 }, Ordering::Relaxed);
        keeps
    }

    /// The most bytes that were in use lately.
    fn peak(&self) -> usize {
        // ordering: Relaxed, as in `kept`.
        self.peak.load(Ordering::Relaxed).max(self.peak_before.load(Ordering::Relaxed))
    }

    /// Notes that memory was given back at `now_ms`.
    pub fn note_given(&self, now_ms: u64) {
        // ordering: Relaxed, as in `kept`.
        self.given_ms.store((now_ms as u32).max(1), Ordering::Relaxed);
    }

    /// Notes that memory was taken: `in_use` bytes are in use now, `dirty` free ones are dirty, and `clean` bytes of what
    /// was taken came from the kernel.
    pub fn note_taken(&self, in_use: usize, dirty: usize, clean: usize, now_ms: impl FnOnce() -> u64) {
        // ordering: Relaxed, all of it, as in `kept`.
        let given_ms = self.given_ms.load(Ordering::Relaxed);
        let is_again = clean != 0 && given_ms != 0 && in_use <= self.peak();
        if is_again && (now_ms() as u32).wrapping_sub(given_ms) < REGRET_MS {
            // More than was in use is of no use, see `bytes`.
            self.kept.store(self.kept().saturating_add(clean).min(self.peak()), Ordering::Relaxed);
        }
        if in_use > self.peak.load(Ordering::Relaxed) {
            self.peak.store(in_use, Ordering::Relaxed);
        }
        // ordering: Relaxed, likewise.
        if dirty < self.dirty_low.load(Ordering::Relaxed) {
            self.dirty_low.store(dirty, Ordering::Relaxed);
        }
    }

    /// Notes the begin of an epoch, with `in_use` bytes in use and `dirty` free ones dirty.
    pub fn note_epoch(&self, in_use: usize, dirty: usize) {
        // ordering: Relaxed, all of it, as in `kept`.
        let is_watched = self.watched.load(Ordering::Relaxed) != 0;
        self.aged_left.store(if is_watched { 0 } else { self.kept().min(AGED_BYTES_MAX) }, Ordering::Relaxed);
        let high = self.dirty_high.load(Ordering::Relaxed).max(dirty);
        self.dirty_high.store(high, Ordering::Relaxed);
        let epochs = self.epochs.load(Ordering::Relaxed) + 1;
        self.epochs.store(epochs % WINDOW_EPOCHS, Ordering::Relaxed);
        if epochs < WINDOW_EPOCHS {
            return;
        }
        // ordering: Relaxed, likewise.
        let drawn = high - self.dirty_low.load(Ordering::Relaxed).min(dirty);
        let kept = self.kept();
        let is_wanted = drawn >= kept / DRAWN_SHARE;
        let left = if is_wanted { kept - kept.saturating_sub(drawn) / 2 } else { kept / IDLE_SHARE };
        self.kept.store(if left < KEPT_BYTES_MIN { 0 } else { left }, Ordering::Relaxed);
        // ordering: Relaxed, likewise.
        self.dirty_low.store(dirty, Ordering::Relaxed);
        self.dirty_high.store(dirty, Ordering::Relaxed);
        self.peak_before.store(self.peak.load(Ordering::Relaxed), Ordering::Relaxed);
        self.peak.store(in_use, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// A program that took `bytes`, freed them, had them given back at 1000 ms, and takes them again at `again_ms`.
    fn again_at(again_ms: u64, bytes: usize) -> Warm {
        let warm = Warm::new();
        warm.note_taken(bytes, 0, bytes, || 0);
        warm.note_given(1_000);
        warm.note_taken(bytes, 0, bytes, || again_ms);
        warm
    }

    #[test]
    fn only_what_is_wanted_again_soon_is_kept() {
        assert_eq!(again_at(1_500, 16 * MIB).bytes(0), 16 * MIB);
        assert_eq!(again_at(1_000 + u64::from(REGRET_MS), 16 * MIB).bytes(0), 0);
        // A clock that has counted beyond 32 bits.
        let warm = again_at(1 << 33, 16 * MIB);
        warm.note_given((1 << 33) + 1);
        warm.note_taken(16 * MIB, 0, MIB, || (1 << 33) + 2);
        assert_eq!(warm.bytes(0), MIB);
    }

    #[test]
    fn warm_memory_is_bounded_by_the_recent_peak() {
        let warm = again_at(1_500, 16 * MIB);
        assert_eq!(warm.bytes(12 * MIB), 6 * MIB);
        assert_eq!(warm.bytes(20 * MIB), 0);
        // A program that grows misses nothing, however much of it was given back.
        let warm = Warm::new();
        for mib in 1..100 {
            warm.note_given(1_000);
            warm.note_taken(mib * MIB, 0, MIB, || 1_000);
        }
        assert_eq!(warm.kept(), 0);
    }

    #[test]
    fn what_is_watched_stays_below_the_recent_peak() {
        let warm = Warm::new();
        warm.note_taken(16 * MIB, 0, 16 * MIB, || 0);
        warm.set_watched(true);
        assert_eq!(warm.bytes(2 * MIB), 16 * MIB);
        warm.set_watched(false);
        assert_eq!(warm.bytes(2 * MIB), 2 * MIB / WAVE_SHARE);
    }

    #[test]
    fn the_lowest_of_aged_memory_stays() {
        let warm = again_at(1_500, 3 * MIB);
        warm.note_epoch(0, 8 * MIB);
        let kept: Vec<bool> = (0..5).map(|_| warm.keeps_aged(MIB)).collect();
        assert_eq!(kept, [true, true, true, false, false]);
    }

    #[test]
    fn what_lies_unused_goes_in_some_windows() {
        let warm = again_at(1_500, 16 * MIB);
        let epochs = || (0..WINDOW_EPOCHS).for_each(|_| warm.note_epoch(0, 16 * MIB));
        for _ in 0..10 {
            warm.note_taken(16 * MIB, 0, 0, || 0);
            epochs();
        }
        assert_eq!(warm.kept(), 16 * MIB, "used in each window");
        epochs();
        epochs();
        assert_eq!(warm.kept(), MIB);
        (0..2).for_each(|_| epochs());
        assert_eq!(warm.kept(), 0);
        // Also where less is there than is kept.
        let warm = again_at(1_500, 16 * MIB);
        (0..4 * WINDOW_EPOCHS).for_each(|_| warm.note_epoch(0, MIB / 4));
        assert_eq!(warm.kept(), 0);
    }
}
