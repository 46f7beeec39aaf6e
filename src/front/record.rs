//! The record of the statistics that a process appends to a file at its end (`Options::stats_file`).
//!
//! ```text
//! # Form        lines of a name and a value, the first `magalloc-stats` and the version of the form, the last `end`;
//!               bytes and counts are decimal. `class` is followed by bytes of a block, slabs, and blocks that are not
//!               free in them. Readers skip names that they do not know.
//! # Many        processes may share a file: a record is appended with one write
//! ```

use super::HEAP;
use crate::heap::Stats;
use crate::sys::platform::{append, decimal, parent_id, process_id, program_path};
use core::ffi::CStr;

/// Longest record, in bytes: 73 classes of some 40, 25 figures of some 30, and the program's path.
const RECORD_BYTES_MAX: usize = 8192;
/// Bytes of the program's path that are kept.
const PROGRAM_BYTES_MAX: usize = 1024;

struct Record {
    text: [u8; RECORD_BYTES_MAX],
    len: usize,
}

impl Record {
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

/// Appends the record, if there is a file for it.
pub(super) fn write() {
    let path = HEAP.depot().settings.stats_file();
    let Ok(path) = CStr::from_bytes_until_nul(&path) else { return };
    if path.is_empty() {
        return;
    }
    let mut record = Record { text: [0; RECORD_BYTES_MAX], len: 0 };
    begin(&mut record);
    figures(&mut record, &HEAP.stats());
    for class in HEAP.class_stats().iter().filter(|class| class.slabs != 0) {
        let [bytes, slabs, blocks] =
            [class.block_bytes.into(), class.slabs, class.blocks].map(|figure| decimal(figure as usize));
        record.put(&[b"class ", &bytes, b" ", &slabs, b" ", &blocks]);
    }
    record.put(&[b"end"]);
    append(path, &record.text[..record.len]);
}

fn begin(record: &mut Record) {
    let mut program = [0; PROGRAM_BYTES_MAX];
    record.put(&[b"magalloc-stats 1"]);
    record.figure(b"pid", process_id().into());
    record.figure(b"parent", parent_id().into());
    record.put(&[b"program ", program_path(&mut program)]);
    record.put(&[b"version ", env!("CARGO_PKG_VERSION").as_bytes()]);
}

fn figures(record: &mut Record, stats: &Stats) {
    let figures: [(&[u8], u64); 18] = [
        (b"mapped", stats.mapped),
        (b"committed", stats.committed),
        (b"live", stats.live),
        (b"cached", stats.cached),
        (b"free", stats.free),
        (b"dirty", stats.dirty),
        (b"unusable", stats.unusable),
        (b"metadata", stats.metadata),
        (b"resident", stats.resident),
        (b"held", stats.held),
        (b"held_peak", stats.held_peak),
        (b"slabs", stats.slabs),
        (b"large_blocks", stats.large_blocks),
        (b"threads", stats.threads),
        (b"refills", stats.refills),
        (b"dissolves", stats.dissolves),
        (b"os_calls", stats.os_calls),
        (b"purges", stats.purges),
    ];
    figures.iter().for_each(|(name, value)| record.figure(name, *value));
}
