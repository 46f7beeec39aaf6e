//! What `include/magalloc.h` declares.

use crate::ALLOCATOR;
use allocator::OptionError;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt::{self, Display, Write};

/// `struct magalloc_stats` of the header: the fields in the same order. New ones are added at the end only.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Stats {
    mapped: u64,
    committed: u64,
    live: u64,
    cached: u64,
    free: u64,
    dirty: u64,
    unusable: u64,
    metadata: u64,
    resident: u64,
    held: u64,
    held_peak: u64,
    slabs: u64,
    large_blocks: u64,
    threads: u64,
    refills: u64,
    flushes: u64,
    os_calls: u64,
    purges: u64,
    large: u64,
    free_blocks: u64,
    allocations: u64,
    slow_calls: u64,
    steals: u64,
    purged: u64,
}

/// Fills in the first `size` bytes of the statistics: a program that was compiled with an older header passes less.
/// Returns the bytes written.
///
/// # Safety
/// `stats` can be written for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn magalloc_stats(stats: *mut c_void, size: usize) -> usize {
    let now = allocator::stats();
    let all = Stats {
        mapped: now.mapped,
        committed: now.committed,
        live: now.live,
        cached: now.cached,
        free: now.free,
        dirty: now.dirty,
        unusable: now.unusable,
        metadata: now.metadata,
        resident: now.resident,
        held: now.held,
        held_peak: now.held_peak,
        slabs: now.slabs,
        large_blocks: now.large_blocks,
        threads: now.threads,
        refills: now.refills,
        flushes: now.flushes,
        os_calls: now.os_calls,
        purges: now.purges,
        large: now.large,
        free_blocks: now.free_blocks,
        allocations: now.allocations,
        slow_calls: now.slow_calls,
        steals: now.steals,
        purged: now.purged,
    };
    let bytes = size.min(size_of::<Stats>());
    // SAFETY: the caller's promise; `all` has that many bytes.
    unsafe { core::ptr::copy_nonoverlapping((&raw const all).cast::<u8>(), stats.cast(), bytes) };
    bytes
}

/// Where a C program wants a text: as much of it as fits, and how long it is.
struct Text {
    start: *mut c_char,
    room: usize,
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let fits = part.len().min(self.room.saturating_sub(self.len));
        if fits != 0 {
            // SAFETY: the promise of who made it: there is room for so many bytes from `start` on.
            let to = unsafe { self.start.add(self.len) };
            // SAFETY: within the room.
            unsafe { core::ptr::copy_nonoverlapping(part.as_ptr(), to.cast(), fits) };
        }
        self.len += part.len();
        Ok(())
    }
}

/// Writes `shown` as `snprintf` does: at most `size` bytes, the last of them a zero. Returns its length.
///
/// # Safety
/// `text` can be written for `size` bytes.
unsafe fn print(text: *mut c_char, size: usize, shown: impl Display) -> usize {
    let mut out = Text { start: text, room: size.saturating_sub(1), len: 0 };
    // `Text` never fails.
    let _ = write!(out, "{shown}");
    if size != 0 {
        // SAFETY: the caller's promise.
        let end = unsafe { text.add(out.len.min(out.room)) };
        // SAFETY: as above.
        unsafe { end.write(0) };
    }
    out.len
}

/// Writes the statistics as JSON, as `snprintf` does.
///
/// # Safety
/// `text` can be written for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn magalloc_stats_json(text: *mut c_char, size: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { print(text, size, allocator::stats().json(&allocator::class_stats())) }
}

/// Writes the statistics as metrics, as `snprintf` does.
///
/// # Safety
/// `text` can be written for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn magalloc_stats_metrics(text: *mut c_char, size: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { print(text, size, allocator::stats().metrics(&allocator::class_stats())) }
}

/// Empties the calling thread's cache.
#[unsafe(no_mangle)]
pub extern "C" fn magalloc_flush_thread() {
    allocator::flush_thread();
}

/// Gives all that is free back to the kernel, now.
#[unsafe(no_mangle)]
pub extern "C" fn magalloc_purge_all() {
    allocator::purge_all();
}

/// Turns the checking of every free on or off. 1, or 0 where nothing was changed.
#[unsafe(no_mangle)]
pub extern "C" fn magalloc_set_checking(on: c_int) -> c_int {
    c_int::from(allocator::set_checking(on != 0))
}

/// Changes an option while the program runs. 0, or an error's number.
///
/// # Safety
/// Both are texts that end with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn magalloc_set_option(name: *const c_char, value: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let (name, value) = unsafe { (CStr::from_ptr(name), CStr::from_ptr(value)) };
    let (Ok(name), Ok(value)) = (name.to_str(), value.to_str()) else { return libc::EINVAL };
    match allocator::set_option(name, value) {
        Ok(()) => 0,
        Err(OptionError::UnknownName) => libc::ENOENT,
        Err(OptionError::BadValue) => libc::EINVAL,
        Err(_) => libc::EPERM,
    }
}

/// What holds of such an option. 0, or ENOENT.
///
/// # Safety
/// The name ends with a zero; `value` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn magalloc_get_option(name: *const c_char, value: *mut u64) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    let Some(now) = name.to_str().ok().and_then(allocator::option) else { return libc::ENOENT };
    // SAFETY: the caller's promise.
    unsafe { value.write(now) };
    0
}

/// Is the address in memory of this allocator? 1 or 0.
#[unsafe(no_mangle)]
pub extern "C" fn magalloc_owns(address: *const c_void) -> c_int {
    c_int::from(ALLOCATOR.owns(address.cast()))
}

/// The library's version: "MAJOR.MINOR.PATCH".
#[unsafe(no_mangle)]
pub extern "C" fn magalloc_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
