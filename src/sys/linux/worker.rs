//! A thread of the allocator's own, and the word that it sleeps on.
//!
//! The thread has a small stack, lets every signal go to the program's threads, and is joined before the memory that it
//! looks at goes away. It leaves when it has nothing to do: POSIX ends a process with its last thread, and that must
//! not be this one.

use super::cancel::NotCancelled;
use super::pages::KeepErrno;
use crate::sync::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

/// The thread, if there is one.
///
/// ```text
/// None --start--> Starting --> Running --leave--> Left --start--> Starting ...
///                    |                                    in a forked child: None again
///                    +--> Failed, not tried again         any --join--> Stopped, for ever
/// ```
#[derive(Debug)]
pub struct Worker {
    state: AtomicU8,
    /// The thread, once `Running`: an integer or a pointer, depending on the C library.
    thread: AtomicPtr<libc::c_void>,
    /// The process that it is in: a child may have been made by a bare `clone`, of which nobody tells.
    process: AtomicU32,
    /// The process that this memory is of; 0 while it is not known.
    home: AtomicU32,
}

const NONE: u8 = 0;
const STARTING: u8 = 1;
const RUNNING: u8 = 2;
const FAILED: u8 = 3;
const STOPPED: u8 = 4;
const LEFT: u8 = 5;

/// Bytes of the thread's stack beyond what the C library needs at least: address space. A turn needs some 4 KiB, but if
/// this is the process's last thread, its exit handlers run here; and the program's thread-local data lie here too, so
/// more is tried where that is not enough. Not the default size, which the C library keeps behind a lock of its own.
const STACK_BYTES: [usize; 3] = [1 << 20, 16 << 20, 256 << 20];

impl Worker {
    /// No thread yet.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            state: AtomicU8::new(NONE),
            thread: AtomicPtr::new(core::ptr::null_mut()),
            process: AtomicU32::new(0),
            home: AtomicU32::new(0),
        }
    }

    /// Is the thread there, or on its way?
    #[inline]
    pub fn is_running(&self) -> bool {
        // ordering: SeqCst [LEAVE] after the alarm was raised; pairs with `leave`. Costs a load nothing.
        matches!(self.state.load(Ordering::SeqCst), STARTING | RUNNING)
    }

    /// Notes which process this is.
    pub fn note_home(&self) {
        // ordering: Relaxed; a number.
        self.home.store(process(), Ordering::Relaxed);
    }

    /// Starts the thread, which runs `body`, unless it is there or could not be started before; or if this is another
    /// process in the same memory, as after `vfork`.
    pub fn start(&self, body: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void) {
        // ordering: Relaxed; a number that was noted before there was a second thread.
        let home = self.home.load(Ordering::Relaxed);
        if home != 0 && home != process() {
            return;
        }
        // ordering: Relaxed; a guess.
        let before = self.state.load(Ordering::Relaxed);
        // ordering: Acquire [WORKER] of the last thread's name; pairs with Release below. The thread itself starts by a
        // call that orders everything.
        let is_mine = || self.state.compare_exchange(before, STARTING, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !matches!(before, NONE | LEFT) || !is_mine() {
            return;
        }
        let _errno = KeepErrno::new();
        if before == LEFT {
            self.join_thread();
        }
        let next = match spawn(body) {
            Some(thread) => {
                // ordering: Relaxed; published by the exchange below.
                self.thread.store(core::ptr::without_provenance_mut(thread as usize), Ordering::Relaxed);
                self.process.store(process(), Ordering::Relaxed);
                RUNNING
            }
            None => FAILED,
        };
        // ordering: Release [WORKER] the thread's name; pairs with Acquire in `join`. If the process ends meanwhile,
        // it stays as it is: nobody joins the thread then.
        let _ = self.state.compare_exchange(STARTING, next, Ordering::Release, Ordering::Relaxed);
    }

    /// For the thread itself: `true` if it may return, and will be started again when it is needed; `has_work` is asked
    /// once more in between.
    #[must_use]
    pub fn leave(&self, has_work: impl Fn() -> bool) -> bool {
        // ordering: SeqCst [LEAVE] before the look for work. Whoever raises the alarm looks here afterwards
        // (`is_running`): one of the two sees the other.
        if self.state.compare_exchange(RUNNING, LEFT, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return false;
        }
        // Back again, unless somebody was faster and starts another thread.
        // ordering: Relaxed; nothing but the thread itself is behind it.
        !has_work() || self.state.compare_exchange(LEFT, RUNNING, Ordering::Relaxed, Ordering::Relaxed).is_err()
    }

    /// Waits for the end of the thread, which the caller has told to end. None is started afterwards.
    pub fn join(&self) {
        // ordering: Acquire [WORKER] pairs with Release in `start`.
        if matches!(self.state.swap(STOPPED, Ordering::Acquire), RUNNING | LEFT) {
            self.join_thread();
        }
    }

    /// Waits for the end of the thread that was started last; only once for each.
    fn join_thread(&self) {
        // ordering: Relaxed; the caller's Acquire of the state.
        let thread = self.thread.load(Ordering::Relaxed).addr() as libc::pthread_t;
        // ordering: Relaxed, likewise.
        let is_here = self.process.load(Ordering::Relaxed) == process();
        // The last thread of a process runs its exit handlers.
        // SAFETY: pthread_self and pthread_equal have no conditions but valid names.
        if is_here && unsafe { libc::pthread_equal(thread, libc::pthread_self()) } == 0 {
            let _whole = NotCancelled::new();
            // SAFETY: made by `start`, and the caller's change of the state lets nobody else join it.
            unsafe { libc::pthread_join(thread, core::ptr::null_mut()) };
        }
    }

    /// In the child of a fork, where the thread is not: it can be started again.
    pub fn forget(&self) {
        self.note_home();
        // ordering: Relaxed; the caller is alone.
        self.state.store(NONE, Ordering::Relaxed);
    }
}

fn process() -> u32 {
    // SAFETY: getpid has no conditions.
    unsafe { libc::getpid() as u32 }
}

fn spawn(body: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void) -> Option<libc::pthread_t> {
    // SAFETY: all zeros is a valid signal set.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { core::mem::zeroed() };
    // SAFETY: `all` is valid.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: both sets are valid. The new thread inherits the mask.
    if unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) } != 0 {
        return None;
    }
    let thread = spawn_with_stack(body);
    // SAFETY: the mask that was set before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, core::ptr::null_mut()) };
    thread
}

fn spawn_with_stack(body: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void) -> Option<libc::pthread_t> {
    // SAFETY: all zeros is a valid integer or pointer: it depends on the C library which of them names a thread.
    let mut thread: libc::pthread_t = unsafe { core::mem::zeroed() };
    // SAFETY: all zeros is valid memory for `pthread_attr_init` to fill.
    let mut attributes: libc::pthread_attr_t = unsafe { core::mem::zeroed() };
    // SAFETY: `attributes` is valid.
    if unsafe { libc::pthread_attr_init(&raw mut attributes) } != 0 {
        return None;
    }
    // Not the priority of whoever came by.
    // SAFETY: initialised above.
    unsafe { libc::pthread_attr_setinheritsched(&raw mut attributes, libc::PTHREAD_EXPLICIT_SCHED) };
    // SAFETY: sysconf has no conditions.
    let least =
        usize::try_from(unsafe { libc::sysconf(libc::_SC_THREAD_STACK_MIN) }).unwrap_or(libc::PTHREAD_STACK_MIN);
    let mut make = |stack_bytes| {
        // SAFETY: initialised above.
        unsafe { libc::pthread_attr_setstacksize(&raw mut attributes, least + stack_bytes) };
        // SAFETY: all arguments are valid; the body needs none of its own.
        unsafe { libc::pthread_create(&raw mut thread, &raw const attributes, body, core::ptr::null_mut()) }
    };
    let made = STACK_BYTES.into_iter().map(&mut make).find(|&made| made != libc::EINVAL).unwrap_or(libc::EINVAL);
    // SAFETY: initialised above, not used any more.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    (made == 0).then_some(thread)
}

/// Names the calling thread, for `ps` and debuggers.
pub fn name_thread() {
    // SAFETY: a text that ends with a zero, of at most 15 letters.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"magalloc".as_ptr()) };
}

/// Sleeps while `word` is `value`, at most `milliseconds` if given. May wake without reason.
pub fn wait(word: &AtomicU32, value: u32, milliseconds: Option<u64>) {
    let _errno = KeepErrno::new();
    let timeout = milliseconds.map(|milliseconds| libc::timespec {
        tv_sec: (milliseconds / 1000) as _,
        tv_nsec: (milliseconds % 1000 * 1_000_000) as _,
    });
    let timeout = timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is valid for the call, the timeout too.
    unsafe { libc::syscall(libc::SYS_futex, core::ptr::from_ref(word), operation, value, timeout) };
}

/// Wakes who sleeps on `word`.
pub fn wake(word: &AtomicU32) {
    let _errno = KeepErrno::new();
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is valid for the call.
    unsafe { libc::syscall(libc::SYS_futex, core::ptr::from_ref(word), operation, 1) };
}
