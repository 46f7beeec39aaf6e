//! The threads of this process that have caches: how many there are, and which of them have vanished.
//!
//! ```text
//! # Role        tells whether the program has more than one thread of its own, which decides whether there is a purging
//!               thread; finds threads that ended by a system call of their own, or began too late to be told of their
//!               end, so that nothing waits for them and what they had comes home
//! # Invariants  I1: a thread's number counts only within the process that it was noted in (its generation). A child that
//!                   nobody told of its birth (`_Fork`, a bare `clone`) begins a generation of its own, because `HERE`
//!                   reads as zero there.
//!               I2: only the purging thread looks for vanished threads. A program with one thread makes no call for
//!                   it, whatever a sandbox forbids. Where there is to be no such thread, none is noted.
//! # Children    after `fork`, the child's only thread is counted anew. After `_Fork` it is not counted: one thread
//!               more is needed there before there is a purging thread. A child of `vfork` is a part of its parent, also
//!               where it ends by `exit`, as it must not: the heap is the parent's.
//! ```

use super::{HEAP, exit};
use crate::local::LocalIndex;
use crate::local::switch::Presence;
use crate::purge::worker_state::WorkerState;
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering, compiler_fence};
use crate::sys::platform::{Wiped, is_alive, is_as_known, process_id, thread_id};

/// What is true of this process only.
pub(super) struct Here {
    /// The purging thread.
    pub worker: WorkerState,
    /// When the C library may be asked again for a thread that it refused, in milliseconds of the clock.
    pub retry_ms: AtomicU64,
    /// The pause after the next refusal, in milliseconds; 0 is the first.
    pub retry_pause_ms: AtomicU64,
    /// Which process this is, and its number; 0 before a thread was noted in it.
    generation: AtomicU32,
    process: AtomicU32,
    /// Threads with caches that were noted in this process.
    threads: AtomicU32,
    /// 1 in the first process, and in a child that was told of its birth.
    told: AtomicU32,
}

pub(super) static HERE: Wiped<Here> = Wiped::new(Here {
    worker: WorkerState::new(),
    retry_ms: AtomicU64::new(0),
    retry_pause_ms: AtomicU64::new(0),
    generation: AtomicU32::new(0),
    process: AtomicU32::new(0),
    threads: AtomicU32::new(0),
    told: AtomicU32::new(0),
});

/// Forks so far of which the child was told: those of the parents, and that which made this process.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Generations so far: those of the parents, and this one.
static GENERATIONS: AtomicU32 = AtomicU32::new(0);

/// 1 once a child that nobody told of its birth would read zero in `HERE`.
static ARRANGED: AtomicU8 = AtomicU8::new(0);

/// Threads that one look asks the kernel for, if it finds one that is there.
const LOOK_THREADS: usize = 64;

/// Threads of this process that have caches.
#[inline]
pub(super) fn threads() -> u32 {
    // ordering: Relaxed, a count; whoever lowers it raises the purge signal afterwards.
    HERE.threads.load(Ordering::Relaxed)
}

/// From now on a child that nobody told of its birth reads zero here.
pub(super) fn arrange() {
    HERE.arrange();
    // ordering: Relaxed, numbers.
    ARRANGED.store(1, Ordering::Relaxed);
    HERE.told.store(1, Ordering::Relaxed);
}

/// Is this the first process, or a child that was told of its birth?
pub(super) fn was_told() -> bool {
    // ordering: Relaxed, a number.
    HERE.told.load(Ordering::Relaxed) != 0
}

/// Is this the process whose memory it is? Not in a child of `vfork`, which has its parent's, and must not be what is
/// noted for it.
pub(super) fn is_home() -> bool {
    // ordering: Relaxed, a number.
    if HERE.generation.load(Ordering::Relaxed) == 0 && is_guest() {
        return false;
    }
    generation();
    // ordering: Relaxed, a number.
    HERE.process.load(Ordering::Relaxed) == process_id()
}

/// Is this a process that has no memory of its own, a child of `vfork`? Unlike `is_home`, which goes by what was noted
/// when a thread got its cache, it works also where none ever did, or where nothing is noted.
pub(super) fn is_guest() -> bool {
    // ordering: Relaxed, a number.
    let is_copy = ARRANGED.load(Ordering::Relaxed) != 0 && !was_told();
    !is_copy && !is_as_known()
}

/// The generation of this process.
fn generation() -> u32 {
    // ordering: Relaxed, all of it: numbers, told apart by themselves.
    let known = HERE.generation.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    HERE.process.store(process_id(), Ordering::Relaxed);
    let new = GENERATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    HERE.generation.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed).map_or_else(|other| other, |_| new)
}

/// How a thread is noted: by its generation and its number (I1).
fn note(generation: u32, thread: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(thread)
}

fn generation_of(noted: u64) -> u32 {
    (noted >> 32) as u32
}

/// The calling thread has got a cache. One that shares this memory, but is a process to the kernel (a `clone` with
/// `CLONE_VM` alone), is not noted: it would seem to have vanished. Nobody wants to know where there is never a purging
/// thread, so no call is made for it there.
pub(super) fn begin_thread(me: LocalIndex) {
    if !HEAP.depot().settings.serves_c_library() {
        exit::note_thread(me.get() == 0);
    }
    if !HEAP.depot().settings.background_thread() || !is_home() {
        return;
    }
    let _ = HEAP.registry().set_thread(me, note(generation(), thread_id()));
    // ordering: Relaxed, a count.
    if HERE.threads.fetch_add(1, Ordering::Relaxed) == 1 {
        note_watch();
    }
}

/// Says whether there is a purging thread whenever there is something to purge: what is free then has time to be used
/// again. While that thread is there, it says so itself, when it leaves.
pub(super) fn note_watch() {
    let depot = HEAP.depot();
    depot.set_watched(threads() >= 2 && depot.settings.background_thread());
}

/// The calling thread is about to give its cache up.
pub(super) fn end_thread(me: LocalIndex) {
    let noted = HEAP.registry().set_thread(me, 0);
    // ordering: Relaxed, numbers.
    if noted != 0 && generation_of(noted) == HERE.generation.load(Ordering::Relaxed) {
        HERE.threads.fetch_sub(1, Ordering::Relaxed);
        if threads() < 2 && !HERE.worker.is_running() {
            note_watch();
        }
    }
}

/// Where is a thread that was noted so for a local heap?
pub(super) fn presence(noted: u64) -> Presence {
    // ordering: Relaxed, numbers.
    if noted == 0 || generation_of(noted) != HERE.generation.load(Ordering::Relaxed) {
        return Presence::Unknown;
    }
    // ordering: Relaxed, a number.
    if is_alive(HERE.process.load(Ordering::Relaxed), noted as u32) { Presence::There } else { Presence::Gone }
}

/// Does `work`. If a signal handler of this thread's forks meanwhile, and this is the child, that is said: what the thread
/// had when the handler of the fork looked was not known.
pub(super) fn tell_forks<R>(work: impl FnOnce() -> R) -> (R, bool) {
    // ordering: Relaxed, a number that only this thread changes, if it does: the compiler alone could move it.
    let before = FORKS.load(Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    let result = work();
    compiler_fence(Ordering::SeqCst);
    // ordering: Relaxed, as above.
    (result, FORKS.load(Ordering::Relaxed) != before)
}

/// In the child of a fork, whose only thread has the cache `me`, if any.
pub(super) fn begin_process(me: Option<LocalIndex>) {
    HERE.worker.forget();
    // ordering: Relaxed, all of it; the caller is alone.
    FORKS.fetch_add(1, Ordering::Relaxed);
    HERE.generation.store(0, Ordering::Relaxed);
    HERE.threads.store(0, Ordering::Relaxed);
    HERE.told.store(1, Ordering::Relaxed);
    HERE.retry_ms.store(0, Ordering::Relaxed);
    HERE.retry_pause_ms.store(0, Ordering::Relaxed);
    if let Some(me) = me {
        begin_thread(me);
    }
}

/// For the purging thread: takes over what threads had that are not there any more. Looks at some of them, from `from` on,
/// or at all until it finds one that is there. Returns where to go on the next time.
pub(super) fn adopt_ended(from: usize) -> usize {
    if !is_home() {
        return from;
    }
    // ordering: Relaxed, numbers.
    let process = HERE.process.load(Ordering::Relaxed);
    let made = HEAP.registry().made();
    let (mut asked, mut any_alive) = (0, false);
    for step in 0..made {
        let number = (from + step) % made;
        let noted = HEAP.registry().thread_of(number);
        if noted == 0 || generation_of(noted) != generation() {
            continue;
        }
        if is_alive(process, noted as u32) {
            any_alive = true;
        } else if HEAP.shared().adopt_ended(number, noted) {
            // ordering: Relaxed, a count.
            HERE.threads.fetch_sub(1, Ordering::Relaxed);
        }
        asked += 1;
        if any_alive && asked >= LOOK_THREADS {
            return number + 1;
        }
    }
    0
}
