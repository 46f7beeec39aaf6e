//! Which allocator this is, and whether it was built to be fast.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::time::Instant;

use serde_json::{Value, json};

/// The allocator's own version, if it tells, and the nanoseconds of a pair.
pub fn about() -> Value {
    json!({ "version": version(), "pair": pair() })
}

/// Nanoseconds for malloc and free of 64 bytes: the least of several tries, so that no other process is in it.
fn pair() -> f64 {
    const TRIES: usize = 10;
    const PAIRS: u32 = 100_000;
    let layout = Layout::from_size_align(black_box(64), 8).expect("a small size");
    let one = || {
        let start = Instant::now();
        for _ in 0..PAIRS {
            // SAFETY: 64 bytes, not 0.
            let block = black_box(unsafe { alloc(layout) });
            assert!(!block.is_null(), "no memory for 64 bytes");
            // SAFETY: just allocated with this layout.
            unsafe { dealloc(block, layout) };
        }
        start.elapsed().as_nanos() as f64 / f64::from(PAIRS)
    };
    (0..TRIES).map(|_| one()).fold(f64::INFINITY, f64::min)
}

#[cfg(any(feature = "mimalloc-v2", feature = "mimalloc-v3"))]
fn version() -> Option<String> {
    unsafe extern "C" {
        safe fn mi_version() -> std::ffi::c_int;
    }
    let version = mi_version();
    // Three digits up to 2.x.9, then five: 20401 is 2.4.1.
    let parts = if version < 10_000 {
        (version / 100, version / 10 % 10, version % 10)
    } else {
        (version / 10_000, version / 100 % 100, version % 100)
    };
    Some(format!("{}.{}.{}", parts.0, parts.1, parts.2))
}

#[cfg(not(any(
    feature = "jemalloc",
    feature = "magalloc",
    feature = "mimalloc-v2",
    feature = "mimalloc-v3",
    feature = "rpmalloc",
    feature = "snmalloc",
    feature = "tcmalloc"
)))]
fn version() -> Option<String> {
    // SAFETY: the C library's own version, a constant string.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    Some(format!("glibc {}", version.to_string_lossy()))
}

#[cfg(any(
    feature = "jemalloc",
    feature = "magalloc",
    feature = "rpmalloc",
    feature = "snmalloc",
    feature = "tcmalloc"
))]
fn version() -> Option<String> {
    None
}
