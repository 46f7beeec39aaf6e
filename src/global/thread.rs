//! A thread's place in the heap: which cache it uses, from its first call to after its last.
//!
//! ```text
//! # States      Fresh -> Registered -> Ended. Fresh and Ended threads look at the dummy cache, in which every class
//!               is empty and full, so their calls land here. Where the allocator is disabled, threads stay Fresh.
//! # End         through a pthread key, after the thread-local destructors of Rust and C++; the cache is parked (see
//!               `Heap::park`), so a thread's first call may find a cache with blocks
//! # Not here    where it is kept (see `place`)
//! ```

use super::tls::{self, FRESH_MAX, Place, State};
use super::{HEAP, census, init, second_path, worker};
use crate::local::switch::Presence;
use crate::local::{LocalHeap, LocalIndex, NO_CACHE};
use crate::mode::Mode;
use crate::options::OptionsInCode;
use crate::slab::KindByte;
use crate::sys::EndOfThread;
use crate::sys::platform::{SystemPages, ThreadEnd, without_signals};
use crate::units::ClassIndex;

static THREAD_END: ThreadEnd = ThreadEnd::new();

/// malloc's fast path: a block of this thread's cache, or null.
#[inline(always)]
pub(super) fn pop(class: ClassIndex) -> *mut u8 {
    // SAFETY: as for `push`.
    unsafe { (*tls::tops()).pop(class) }
}

/// free's fast path: keeps a block whose granule is used that way in this thread's cache. `false`: there is no room.
#[inline(always)]
pub(super) fn push(span_kind: KindByte, block: *mut u8) -> bool {
    // SAFETY: the dummy is a static; a cache is type-stable until the heap is released, and is this thread's until
    // `tops` is set back. No reference is kept.
    unsafe { (*tls::tops()).push(span_kind, block) }
}

/// The same, but `false` also where the block is the newest one in the cache: it was freed just now.
#[inline(always)]
pub(super) fn push_unless_newest(span_kind: KindByte, block: *mut u8) -> bool {
    // SAFETY: as for `push`.
    unsafe { (*tls::tops()).push_unless_newest(span_kind, block) }
}

/// Is `block` the newest one of the class in this thread's cache, whatever its fast path looks at?
pub(super) fn is_newest(class: ClassIndex, block: *const u8) -> bool {
    tls::with(|thread| match thread.state() {
        State::Registered(me) => {
            // SAFETY: the state says that this thread has it.
            let local = unsafe { HEAP.local(me) };
            !HEAP.is_closed() && core::ptr::eq(local.newest(class), block)
        }
        State::Fresh { .. } | State::Registering | State::Ended | State::Purger => false,
    })
}

/// malloc at a multiple of `align`, which the class has, when the fast path found nothing.
#[cold]
#[inline(never)]
pub(super) fn allocate_slow(options: &OptionsInCode, class: ClassIndex, align: usize) -> *mut u8 {
    let stashed = allocate_stashed(class);
    if !stashed.is_null() {
        return stashed;
    }
    let local = local_heap(options);
    let block = second_path().allocate_small(local.as_ref(), class, align);
    worker::attend();
    block
}

/// malloc from what the thread has stashed; else null. Out of line: the stack of a thread's first malloc is the deepest.
#[inline(never)]
fn allocate_stashed(class: ClassIndex) -> *mut u8 {
    tls::with(|thread| match thread.state() {
        // SAFETY: the state says that this thread has it.
        State::Registered(me) => second_path().allocate_stashed(&unsafe { HEAP.local(me) }, class),
        _ => core::ptr::null_mut(),
    })
}

/// free when the fast path found no room.
#[cold]
#[inline(never)]
pub(super) fn free_slow(options: &OptionsInCode, class: ClassIndex, block: *mut u8) {
    let local = local_heap_after_frees(options);
    second_path().free_small(local.as_ref(), class, block);
    worker::attend();
}

/// This thread's cache, made now if it is its first call; `None` where it has none (any more).
fn local_heap(options: &OptionsInCode) -> Option<LocalHeap<'static, SystemPages>> {
    tls::with(|thread| match thread.state() {
        State::Registered(me) => {
            init::configure(options);
            // SAFETY: the state says that this thread has it.
            Some(unsafe { HEAP.local(me) })
        }
        State::Registering | State::Ended | State::Purger => None,
        State::Fresh { .. } => register(thread, options),
    })
}

/// The same for a free, which alone does not make a thread one that has a cache.
fn local_heap_after_frees(options: &OptionsInCode) -> Option<LocalHeap<'static, SystemPages>> {
    let waits = tls::with(|thread| match thread.state() {
        State::Fresh { frees } if frees < FRESH_MAX => {
            thread.set_state(State::Fresh { frees: frees + 1 });
            true
        }
        _ => false,
    });
    if waits { None } else { local_heap(options) }
}

#[cold]
fn register(thread: &Place, options: &OptionsInCode) -> Option<LocalHeap<'static, SystemPages>> {
    init::configure(options);
    if second_path().mode() == Mode::System {
        return None;
    }
    // Making the key may allocate in the C library, if that uses this heap.
    thread.set_state(State::Registering);
    amid_forks(|| register_now(thread))
}

fn register_now(thread: &Place) -> Option<LocalHeap<'static, SystemPages>> {
    if !HEAP.depot().settings.serves_c_library() {
        // Else the constructor does: the C library may hold the lock for it just now.
        worker::prepare_forks();
    }
    let local = if THREAD_END.arrange::<Place>() { HEAP.register() } else { None };
    match &local {
        Some(local) => {
            census::begin_thread(local.me);
            thread.set_state(State::Registered(local.me));
            // SAFETY: `forget` comes before the thread's memory goes, as THREAD_END sees to, or the thread is looked for before
            // its view is written (I2 of `switch`); where nobody will be told of ends any more, the switch is shut before.
            unsafe { HEAP.registry().attach(local.me, &thread.tops) };
        }
        None => thread.set_state(State::Fresh { frees: 0 }),
    }
    local
}

/// Does `work`, which changes what the thread has. In the child of a fork that a signal handler makes meanwhile, the thread
/// goes on with something that counts as lost with its thread; so what was done for the fork is done again.
fn amid_forks<R>(work: impl FnOnce() -> R) -> R {
    let (result, has_forked) = census::tell_forks(work);
    if has_forked {
        note_fork();
    }
    result
}

impl EndOfThread for Place {
    fn key() -> &'static ThreadEnd {
        &THREAD_END
    }

    fn end_of_thread() {
        tls::with(|thread| {
            if let State::Registered(me) = thread.state() {
                amid_forks(|| {
                    forget(thread, me);
                    census::end_thread(me);
                    // SAFETY: the state said that this thread has it, and `forget` was the last word of that.
                    HEAP.park(&unsafe { HEAP.local(me) });
                    worker::attend();
                    worker::note_end_of_thread();
                });
            }
        });
    }
}

/// From now on this thread is served without a cache.
fn forget(thread: &Place, me: LocalIndex) {
    HEAP.registry().detach(me, &thread.tops, census::was_told());
    thread.set_state(State::Ended);
}

/// Empties this thread's cache.
pub(super) fn flush() {
    tls::with(|thread| {
        if let State::Registered(me) = thread.state() {
            // SAFETY: the state says that this thread has it.
            HEAP.flush(&unsafe { HEAP.local(me) });
            worker::attend();
        }
    });
}

/// In the child of a fork, where the calling thread is the only one.
pub(super) fn note_fork() {
    let me = tls::with(|thread| match thread.state() {
        State::Registered(me) => Some(me),
        State::Fresh { .. } | State::Registering | State::Ended | State::Purger => None,
    });
    init::note_fork();
    census::begin_process(me);
    HEAP.note_fork(me);
}

/// Says that the calling thread is the allocator's own.
pub(super) fn begin_purger() {
    tls::with(|thread| thread.set_state(State::Purger));
}

/// Is the calling thread the allocator's own?
pub(super) fn is_purger() -> bool {
    tls::with(|thread| matches!(thread.state(), State::Purger))
}

/// Does the calling thread have a cache?
pub(super) fn is_registered() -> bool {
    tls::with(|thread| matches!(thread.state(), State::Registered(_)))
}

/// Turns `mode` on in the place of `from`, for all threads, of which the caller's is there for certain.
pub(super) fn turn_on(mode: Mode, from: Mode) -> bool {
    let own = tls::with(|thread| match thread.state() {
        State::Registered(me) => Some(me.get()),
        State::Fresh { .. } | State::Registering | State::Ended | State::Purger => None,
    });
    // A signal handler must not end the thread, or the process, amid the turn, for which others then wait.
    without_signals(|| {
        second_path().turn_on(
            mode,
            from,
            |number, noted| {
                if own == Some(number) { Presence::There } else { census::presence(noted) }
            },
        )
    })
}

/// Prepares for the ends of threads.
pub(super) fn prepare() {
    THREAD_END.prepare::<Place>();
}

/// Threads that end from now on keep their caches: nobody is called.
pub(super) fn disarm() {
    HEAP.registry().shut_switch(census::was_told());
    THREAD_END.disarm();
}

/// Takes the calling thread's cache out of use without touching it, when the heap is about to go.
pub(super) fn abandon() {
    tls::with(|thread| {
        thread.tops.set(&raw const NO_CACHE);
        thread.set_state(State::Ended);
    });
}
