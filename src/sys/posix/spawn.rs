//! A thread of the allocator's own.
//!
//! ```text
//! # Role        starts the thread, on a stack that has room, and waits for its end
//! # Rights      those of the thread that starts it, as of any thread; it lets every signal go to the program's threads
//! # Not here    when it is there (see `purge::worker_state`), what it does (see `global::worker`)
//! ```

use super::cancel::NotCancelled;
use super::errno::KeepErrno;
use crate::sys::ThreadBody;
use super::mapping::READ_WRITE;
use super::signals::without_signals;
use crate::sys::port::NEW;
use crate::sys::processor::call_on;

/// Bytes of the thread's stack beyond what the C library needs at least: address space. An epoch needs some 8 KiB, but if
/// this is the process's last thread, its exit handlers run here; and the program's thread-local data lie here too, so
/// more is tried where that is not enough. Not the default size, which the C library keeps behind a lock of its own.
const STACK_BYTES: [usize; 3] = [1 << 20, 16 << 20, 256 << 20];

/// Bytes of the stack on which `pthread_create` is called: the first call binds symbols of the C library, for which its
/// loader saves all registers: 3 to 11 KiB, and malloc's caller may have less.
const ROOM_BYTES: usize = 64 << 10;
/// Address space that the kernel keeps free on both sides of that stack. Valgrind takes a stack pointer that moves by less
/// than 2,000,000 bytes for a frame of the stack that it was on, and what lies between for dead.
const APART_BYTES: usize = 2 << 20;

/// Starts a thread that runs `B`, with every signal blocked. Returns its handle, never 0.
pub fn spawn<B: ThreadBody>(argument: usize) -> Option<usize> {
    let _errno = KeepErrno::new();
    let mut order = Order { body: body::<B>, argument, made: None };
    // The new thread inherits the mask; and no handler runs while the stack is another.
    without_signals(|| with_room(carry_out, (&raw mut order).cast()));
    order.made
}

extern "C" fn body<B: ThreadBody>(argument: *mut libc::c_void) -> *mut libc::c_void {
    B::run(argument.addr());
    core::ptr::null_mut()
}

/// A thread to start, and its handle.
struct Order {
    body: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void,
    argument: usize,
    made: Option<usize>,
}

/// Starts the thread of an `Order`.
extern "C" fn carry_out(order: *mut libc::c_void) {
    // SAFETY: `spawn`'s, which waits.
    let order = unsafe { &mut *order.cast::<Order>() };
    let argument = core::ptr::without_provenance_mut(order.argument);
    // SAFETY: all zeros is a valid integer or pointer: it depends on the C library which of them names a thread.
    let mut thread: libc::pthread_t = unsafe { core::mem::zeroed() };
    // SAFETY: all zeros is valid memory for `pthread_attr_init` to fill.
    let mut attributes: libc::pthread_attr_t = unsafe { core::mem::zeroed() };
    // SAFETY: `attributes` is valid.
    if unsafe { libc::pthread_attr_init(&raw mut attributes) } != 0 {
        return;
    }
    // SAFETY: sysconf has no conditions.
    let least =
        usize::try_from(unsafe { libc::sysconf(libc::_SC_THREAD_STACK_MIN) }).unwrap_or(libc::PTHREAD_STACK_MIN);
    let mut make = |stack_bytes| {
        // SAFETY: initialised above.
        unsafe { libc::pthread_attr_setstacksize(&raw mut attributes, least + stack_bytes) };
        // SAFETY: all arguments are valid.
        unsafe { libc::pthread_create(&raw mut thread, &raw const attributes, order.body, argument) }
    };
    let made = STACK_BYTES.into_iter().map(&mut make).find(|&made| made != libc::EINVAL).unwrap_or(libc::EINVAL);
    // SAFETY: initialised above, not used any more.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    order.made = (made == 0).then_some(thread as usize);
}

/// Calls `work` on a stack of `ROOM_BYTES`, if there is memory for one; else on this one.
fn with_room(work: extern "C" fn(*mut libc::c_void), argument: *mut libc::c_void) {
    let bytes = ROOM_BYTES + 2 * APART_BYTES;
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
    let space =
        unsafe { libc::mmap(core::ptr::null_mut(), bytes, libc::PROT_NONE, NEW, -1, 0) };
    if space == libc::MAP_FAILED {
        return work(argument);
    }
    // SAFETY: within the mapping.
    let room = unsafe { space.byte_add(APART_BYTES) };
    // SAFETY: a part of our own mapping.
    if unsafe { libc::mprotect(room, ROOM_BYTES, READ_WRITE) } == 0 {
        // SAFETY: the end of that part, as aligned as a stack's must be; nobody else uses it.
        unsafe { call_on(room.byte_add(ROOM_BYTES), work, argument) };
    } else {
        work(argument);
    }
    // SAFETY: our own mapping, not used any more.
    unsafe { libc::munmap(space, bytes) };
}

/// Waits for the end of a thread that `spawn` has started; once for each. Not for the calling thread itself, which may be
/// the last one of the process and run its exit handlers.
pub fn join(handle: usize) {
    let thread = handle as libc::pthread_t;
    // SAFETY: pthread_self has no conditions.
    if thread != unsafe { libc::pthread_self() } {
        let _whole = NotCancelled::new();
        // SAFETY: the caller has the handle to itself.
        unsafe { libc::pthread_join(thread, core::ptr::null_mut()) };
    }
}
