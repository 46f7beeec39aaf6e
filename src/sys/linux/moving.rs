//! Moves pages between ranges by `mremap`, maps ranges anew, and finds out what a refusal left behind.
//!
//! ```text
//! # Refusals    `mremap` and `mmap` to a fixed place unmap what is there before they do their work, so a refusal may leave
//!               a hole, which another thread's `mmap` may fill at once. The error says nothing of that: a filter of system
//!               calls gives any error, and has unmapped nothing. So the range bears a mark meanwhile. After a refusal a
//!               hole is filled, if there is one; else the range is ours if it still bears the mark; else it is lost.
//! # Invariants  I1: after a refusal, a range is touched only if it was found to be ours: mapped into the hole by this
//!                   thread, or bearing the mark.
//! # Not here    whether to try again (see `heap::large`)
//! # Checked by  heap::tests::moving, tests/system_calls.rs
//! ```

use super::pages::{NEW, SystemPages};
use crate::sys::posix::mapping::READ_WRITE;
use crate::sys::posix::errno::{KeepErrno, errno};
use crate::config::GRANULE_BYTES;
use crate::sys::{Pages, Relocated, Renewed};
use core::ptr::NonNull;

/// What a mark differs from its address by: no other range has it by chance.
const MARK: u64 = 0x6d61_6761_6c6c_6f63;

/// What a refused call left of a range that it may have unmapped.
enum Left {
    /// The range as it was.
    Range,
    /// A hole, which is mapped again.
    NewRange,
    /// A range of somebody else's, or nothing that can be had.
    Nothing,
}

/// See `Pages::relocate`.
///
/// # Safety
/// As there.
pub(super) unsafe fn relocate(from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocated {
    let _errno = KeepErrno::new();
    let mut done = 0;
    while done < bytes {
        // SAFETY: `done` is within the ranges.
        let (from_here, to_here) = unsafe { (from.add(done), to.add(done)) };
        // One kernel mapping at a time: the kernel before 6.17 refuses to move more, but unmaps the target first.
        let piece = one_mapping(from_here, bytes - done);
        // SAFETY: the caller's promise, for parts of the ranges.
        match unsafe { move_pages(from_here, to_here, piece) } {
            None => done += piece,
            Some(Left::Range | Left::NewRange) => {
                // What refuses one piece refuses the others.
                // SAFETY: both parts are readable and writable (I1), and do not overlap.
                unsafe { to_here.copy_from_nonoverlapping(from_here, bytes - done) };
                return Relocated::Copied;
            }
            Some(Left::Nothing) => {
                // SAFETY: what was moved so far goes back; both parts are readable and writable.
                unsafe { from.copy_from_nonoverlapping(to, done) };
                return Relocated::Lost { at: done, bytes: piece };
            }
        }
    }
    Relocated::Moved
}

/// See `Pages::renew`.
///
/// # Safety
/// As there.
pub(super) unsafe fn renew(start: NonNull<u8>, bytes: usize) -> Renewed {
    let _errno = KeepErrno::new();
    // SAFETY: the caller has the range to itself.
    unsafe { set_mark(start) };
    // SAFETY: the caller's promise.
    if unsafe { replace(start, bytes) } {
        return Renewed::Yes;
    }
    // SAFETY: the range bore the mark.
    match unsafe { what_is_left(start, bytes) } {
        Left::Range => Renewed::Refused,
        Left::NewRange => Renewed::Yes,
        Left::Nothing => Renewed::Lost,
    }
}

/// Moves the pages of one mapping. `Some`: refused, and what is left of the target.
///
/// # Safety
/// As for `relocate`.
unsafe fn move_pages(from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Option<Left> {
    // DONTUNMAP (Linux 5.7) keeps `from` mapped: without it, another mmap could slip into the hole.
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    let target = to.as_ptr().cast::<libc::c_void>();
    // SAFETY: the target is the caller's, and about to be replaced.
    unsafe { set_mark(to) };
    // SAFETY: the caller's promise: both ranges are committed, its own, and do not overlap.
    if unsafe { libc::mremap(from.as_ptr().cast(), bytes, bytes, flags, target) } == target {
        return None;
    }
    // SAFETY: the target bore the mark.
    Some(unsafe { what_is_left(to, bytes) })
}

/// What a refused call left of a range that bore the mark.
///
/// # Safety
/// The range was the caller's.
unsafe fn what_is_left(start: NonNull<u8>, bytes: usize) -> Left {
    if SystemPages.commit(start, bytes).is_ok() {
        return Left::NewRange;
    }
    if has_mark(start) { Left::Range } else { Left::Nothing }
}

/// Maps zeroed memory in the place of a range.
///
/// # Safety
/// The caller has the range to itself.
unsafe fn replace(start: NonNull<u8>, bytes: usize) -> bool {
    let start = start.as_ptr().cast();
    // SAFETY: MAP_FIXED replaces the caller's own.
    unsafe { libc::mmap(start, bytes, READ_WRITE, NEW | libc::MAP_FIXED, -1, 0) != libc::MAP_FAILED }
}

fn mark_of(start: NonNull<u8>) -> u64 {
    start.addr().get() as u64 ^ MARK
}

/// Marks the beginning of a range.
///
/// # Safety
/// The range is committed, aligned to pages, and the caller has it to itself.
unsafe fn set_mark(start: NonNull<u8>) {
    // SAFETY: the caller's promise.
    unsafe { start.cast::<u64>().write(mark_of(start)) };
}

/// Does the range bear the mark? It may not be mapped, so the kernel reads it: a futex does not sleep on another value.
fn has_mark(start: NonNull<u8>) -> bool {
    let halves = mark_of(start).to_ne_bytes();
    let half = |index: usize| u32::from_ne_bytes(core::array::from_fn(|byte| halves[4 * index + byte]));
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    (0..2).all(|index| {
        let word = start.as_ptr().wrapping_add(4 * index);
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: a futex reads its word as other system calls do: where nothing is mapped, that is an error.
        let woken = unsafe { libc::syscall(libc::SYS_futex, word, operation, half(index), &raw const at_once) };
        woken == 0 || [libc::ETIMEDOUT, libc::EINTR].contains(&errno())
    })
}

/// Bytes from `start` on, at most `most`, that lie in one kernel mapping; by bisection, at least a granule.
fn one_mapping(start: NonNull<u8>, most: usize) -> usize {
    if is_one_mapping(start, most) {
        return most;
    }
    let (mut within, mut beyond) = (GRANULE_BYTES, most);
    while beyond - within > GRANULE_BYTES {
        let middle = (within + (beyond - within) / 2).next_multiple_of(GRANULE_BYTES);
        if is_one_mapping(start, middle) {
            within = middle;
        } else {
            beyond = middle;
        }
    }
    within
}

/// Asks the kernel to lengthen the range in place by more than there can be room for, which it refuses: differently if the
/// range has several mappings.
fn is_one_mapping(start: NonNull<u8>, bytes: usize) -> bool {
    // Beyond the end of the address space, which is less than twice as long as the address is high.
    let too_long = (start.addr().get() >> 1).next_power_of_two().max(bytes + GRANULE_BYTES);
    let start = start.as_ptr().cast::<libc::c_void>();
    // SAFETY: without permission to move, and with no room to grow, nothing changes.
    if unsafe { libc::mremap(start, bytes, too_long, 0) } == libc::MAP_FAILED {
        return errno() != libc::EFAULT;
    }
    // There was room: give back what was not meant to be had.
    // SAFETY: the part behind the range was mapped just now.
    unsafe { libc::mremap(start, too_long, bytes, 0) };
    true
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const BYTES: usize = 8 * GRANULE_BYTES;

    /// A range that bears the mark, between two others.
    fn marked() -> NonNull<u8> {
        let held = SystemPages.hold(3 * BYTES).expect("address space");
        // SAFETY: within the mapping.
        let start = unsafe { held.add(BYTES) };
        unmap(start, BYTES);
        assert_eq!(SystemPages.commit(start, BYTES), Ok(()));
        // SAFETY: our own.
        unsafe { set_mark(start) };
        start
    }

    fn unmap(start: NonNull<u8>, bytes: usize) {
        // SAFETY: our own, not used any more.
        unsafe { SystemPages.release(start, bytes) };
    }

    /// Maps a range as another thread might, in a hole.
    fn map_other(start: NonNull<u8>, access: libc::c_int) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: takes a hole only.
        let mapped = unsafe { libc::mmap(start.as_ptr().cast(), GRANULE_BYTES, access, flags, -1, 0) };
        assert_eq!(mapped.cast(), start.as_ptr());
    }

    fn left(start: NonNull<u8>) -> Left {
        // SAFETY: it was our own.
        unsafe { what_is_left(start, BYTES) }
    }

    fn release(start: NonNull<u8>) {
        // SAFETY: within the mapping.
        unmap(unsafe { start.sub(BYTES) }, 3 * BYTES);
    }

    #[test]
    fn a_range_that_was_left_alone_is_ours() {
        let start = marked();
        assert!(matches!(left(start), Left::Range));
        release(start);
    }

    #[test]
    fn a_hole_is_filled() {
        let start = marked();
        unmap(start, BYTES);
        assert!(matches!(left(start), Left::NewRange));
        // SAFETY: mapped again, and readable.
        assert_eq!(unsafe { start.cast::<u64>().read() }, 0);
        release(start);
    }

    #[test]
    fn a_hole_that_another_thread_has_filled_is_lost() {
        for access in [libc::PROT_NONE, libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE] {
            for at in [0, BYTES / 2] {
                let start = marked();
                unmap(start, BYTES);
                // SAFETY: within the range.
                map_other(unsafe { start.add(at) }, access);
                assert!(matches!(left(start), Left::Nothing));
                release(start);
            }
        }
    }

    #[test]
    fn one_kernel_mapping_ends_where_the_next_begins() {
        let start = marked();
        assert_eq!(one_mapping(start, BYTES), BYTES);
        // SAFETY: within the range.
        let behind = unsafe { start.add(3 * GRANULE_BYTES) };
        // SAFETY: our own.
        unsafe { SystemPages.advise(behind, GRANULE_BYTES, crate::sys::HugeAdvice::Never) };
        assert_eq!(one_mapping(start, BYTES), 3 * GRANULE_BYTES);
        release(start);
        // With room behind, which nobody gets.
        let alone = SystemPages.hold(BYTES).expect("address space");
        assert_eq!(one_mapping(alone, BYTES), BYTES);
        unmap(alone, BYTES);
    }
}
