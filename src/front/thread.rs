//! A thread's place in the heap: which cache it uses, from its first call to after its last.
//!
//! ```text
//! # States      Fresh -> Registered -> Ended. Fresh and Ended threads look at the dummy cache, in which every class
//!               is empty and full, so their calls land here.
//! # Storage     a `const` thread-local without destructor: no lazy initialisation, valid until the thread's memory
//!               is gone. The end comes through a pthread key, after other thread-local destructors.
//! ```

use super::{HEAP, worker};
use crate::options::Options;
use crate::owner::OwnerIndex;
use crate::sys::platform::{EndOfThread, SystemPages, ThreadEnd};
use crate::thread_cache::{Cached, NO_CACHE, Tops};
use crate::units::ClassIndex;
use core::cell::Cell;

#[derive(Clone, Copy)]
enum State {
    /// No call so far, or none that could have a cache.
    Fresh,
    /// Being registered: calls from inside are served without a cache.
    Registering,
    /// Has a cache.
    Registered(OwnerIndex),
    /// Had one.
    Ended,
}

struct Thread {
    tops: Cell<*const Tops>,
    state: Cell<State>,
}

std::thread_local! {
    static THREAD: Thread = const { Thread { tops: Cell::new(&raw const NO_CACHE), state: Cell::new(State::Fresh) } };
}

static THREAD_END: ThreadEnd = ThreadEnd::new();

/// What this thread's fast path looks at.
#[inline(always)]
pub(super) fn tops<R>(use_tops: impl FnOnce(&Tops) -> R) -> R {
    // SAFETY: the dummy is a static; a cache is type-stable, and is this thread's until `tops` is set back.
    THREAD.with(|thread| use_tops(unsafe { &*thread.tops.get() }))
}

/// malloc when the fast path found nothing.
#[cold]
#[inline(never)]
pub(super) fn allocate_slow(options: &Options, class: ClassIndex) -> *mut u8 {
    let block = HEAP.allocate_small(cached(options).as_ref(), class);
    worker::attend();
    block
}

/// free when the fast path found no room.
#[cold]
#[inline(never)]
pub(super) fn free_slow(options: &Options, class: ClassIndex, block: *mut u8) {
    HEAP.free_small(cached(options).as_ref(), class, block);
    worker::attend();
}

/// This thread's cache, made now if it is its first call; `None` where it has none (any more).
fn cached(options: &Options) -> Option<Cached<'static, SystemPages>> {
    THREAD.with(|thread| match thread.state.get() {
        State::Registered(me) => Some(HEAP.cached(me)),
        State::Registering | State::Ended => None,
        State::Fresh => register(thread, options),
    })
}

/// Takes over the options of whoever comes first.
pub(super) fn configure(options: &Options) {
    if HEAP.depot().os.mapped() == 0 {
        HEAP.configure(options);
    }
}

#[cold]
fn register(thread: &Thread, options: &Options) -> Option<Cached<'static, SystemPages>> {
    configure(options);
    // Making the key may allocate in the C library, if that uses this heap.
    thread.state.set(State::Registering);
    worker::prepare_forks();
    let cached = if THREAD_END.arrange::<Thread>() { HEAP.register() } else { None };
    match &cached {
        Some(cached) => {
            thread.tops.set(cached.cache.tops());
            thread.state.set(State::Registered(cached.me));
        }
        None => thread.state.set(State::Fresh),
    }
    cached
}

impl EndOfThread for Thread {
    fn end_of_thread() {
        THREAD.with(|thread| {
            if let State::Registered(me) = thread.state.get() {
                forget(thread);
                HEAP.unregister(&HEAP.cached(me));
                worker::attend();
            }
        });
    }
}

/// From now on this thread is served without a cache.
fn forget(thread: &Thread) {
    thread.tops.set(&raw const NO_CACHE);
    thread.state.set(State::Ended);
}

/// Empties this thread's cache.
pub(super) fn flush() {
    THREAD.with(|thread| {
        if let State::Registered(me) = thread.state.get() {
            HEAP.flush(&HEAP.cached(me));
            worker::attend();
        }
    });
}

/// In the child of a fork, where the calling thread is the only one.
pub(super) fn note_fork() {
    let me = THREAD.with(|thread| match thread.state.get() {
        State::Registered(me) => Some(me),
        State::Fresh | State::Registering | State::Ended => None,
    });
    HEAP.note_fork(me);
}

/// Does the calling thread have a cache?
pub(super) fn is_registered() -> bool {
    THREAD.with(|thread| matches!(thread.state.get(), State::Registered(_)))
}

/// Threads that end from now on keep their caches: nobody is called.
pub(super) fn disarm() {
    THREAD_END.disarm();
}

/// Takes the calling thread's cache out of use without touching it, when the heap is about to go.
pub(super) fn abandon() {
    THREAD.with(forget);
}
