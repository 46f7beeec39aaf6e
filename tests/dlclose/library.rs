//! A shared library with an allocator of its own, which `tests/dlclose.rs` builds, opens and closes.
//!
//! It starts threads by pthreads and uses nothing of std that has a thread-local destructor: the C library would keep
//! the library in memory for those.

use magalloc::Magalloc;
use std::ffi::c_void;
use std::hint::black_box;

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new().report_exit(true).purge_delay_ms(20);

/// Allocates and frees so many MiB: half of it in large blocks, half in small ones.
#[unsafe(no_mangle)]
extern "C" fn use_memory(mebibytes: usize) -> usize {
    let mut blocks: Vec<Vec<u8>> = (0..mebibytes / 2).map(|_| vec![1; 1 << 20]).collect();
    blocks.extend((0..(mebibytes << 19) / 1000).map(|_| vec![1; 1000]));
    black_box(blocks).iter().map(|block| usize::from(block[0])).sum()
}

/// The same on so many threads at a time, which are joined.
#[unsafe(no_mangle)]
extern "C" fn use_threads(count: usize) -> usize {
    extern "C" fn start(_argument: *mut c_void) -> *mut c_void {
        use_memory(4);
        std::ptr::null_mut()
    }
    let mut threads: Vec<libc::pthread_t> = vec![0; count];
    for thread in &mut threads {
        // SAFETY: all arguments are valid.
        assert_eq!(unsafe { libc::pthread_create(thread, std::ptr::null(), start, std::ptr::null_mut()) }, 0);
    }
    for thread in threads {
        // SAFETY: made just now, and joined once.
        assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
    }
    count
}

/// A block of so many bytes that nobody frees.
#[unsafe(no_mangle)]
extern "C" fn leak(bytes: usize) -> usize {
    vec![7_u8; bytes].leak().as_ptr().expose_provenance()
}

/// Threads that have a cache here.
#[unsafe(no_mangle)]
extern "C" fn threads(_: usize) -> usize {
    magalloc::stats().threads as usize
}
