//! Who purges: a thread of the allocator's own, started when there is something to give back; without it, the program's
//! threads on their slow paths.
//!
//! ```text
//! # States      there is no thread until a slow path finds the alarm raised in a heap of more than 4 MiB: a small
//!               program never has it, and no program has it before its first free. It leaves when the alarm has been
//!               quiet for a moment, and is started anew when it is raised again: an idle program does not have it. It
//!               is told to end before the memory goes, at the end of the process or of this library.
//! # C library   where its own blocks are from this heap, it calls malloc and free in the middle of things that
//!               starting and joining a thread need: glibc frees a thread's data with the lock of its cache of stacks
//!               held, and its loader allocates amid changing the list of thread-local data. So only a malloc that the
//!               loader does not make starts the thread there (`attend_program`), before there is anything to purge,
//!               and in a larger heap, since a process of one thread is cheaper; it stays while the heap is large and
//!               any other thread has a cache
//! # Sleeping    on the alarm, for a turn
//! ```

use super::{HEAP, thread};
use crate::config::{CHUNK_BYTES, SMALL_HEAP_BYTES};
use crate::depot::alarm::Call;
use crate::depot::dirty::Due;
use crate::sync::{AtomicU8, Ordering};
use crate::sys::platform::{AroundFork, Loader, Worker, around_forks, name_thread, wait, wait_briefly, wake};
use core::ffi::c_void;

static WORKER: Worker = Worker::new();

/// 1 once the C library was told what to call after a fork.
static FORKS_PREPARED: AtomicU8 = AtomicU8::new(0);

/// Milliseconds between two turns while a limit presses.
const URGENT_PAUSE_MS: u64 = 20;

/// Milliseconds that the thread stays where there is nothing to do.
const QUIET_MS: u64 = 50;

/// Microseconds that the thread rests for each chunk that it looked at, so that looking costs at most a tenth of a
/// processor, however large the heap: 4 MiB of small blocks take some 20. Not measured each time: what the kernel takes
/// to give pages back varies by more than all the looking.
const REST_US_PER_CHUNK: u64 = 180 * CHUNK_BYTES as u64 / (4 << 20);

/// Bytes held from which on the thread stays where the C library's blocks are from this heap. Below, what an idle
/// program does not need is little.
const STAY_BYTES: usize = 32 << 20;

/// Where the dynamic loader is.
static LOADER: Loader = Loader::new();

/// After each slow path: sees to it that somebody purges.
#[inline]
pub(super) fn attend() {
    if !WORKER.is_running() && HEAP.depot().alarm.call().0.is_some() {
        attend_alarm();
    }
}

#[cold]
#[inline(never)]
fn attend_alarm() {
    let depot = HEAP.depot();
    if HEAP.is_closed() || thread::is_purger() {
        return;
    }
    if !depot.settings.serves_c_library() && depot.budget.held() > SMALL_HEAP_BYTES && start() {
        return;
    }
    HEAP.purge().tick();
}

/// After a slow path of a malloc that the program, not the C library, made; its code at `caller` tells.
#[inline]
pub(super) fn attend_program(caller: usize) {
    if stays() && !WORKER.is_running() && !thread::is_purger() && LOADER.is_outside(caller) {
        start();
    }
}

/// Does the thread stay though there is nothing to purge?
fn stays() -> bool {
    let depot = HEAP.depot();
    depot.settings.serves_c_library() && depot.budget.held() > STAY_BYTES
}

/// Starts the thread, if the user wants it. `false`: it is not there.
#[cold]
fn start() -> bool {
    if HEAP.depot().settings.background_thread() {
        prepare_forks();
        WORKER.start(work);
    }
    WORKER.is_running()
}

/// For the constructor of a library that is the C library's malloc: prepares what must not be done amid a malloc.
pub(super) fn prepare() {
    thread::prepare();
    prepare_forks();
    LOADER.find();
}

/// After a thread has given up its cache: if it was the last one, the thread gives back what there is and leaves
/// without delay, since the process ends with its last thread.
pub(super) fn note_end_of_thread() {
    if WORKER.is_running() && !HEAP.has_other_threads(false) {
        let alarm = &HEAP.depot().alarm;
        let _ = alarm.raise(Call::Alone);
        wake(alarm.word());
    }
}

/// The thread.
extern "C" fn work(_argument: *mut c_void) -> *mut c_void {
    thread::begin_purger();
    name_thread();
    let (depot, purge) = (HEAP.depot(), HEAP.purge());
    let has_ended = || depot.alarm.call().0 == Some(Call::Ended);
    let (mut turn_took, mut rest) = (0, 0);
    loop {
        if depot.alarm.take_alone() && !HEAP.has_other_threads(false) {
            // The process may go on, with threads that never call malloc.
            purge.turn_of_own(Due::All, has_ended);
            if !HEAP.has_other_threads(false) && WORKER.leave(|| false) {
                return core::ptr::null_mut();
            }
        }
        let (call, word) = depot.alarm.call();
        let due = match call {
            Some(Call::Raised) => {
                // From one turn's begin to the next one's begin, but half of it is a pause.
                let turn = purge.turn_ms();
                sleep(word, turn.saturating_sub(turn_took).max(turn / 2).max(rest));
                Due::Aged
            }
            Some(Call::Urgent) => {
                sleep(word, URGENT_PAUSE_MS.max(rest));
                Due::All
            }
            Some(Call::Ended) => return core::ptr::null_mut(),
            Some(Call::Alone) => continue,
            None => {
                turn_took = 0;
                if doze() && WORKER.leave(|| !depot.alarm.is_quiet_at_last()) {
                    return core::ptr::null_mut();
                }
                continue;
            }
        };
        // Something else may have been said meanwhile.
        if depot.alarm.call().1 != word {
            continue;
        }
        let began = depot.os.now_ms();
        rest = purge.turn_of_own(due, has_ended) * REST_US_PER_CHUNK / 1000;
        turn_took = depot.os.now_ms() - began;
    }
}

/// Sleeps while there is nothing to do. `true`: there is nothing still, and the thread may leave.
fn doze() -> bool {
    let alarm = &HEAP.depot().alarm;
    let (said, word) = alarm.call();
    if said.is_none() && stays() && HEAP.has_other_threads(false) {
        wait(alarm.word(), word, None);
        return false;
    }
    sleep(word, QUIET_MS);
    alarm.call().0.is_none()
}

/// Sleeps for `milliseconds`, or until the alarm's word is not `word` any more.
fn sleep(word: u32, milliseconds: u64) {
    let depot = HEAP.depot();
    let end = depot.os.now_ms() + milliseconds;
    loop {
        let now = depot.os.now_ms();
        if now >= end || depot.alarm.call().1 != word {
            return;
        }
        wait(depot.alarm.word(), word, Some(end - now));
    }
}

/// Ends the thread, if there is one, and waits for it. None is started afterwards.
pub(super) fn end() {
    let alarm = &HEAP.depot().alarm;
    if alarm.raise(Call::Ended) && WORKER.is_running() {
        wake(alarm.word());
    }
    WORKER.join();
}

/// Has the child of every fork look after what it has inherited.
pub(super) fn prepare_forks() {
    // ordering: Relaxed; a second registration would do no harm.
    if FORKS_PREPARED.load(Ordering::Relaxed) == 0 && FORKS_PREPARED.swap(1, Ordering::Relaxed) == 0 {
        WORKER.note_home();
        // Where it is not possible, the child cannot use what other threads had, and has no thread to purge.
        let _ = around_forks(AroundFork { before: before_fork, parent: after_fork_in_parent, child: after_fork });
    }
}

/// Lets a purge put down what it has in hand: nobody would in the child.
extern "C" fn before_fork() {
    let hand = &HEAP.depot().hand;
    hand.begin_fork();
    wait_briefly(|| hand.is_empty());
}

extern "C" fn after_fork_in_parent() {
    HEAP.depot().hand.end_fork();
}

/// In the child, in its only thread. Writes a few words only.
extern "C" fn after_fork() {
    WORKER.forget();
    thread::note_fork();
}
