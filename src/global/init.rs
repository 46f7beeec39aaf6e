//! The beginning: which options hold.
//!
//! ```text
//! # Errors      another `Magalloc` comes too late: one line on standard error names the options that it has for nothing
//! # States      Unset -> Builder -> Reading (first, or again) -> Final. The first call of the process brings its
//!               `Magalloc`'s options; the environment is read on top of them, at once or, where the C library has not
//!               begun yet, at the first later occasion.
//! # Progress    one thread reads; others go on meanwhile with what holds so far. A mode that the options turn on reaches
//!               them (see `local::switch`).
//! # Fork        a child whose parent's other thread was reading reads itself
//! ```

use super::{HEAP, second_path, stats_record, thread};
use crate::environment;
use crate::mode::{Mode, System};
use crate::options::{Options, OptionsInCode, SoftLimit};
use crate::sync::{AtomicPtr, AtomicU8, Ordering};
use crate::sys::platform::{has_environment, line};

const UNSET: u8 = 0;
const BUILDER: u8 = 1;
/// Read from `UNSET`, or from `BUILDER` on.
const READING_FIRST: u8 = 2;
const READING_AGAIN: u8 = 3;
const FINAL: u8 = 4;

static STATE: AtomicU8 = AtomicU8::new(UNSET);

/// The options that came last and have nothing more to do: a name, never looked behind.
static SETTLED: AtomicPtr<OptionsInCode> = AtomicPtr::new(core::ptr::null_mut());

/// Looks at late options so far; `LOOKS_MAX` once it was said that some are ignored.
static LOOKS: AtomicU8 = AtomicU8::new(0);
/// A program has few values of `Magalloc`. Two that are used in turn would have the environment read with each slow path,
/// while the program may be changing it.
const LOOKS_MAX: u8 = 8;

/// Takes over the options of whoever comes first, and the environment's.
#[inline]
pub(super) fn configure(options: &OptionsInCode) {
    // ordering: Acquire pairs with Release where it is stored, after `STATE`.
    if !core::ptr::eq(SETTLED.load(Ordering::Acquire), options) {
        configure_now(options);
    }
}

#[cold]
#[inline(never)]
fn configure_now(options: &OptionsInCode) {
    // ordering: Acquire pairs with Release below: whoever sees that all is said sees what.
    let before = STATE.load(Ordering::Acquire);
    if before == FINAL {
        if core::ptr::eq(options, &super::OWN.options) {
            return;
        }
        // ordering: Release, see `configure`.
        SETTLED.store(core::ptr::from_ref(options).cast_mut(), Ordering::Release);
        return tell_ignored(options);
    }
    if options.environment && !has_environment() {
        // ordering: Relaxed; settings are independent values, and one that is seen late does no harm.
        if STATE.compare_exchange(UNSET, BUILDER, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            HEAP.configure(&options.with_own_path());
        }
        return;
    }
    let reading = match before {
        UNSET => READING_FIRST,
        BUILDER => READING_AGAIN,
        // Whoever is late comes here again with its next slow path.
        _ => return,
    };
    // ordering: Relaxed; Acquire pairs with Release below.
    if STATE.compare_exchange(before, reading, Ordering::Relaxed, Ordering::Acquire).is_err() {
        return;
    }
    let builder = options;
    let mut options = builder.with_own_path();
    environment::read(&mut options);
    if before == BUILDER {
        HEAP.reconfigure(builder.soft_limit, &options);
    } else {
        HEAP.configure(&options);
    }
    turn_on_asked(&options);
    if options.stats_on_sigterm && options.stats_file.is_some() {
        stats_record::write_on_sigterm();
    }
    // ordering: Release pairs with Acquire above: all that the options say.
    STATE.store(FINAL, Ordering::Release);
    // ordering: Release, see `configure`.
    SETTLED.store(core::ptr::from_ref(builder).cast_mut(), Ordering::Release);
}

/// Turns on the mode that the options ask for. Nobody else can, before they are final; in the child of a fork, it may be on.
fn turn_on_asked(options: &Options) {
    let now = second_path().mode();
    let asked = match options {
        Options { disable: true, .. } if now == Mode::System || System::find() => Mode::System,
        Options { check_frees: true, .. } => Mode::Checking,
        Options { counting: true, .. } => Mode::Counting,
        _ => Mode::Off,
    };
    if options.disable && asked != Mode::System {
        line(&[b"magalloc: there is no other allocator in this program; MAGALLOC_DISABLE is ignored"]);
    }
    if asked != now && asked != Mode::Off && !thread::turn_on(asked, now) {
        line(&[b"magalloc: threads began too early for a mode that was asked for; it is not on"]);
    }
}

/// Is it known which options hold? Not before the first call.
pub(super) fn is_final() -> bool {
    // ordering: Acquire pairs with Release in `configure_now`: what is set afterwards stays.
    STATE.load(Ordering::Acquire) == FINAL
}

/// In the child of a fork: nobody else is reading.
pub(super) fn note_fork() {
    // ordering: Relaxed, both; the caller is alone. What was read so far is read again.
    let _ = STATE.compare_exchange(READING_FIRST, UNSET, Ordering::Relaxed, Ordering::Relaxed);
    let _ = STATE.compare_exchange(READING_AGAIN, BUILDER, Ordering::Relaxed, Ordering::Relaxed);
}

/// Options were changed while the program runs: those of a late `Magalloc` are not compared with them.
pub(super) fn tell_no_more() {
    // ordering: Relaxed, a count.
    LOOKS.store(LOOKS_MAX, Ordering::Relaxed);
}

/// Says once which options of a late `Magalloc` are ignored: those that are not what holds, whoever said that.
fn tell_ignored(options: &OptionsInCode) {
    // ordering: Relaxed, both; the line is all that there is to do. Beyond the most by as many as there are threads.
    if LOOKS.load(Ordering::Relaxed) >= LOOKS_MAX || LOOKS.fetch_add(1, Ordering::Relaxed) >= LOOKS_MAX {
        return;
    }
    let mut options = options.with_own_path();
    environment::read_again(&mut options);
    // Files are not read any more: a sandbox may have come. A share is taken for the one that holds.
    let soft_limit = match options.soft_limit {
        SoftLimit::CgroupPercent(_) => HEAP.depot().settings.soft_limit(),
        SoftLimit::None | SoftLimit::Bytes(_) => options.soft_limit_bytes(|| None),
    };
    // The first is the line's beginning; a name that is not wanted is empty.
    let mut parts: [&[u8]; 1 + Options::NAMED_MAX] = [b""; 1 + Options::NAMED_MAX];
    let mut last = 0;
    HEAP.depot().settings.for_each_difference(&options, soft_limit, |name| {
        last += 1;
        parts[last] = name;
    });
    // ordering: Relaxed, likewise.
    if last != 0 && LOOKS.swap(LOOKS_MAX, Ordering::Relaxed) < LOOKS_MAX {
        parts[0] = b"magalloc: the options of the first Magalloc hold; those of another one are ignored:";
        line(&parts);
    }
}
