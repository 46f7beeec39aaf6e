//! Who purges: a thread of the allocator's own, beside programs with several threads; else the program's thread, on its
//! slow paths.
//!
//! ```text
//! # States      there is no thread until a slow path finds the purge signal raised, in a heap of more than 4 MiB, while at
//!               least two threads of the program have caches: a program with one thread stays one (its forks in signal
//!               handlers, its rights, `unshare`, the C library's short cuts). It leaves when the purge signal has been quiet for
//!               a moment, or when fewer than two threads have had caches for a purge delay, and is started anew when it
//!               is needed again. It is told to end before the memory goes, at the end of the process or of this library.
//!               A thread that is refused is asked for again, at growing intervals.
//! # Blocking    no malloc or free waits for it. A thread that has left is waited for by the next one, at its start, or
//!               by who ends it.
//! # C library   where its own blocks are from this heap, it calls malloc and free in the middle of things that
//!               starting a thread needs: glibc frees a thread's data with the lock of its cache of stacks
//!               held, and its loader allocates amid changing the list of thread-local data. So only an allocation that
//!               the loader does not make starts the thread there (`attend_program`), before there is anything to
//!               purge, and in a larger heap; it stays while the heap is large and two threads have caches, because a
//!               free that comes after a quiet time could not start it
//! # Sleeping    on the purge signal, for an epoch; for a second at most, because threads that ended by a system call of their own
//!               do not tell, and must not be waited for (see `census`)
//! ```

use super::census::{self, HERE};
use super::{HEAP, thread};
use crate::config::SMALL_HEAP_BYTES;
use crate::purge::pace::{Alone, Due, Shift, Step};
use crate::purge::signal::PurgeRequest;
use crate::sync::{AtomicU8, Ordering};
use crate::sys::platform::{Loader, around_forks, join, name_thread, spawn, wait, wait_briefly, wake};
use crate::sys::{AroundFork, ThreadBody};

/// 1 once the C library was told what to call after a fork.
static FORKS_PREPARED: AtomicU8 = AtomicU8::new(0);

/// Milliseconds after which a thread that was refused is asked for again: at first, and at most.
const RETRY_MS_FIRST: u64 = 1000;
const RETRY_MS_MAX: u64 = 64_000;

/// Bytes held from which on the thread stays where the C library's blocks are from this heap. Below, what an idle
/// program does not need is little.
const STAY_BYTES: usize = 32 << 20;

/// Where the dynamic loader is.
static LOADER: Loader = Loader::new();

/// After each slow path: sees to it that somebody purges.
#[inline]
pub(super) fn attend() {
    if !HERE.worker.is_running() && HEAP.depot().purge_signal.call().0.is_some() {
        attend_purge_signal();
    }
}

#[cold]
#[inline(never)]
fn attend_purge_signal() {
    let depot = HEAP.depot();
    let is_due = matches!(depot.purge_signal.call().0, Some(PurgeRequest::Raised | PurgeRequest::Urgent));
    if !is_due || HEAP.is_closed() || thread::is_purger() {
        return;
    }
    if !depot.settings.serves_c_library() && depot.budget.held() > SMALL_HEAP_BYTES && start() {
        return;
    }
    HEAP.purge().tick();
}

/// After a slow path of a call that allocates, made by the program, not the C library; its code at `caller` tells.
#[inline]
pub(super) fn attend_program(caller: usize) {
    if stays() && !HERE.worker.is_running() && !thread::is_purger() && LOADER.is_outside(caller) {
        start();
    }
}

/// Does the thread stay though there is nothing to purge?
fn stays() -> bool {
    let depot = HEAP.depot();
    depot.settings.serves_c_library() && depot.budget.held() > STAY_BYTES && census::threads() >= 2
}

/// Starts the thread, if the user wants it, and the program has threads. `false`: it is not there.
#[cold]
fn start() -> bool {
    let depot = HEAP.depot();
    if !depot.settings.background_thread() || census::threads() < 2 {
        return false;
    }
    let now = depot.os.now_ms();
    // ordering: Relaxed, a time.
    if now < HERE.retry_ms.load(Ordering::Relaxed) || !census::is_home() {
        return false;
    }
    prepare_forks();
    let Some(claim) = HERE.worker.claim_start() else { return HERE.worker.is_running() };
    // ordering: Relaxed, times; only who has the claim writes them.
    match spawn::<Worker>(claim.last) {
        Some(handle) => {
            HERE.retry_pause_ms.store(0, Ordering::Relaxed);
            HERE.worker.started(claim, handle);
            true
        }
        None => {
            let pause = HERE.retry_pause_ms.load(Ordering::Relaxed).max(RETRY_MS_FIRST);
            HERE.retry_ms.store(now + pause, Ordering::Relaxed);
            HERE.retry_pause_ms.store((2 * pause).min(RETRY_MS_MAX), Ordering::Relaxed);
            HERE.worker.refused(claim);
            depot.set_watched(false);
            false
        }
    }
}

/// For the constructor of a library that is the C library's malloc: prepares what must not be done amid a malloc.
pub(super) fn prepare() {
    thread::prepare();
    prepare_forks();
    LOADER.find();
}

/// After a thread has given up its cache: if fewer than two have one now, the purging thread learns of it, since it must
/// not be what keeps the process alive. If none has, and there is no purging thread, this one gives back what there is.
pub(super) fn note_end_of_thread() {
    if census::threads() >= 2 {
        return;
    }
    let signal = &HEAP.depot().purge_signal;
    let _ = signal.raise(PurgeRequest::Alone);
    if HERE.worker.is_running() {
        wake(signal.word());
    } else if signal.take_alone() && census::threads() == 0 && HEAP.depot().settings.background_thread() {
        HEAP.purge().epoch(Due::All, || false);
    }
}

/// The thread.
struct Worker;

impl ThreadBody for Worker {
    /// `last` is the thread before it, which has left; 0: there was none.
    fn run(last: usize) {
        thread::begin_purger();
        name_thread();
        if last != 0 {
            join(last);
        }
        work_a_shift();
        census::note_watch();
    }
}

/// Purges until the thread is told to end, or may leave.
fn work_a_shift() {
    let depot = HEAP.depot();
    let (mut shift, mut look_from) = (Shift::default(), 0);
    loop {
        let now = depot.os.now_ms();
        if shift.looks(now) {
            look_from = census::adopt_ended(look_from);
        }
        let _ = depot.purge_signal.take_alone();
        let (request, word) = depot.purge_signal.call();
        if request == Some(PurgeRequest::Ended) {
            return;
        }
        let seen = HEAP.purge().seen(request, census::threads(), stays());
        if let Some(alone) = shift.may_leave(&seen) {
            if alone == Alone::LeaveAfterEpoch {
                epoch(&mut shift, Due::All);
            }
            let says_more = || depot.purge_signal.says_alone_at_last();
            if census::threads() == seen.threads && HERE.worker.leave(says_more) {
                return;
            }
        }
        match shift.step(&seen) {
            Step::Epoch => epoch(&mut shift, Due::Aged),
            Step::LeaveOrWait(_) if HERE.worker.leave(|| !depot.purge_signal.is_quiet_at_last()) => return,
            Step::LeaveOrWait(pause) | Step::Wait(pause) => wait(depot.purge_signal.word(), word, pause),
        }
    }
}

fn epoch(shift: &mut Shift, due: Due) {
    let depot = HEAP.depot();
    let began = depot.os.now_ms();
    let chunks = HEAP.purge().epoch_of_own(due, || depot.purge_signal.call().0 == Some(PurgeRequest::Ended));
    shift.note_epoch(began, depot.os.now_ms(), chunks);
}

/// Ends the thread, if there is one, and waits for it. None is started afterwards.
pub(super) fn end() {
    let signal = &HEAP.depot().purge_signal;
    let _ = signal.raise(PurgeRequest::Ended);
    if let Some(handle) = HERE.worker.stop()
        && census::is_home()
    {
        wake(signal.word());
        join(handle);
    }
}

/// Has the child of every fork look after what it has inherited.
pub(super) fn prepare_forks() {
    // ordering: Relaxed; a second registration would do no harm.
    if FORKS_PREPARED.load(Ordering::Relaxed) == 0 && FORKS_PREPARED.swap(1, Ordering::Relaxed) == 0 {
        census::arrange();
        // Where it is not possible, the child cannot use what other threads had.
        let _ = around_forks::<Forks>();
    }
}

struct Forks;

impl AroundFork for Forks {
    /// Lets a purge put down what it has in flight: nobody would in the child.
    fn before() {
        let in_flight = &HEAP.depot().in_flight;
        in_flight.begin_fork();
        wait_briefly(|| in_flight.is_empty());
    }

    fn in_parent() {
        HEAP.depot().in_flight.end_fork();
    }

    /// Writes a few words only.
    fn in_child() {
        thread::note_fork();
    }
}
