//! Where the next piece of a chunk lies, and how large the next chunk is: numbers only.
//!
//! ```text
//! # Role        what the arenas of one thread and of many have in common
//! ```

use core::alloc::Layout;

/// Bytes of an arena's first chunk: a small request's scratch, and a size class of its own.
pub(super) const CHUNK_BYTES_FIRST: usize = 1 << 10;
/// Bytes up to which chunks double: 1 MiB, so that what an arena holds and does not use is no more than that.
pub(super) const CHUNK_BYTES_BOUND: usize = 1 << 20;
/// Bytes of a request that is a block of its own, where no chunk has room for it: a quarter of the largest chunk.
pub(super) const LARGE_BYTES_MIN: usize = CHUNK_BYTES_BOUND / 4;
/// Alignment of a chunk, in bytes: what most requests want at most.
pub(super) const CHUNK_ALIGN: usize = 16;

const _: () = assert!(CHUNK_BYTES_FIRST.is_power_of_two() && CHUNK_BYTES_BOUND.is_power_of_two());
const _: () = assert!(LARGE_BYTES_MIN * 2 < CHUNK_BYTES_BOUND, "what is no large block fits in a chunk of the bound");

/// By how much the top of a chunk, the address `top`, sinks for a piece of that layout; `None` if it is more than the `room`
/// bytes below it. The piece begins at the new top.
#[inline(always)]
pub(super) fn step(top: usize, room: usize, layout: Layout) -> Option<usize> {
    let padding = top.wrapping_sub(layout.size()) & (layout.align() - 1);
    // Neither is above isize::MAX, so the sum is a usize.
    let step = layout.size() + padding;
    (step <= room).then_some(step)
}

/// Bytes below the top of a chunk in which a piece of that layout surely has room, whatever the top is.
pub(super) fn room_for(layout: Layout) -> usize {
    layout.size().saturating_add(layout.align() - 1)
}

/// Is a request of that layout, for which no chunk has room, a block of its own?
pub(super) fn is_large(layout: Layout) -> bool {
    room_for(layout) >= LARGE_BYTES_MIN
}

/// Bytes of the chunk behind one of `last` bytes (0: the first one) that has `needed` bytes.
pub(super) fn next_chunk_bytes(last: usize, needed: usize) -> usize {
    let mut bytes = last.saturating_mul(2).clamp(CHUNK_BYTES_FIRST, CHUNK_BYTES_BOUND);
    while bytes < needed {
        bytes *= 2;
    }
    bytes
}
