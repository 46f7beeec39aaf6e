//! A thread's place in the heap: which cache it uses, from its first call to after its last.
//!
//! ```text
//! # States      Fresh -> Registered -> Ended. Fresh and Ended threads look at the dummy cache, in which every class
//!               is empty and full, so their calls land here. Where the allocator is disabled, threads stay Fresh.
//! # End         through a pthread key, after the thread-local destructors of Rust and C++; the cache rests (see
//!               `Heap::rest`), so a thread's first call may find a cache with blocks
//! # Not here    where it is kept (see `place`)
//! ```

use super::place::{self, FRESH_MAX, Place, State};
use super::{HEAP, census, disabled, start, worker};
use crate::options::Options;
use crate::sys::platform::{EndOfThread, SystemPages, ThreadEnd};
use crate::thread_cache::{Cached, NO_CACHE, Tops};
use crate::units::ClassIndex;

static THREAD_END: ThreadEnd = ThreadEnd::new();

/// What this thread's fast path looks at.
#[inline(always)]
pub(super) fn tops<'c>() -> &'c Tops {
    // SAFETY: the dummy is a static; a cache is type-stable until the heap is released, and is this thread's until
    // `tops` is set back. The reference is not kept beyond the call of malloc or free that asked for it.
    unsafe { &*place::tops() }
}

/// malloc at a multiple of `align`, which the class has, when the fast path found nothing.
#[cold]
#[inline(never)]
pub(super) fn allocate_slow(options: &Options, class: ClassIndex, align: usize) -> *mut u8 {
    let cached = cached(options);
    if let Some(system) = disabled::system() {
        return system.allocate_class(class, align);
    }
    let block = HEAP.allocate_small(cached.as_ref(), class);
    worker::attend();
    block
}

/// free when the fast path found no room.
#[cold]
#[inline(never)]
pub(super) fn free_slow(options: &Options, class: ClassIndex, block: *mut u8) {
    let cached = cached_after_frees(options);
    if let Some(system) = disabled::system()
        && !HEAP.owns(block)
    {
        return system.free(block);
    }
    HEAP.free_small(cached.as_ref(), class, block);
    worker::attend();
}

/// This thread's cache, made now if it is its first call; `None` where it has none (any more).
fn cached(options: &Options) -> Option<Cached<'static, SystemPages>> {
    place::with(|thread| match thread.state() {
        State::Registered(me) => {
            start::configure(options);
            Some(HEAP.cached(me))
        }
        State::Registering | State::Ended | State::Purger => None,
        State::Fresh { .. } => register(thread, options),
    })
}

/// The same for a free, which alone does not make a thread one that has a cache.
fn cached_after_frees(options: &Options) -> Option<Cached<'static, SystemPages>> {
    let waits = place::with(|thread| match thread.state() {
        State::Fresh { frees } if frees < FRESH_MAX => {
            thread.set_state(State::Fresh { frees: frees + 1 });
            true
        }
        _ => false,
    });
    if waits { None } else { cached(options) }
}

#[cold]
fn register(thread: &Place, options: &Options) -> Option<Cached<'static, SystemPages>> {
    start::configure(options);
    if start::is_reading() || disabled::system().is_some() {
        return None;
    }
    // Making the key may allocate in the C library, if that uses this heap.
    thread.set_state(State::Registering);
    if !HEAP.depot().settings.serves_c_library() {
        // Else the constructor does: the C library may hold the lock for it just now.
        worker::prepare_forks();
    }
    let cached = if THREAD_END.arrange::<Place>() { HEAP.register() } else { None };
    match &cached {
        Some(cached) => {
            census::begin_thread(cached.me);
            thread.tops.set(cached.cache.tops());
            thread.set_state(State::Registered(cached.me));
        }
        None => thread.set_state(State::Fresh { frees: 0 }),
    }
    cached
}

impl EndOfThread for Place {
    fn key() -> &'static ThreadEnd {
        &THREAD_END
    }

    fn end_of_thread() {
        place::with(|thread| {
            if let State::Registered(me) = thread.state() {
                forget(thread);
                census::end_thread(me);
                HEAP.rest(&HEAP.cached(me));
                worker::attend();
                worker::note_end_of_thread();
            }
        });
    }
}

/// From now on this thread is served without a cache.
fn forget(thread: &Place) {
    thread.tops.set(&raw const NO_CACHE);
    thread.set_state(State::Ended);
}

/// Empties this thread's cache and takes it out of use, for no other thread: the allocator is being disabled.
pub(super) fn leave() {
    place::with(|thread| {
        if let State::Registered(me) = thread.state() {
            forget(thread);
            census::end_thread(me);
            HEAP.unregister(&HEAP.cached(me));
        }
    });
}

/// Empties this thread's cache.
pub(super) fn flush() {
    place::with(|thread| {
        if let State::Registered(me) = thread.state() {
            HEAP.flush(&HEAP.cached(me));
            worker::attend();
        }
    });
}

/// In the child of a fork, where the calling thread is the only one.
pub(super) fn note_fork() {
    let me = place::with(|thread| match thread.state() {
        State::Registered(me) => Some(me),
        State::Fresh { .. } | State::Registering | State::Ended | State::Purger => None,
    });
    census::begin_process(me);
    HEAP.note_fork(me);
}

/// Says that the calling thread is the allocator's own.
pub(super) fn begin_purger() {
    place::with(|thread| thread.set_state(State::Purger));
}

/// Is the calling thread the allocator's own?
pub(super) fn is_purger() -> bool {
    place::with(|thread| matches!(thread.state(), State::Purger))
}

/// Does the calling thread have a cache?
pub(super) fn is_registered() -> bool {
    place::with(|thread| matches!(thread.state(), State::Registered(_)))
}

/// Prepares for the ends of threads.
pub(super) fn prepare() {
    THREAD_END.prepare::<Place>();
}

/// Threads that end from now on keep their caches: nobody is called.
pub(super) fn disarm() {
    THREAD_END.disarm();
}

/// Takes the calling thread's cache out of use without touching it, when the heap is about to go.
pub(super) fn abandon() {
    place::with(forget);
}
