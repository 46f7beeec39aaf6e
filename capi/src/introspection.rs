//! glibc's figures and knobs: `mallinfo2`, `malloc_stats`, `malloc_info`, `malloc_trim`, `mallopt`.

use allocator::{Figure, Unit, class_stats, purge_all, stats};
use core::ffi::{c_int, c_void};

/// glibc's `struct mallinfo2`, and with `int` its `struct mallinfo`; bytes but for the counts.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Mallinfo<T> {
    /// Memory for blocks, but for what large blocks have.
    arena: T,
    /// Free blocks in slabs, and one for all free spans: a count.
    ordblks: T,
    /// Free blocks in thread caches: 0, they are counted by bytes only.
    smblks: T,
    /// Large blocks: a count.
    hblks: T,
    /// Large blocks.
    hblkhd: T,
    /// The most ever held.
    usmblks: T,
    /// Free blocks in thread caches.
    fsmblks: T,
    /// Live blocks, but for large ones: with `hblkhd`, all.
    uordblks: T,
    /// Free blocks.
    fordblks: T,
    /// What `malloc_trim` could give back.
    keepcost: T,
}

fn info<T>(figure: impl Fn(u64) -> T) -> Mallinfo<T> {
    let stats = stats();
    Mallinfo {
        // Saturating: others work while the figures are taken.
        arena: figure(stats.committed.saturating_sub(stats.metadata + stats.large)),
        ordblks: figure(stats.free_blocks),
        smblks: figure(0),
        hblks: figure(stats.large_blocks),
        hblkhd: figure(stats.large),
        usmblks: figure(stats.held_peak),
        fsmblks: figure(stats.cached),
        uordblks: figure(stats.live.saturating_sub(stats.large)),
        fordblks: figure(stats.free + stats.cached),
        keepcost: figure(stats.dirty),
    }
}

/// glibc: figures of this moment.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> Mallinfo<usize> {
    info(|figure| figure as usize)
}

/// glibc: the same as `int`, of which each is at most `INT_MAX`.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> Mallinfo<c_int> {
    info(|figure| c_int::try_from(figure).unwrap_or(c_int::MAX))
}

/// glibc: gives back to the kernel what is free. 1 if anything was.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_pad: usize) -> c_int {
    let before = stats().purges;
    purge_all();
    c_int::from(stats().purges != before)
}

/// Parameters that glibc's `mallopt` knows: from `M_ARENA_MAX` (-8) to `M_TRIM_THRESHOLD` (-1), and `M_MXFAST` (1).
const MALLOPT_KNOWN: [core::ops::RangeInclusive<c_int>; 2] = [-8..=-1, 1..=1];

/// glibc: accepts what glibc knows, and does nothing: what there is to set are the options of this allocator.
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(parameter: c_int, _value: c_int) -> c_int {
    c_int::from(MALLOPT_KNOWN.iter().any(|known| known.contains(&parameter)))
}

unsafe extern "C" {
    /// The C library's, which allocates nothing for numbers.
    fn dprintf(file: c_int, format: *const core::ffi::c_char, ...) -> c_int;
    fn fprintf(file: *mut c_void, format: *const core::ffi::c_char, ...) -> c_int;
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// glibc's `PTHREAD_CANCEL_DISABLE`.
const CANCEL_DISABLE: c_int = 1;

fn print(name: &str, value: u64) {
    let format = c"magalloc: %-14.*s %15llu\n".as_ptr();
    // SAFETY: an int, a text of so many bytes, and an unsigned long long, as the format says.
    unsafe { dprintf(libc::STDERR_FILENO, format, name.len() as c_int, name.as_ptr(), value) };
}

/// glibc: writes figures of this moment to standard error. Like glibc's, no cancellation point, though it writes.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    let mut before = 0;
    // SAFETY: `before` is valid.
    unsafe { pthread_setcancelstate(CANCEL_DISABLE, &raw mut before) };
    stats().figures().iter().for_each(|figure| print(figure.name, figure.value));
    // SAFETY: the state of before; the one that it replaces is not asked for.
    unsafe { pthread_setcancelstate(before, core::ptr::null_mut()) };
}

/// glibc: writes figures of this moment to `file` as XML. `options` is 0; else EINVAL is returned.
///
/// # Safety
/// `file` is an open stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_info(options: c_int, file: *mut c_void) -> c_int {
    if options != 0 {
        return libc::EINVAL;
    }
    let (stats, classes) = (stats(), class_stats());
    let version = concat!("<malloc version=\"magalloc ", env!("CARGO_PKG_VERSION"), "\">\n\0");
    // SAFETY: the caller's promise; a text without conversions, which ends with a zero.
    unsafe { fprintf(file, version.as_ptr().cast()) };
    for class in classes.iter().filter(|class| class.slabs != 0) {
        let format = c"<size bytes=\"%u\" slabs=\"%llu\" blocks=\"%llu\"/>\n";
        // SAFETY: the caller's promise; the arguments are as the format says.
        unsafe { fprintf(file, format.as_ptr(), class.block_bytes, class.slabs, class.blocks) };
    }
    for Figure { name, value, .. } in stats.figures().into_iter().filter(|figure| figure.unit == Unit::Bytes) {
        let format = c"<total type=\"%.*s\" size=\"%llu\"/>\n".as_ptr();
        // SAFETY: as above.
        unsafe { fprintf(file, format, name.len() as c_int, name.as_ptr(), value) };
    }
    // SAFETY: as above.
    unsafe { fprintf(file, c"</malloc>\n".as_ptr()) };
    0
}
