//! A thread that is stopped at any instruction keeps others from nothing. One thread is stopped thousands of times, by
//! a signal at random moments of its work, of its calls that flush and purge, and of its end; while it stands still,
//! the others allocate, free its blocks, flush, purge, start threads, end them, and fork. All that must come to its
//! end before the stopped thread goes on; and at last nothing is lost.
//!
//! The system's allocator is the global one: so the stopped thread never holds one of the C library's locks, which
//! others need to start threads and to fork, and what this allocator holds at the end is known to the byte.

use light::{Exchange, Light, Random, Worker, class_sizes};
use magalloc::{Magalloc, stats};
use process::{child, on_raw_thread};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

mod light;
mod process;

/// Not the global one. The delay is short: memory is given back all the time.
static GLOBAL: Magalloc = Magalloc::new().purge_delay_ms(20);

fn main() {
    process::main(
        &[("stops", stops)],
        &[("stopped_thread_keeps_others_from_nothing", || child("stops").expect(0, "", ""))],
    );
}

const STOPS: u32 = 3_000;
/// One stop in so many, at least, is at a thread's end.
const STOPS_PER_END: u32 = 8;
/// The victim is stopped at most that long after it went on, in nanoseconds.
const DELAY_NS_MAX: usize = 100_000;
/// Its end is stopped at most that long after it has begun.
const END_NS_MAX: usize = 60_000;
/// Steps of the victim's work before it ends to be stopped: its cache is filled then.
const LIFE_MIN: usize = 200;
/// One stop in so many sees a fork.
const STOPS_PER_FORK: u32 = 40;
/// Seconds after which a stop, or the child of a fork, is taken to hang.
const SECONDS_MAX: libc::c_uint = 120;

static EXCHANGE: Exchange = Exchange::new();

fn stops() {
    handle(libc::SIGUSR1, stand_still);
    handle(libc::SIGALRM, say_who_hangs);
    let workers = [1, 2].map(|number| std::thread::spawn(move || work(number)));
    let mut random = Random::new(0);
    let mut victim = Victim::start(&mut random);
    for number in 1..=STOPS {
        // SAFETY: alarm has no conditions. It takes the place of the one before.
        unsafe { libc::alarm(SECONDS_MAX) };
        // A victim may end before the signal comes.
        while !victim.stop(number, &mut random) {
            victim.join();
            victim = Victim::start(&mut random);
        }
        everything_else(number);
        victim.go_on(number);
    }
    victim.join();
    END.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    EXCHANGE.clear();
    // Also what the threads have left for the next ones.
    magalloc::purge_all();
    magalloc::check();
    let stats = stats();
    let held = (stats.live, stats.cached, stats.slabs, stats.large_blocks, stats.threads);
    assert_eq!(held, (0, 0, 0, 0, 1), "{stats:?}");
    let at_end = STOPS_AT_END.load(Ordering::Relaxed);
    assert!(at_end >= STOPS / STOPS_PER_END, "only {at_end} of {STOPS} stops were at a thread's end");
}

fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zeros is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: both handlers make system calls and use atomics only.
    assert_eq!(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }, 0);
}

/// Number of the last stop that was asked for, that has begun, and that may end.
static ASKED: AtomicU32 = AtomicU32::new(0);
static STOPPED: AtomicU32 = AtomicU32::new(0);
static RELEASED: AtomicU32 = AtomicU32::new(0);
/// Is the victim where it may be stopped: outside the C library, which has locks?
static STOPPABLE: AtomicBool = AtomicBool::new(false);
/// Is the victim to end soon, and to be stopped then?
static AT_END: AtomicBool = AtomicBool::new(false);
/// Does the victim just end?
static ENDING: AtomicBool = AtomicBool::new(false);
/// Has the victim ended, as far as the allocator has to do with it? It is not stopped any more.
static ENDED: AtomicBool = AtomicBool::new(false);
static STOPS_AT_END: AtomicU32 = AtomicU32::new(0);

fn futex(word: &AtomicU32, operation: libc::c_int, value: u32, milliseconds: i64) {
    let timeout = libc::timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
    // SAFETY: the word and the time are valid; nothing else is asked for.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, &raw const timeout) };
}

/// Sets the word and wakes who waits for it.
fn announce(word: &AtomicU32, number: u32) {
    word.store(number, Ordering::Release);
    futex(word, libc::FUTEX_WAKE, u32::MAX >> 1, 0);
}

/// Sleeps until the word is `number`, or gives up when `condition` holds.
fn await_number(word: &AtomicU32, number: u32, condition: impl Fn() -> bool) -> bool {
    loop {
        let now = word.load(Ordering::Acquire);
        if now == number || condition() {
            return now == number;
        }
        futex(word, libc::FUTEX_WAIT, now, 1);
    }
}

/// Handler of the signal, on the victim: stands still until it may go on.
extern "C" fn stand_still(_signal: libc::c_int) {
    if !STOPPABLE.load(Ordering::Relaxed) {
        return;
    }
    let number = ASKED.load(Ordering::Acquire);
    if number == STOPPED.load(Ordering::Relaxed) {
        // A signal that came late, for a stop of the victim before.
        return;
    }
    // SAFETY: the location is this thread's own.
    let errno = unsafe { *libc::__errno_location() };
    STOPS_AT_END.fetch_add(u32::from(ENDING.load(Ordering::Relaxed)), Ordering::Relaxed);
    announce(&STOPPED, number);
    await_number(&RELEASED, number, || false);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// The thread that is stopped, or the one that takes its place after its end.
struct Victim(libc::pthread_t);

impl Victim {
    fn start(random: &mut Random) -> Self {
        static KEY: AtomicU32 = AtomicU32::new(0);
        if KEY.load(Ordering::Relaxed) == 0 {
            // After the allocator made its key, at its first use: so this destructor comes after its own.
            drop(Light::new(64, 8));
            let mut key = 0;
            // SAFETY: all arguments are valid.
            assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(end_of_victim)) }, 0);
            KEY.store(key, Ordering::Relaxed);
            END_KEY.store(key as usize, Ordering::Relaxed);
        }
        for flag in [&STOPPABLE, &AT_END, &ENDING, &ENDED] {
            flag.store(false, Ordering::Relaxed);
        }
        // Most live for a handful of stops; some have hardly begun when they end.
        let life = 1 + random.size_below(4_000);
        let mut thread = 0;
        // SAFETY: all arguments are valid; the number is passed as a pointer that nobody follows.
        let made = unsafe {
            libc::pthread_create(&raw mut thread, std::ptr::null(), victim, std::ptr::without_provenance_mut(life))
        };
        assert_eq!(made, 0);
        Self(thread)
    }

    /// Stops it at some moment: by a signal from here, or at its end by one of its own timer, which is more exact.
    /// `false`: it has ended before.
    fn stop(&self, number: u32, random: &mut Random) -> bool {
        if number.is_multiple_of(STOPS_PER_END) {
            ASKED.store(number, Ordering::Release);
            AT_END.store(true, Ordering::Release);
            return await_number(&STOPPED, number, || ENDED.load(Ordering::Acquire));
        }
        if random.below(2) == 0 {
            std::thread::sleep(Duration::from_nanos(random.below(DELAY_NS_MAX) as u64));
        }
        while !STOPPABLE.load(Ordering::Relaxed) && !ENDED.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        ASKED.store(number, Ordering::Release);
        loop {
            // SAFETY: the thread was not joined yet.
            assert_eq!(unsafe { libc::pthread_kill(self.0, libc::SIGUSR1) }, 0);
            let asked = Instant::now();
            let is_over = || ENDED.load(Ordering::Acquire) || asked.elapsed() > Duration::from_millis(20);
            if await_number(&STOPPED, number, is_over) {
                return true;
            }
            if ENDED.load(Ordering::Acquire) {
                // Was it stopped just before? Then it would not have ended.
                return false;
            }
            // It was between its work and its end, where it is not to be stopped.
        }
    }

    fn go_on(&self, number: u32) {
        announce(&RELEASED, number);
    }

    fn join(&self) {
        // SAFETY: joined once, and then replaced.
        assert_eq!(unsafe { libc::pthread_join(self.0, std::ptr::null_mut()) }, 0);
        // SAFETY: its timer, which nobody else deletes.
        assert_eq!(unsafe { libc::timer_delete(TIMER.load(Ordering::Acquire)) }, 0);
    }
}

/// The victim's timer.
static TIMER: AtomicPtr<libc::c_void> = AtomicPtr::new(std::ptr::null_mut());

/// The key whose destructor says that the allocator has seen the victim's end.
static END_KEY: AtomicUsize = AtomicUsize::new(0);

fn set_end_key(round: usize) {
    let key = END_KEY.load(Ordering::Relaxed) as libc::pthread_key_t;
    // SAFETY: the key exists; the value is a count, which nobody follows.
    assert_eq!(unsafe { libc::pthread_setspecific(key, std::ptr::without_provenance(round)) }, 0);
}

/// Rounds of destructors that the C library makes; the allocator's own end is in one of them.
const ROUNDS: usize = 4;

extern "C" fn end_of_victim(value: *mut libc::c_void) {
    let round = value.addr();
    if round < ROUNDS {
        set_end_key(round + 1);
    } else {
        STOPPABLE.store(false, Ordering::Relaxed);
        ENDED.store(true, Ordering::Release);
    }
}

extern "C" fn victim(life: *mut libc::c_void) -> *mut libc::c_void {
    let life = life.addr();
    let mut worker = Worker::new(life as u64, &EXCHANGE, 200);
    let timer = Timer::new();
    set_end_key(1);
    STOPPABLE.store(true, Ordering::Relaxed);
    for step in 1..=life {
        if step > LIFE_MIN && AT_END.load(Ordering::Acquire) {
            break;
        }
        match step % 500 {
            100 => magalloc::flush_thread(),
            200 => magalloc::purge_all(),
            300 => drop(stats()),
            _ => worker.step(),
        }
    }
    worker.clear();
    // The worker's list is memory of the C library.
    STOPPABLE.store(false, Ordering::Relaxed);
    drop(worker);
    ENDING.store(true, Ordering::Relaxed);
    STOPPABLE.store(true, Ordering::Relaxed);
    if AT_END.load(Ordering::Acquire) {
        // Another moment for each victim.
        static SEED: AtomicU32 = AtomicU32::new(0);
        timer.start(Random::new(SEED.fetch_add(1, Ordering::Relaxed).into()).below(END_NS_MAX));
    }
    std::ptr::null_mut()
}

/// Sends the signal to the thread that made it.
struct Timer(libc::timer_t);

impl Timer {
    fn new() -> Self {
        // SAFETY: all zeros is a valid `sigevent`.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGUSR1;
        // SAFETY: gettid has no conditions.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = std::ptr::null_mut();
        // SAFETY: all arguments are valid.
        assert_eq!(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) }, 0);
        TIMER.store(timer, Ordering::Release);
        Self(timer)
    }

    /// Has it go off once, after so many nanoseconds.
    fn start(&self, nanoseconds: usize) {
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let after = libc::timespec { tv_sec: 0, tv_nsec: 1 + nanoseconds as i64 };
        let time = libc::itimerspec { it_interval: never, it_value: after };
        // SAFETY: the timer exists, and the time is valid.
        unsafe { libc::timer_settime(self.0, 0, &raw const time, std::ptr::null_mut()) };
    }
}

/// What a thread can be at.
const DEEDS: [&str; 7] = ["steps", "flush_thread", "purge_all", "stats", "thread", "fork", "wait"];
/// What each thread is at: the main thread and the workers.
static DOES: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
/// Rounds that each worker has done.
static DONE: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
static END: AtomicBool = AtomicBool::new(false);

/// Does something and notes what.
fn note<R>(who: usize, deed: &str, body: impl FnOnce() -> R) -> R {
    let deed = DEEDS.iter().position(|name| *name == deed).unwrap();
    DOES[who].store(deed, Ordering::Relaxed);
    body()
}

/// Handler of the watchdog.
extern "C" fn say_who_hangs(_signal: libc::c_int) {
    let write = |text: &str| {
        // SAFETY: the text is valid for its length.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    };
    write("hanging; the main thread and the workers are at:");
    for does in &DOES {
        write(" ");
        write(DEEDS[does.load(Ordering::Relaxed)]);
    }
    write("\n");
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(86) };
}

/// A thread that does all there is, round after round.
fn work(who: usize) {
    let mut worker = Worker::new(who as u64 + 1_000_000, &EXCHANGE, 200);
    let mut round = 0;
    while !END.load(Ordering::Relaxed) {
        note(who, "steps", || (0..20).for_each(|_| worker.step()));
        round += 1;
        match round % 64 {
            5 | 25 | 45 => note(who, "flush_thread", magalloc::flush_thread),
            10 | 40 => note(who, "purge_all", magalloc::purge_all),
            15 => drop(note(who, "stats", stats)),
            20 | 50 => note(who, "thread", || on_raw_thread(short_life)),
            _ => {}
        }
        DONE[who].store(round as usize, Ordering::Release);
        std::thread::yield_now();
        // One of them rests while the victim runs: there are not that many processors.
        while who == 2 && STOPPED.load(Ordering::Relaxed) == RELEASED.load(Ordering::Relaxed) {
            if END.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}

/// The life of a thread. It is not one of std's, which takes a lock when it starts a thread: one that is doing so at a
/// fork would leave it locked in the child.
fn short_life() {
    static SEED: AtomicUsize = AtomicUsize::new(2_000_000);
    let mut worker = Worker::new(SEED.fetch_add(1, Ordering::Relaxed) as u64, &EXCHANGE, 100);
    (0..100).for_each(|_| worker.step());
}

/// What goes on while the victim stands still.
fn everything_else(number: u32) {
    let before = [1, 2].map(|who| DONE[who].load(Ordering::Acquire));
    match number % 8 {
        0 => note(0, "purge_all", magalloc::purge_all),
        1 => note(0, "flush_thread", magalloc::flush_thread),
        2 => note(0, "thread", || on_raw_thread(short_life)),
        3 => drop(note(0, "stats", stats)),
        // Among them are the victim's.
        4 => note(0, "steps", || EXCHANGE.clear()),
        _ => note(0, "steps", use_every_class),
    }
    if number.is_multiple_of(STOPS_PER_FORK) {
        note(0, "fork", fork);
    }
    // One round may have been under way; the next one is done as a whole.
    note(0, "wait", || {
        for who in [1, 2] {
            while DONE[who].load(Ordering::Acquire) < before[who - 1] + 2 {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
    });
}

/// A block of each class, and some large ones.
fn use_every_class() {
    let sizes = class_sizes().chain([40_000, 1 << 20, 5 << 20]);
    sizes.for_each(|size| drop(Light::new(size, 8)));
}

/// The child has what the stopped thread had in its hands, and goes on all the same.
fn fork() {
    // SAFETY: the child goes on as a process of one thread; nobody holds a lock of the C library.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: alarm has no conditions.
        unsafe { libc::alarm(SECONDS_MAX) };
        let work = || {
            use_every_class();
            EXCHANGE.clear();
            on_raw_thread(short_life);
            magalloc::purge_all();
            use_every_class();
        };
        std::process::exit(if catch_unwind(work).is_ok() { 0 } else { 101 });
    }
    let mut status = -1;
    // SAFETY: `status` is valid.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "status of the child: {status:#x}");
}
