//! The switch of modes (`local::switch`): threads that begin, call and end while modes are turned on and off.
//!
//! # Modelled    a thread that gets a local heap, makes calls, and ends, after which its memory is another's; one or two that
//!               turn modes on and off (`ThreadRegistry::turn_on` with one record); a thread that hands over what only the
//!               mode can take back
//! # Asserted    reached: once a turn has returned, and whoever learns of it, each thread's next call is slow; also where the
//!               mode counts as on already. Off: the thread's next call but one is fast. End: nobody writes the memory of a
//!               thread that has ended.
//! # Bounds      1 thread and 1 or 2 that turn, 3 preemptions
#![cfg(loom)]

mod common;

use common::{assert_caught, check, join, spawn};
use magalloc::local::switch::{OFF, Presence, Reach, Switch, View};
use magalloc::sync::{AtomicU8, Ordering};
use std::sync::Arc;

const PREEMPTIONS: Option<usize> = Some(3);
const MISSED: &str = "a call is fast though a mode is on";
const WRITTEN: &str = "the memory of a thread that has ended is written";
const STUCK: &str = "a call is slow though no mode is on";

const REPLACED: &str = "a mode that is for good was replaced";

const MODE: u8 = 1;
static OWN: u8 = 0;
static DUMMY: u8 = 1;
static ANOTHERS: u8 = 2;

struct Process {
    switch: Switch,
    reach: Reach<u8>,
    view: View<u8>,
    /// 1: a thread has learned that the mode is on.
    told: AtomicU8,
}

impl Process {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            switch: Switch::new(),
            reach: Reach::new(),
            view: View::new(&raw const DUMMY),
            told: AtomicU8::new(0),
        })
    }

    fn with_thread() -> Arc<Self> {
        let process = Self::new();
        process.attach();
        process
    }

    fn attach(&self) {
        // SAFETY: the view outlives the threads of the model.
        unsafe { self.switch.attach(&self.reach, &self.view, &raw const OWN, &raw const DUMMY) };
    }

    /// Is the thread's next call slow? Then it does what a slow call does.
    fn call(&self) -> bool {
        let is_slow = core::ptr::eq(self.view.get(), &raw const DUMMY);
        if is_slow && self.switch.mode() == OFF {
            self.switch.settle_reached(&self.reach, &raw const OWN, &raw const DUMMY);
        }
        is_slow
    }

    /// Whoever finds the mode on gives the thread what only a slow call can take.
    fn tell(&self) {
        if self.switch.mode() == MODE {
            self.told.store(1, Ordering::Release);
        }
    }

    /// The thread, which has learned of the mode or not.
    fn call_when_told(&self) {
        let is_told = self.told.load(Ordering::Acquire) != 0;
        let is_slow = self.call();
        assert!(is_slow || !is_told, "{MISSED}");
    }

    fn turn_on(&self) -> bool {
        self.turn(MODE, OFF)
    }

    fn turn(&self, mode: u8, from: u8) -> bool {
        self.switch.turn_on(mode, from, &raw const DUMMY, || core::iter::once((&self.reach, Presence::There)))
    }

    fn end(&self) {
        self.switch.detach(&self.reach, &self.view, &raw const DUMMY, |_| {
            loom::thread::yield_now();
            true
        });
        self.view.set(&raw const ANOTHERS);
    }
}

/// A thread gets its local heap while a mode is turned on.
fn begins() {
    let process = Process::new();
    let turn = spawn(&process, |process| {
        assert!(process.turn_on());
        process.told.store(1, Ordering::Release);
    });
    let thread = spawn(&process, |process| {
        process.attach();
        process.call_when_told();
    });
    join([turn, thread]);
    assert!(process.call(), "{MISSED}");
}

/// A thread makes calls, of which the first is slow for another reason, while a mode is turned on and somebody finds it on.
fn calls() {
    let process = Process::with_thread();
    process.view.set(&raw const DUMMY);
    let turn = spawn(&process, |process| assert!(process.turn_on()));
    let other = spawn(&process, Process::tell);
    let thread = spawn(&process, |process| {
        process.call();
        process.call_when_told();
    });
    join([turn, other, thread]);
    assert!(process.call(), "{MISSED}");
}

/// The same while a mode goes, and comes again.
fn is_turned_twice() {
    let process = Process::with_thread();
    assert!(process.turn_on());
    let turn = spawn(&process, |process| {
        assert!(process.switch.turn_off(MODE));
        assert!(process.turn_on());
        process.told.store(1, Ordering::Release);
    });
    let thread = spawn(&process, |process| {
        process.call();
        process.call_when_told();
    });
    join([turn, thread]);
    assert!(process.call(), "{MISSED}");
    assert!(process.switch.turn_off(MODE));
    process.call();
    assert!(!process.call(), "{STUCK}");
}

/// Two turn it on; at least one does.
fn two_turn() {
    let process = Process::with_thread();
    let turns = [(), ()].map(|()| spawn(&process, Process::turn_on));
    assert_eq!(join(turns).into_iter().filter(|&is_on| is_on).count(), 1);
    assert!(process.call(), "{MISSED}");
    assert_eq!(process.switch.mode(), MODE);
}

/// One mode is for good, and another one is turned on where that was not seen yet.
fn one_stays() {
    const OTHER: u8 = 2;
    let process = Process::with_thread();
    let turns = [MODE, OTHER].map(|mode| {
        spawn(&process, move |process| {
            let from = process.switch.mode();
            from != MODE && process.turn(mode, from)
        })
    });
    let [is_on, other] = join(turns);
    assert!(is_on || other);
    let mode = process.switch.mode();
    assert!(mode == if is_on { MODE } else { OTHER }, "{REPLACED}");
}

/// A thread ends, and its memory goes, while a mode is turned on.
fn ends() {
    let process = Process::with_thread();
    let turn = spawn(&process, |process| {
        let _ = process.turn_on();
    });
    let thread = spawn(&process, Process::end);
    join([turn, thread]);
    assert!(core::ptr::eq(process.view.get(), &raw const ANOTHERS), "{WRITTEN}");
}

/// Threads end without a word from a moment on.
fn is_shut() {
    let process = Process::with_thread();
    let turn = spawn(&process, |process| {
        let _ = process.turn_on();
    });
    let thread = spawn(&process, |process| {
        process.switch.shut(|_| {
            loom::thread::yield_now();
            true
        });
        process.view.set(&raw const ANOTHERS);
    });
    join([turn, thread]);
    assert!(core::ptr::eq(process.view.get(), &raw const ANOTHERS), "{WRITTEN}");
    assert!(!process.turn_on());
}

#[test]
fn a_thread_that_begins_is_reached() {
    check(PREEMPTIONS, begins);
}

#[test]
fn a_thread_that_calls_is_reached() {
    check(PREEMPTIONS, calls);
}

#[test]
fn a_thread_is_reached_again() {
    check(PREEMPTIONS, is_turned_twice);
}

#[test]
fn two_can_turn_at_once() {
    check(PREEMPTIONS, two_turn);
}

#[test]
fn a_mode_that_is_for_good_stays() {
    check(PREEMPTIONS, one_stays);
}

#[test]
fn whatever_is_on_is_caught() {
    assert_caught("whatever is on", REPLACED, PREEMPTIONS, one_stays);
}

#[test]
fn a_thread_that_ends_is_not_reached() {
    check(PREEMPTIONS, ends);
}

#[test]
fn nobody_is_reached_after_the_shutting() {
    check(PREEMPTIONS, is_shut);
}

#[test]
fn settle_without_a_look_is_caught() {
    assert_caught("settle without a look", MISSED, PREEMPTIONS, begins);
    assert_caught("settle without a look", MISSED, PREEMPTIONS, is_turned_twice);
}

#[test]
fn turn_without_a_fence_is_caught() {
    assert_caught("turn without a fence", MISSED, PREEMPTIONS, begins);
}

#[test]
fn on_before_all_are_reached_is_caught() {
    assert_caught("on before all are reached", MISSED, PREEMPTIONS, calls);
}

#[test]
fn end_without_waiting_is_caught() {
    assert_caught("end without waiting", WRITTEN, PREEMPTIONS, ends);
}
