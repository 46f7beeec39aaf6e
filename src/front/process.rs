//! The end of the process: everything is given back, as late as the platform allows.
//!
//! See `sys::linux::end` for the order of things.

use super::{HEAP, record, thread, worker};
use crate::options::AtExit;
use crate::sys::platform::{ProcessEnd, arrange_release, decimal, flush_stdio, line, other_threads};

struct Process;

/// Run by the C library when the program, or the library that this is linked into, ends. The number sorts it before
/// all others, and they are run backwards.
#[used]
#[unsafe(link_section = ".fini_array.00000")]
static AT_END: extern "C" fn() = at_end;

extern "C" fn at_end() {
    arrange_release::<Process>();
}

impl ProcessEnd for Process {
    fn end_of_process() {
        if HEAP.is_closed() {
            return;
        }
        record::write_at_end();
        if HEAP.depot().os.mapped() == 0 {
            return;
        }
        let settings = &HEAP.depot().settings;
        if !settings.serves_c_library() {
            thread::disarm();
            worker::end();
        }
        let report = settings.report_exit();
        match settings.at_exit() {
            AtExit::None => {
                if report {
                    report_bytes(0, HEAP.depot().os.mapped());
                }
            }
            AtExit::All
                if !settings.serves_c_library()
                    && !other_threads(|| HEAP.has_other_threads(thread::is_registered())) =>
            {
                // Buffers of stdio may lie in our blocks; afterwards, nothing is left to be written from them.
                flush_stdio();
                thread::abandon();
                // SAFETY: no other thread runs; all destructors have, and stdio has nothing left to do.
                let (mapped, unmapped) = unsafe { HEAP.release() };
                if report {
                    report_bytes(unmapped, mapped);
                }
            }
            AtExit::All | AtExit::Unused => {
                HEAP.release_free();
                if report {
                    report_bytes(0, HEAP.depot().os.mapped());
                }
            }
        }
    }
}

fn report_bytes(unmapped: usize, mapped: usize) {
    line(&[b"magalloc: exit: unmapped ", &decimal(unmapped), b" of ", &decimal(mapped), b" mapped bytes"]);
}
