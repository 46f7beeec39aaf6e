//! Tests: what a fork leaves that comes amid a thread's mapping or unmapping.

use super::purging::heap;
use crate::config::GRANULE_BYTES;
use crate::options::Options;
use crate::sys::Pages;

#[test]
fn what_a_vanished_thread_was_mapping_is_not_counted_in_the_child() {
    let heap = heap(Options::new());
    let me = heap.register().expect("memory");
    let before = heap.stats().mapped;
    // Mapped and counted, and not entered anywhere yet.
    let stray = heap.depot().os.map(GRANULE_BYTES).expect("memory");
    assert_eq!(heap.stats().mapped, before + GRANULE_BYTES as u64);
    heap.note_fork(Some(me.me));
    assert_eq!(heap.stats().mapped, before);
    // SAFETY: nobody uses the heap any more.
    let (mapped, unmapped) = unsafe { heap.release() };
    assert_eq!((mapped as u64, unmapped), (before, mapped));
    // SAFETY: this test's own.
    unsafe { heap.depot().os.pages().release(stray, GRANULE_BYTES) };
}
