//! What the workloads are made of: blocks with contents that are checked, and threads with results that are summed.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Distance at which a large block is written, so that all of it has memory.
const PAGE: usize = 4096;

/// How much of a sparse block is written page by page: what a short message takes of a large buffer.
const SPARSE_START: usize = 16 * 1024;

/// Distance at which the rest of a sparse block is written.
const SPARSE_STEP: usize = 64 * 1024;

/// More than any workload asks for.
const LARGEST: usize = 1 << 30;

/// The width of what is written.
const WORD: usize = size_of::<u64>();

/// A block of the global allocator. Both its ends hold its mark: it is noticed if any of it is handed out twice.
///
/// # Invariants
///
/// - I1 `start` is a block of `layout(size)`, which this value alone knows; `size` is 1 to [`LARGEST`].
/// - I2 The first and the last [`WORD`] bytes are initialised (in a small block they overlap); of a block smaller than
///   that, the first byte.
pub struct Block {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: by I1 the block is this value's own, as a box would be.
unsafe impl Send for Block {}

impl Block {
    /// A block of `size` bytes, at least 1, written at both ends and once in each page.
    #[inline]
    pub fn new(size: usize, mark: u64) -> Self {
        let mut block = Self::uninitialised(size);
        block.write_steps(PAGE, size, PAGE, mark);
        block.write_ends(mark);
        block
    }

    /// As [`new`](Self::new), but most pages are left alone: a buffer that is larger than what it is used for.
    pub fn sparse(size: usize, mark: u64) -> Self {
        let mut block = Self::uninitialised(size);
        block.write_steps(PAGE, SPARSE_START.min(size), PAGE, mark);
        block.write_steps(SPARSE_STEP, size, SPARSE_STEP, mark);
        block.write_ends(mark);
        block
    }

    /// The sum of what stands at both ends.
    #[inline]
    pub fn read(&self) -> u64 {
        if self.size < WORD {
            // SAFETY: I1, and I2: the first byte is initialised.
            return u64::from(unsafe { self.start.read() });
        }
        // SAFETY: I1, and I2: the first word is initialised.
        let first = unsafe { self.start.cast::<u64>().read_unaligned() };
        // SAFETY: I1; the block has a whole word.
        let last = unsafe { self.start.add(self.size - WORD) };
        // SAFETY: I2: the last word is initialised.
        first.wrapping_add(unsafe { last.cast::<u64>().read_unaligned() })
    }

    /// Reads the block and frees it.
    #[inline]
    pub fn finish(self) -> u64 {
        self.read()
    }

    /// A block of which I2 does not hold yet.
    #[inline]
    fn uninitialised(size: usize) -> Self {
        assert!(size.wrapping_sub(1) < LARGEST, "a size of no workload: {size}");
        let layout = layout(size);
        // SAFETY: the size is not 0.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, size }
    }

    /// Establishes I2.
    #[inline]
    fn write_ends(&mut self, mark: u64) {
        if self.size < WORD {
            // SAFETY: I1; the block has at least one byte.
            unsafe { self.start.write(mark as u8) };
            return;
        }
        // SAFETY: there is a whole word.
        unsafe { self.write(0, mark) };
        // SAFETY: this word ends where the block does.
        unsafe { self.write(self.size - WORD, mark) };
    }

    /// Writes a word at `from`, and then every `step` bytes, below `end`.
    #[inline]
    fn write_steps(&mut self, from: usize, end: usize, step: usize, mark: u64) {
        let end = end.min(self.size);
        let mut offset = from;
        while offset + WORD <= end {
            // SAFETY: the word ends at `end` at the latest, and so within the block.
            unsafe { self.write(offset, mark) };
            offset += step;
        }
    }

    /// Writes a word.
    ///
    /// # Safety
    ///
    /// `offset + WORD` is at most the size.
    #[inline]
    unsafe fn write(&mut self, offset: usize, mark: u64) {
        // SAFETY: I1, and the caller's promise.
        let place = unsafe { self.start.add(offset) };
        // SAFETY: the same, for the whole word.
        unsafe { place.cast::<u64>().write_unaligned(mark) };
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: I1.
        unsafe { dealloc(self.start.as_ptr(), layout(self.size)) };
    }
}

/// The layout of a value of that size, at most [`LARGEST`]: as a type would be aligned, at most to a word. Odd sizes
/// are those of text.
#[inline]
fn layout(size: usize) -> Layout {
    let align = 1 << size.trailing_zeros().min(WORD.ilog2());
    debug_assert!(size <= LARGEST);
    // SAFETY: a power of 2; and I1 keeps the size far from the greatest that a layout can have.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

/// Finishes all blocks, in their order.
pub fn finish_all(blocks: impl IntoIterator<Item = Block>) -> u64 {
    blocks.into_iter().map(Block::finish).fold(0, u64::wrapping_add)
}

/// The part of `count` that the thread of that index does: together the threads do all of it, however many they are.
pub fn share(count: usize, threads: usize, index: usize) -> usize {
    count / threads + usize::from(index < count % threads)
}

/// Runs `work` on that many threads, each with its index. The sum of what they return.
pub fn together(threads: usize, work: impl Fn(usize) -> u64 + Sync) -> u64 {
    let work = &work;
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|index| scope.spawn(move || work(index))).collect();
        handles.into_iter().map(|handle| handle.join().expect("no workload panics")).fold(0, u64::wrapping_add)
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::workloads::{Parameters, Workload};

    /// Asserts that two runs agree, with one thread and with several, and returns what they do together.
    pub fn assert_repeatable(workload: &Workload, scale: f64) {
        for threads in [1, 2, 5] {
            let parameters = Parameters { scale, threads, seed: 7 };
            let first = (workload.run)(&parameters);
            let second = (workload.run)(&parameters);
            assert!(first.operations > 0, "{} does nothing with {threads} threads", workload.name);
            assert_eq!(first.operations, second.operations, "{} with {threads} threads", workload.name);
            assert_eq!(first.checksum, second.checksum, "{} with {threads} threads", workload.name);
        }
    }

    /// Asserts that the number of threads does not change the amount of work.
    pub fn assert_same_work(workload: &Workload, scale: f64) {
        let [one, five] = [1, 5].map(|threads| (workload.run)(&Parameters { scale, threads, seed: 7 }).operations);
        assert_eq!(one, five, "operations of {} with one thread and with five", workload.name);
    }

    #[test]
    fn block_of_any_size_holds_its_mark() {
        for size in (1..40).chain([1000, 4096, 4103, 100_000]) {
            // All bytes are the same, so that it does not matter how far the ends of a small block overlap.
            let mark = 0x0707_0707_0707_0707;
            let expected = if size < WORD { 7 } else { 2 * mark };
            assert_eq!(Block::new(size, mark).finish(), expected, "{size}");
            assert_eq!(Block::sparse(size, mark).finish(), expected, "{size}");
        }
    }

    #[test]
    fn shares_add_up() {
        for threads in 1..9 {
            assert_eq!((0..threads).map(|index| share(100, threads, index)).sum::<usize>(), 100);
        }
    }

    #[test]
    fn together_sums_what_threads_return() {
        assert_eq!(together(4, |index| index as u64), 6);
    }
}
