//! The record of the statistics that a process appends to a file at its end (`Options::stats_file`).
//!
//! ```text
//! # Form        lines of a name and a value, the first `magalloc-stats` and the version of the form, the last `end`;
//!               bytes and counts are decimal. `class` is followed by bytes of a block, slabs, blocks that are not free
//!               in them, and those of these that thread caches have. `disabled 1`: the system's allocator served the
//!               program. Readers skip names, and numbers behind those, that they do not know.
//! # When        at a normal end, and, if the user wants it, before SIGTERM ends the process
//! # Many        processes may share a file: a record is appended with one write
//! ```

use super::{HEAP, census};
use crate::config::GRANULE_BYTES;
use crate::heap::Stats;
use crate::size_class::all;
use crate::sync::{AtomicU32, Ordering};
use crate::sys::platform::{after_all, append, before_termination, line, parent_id, process_id, program_path};
use crate::sys::{Termination, decimal};
use core::ffi::CStr;

/// Longest record, in bytes: 73 classes of some 50, 25 figures of some 30, and the program's path.
const RECORD_BYTES_MAX: usize = 8192;
const _: () = assert!(RECORD_BYTES_MAX <= GRANULE_BYTES);
/// Bytes of the program's path that are kept.
const PROGRAM_BYTES_MAX: usize = 1024;

struct Record<'r> {
    text: &'r mut [u8],
    len: usize,
}

impl Record<'_> {
    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts.iter().chain(&[&b"\n"[..]]) {
            let room = &mut self.text[self.len..];
            let fits = part.len().min(room.len());
            room[..fits].copy_from_slice(&part[..fits]);
            self.len += fits;
        }
    }

    fn figure(&mut self, name: &[u8], value: u64) {
        self.put(&[name, b" ", &decimal(value as usize)]);
    }
}

/// The process that has written its record at its end. A number, as the child of a fork has a copy.
static WRITTEN_BY: AtomicU32 = AtomicU32::new(0);

struct OnSigterm;

/// The record needs system calls and atomics only, so a signal handler may write it.
impl Termination for OnSigterm {
    fn before_termination() {
        // A child of `vfork` has no figures of its own.
        // ordering: Relaxed; the end of the process that was interrupted is this thread's, or else may be missed.
        if !HEAP.is_closed() && !census::is_guest() && WRITTEN_BY.load(Ordering::Relaxed) != process_id() {
            write();
        }
    }
}

/// Has the record written also where SIGTERM ends the process.
pub(super) fn write_on_sigterm() {
    before_termination::<OnSigterm>();
}

/// SIGTERM does not come here any more: this code is about to be unloaded.
pub(super) fn unload() {
    after_all::<OnSigterm>();
}

/// At a normal end of the process: appends the record, if there is a file for it.
pub(super) fn write_at_end() {
    write();
    // ordering: Relaxed, see above.
    WRITTEN_BY.store(process_id(), Ordering::Relaxed);
}

fn write() {
    let depot = HEAP.depot();
    let path = depot.settings.stats_file();
    let Ok(path) = CStr::from_bytes_until_nul(&path) else { return };
    if path.is_empty() {
        return;
    }
    // Before the record's own memory.
    let stats = super::stats();
    // Not on the stack: a thread with the smallest one may be what ends the process.
    let Some(memory) = depot.os.map(GRANULE_BYTES) else { return };
    // SAFETY: mapped just now, so zero, and nobody else's.
    let text = unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), RECORD_BYTES_MAX) };
    append_record(path, &stats, &mut Record { text, len: 0 });
    // SAFETY: our own mapping, not used any more.
    unsafe { depot.os.release(memory, GRANULE_BYTES) };
}

fn append_record(path: &CStr, stats: &Stats, record: &mut Record<'_>) {
    begin(record);
    stats.figures().iter().for_each(|figure| record.figure(figure.name.as_bytes(), figure.value));
    for class in all().map(|class| HEAP.class_stats_of(class)).filter(|class| class.slabs != 0) {
        let [bytes, slabs, blocks, cached] =
            [class.block_bytes.into(), class.slabs, class.blocks, class.cached].map(|figure| decimal(figure as usize));
        record.put(&[b"class ", &bytes, b" ", &slabs, b" ", &blocks, b" ", &cached]);
    }
    record.put(&[b"end"]);
    if !append(path, &record.text[..record.len]) {
        line(&[b"magalloc: the statistics cannot be appended to ", path.to_bytes()]);
    }
}

fn begin(record: &mut Record<'_>) {
    let mut program = [0; PROGRAM_BYTES_MAX];
    record.put(&[b"magalloc-stats 1"]);
    record.figure(b"pid", process_id().into());
    record.figure(b"parent", parent_id().into());
    record.put(&[b"program ", program_path(&mut program)]);
    record.put(&[b"version ", env!("CARGO_PKG_VERSION").as_bytes()]);
}
