//! The pace of purging: when an epoch begins, and when the purging thread may leave. The time goes in, what to do comes out:
//! nothing here asks a clock or touches a heap.
//!
//! ```text
//! # Epoch       half a purge delay. What is free in an epoch is marked as aged; what is aged and still free in the next one
//!               is given back. So memory goes back between half and one delay after it became free, a long epoch's
//!               between a quarter and one.
//! # Role        `Shift`: for the purging thread, which does whole epochs. `Ticks`: for threads that come by on a slow path,
//!               where there is no purging thread: a part of an epoch each.
//! # Progress    `Ticks` is lock-free: a thread that is stopped amid a tick keeps nobody from the next one
//! # Not here    what an epoch does (see `heap::purge`)
//! ```

use super::signal::PurgeRequest;
use crate::config::CHUNK_BYTES;
use crate::sync::{AtomicU64, Ordering, const_unless_loom};

/// What a purge does with the free pages that it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Gives back those that were free at the last look already.
    Aged,
    /// Gives all back.
    All,
}

/// Shortest epoch, in milliseconds: a step of the clock.
const EPOCH_MS_MIN: u64 = 10;
/// Milliseconds of an epoch just above the soft limit, at most: as below it, by default.
const EPOCH_MS_AT_LIMIT: u64 = 500;
/// Milliseconds of an epoch far above it: looking at all chunks takes a few of them.
const EPOCH_MS_ABOVE: u64 = 20;
/// The limit divided by this is what the heap exceeds it by when epochs are shortest.
const EXCESS_SHARE: usize = 32;
/// Milliseconds that the purging thread stays where there is nothing to do.
const QUIET_MS: u64 = 50;
/// Milliseconds after which it looks whether the program's threads are there still; it sleeps no longer at once.
pub const LOOK_MS: u64 = 1000;
/// Microseconds that it rests for each chunk that it looked at, so that looking costs at most a tenth of a processor, however
/// large the heap: 4 MiB of small blocks take some 20. Not measured each time: what the kernel takes to give pages back
/// varies by more than all the looking.
const REST_US_PER_CHUNK: u64 = 180 * CHUNK_BYTES as u64 / (4 << 20);
/// Milliseconds between two ticks of an epoch.
const TICK_PAUSE_MS: u64 = 1;

/// Milliseconds of an epoch.
pub fn epoch_ms(purge_delay_ms: u32) -> u64 {
    u64::from(purge_delay_ms / 2).max(EPOCH_MS_MIN)
}

/// Milliseconds of an epoch in a heap of `held` bytes, more than the soft limit of `limit`; `epoch_ms` below it. The more the
/// heap exceeds the limit, the shorter: what is used all the time does not age, on both sides of the limit.
pub fn pressed_epoch_ms(held: usize, limit: usize, epoch_ms: u64) -> u64 {
    let longest = epoch_ms.clamp(EPOCH_MS_ABOVE, EPOCH_MS_AT_LIMIT);
    if held <= limit {
        return longest;
    }
    let most = longest - EPOCH_MS_ABOVE;
    let bytes_per_ms = limit / EXCESS_SHARE / most.max(1) as usize;
    longest - most.min(((held - limit) / bytes_per_ms.max(1)) as u64)
}

/// What the purging thread sees when it looks.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Milliseconds of the clock.
    pub now: u64,
    /// What the purge signal says.
    pub request: Option<PurgeRequest>,
    /// Threads that have caches.
    pub threads: u32,
    /// Does the purging thread stay though there is nothing to purge?
    pub stays: bool,
    /// Milliseconds of an epoch.
    pub epoch_ms: u64,
    /// The same while the soft limit presses.
    pub pressed_epoch_ms: u64,
}

/// What the purging thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An epoch, in which what has aged is due.
    Epoch,
    /// It sleeps for so many milliseconds, or until the signal says more.
    Wait(u64),
    /// It leaves, unless the signal says something by then; then it sleeps for so long.
    LeaveOrWait(u64),
}

/// How the purging thread leaves where too few threads have caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// There is one: it purges on its way from now on.
    Leave,
    /// There is none. The process may end when the purging thread does, or go on with threads that never call malloc.
    LeaveAfterEpoch,
}

/// What the purging thread knows of its own doings. Times are in milliseconds of the clock.
#[derive(Debug, Default)]
pub struct Shift {
    /// When it looked for vanished threads last.
    looked: Option<u64>,
    /// Since when there has been something to purge, or the last epoch has been over.
    raised: Option<u64>,
    /// Since when there has been nothing.
    quiet: Option<u64>,
    /// Since when fewer than two threads have had caches.
    alone: Option<u64>,
    /// How long the last epoch took, and how long to rest after it.
    epoch_took: u64,
    rest: u64,
}

impl Shift {
    /// Is it time to look for vanished threads?
    pub fn looks(&mut self, now: u64) -> bool {
        let is_time = self.looked.is_none_or(|looked| now >= looked + LOOK_MS);
        if is_time {
            self.looked = Some(now);
        }
        is_time
    }

    /// May the thread leave because too few threads have caches? If there is one, what the others have left is given back
    /// first, as far as it is not used again within the purge delay.
    pub fn may_leave(&mut self, seen: &Seen) -> Option<Alone> {
        if seen.threads >= 2 {
            self.alone = None;
            return None;
        }
        if seen.threads == 0 {
            return Some(Alone::LeaveAfterEpoch);
        }
        let alone = seen.now.saturating_sub(*self.alone.get_or_insert(seen.now));
        (alone >= (2 * seen.epoch_ms).min(LOOK_MS)).then_some(Alone::Leave)
    }

    /// What to do next, of a signal that does not say that the heap ends.
    pub fn step(&mut self, seen: &Seen) -> Step {
        let Some(request) = seen.request else {
            self.raised = None;
            self.epoch_took = 0;
            let quiet = seen.now.saturating_sub(*self.quiet.get_or_insert(seen.now));
            return if seen.stays {
                Step::Wait(LOOK_MS)
            } else if quiet < QUIET_MS {
                Step::Wait(QUIET_MS - quiet)
            } else {
                Step::LeaveOrWait(QUIET_MS)
            };
        };
        self.quiet = None;
        let waited = seen.now.saturating_sub(*self.raised.get_or_insert(seen.now));
        let pause = self.pause(request, seen);
        if waited >= pause { Step::Epoch } else { Step::Wait((pause - waited).min(LOOK_MS)) }
    }

    /// From one epoch's begin to the next one's begin it is an epoch, but half of it is a pause.
    fn pause(&self, request: PurgeRequest, seen: &Seen) -> u64 {
        let epoch_ms = seen.epoch_ms;
        match request {
            PurgeRequest::Urgent => seen.pressed_epoch_ms.max(self.rest),
            _ => epoch_ms.saturating_sub(self.epoch_took).max(epoch_ms / 2).max(self.rest),
        }
    }

    /// An epoch is over, which looked at `chunks`.
    pub fn note_epoch(&mut self, began: u64, ended: u64, chunks: u64) {
        self.rest = chunks * REST_US_PER_CHUNK / 1000;
        self.epoch_took = ended.saturating_sub(began);
        self.raised = Some(ended);
    }
}

/// How far the ticks are. An epoch may be begun by one thread and ended by another.
#[derive(Debug)]
pub struct Ticks {
    /// When the next tick is due, in milliseconds of the clock; 0 while nobody has looked yet.
    next_ms: AtomicU64,
    /// When the last one was.
    last_ms: AtomicU64,
    /// When the epoch began.
    began_ms: AtomicU64,
    /// Where the next tick goes on, as its caller says; `Ticks::START` is the beginning.
    place: AtomicU64,
}

impl Default for Ticks {
    fn default() -> Self {
        Self::new()
    }
}

impl Ticks {
    /// The place where an epoch begins.
    pub const START: u64 = 0;

    const_unless_loom! {
        /// At the beginning.
        pub fn new() -> Self {
            Self {
                next_ms: AtomicU64::new(0),
                last_ms: AtomicU64::new(0),
                began_ms: AtomicU64::new(0),
                place: AtomicU64::new(Self::START),
            }
        }
    }

    /// Does the caller tick now? One of the threads that come by does; if it is stopped, another one does at the next tick.
    pub fn claim(&self, seen: &Seen) -> bool {
        let Some(request @ (PurgeRequest::Raised | PurgeRequest::Urgent)) = seen.request else { return false };
        let now = seen.now;
        // ordering: Relaxed, all of it: times; who is late or early does no harm.
        let (next, last) = (self.next_ms.load(Ordering::Relaxed), self.last_ms.load(Ordering::Relaxed));
        if next == 0 {
            self.next_ms.store(now + seen.epoch_ms, Ordering::Relaxed);
            return false;
        }
        let is_urgent = request == PurgeRequest::Urgent && now >= last + seen.pressed_epoch_ms;
        let claims = || self.last_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        (now >= next || is_urgent) && claims()
    }

    /// Where the tick goes on; an epoch begins at `START`.
    pub fn begin(&self, now: u64) -> u64 {
        // ordering: Relaxed, a place to begin; two threads at the same one do no harm.
        let place = self.place.load(Ordering::Relaxed);
        if place == Self::START {
            // ordering: Relaxed, a time.
            self.began_ms.store(now, Ordering::Relaxed);
        }
        place
    }

    /// The tick is over, and the next one goes on at `place`; at `START` if the epoch is over, too.
    pub fn end(&self, place: u64, now: u64, epoch_ms: u64) {
        // ordering: Relaxed, all of it: a place and times.
        let mut next = now + TICK_PAUSE_MS;
        if place == Self::START {
            next = next.max(self.began_ms.load(Ordering::Relaxed) + epoch_ms);
        }
        self.place.store(place, Ordering::Relaxed);
        self.next_ms.store(next, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const EPOCH_MS: u64 = 500;
    const PRESSED_MS: u64 = 30;

    fn seen(now: u64, request: Option<PurgeRequest>) -> Seen {
        Seen { now, request, threads: 2, stays: false, epoch_ms: EPOCH_MS, pressed_epoch_ms: PRESSED_MS }
    }

    #[test]
    fn an_epoch_begins_half_a_delay_after_the_signal_and_after_each_other() {
        assert_eq!((epoch_ms(1000), epoch_ms(0), epoch_ms(u32::MAX)), (500, 10, u64::from(u32::MAX / 2)));
        let mut shift = Shift::default();
        let raised = |now| seen(now, Some(PurgeRequest::Raised));
        assert_eq!(shift.step(&raised(10_000)), Step::Wait(EPOCH_MS));
        assert_eq!(shift.step(&raised(10_499)), Step::Wait(1));
        assert_eq!(shift.step(&raised(10_500)), Step::Epoch);
        // It took 100: begins are an epoch apart.
        shift.note_epoch(10_500, 10_600, 0);
        assert_eq!(shift.step(&raised(10_999)), Step::Wait(1));
        assert_eq!(shift.step(&raised(11_000)), Step::Epoch);
        // Half of the time is a pause, however long it takes.
        shift.note_epoch(11_000, 12_000, 0);
        assert_eq!(shift.step(&raised(12_000)), Step::Wait(EPOCH_MS / 2));
    }

    #[test]
    fn the_thread_sleeps_a_second_at_most_and_rests_from_many_chunks() {
        let mut shift = Shift::default();
        let chunks = 1_000_000;
        shift.note_epoch(0, 10, chunks);
        let rest = chunks * REST_US_PER_CHUNK / 1000;
        assert!(rest > LOOK_MS + EPOCH_MS);
        assert_eq!(shift.step(&seen(10, Some(PurgeRequest::Raised))), Step::Wait(LOOK_MS));
        assert_eq!(shift.step(&seen(9 + rest, Some(PurgeRequest::Raised))), Step::Wait(1));
        assert_eq!(shift.step(&seen(10 + rest, Some(PurgeRequest::Raised))), Step::Epoch);
        assert_eq!(shift.step(&seen(9 + rest, Some(PurgeRequest::Urgent))), Step::Wait(1), "also where it is urgent");
    }

    #[test]
    fn epochs_shorten_step_by_step_above_the_soft_limit() {
        const LIMIT: usize = 64 << 20;
        const STEP: usize = LIMIT / EXCESS_SHARE / 16;
        assert_eq!(pressed_epoch_ms(LIMIT + 1, LIMIT, EPOCH_MS), EPOCH_MS);
        assert_eq!(pressed_epoch_ms(LIMIT + 1, LIMIT, epoch_ms(u32::MAX)), EPOCH_MS_AT_LIMIT);
        assert_eq!(pressed_epoch_ms(2 * LIMIT, LIMIT, EPOCH_MS), EPOCH_MS_ABOVE);
        assert_eq!(pressed_epoch_ms(2 * LIMIT, LIMIT, epoch_ms(0)), EPOCH_MS_ABOVE);
        assert_eq!(pressed_epoch_ms(usize::MAX - 1, 0, EPOCH_MS), EPOCH_MS_ABOVE);
        let epochs: Vec<u64> = (0..=16).map(|step| pressed_epoch_ms(LIMIT + step * STEP, LIMIT, EPOCH_MS)).collect();
        assert!(epochs.is_sorted_by(|longer, shorter| longer > shorter && longer - shorter <= 40), "{epochs:?}");
    }

    #[test]
    fn a_limit_that_presses_makes_it_soon() {
        let mut shift = Shift::default();
        assert_eq!(shift.step(&seen(5, Some(PurgeRequest::Raised))), Step::Wait(EPOCH_MS));
        assert_eq!(shift.step(&seen(5, Some(PurgeRequest::Urgent))), Step::Wait(PRESSED_MS));
        assert_eq!(shift.step(&seen(5 + PRESSED_MS, Some(PurgeRequest::Urgent))), Step::Epoch);
    }

    #[test]
    fn the_thread_leaves_after_a_quiet_moment_unless_it_stays() {
        let mut shift = Shift::default();
        assert_eq!(shift.step(&seen(100, None)), Step::Wait(QUIET_MS));
        assert_eq!(shift.step(&seen(149, None)), Step::Wait(1));
        assert_eq!(shift.step(&seen(150, None)), Step::LeaveOrWait(QUIET_MS));
        assert_eq!(shift.step(&Seen { stays: true, ..seen(150, None) }), Step::Wait(LOOK_MS));
        // What was raised between ends the quiet.
        assert_eq!(shift.step(&seen(160, Some(PurgeRequest::Raised))), Step::Wait(EPOCH_MS));
        assert_eq!(shift.step(&seen(170, None)), Step::Wait(QUIET_MS));
    }

    #[test]
    fn beside_one_thread_it_leaves_after_a_delay_and_beside_none_after_an_epoch() {
        let mut shift = Shift::default();
        let with = |now, threads| Seen { threads, ..seen(now, None) };
        assert_eq!(shift.may_leave(&with(0, 2)), None);
        assert_eq!(shift.may_leave(&with(1, 1)), None);
        assert_eq!(shift.may_leave(&with(1000, 1)), None);
        assert_eq!(shift.may_leave(&with(1001, 1)), Some(Alone::Leave));
        // A second one came between.
        assert_eq!(shift.may_leave(&with(1002, 2)), None);
        assert_eq!(shift.may_leave(&with(1003, 1)), None);
        assert_eq!(shift.may_leave(&with(1004, 0)), Some(Alone::LeaveAfterEpoch));
    }

    #[test]
    fn it_looks_for_vanished_threads_each_second() {
        let mut shift = Shift::default();
        let looks = [0, 999, 1000, 1500, 2000].map(|now| shift.looks(now));
        assert_eq!(looks, [true, false, true, false, true]);
    }

    #[test]
    fn ticks_make_an_epoch_of_parts_and_one_thread_claims_each() {
        let ticks = Ticks::new();
        let claim = |now| ticks.claim(&seen(now, Some(PurgeRequest::Raised)));
        assert!(!claim(100), "the first look begins to wait");
        assert_eq!((claim(599), claim(600), claim(600)), (false, true, true), "until one has begun");
        assert_eq!(ticks.begin(600), Ticks::START);
        ticks.end(7, 600, EPOCH_MS);
        assert!(!claim(600));
        assert!(claim(601));
        assert_eq!(ticks.begin(601), 7);
        ticks.end(Ticks::START, 601, EPOCH_MS);
        assert!(!claim(1099), "an epoch after the last one's begin");
        assert!(claim(1100));
        let urgent = |now| ticks.claim(&seen(now, Some(PurgeRequest::Urgent)));
        assert_eq!(ticks.begin(1100), Ticks::START);
        ticks.end(Ticks::START, 1100, EPOCH_MS);
        assert_eq!((urgent(1099 + PRESSED_MS), urgent(1100 + PRESSED_MS)), (false, true));
        assert!(!ticks.claim(&seen(9999, Some(PurgeRequest::Ended))));
        assert!(!ticks.claim(&seen(9999, None)));
    }
}
