//! Makes a large block zero that was used before: by memset, or by giving its pages back.
//!
//! ```text
//! # Role        `calloc` of reused memory. Which of the two is cheaper depends on how much of the memory was written by the
//!               last user, and is going to be by the next: to give back what nobody wrote costs nothing, and to clear it
//!               brings it into memory; what was written throughout is cleared at a third of what its page faults cost
//! # Decision    what was given back tells by its time how much there was; after one with many pages, the next chances are
//!               passed by (`purge::pause`)
//! # Checked by  the tests below
//! ```

use crate::config::GRANULE_BYTES;
use crate::depot::Depot;
use crate::depot::span::Span;
use crate::sys::Pages;

/// Bytes from which on it may be worth a call of the kernel and page faults: below, a memset takes less than 100 us.
const BY_PURGE_BYTES_MIN: usize = 4 << 20;

/// Makes a just claimed span zero.
pub(super) fn make_zero<P: Pages>(depot: &Depot<P>, span: &Span<'_>) {
    if give_back_dirty(depot, span) {
        return;
    }
    Depot::<P>::for_each_dirty(span, |from, count| {
        // SAFETY: granules of a span that nobody else knows yet; its chunks are committed.
        unsafe { span.region.address(from).write_bytes(0, count * GRANULE_BYTES) };
    });
}

/// Gives the pages from the first dirty granule of a just claimed span to the last one back, in one call, where that is
/// likely to be cheaper. `false`: it is as it was.
fn give_back_dirty<P: Pages>(depot: &Depot<P>, span: &Span<'_>) -> bool {
    if span.bytes() < BY_PURGE_BYTES_MIN || depot.settings.keeps_huge_pages_whole() {
        return false;
    }
    let (mut first, mut end, mut dirty) = (usize::MAX, 0, 0);
    Depot::<P>::for_each_dirty(span, |from, count| {
        let from = from.get() - span.first.get();
        first = first.min(from);
        end = from + count;
        dirty += count * GRANULE_BYTES;
    });
    let us_per_mib = depot.os.capabilities().purge_us_per_mib;
    if dirty < BY_PURGE_BYTES_MIN || us_per_mib == 0 || depot.zeroing.by_memset() {
        return false;
    }
    let used = span.head(end).tail(first);
    let before = depot.os.thread_us();
    depot.end_huge_pages(&used);
    // SAFETY: a span that nobody else knows yet; its chunks are committed.
    let gone = unsafe { depot.os.purge(used.region.address(used.first), used.bytes()) };
    let took = depot.os.thread_us().saturating_sub(before);
    depot.zeroing.note(gone && took <= (dirty >> 20) as u64 * us_per_mib);
    if gone {
        Depot::<P>::span_cleaned(&used);
    }
    gone
}

#[cfg(test)]
mod tests {
    use crate::heap::Heap;
    use crate::heap::tests::purging::{heap, release};
    use crate::options::Options;
    use crate::sys::fake::FakePages;

    const BYTES: usize = 40 << 20;

    /// A heap in which so many bytes stay warm: the bound is a share of what is in use.
    fn large_heap() -> (Box<Heap<FakePages>>, *mut u8) {
        let heap = heap(Options::new());
        let beside = heap.allocate_large(20 * BYTES, 8, false);
        (heap, beside)
    }

    /// Allocates zeros, writes some, and frees them. Returns how many calls gave pages back.
    fn used_once(heap: &Heap<FakePages>) -> u64 {
        let purges = heap.stats().purges;
        let block = heap.allocate_large(BYTES, 8, true);
        for offset in (0..BYTES).step_by(4096) {
            // SAFETY: within the block.
            assert_eq!(unsafe { block.add(offset).read() }, 0, "at {offset}");
        }
        for offset in (0..BYTES).step_by(1 << 20) {
            // SAFETY: within the block.
            unsafe { block.add(offset).write(1) };
        }
        let calls = heap.stats().purges - purges;
        heap.free_large(block);
        calls
    }

    #[test]
    fn what_was_hardly_touched_is_given_back_and_not_cleared() {
        let (heap, beside) = large_heap();
        assert_eq!(used_once(&heap), 0, "new memory is zero");
        for _ in 0..5 {
            assert_eq!(used_once(&heap), 1);
        }
        heap.free_large(beside);
        heap.check();
        release(&heap);
    }

    #[test]
    fn what_was_all_in_memory_is_cleared_most_times() {
        let (heap, beside) = large_heap();
        used_once(&heap);
        heap.depot().os.pages().set_purge_us(10_000);
        let calls: u64 = (0..100).map(|_| used_once(&heap)).sum();
        assert!((2..=12).contains(&calls), "{calls} of 100");
        heap.depot().os.pages().set_purge_us(0);
        (0..66).for_each(|_| _ = used_once(&heap));
        assert_eq!(used_once(&heap), 1, "it is tried again");
        heap.free_large(beside);
        heap.check();
        release(&heap);
    }

    #[test]
    fn where_pages_are_not_taken_they_are_cleared() {
        let (heap, beside) = large_heap();
        used_once(&heap);
        heap.depot().os.pages().refuse(crate::sys::fake::Refuse::From(1));
        used_once(&heap);
        heap.depot().os.pages().refuse(crate::sys::fake::Refuse::None);
        heap.free_large(beside);
        heap.check();
        release(&heap);
    }
}
