//! The first and the last calls of a thread: whichever comes first is served, and those that come after the
//! allocator has seen the thread's end are, too.

use magalloc::Magalloc;
use process::{child, give, is_child, layout, on_raw_thread, say, take, use_memory};
use std::alloc::GlobalAlloc;
use std::cell::Cell;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

mod process;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new().report_exit(true);

fn main() {
    process::main(
        &[("destructors", destructors), ("keys", keys), ("rounds", rounds), ("first_calls", first_calls)],
        &[
            ("thread_local_destructors_are_served", || {
                // musl's runs none for the main thread.
                let all = if cfg!(target_env = "musl") { "tls\n" } else { "tls\ntls\n" };
                child("destructors").expect_unmapped(0, all);
            }),
            ("pthread_keys_made_before_and_after_are_served", || child("keys").expect_unmapped(0, "key\nkey\n")),
            ("calls_after_a_threads_end_are_served", || child("rounds").expect_unmapped(0, "1\n2\n3\n4\n")),
            ("any_first_call_of_a_thread_is_served", || child("first_calls").expect_unmapped(0, "12345")),
        ],
    );
}

/// Before `main`, and before the allocator's first call.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

extern "C" fn at_start() {
    if is_child(c"keys") {
        make_key(&KEYS[0], key_destructor);
    }
}

/// Holds a block until the destructor, which makes new ones, and leaves one behind.
struct Local(Cell<Option<Box<[u8; 500]>>>);

static LEFT: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

impl Drop for Local {
    fn drop(&mut self) {
        assert_eq!(self.0.take().unwrap()[499], 3);
        use_memory(&GLOBAL);
        let before = LEFT.swap(take(&GLOBAL, 64), Ordering::Relaxed);
        if !before.is_null() {
            give(&GLOBAL, before, 64);
        }
        say("tls\n");
    }
}

thread_local! {
    static LOCAL: Local = Local(Cell::new(Some(Box::new([3; 500]))));
}

fn destructors() {
    LOCAL.with(|_| ());
    std::thread::spawn(|| LOCAL.with(|_| ())).join().unwrap();
}

static KEYS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
const KEY_BYTES: usize = 300;

fn make_key(place: &AtomicU32, destructor: unsafe extern "C" fn(*mut libc::c_void)) {
    let mut key = 0;
    // SAFETY: all arguments are valid.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(destructor)) }, 0);
    place.store(key, Ordering::Relaxed);
}

fn set_key(place: &AtomicU32, value: *mut u8) {
    // SAFETY: the key was made by `make_key`.
    assert_eq!(unsafe { libc::pthread_setspecific(place.load(Ordering::Relaxed), value.cast()) }, 0);
}

unsafe extern "C" fn key_destructor(value: *mut libc::c_void) {
    give(&GLOBAL, value.cast(), KEY_BYTES);
    use_memory(&GLOBAL);
    say("key\n");
}

/// One key was made before the allocator's first call (see `at_start`), one is made after.
fn keys() {
    make_key(&KEYS[1], key_destructor);
    on_raw_thread(|| {
        KEYS.iter().for_each(|key| set_key(key, take(&GLOBAL, KEY_BYTES)));
    });
}

/// Sets its value anew in each of the 4 rounds that glibc makes: the last come after the allocator's own end.
unsafe extern "C" fn round_destructor(value: *mut libc::c_void) {
    thread_local! {
        static ROUND: Cell<usize> = const { Cell::new(0) };
    }
    give(&GLOBAL, value.cast(), KEY_BYTES);
    use_memory(&GLOBAL);
    magalloc::flush_thread();
    // SAFETY: a block of KEY_BYTES, which moves to another class.
    let grown = unsafe { GLOBAL.realloc(take(&GLOBAL, KEY_BYTES), layout(KEY_BYTES), 9_000) };
    // SAFETY: the block has 9,000 bytes.
    assert_eq!(unsafe { grown.add(KEY_BYTES - 1).read() }, 0x5a);
    give(&GLOBAL, grown, 9_000);
    let round = ROUND.get() + 1;
    ROUND.set(round);
    say(["", "1\n", "2\n", "3\n", "4\n"][round]);
    if round < 4 {
        set_key(&KEYS[0], take(&GLOBAL, KEY_BYTES));
    }
}

fn rounds() {
    make_key(&KEYS[0], round_destructor);
    on_raw_thread(|| set_key(&KEYS[0], take(&GLOBAL, KEY_BYTES)));
    assert_eq!(magalloc::stats().threads, 1, "the late calls made no cache that nobody takes back");
    magalloc::check();
}

/// Each on a thread of its own, as the first thing that it asks of the allocator.
fn first_calls() {
    static BLOCK: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
    let new = || BLOCK.store(take(&GLOBAL, 200), Ordering::Relaxed);
    on_raw_thread(|| {
        give(&GLOBAL, take(&GLOBAL, 200), 200);
        say("1");
    });
    new();
    on_raw_thread(|| {
        give(&GLOBAL, BLOCK.load(Ordering::Relaxed), 200);
        say("2");
    });
    new();
    on_raw_thread(|| {
        // SAFETY: a live block of 200 bytes.
        let grown = unsafe { GLOBAL.realloc(BLOCK.load(Ordering::Relaxed), layout(200), 2_000) };
        // SAFETY: it has 2,000 bytes.
        assert_eq!(unsafe { grown.add(199).read() }, 0x5a);
        give(&GLOBAL, grown, 2_000);
        say("3");
    });
    on_raw_thread(|| {
        // SAFETY: the size is not 0.
        let block = unsafe { GLOBAL.alloc_zeroed(layout(200)) };
        // SAFETY: it has 200 bytes.
        assert!((0..200).all(|index| unsafe { block.add(index).read() } == 0));
        give(&GLOBAL, block, 200);
        say("4");
    });
    on_raw_thread(|| {
        magalloc::flush_thread();
        say("5");
    });
    magalloc::check();
}
