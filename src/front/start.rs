//! The beginning: which options hold.
//!
//! ```text
//! # States      Unset -> Builder -> Final. The first call of the process brings its `Magalloc`'s options; the
//!               environment is read on top of them, at once or, where the C library has not begun yet, at the first
//!               later occasion.
//! # Progress    one thread reads; others go on meanwhile with what holds so far
//! ```

use super::{HEAP, disabled, record};
use crate::environment;
use crate::options::Options;
use crate::sync::{AtomicU8, Ordering};
use crate::sys::platform::has_environment;

const UNSET: u8 = 0;
const BUILDER: u8 = 1;
const FINAL: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNSET);

/// Takes over the options of whoever comes first, and the environment's.
#[inline]
pub(super) fn configure(options: &Options) {
    // ordering: Relaxed; settings are independent values, and one that is seen late does no harm.
    if STATE.load(Ordering::Relaxed) != FINAL {
        configure_now(options);
    }
}

#[cold]
#[inline(never)]
fn configure_now(options: &Options) {
    if options.environment && !has_environment() {
        // ordering: Relaxed, as above.
        if STATE.compare_exchange(UNSET, BUILDER, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            HEAP.configure(options);
        }
        return;
    }
    // ordering: Relaxed, as above.
    if STATE.swap(FINAL, Ordering::Relaxed) == FINAL {
        return;
    }
    let mut options = *options;
    environment::read(&mut options);
    HEAP.configure(&options);
    if options.disable {
        disabled::disable();
    }
    if options.stats_on_sigterm && options.stats_file.is_some() {
        record::write_on_sigterm();
    }
}
