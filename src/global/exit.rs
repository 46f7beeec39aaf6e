//! The end of the process: everything is given back, as late as the platform allows.
//!
//! The platform knows the order of things (on Linux: `sys::linux::end`).

use super::{HEAP, census, stats_record, thread, worker};
use crate::options::AtExit;
use crate::sync::{AtomicU8, Ordering};
use crate::sys::platform::{Unloading, arrange_release, at_begin_and_end, flush_stdio, line, other_threads};
use crate::sys::{ProcessEnd, decimal};

struct Process;

static UNLOADING: Unloading = Unloading::new();

at_begin_and_end!(begin, end);

fn begin() {
    UNLOADING.begin();
}

fn end() {
    arrange_release::<Process>();
}

/// Threads with caches that were told of: none, the first, another one too.
static TOLD_OF: AtomicU8 = AtomicU8::new(0);

/// There is a thread with a cache, the first or another one. If this is a library that was there at the program's start,
/// what its constructor has registered comes too late at the end of the process, and this in time; for the first thread,
/// unless a constructor made it.
pub(super) fn note_thread(is_first: bool) {
    let now = if is_first { 1 } else { 2 };
    // ordering: Relaxed, both; twice would do no harm.
    if TOLD_OF.load(Ordering::Relaxed) < now && TOLD_OF.fetch_max(now, Ordering::Relaxed) < now {
        UNLOADING.begin();
    }
}

impl ProcessEnd for Process {
    fn end_of_process() {
        // The C library's malloc is never unloaded.
        let is_unloading = UNLOADING.take() && !HEAP.depot().settings.serves_c_library();
        if is_unloading {
            stats_record::unload();
        }
        // Also where it looks like an unloading: see `note_thread`.
        if census::is_guest() || HEAP.is_closed() {
            return;
        }
        stats_record::write_at_end();
        if HEAP.depot().os.mapped() == 0 {
            return;
        }
        let settings = &HEAP.depot().settings;
        if !settings.serves_c_library() {
            thread::disarm();
            worker::end();
        }
        let (unmapped, mapped) = match settings.at_exit() {
            AtExit::All if !settings.serves_c_library() => unmap(is_unloading),
            AtExit::All | AtExit::Unused => {
                HEAP.release_free();
                (0, HEAP.depot().os.mapped())
            }
            AtExit::None => (0, HEAP.depot().os.mapped()),
        };
        if settings.report_exit() {
            report_bytes(unmapped, mapped);
        }
    }
}

/// Unmaps what can be: everything, if no other thread runs, or if the library is being unloaded and nothing in it is live.
/// Returns the bytes unmapped, and those mapped before.
fn unmap(is_unloading: bool) -> (usize, usize) {
    if is_unloading {
        thread::abandon();
    }
    // SAFETY: `dlclose` lets no thread call, or be in, this library again.
    let nothing_is_live = is_unloading && unsafe { HEAP.empty_caches() };
    let (mapped, unmapped) =
        if nothing_is_live || !other_threads(|| is_unloading || HEAP.has_other_threads(thread::is_registered())) {
            // Buffers of stdio may lie in our blocks; afterwards, nothing is left to be written from them.
            if !nothing_is_live {
                flush_stdio();
            }
            thread::abandon();
            if !census::was_told() {
                HEAP.recount_mapped();
            }
            // SAFETY: no other thread runs; all destructors have, and stdio has nothing left to do. Or nobody has a block.
            unsafe { HEAP.release() }
        } else if is_unloading {
            // SAFETY: as above; the caches are empty.
            unsafe { HEAP.release_unused() }
        } else {
            HEAP.release_free();
            (HEAP.depot().os.mapped(), 0)
        };
    (unmapped, mapped)
}

fn report_bytes(unmapped: usize, mapped: usize) {
    line(&[b"magalloc: exit: unmapped ", &decimal(unmapped), b" of ", &decimal(mapped), b" mapped bytes"]);
}
