//! The numbers behind arenas.

use super::sizes::{CHUNK_BYTES_BOUND, CHUNK_BYTES_FIRST, LARGE_BYTES_MIN, is_large, next_chunk_bytes, step};
use core::alloc::Layout;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// An address far from both ends.
const FAR: usize = 1 << (usize::BITS - 4);

#[test]
fn piece_lies_below_the_top_aligned_and_in_the_room() {
    for (top, room) in [(4_096, 4_096), (4_000, 100), (4_001, 1), (16, 0), (FAR, 1 << 20)] {
        for size in [0, 1, 7, 8, 99, 100, 4_096] {
            for align in [1, 2, 16, 64, 4_096] {
                let highest = (top.max(size) - size) & !(align - 1);
                match step(top, room, layout(size, align)) {
                    Some(step) => assert_eq!((top - step, step <= room), (highest, true)),
                    None => assert!(size > room || highest < top - room, "{top} {room} {size} {align}"),
                }
            }
        }
    }
    assert_eq!(step(FAR, 1 << 20, layout(isize::MAX as usize, 1)), None);
    assert_eq!(step(FAR, 1 << 20, layout(0, 1 << (usize::BITS - 2))), None);
}

#[test]
fn chunks_double_up_to_the_bound_and_hold_what_is_no_large_block() {
    let mut last = 0;
    let mut sizes = Vec::new();
    while last != CHUNK_BYTES_BOUND {
        last = next_chunk_bytes(last, 1);
        sizes.push(last);
    }
    assert_eq!((sizes[0], sizes[1], sizes.len()), (CHUNK_BYTES_FIRST, 2 * CHUNK_BYTES_FIRST, 11));
    assert_eq!(next_chunk_bytes(5 * CHUNK_BYTES_BOUND, 1), CHUNK_BYTES_BOUND);
    assert!(is_large(layout(LARGE_BYTES_MIN, 1)) && !is_large(layout(LARGE_BYTES_MIN - 1, 1)));
    assert!(is_large(layout(1, LARGE_BYTES_MIN)) && is_large(layout(isize::MAX as usize, 1)));
    assert!(next_chunk_bytes(0, LARGE_BYTES_MIN + 64) >= LARGE_BYTES_MIN + 64);
}
