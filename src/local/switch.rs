//! The switch of modes: sends every call of every thread to its slow path, or lets it go, while all of them run.
//!
//! ```text
//! # Role        a mode is on where every thread's fast path looks at the dummy, so that each call is slow, and the slow path
//!               asks what is on (see `mode`). Here is how the threads are reached, and when a mode counts as on
//! # Types       `View`: the thread-local word that a fast path looks at. `Reach`: where a thread's view is; lies with its local
//!               heap. `Switch`: which mode is on
//! # Invariants  I1: a mode counts as on (`Switch::mode`) only when every thread that has a local heap looks at the dummy.
//!                   So what only a slow path can take back, such as a block of another allocator, is given to no thread
//!                   before.
//!               I2: a view is written by another thread only during a walk that began before the thread closed its
//!                   reach; so a thread whose memory is about to go waits for walks. A thread that ends without a word (a raw
//!                   system call; a first malloc in the last round of key destructors) closes nothing: each is looked for
//!                   before its view is written. One that vanishes between that look and the write is written after its end.
//! # Ordering    SWITCH: a turn writes the word, fences, then looks for reaches and writes views. A thread opens its reach,
//!               writes its view, fences, then looks at the word. One of the two sees the other; and if the thread does not
//!               see the turn, the turn's write of the view comes after the thread's.
//!               ON: the end of a turn (Release) -> `mode` (Acquire): all views were written.
//!               END: a walk is counted before the turn's fence, a reach is closed before the thread's: one of the two sees
//!               the other (see `purge::walks`).
//! # Fork        a child has one thread. What its parent's other threads had is told apart by the process that a reach names;
//!               a turn of another thread of the parent's is at its end, as the one thread opens its reach anew.
//! # Progress    malloc and free: wait-free. A thread's end waits for a walk over the threads, if there is one just then.
//! # Checked by  loom_tests/switch.rs
//! ```

use crate::purge::walks::Walks;
use crate::sync::planted::bug;
use crate::sync::{AtomicPtr, AtomicU8, AtomicU32, Ordering, const_unless_loom, fence};

/// The number of no mode.
pub const OFF: u8 = 0;

/// Bit of the word while a turn is under way.
const TURNING: u8 = 0x80;

/// What a thread's fast path looks at: its own, or the dummy.
#[derive(Debug)]
#[repr(transparent)]
pub struct View<T>(AtomicPtr<T>);

impl<T> View<T> {
    const_unless_loom! {
        /// Looks at `target`.
        pub fn new(target: *const T) -> Self {
            Self(AtomicPtr::new(target.cast_mut()))
        }
    }

    /// What it looks at.
    #[inline(always)]
    pub fn get(&self) -> *const T {
        // ordering: Relaxed; behind it is the thread's own, or the dummy, which never changes.
        self.0.load(Ordering::Relaxed)
    }

    /// Looks at `target` from now on.
    pub fn set(&self, target: *const T) {
        // ordering: Relaxed, as above; SWITCH orders the writes of several threads.
        self.0.store(target.cast_mut(), Ordering::Relaxed);
    }
}

/// Where a thread's view is. Zeroed memory reaches nobody.
#[derive(Debug)]
pub struct Reach<T> {
    view: AtomicPtr<View<T>>,
    /// The process that the thread is in, as `Walks::process` says it.
    process: AtomicU32,
}

impl<T> Default for Reach<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Reach<T> {
    const_unless_loom! {
        /// Reaches nobody.
        pub fn new() -> Self {
            Self { view: AtomicPtr::new(core::ptr::null_mut()), process: AtomicU32::new(0) }
        }
    }

    /// The calling thread's view can be reached from now on.
    fn open(&self, view: *const View<T>, process: u32) {
        self.close();
        // ordering: Release, after the view of another process was forgotten; pairs with Acquire in `view`.
        self.process.store(process, Ordering::Release);
        // ordering: Release, after the process; SWITCH orders it before the thread's look at the word.
        self.view.store(view.cast_mut(), Ordering::Release);
    }

    /// Nobody is reached from now on: for its thread, or for who takes over what a vanished thread had.
    pub fn close(&self) {
        // ordering: Relaxed; END, by the fence of `detach`. A vanished thread waits for nobody; the next one to open it closes
        // it first, before the process that it writes by Release.
        self.view.store(core::ptr::null_mut(), Ordering::Relaxed);
    }

    /// Can it reach somebody, at some moment?
    pub fn is_open(&self) -> bool {
        // ordering: Relaxed, a hint that spares a question; SWITCH orders what must be seen.
        !self.view.load(Ordering::Relaxed).is_null()
    }

    /// The view of the thread, if it is in `process`.
    fn view(&self, process: u32) -> *const View<T> {
        // ordering: Acquire pairs with Release in `open`: a view that is seen is not older.
        if self.process.load(Ordering::Acquire) != process {
            return core::ptr::null();
        }
        // ordering: Acquire, as above.
        self.view.load(Ordering::Acquire)
    }
}

/// Where a thread is whose reach is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// In this process, at this moment.
    There,
    /// It has ended without a word.
    Gone,
    /// Nobody knows.
    Unknown,
}

/// Which mode is on.
#[derive(Debug)]
pub struct Switch {
    /// The mode's number, `OFF` or more, and whether a turn to it is under way.
    word: AtomicU8,
    /// 1: threads may end without a word from now on, so none may be reached.
    shut: AtomicU8,
    /// Turns that write views.
    walks: Walks,
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}

impl Switch {
    const_unless_loom! {
        /// None is on.
        pub fn new() -> Self {
            Self { word: AtomicU8::new(OFF), shut: AtomicU8::new(0), walks: Walks::new() }
        }
    }

    /// The number of the mode that is on, for all threads (I1), or `OFF`.
    #[inline]
    pub fn mode(&self) -> u8 {
        // ordering: Acquire [ON] pairs with Release in `turn_on`.
        let word = self.word.load(Ordering::Acquire);
        if word & TURNING == 0 || bug("on before all are reached") { word & !TURNING } else { OFF }
    }

    /// Turns `mode` on in the place of `from`, which `mode()` has told: when this returns, each thread's next call is slow.
    /// `reaches` is begun when all reaches that were opened by then can be seen; it asks of each where its thread is. `false`:
    /// another one is on by now or being turned on, it is too late, or somebody cannot be reached.
    #[must_use]
    pub fn turn_on<'r, T: 'r, R>(&self, mode: u8, from: u8, dummy: *const T, reaches: impl FnOnce() -> R) -> bool
    where
        R: Iterator<Item = (&'r Reach<T>, Presence)>,
    {
        let from = if bug("whatever is on") { self.word.load(Ordering::Relaxed) } else { from };
        // ordering: AcqRel, after other turns; SWITCH, by the fence below.
        if from & TURNING != 0
            || self.word.compare_exchange(from, mode | TURNING, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return false;
        }
        let walk = self.walks.take_up();
        if !bug("turn without a fence") {
            // ordering: SeqCst [SWITCH, END] after the word and the walk, before reaches and `shut`.
            fence(Ordering::SeqCst);
        }
        // ordering: Relaxed [END] after the fence, as `shut` writes before its own.
        let mut reached = self.shut.load(Ordering::Relaxed) == 0;
        if reached {
            for (reach, presence) in reaches() {
                // Not before it is known that the thread is there: an older one's view was forgotten then.
                let view = reach.view(self.walks.process());
                match presence {
                    _ if view.is_null() => {}
                    // SAFETY: I2: its thread has not closed the reach, or waits for this walk.
                    Presence::There => unsafe { (*view).set(dummy) },
                    Presence::Gone => {}
                    Presence::Unknown => reached = false,
                }
            }
        }
        self.walks.put_down(walk);
        let after = if reached { mode } else { from };
        // ordering: Release [ON] pairs with `mode`. If it fails, this is a child of a fork amid the turn, which has ended it.
        let _ = self.word.compare_exchange(mode | TURNING, after, Ordering::Release, Ordering::Relaxed);
        reached
    }

    /// Turns `mode` off: each call is as ever from its thread's next one on, which is still slow. `false`: it is not on.
    #[must_use]
    pub fn turn_off(&self, mode: u8) -> bool {
        // ordering: AcqRel, after the turn that it ends.
        self.word.compare_exchange(mode, OFF, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Opens the reach of the calling thread, which has got a local heap, and looks at its `own`, if no mode is on.
    ///
    /// # Safety
    /// The thread calls `detach` with both before the memory of `view` goes, or `shut` was called.
    pub unsafe fn attach<T>(&self, reach: &Reach<T>, view: &View<T>, own: *const T, dummy: *const T) {
        reach.open(view, self.walks.process());
        self.settle(view, own, dummy);
    }

    /// Has the calling thread, whose reach is open, look at its `own` again, unless a mode is on.
    fn settle<T>(&self, view: &View<T>, own: *const T, dummy: *const T) {
        view.set(own);
        // ordering: SeqCst [SWITCH] after the view, before the word.
        fence(Ordering::SeqCst);
        // ordering: Relaxed [SWITCH] after the fence.
        if self.word.load(Ordering::Relaxed) != OFF && !bug("settle without a look") {
            view.set(dummy);
        }
    }

    /// The same for the calling thread's view, if its reach is open.
    pub fn settle_reached<T>(&self, reach: &Reach<T>, own: *const T, dummy: *const T) {
        // SAFETY: the thread's own, which it has not closed.
        if let Some(view) = unsafe { reach.view(self.walks.process()).as_ref() }
            && !core::ptr::eq(view.get(), own)
        {
            self.settle(view, own, dummy);
        }
    }

    /// Closes the reach of the calling thread, which looks at the dummy from now on. `wait` is called while another thread may
    /// be about to write its view, and says whether one may be.
    pub fn detach<T>(&self, reach: &Reach<T>, view: &View<T>, dummy: *const T, wait: impl Fn(&Self) -> bool) {
        // In this order: see `reattach`.
        reach.close();
        view.set(dummy);
        // ordering: SeqCst [END] after the reach, before the walks.
        fence(Ordering::SeqCst);
        while !self.walks.is_empty() && !bug("end without waiting") && wait(self) {}
    }

    /// Is no view being written?
    pub fn is_at_rest(&self) -> bool {
        self.walks.is_empty()
    }

    /// From now on threads end without `detach`, so none is reached any more, and no mode turned on. `wait` as in `detach`.
    pub fn shut(&self, wait: impl Fn(&Self) -> bool) {
        // ordering: Relaxed [END] by the fence.
        self.shut.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while !self.walks.is_empty() && wait(self) {}
    }

    /// In the child of a fork: nobody else can be reached. Before `reattach`, if its thread has a local heap.
    pub fn note_fork(&self) {
        self.walks.reset();
        // ordering: Relaxed, both; the caller is alone.
        let word = self.word.load(Ordering::Relaxed);
        self.word.store(word & !TURNING, Ordering::Relaxed);
    }

    /// In the child of a fork: its thread can be reached there too, if it could in the parent. A signal handler may have
    /// forked amid `attach` or `detach`, which end it in the child: by then the reach is closed, or is closed after this.
    pub fn reattach<T>(&self, reach: &Reach<T>, own: *const T, dummy: *const T) {
        // ordering: Relaxed, the thread's own.
        let view = reach.view.load(Ordering::Relaxed);
        // SAFETY: the thread's own, which it has not closed.
        if let Some(view) = unsafe { view.as_ref() } {
            loop {
                let process = self.walks.process();
                reach.open(view, process);
                self.settle(view, own, dummy);
                // A signal handler may have forked meanwhile.
                if self.walks.process() == process {
                    break;
                }
            }
        }
    }
}
