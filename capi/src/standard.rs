//! malloc and its family, as C, POSIX, BSD and glibc define them.
//!
//! "ISO/IEC 9899:2024", 7.24.4; "POSIX.1-2024", malloc and posix_memalign; the manual of glibc, "Unconstrained
//! Allocation". Where these leave a choice, it is glibc's.

use crate::{ALLOCATOR, set_errno};
use core::ffi::{c_int, c_void};

/// Says that there is no memory.
#[cold]
#[inline(never)]
fn no_memory() -> *mut c_void {
    set_errno(libc::ENOMEM);
    core::ptr::null_mut()
}

/// Says that there is no such alignment.
#[cold]
fn no_such_align() -> *mut c_void {
    set_errno(libc::EINVAL);
    core::ptr::null_mut()
}

fn page_bytes() -> usize {
    // SAFETY: no conditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Functions that are `$from`, which is also told the address of the code that called: a call has just put it where the
/// processor does. On other processors it is told 0.
macro_rules! tell_caller {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty = $from:ident by $x86_64:literal $aarch64:literal;
    )*) => {
        $(
            $(#[$attribute])*
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            #[unsafe(naked)]
            $visibility unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                #[cfg(target_arch = "x86_64")]
                core::arch::naked_asm!(concat!("mov ", $x86_64, ", qword ptr [rsp]"), "jmp {from}", from = sym $from);
                #[cfg(target_arch = "aarch64")]
                core::arch::naked_asm!(concat!("mov ", $aarch64, ", x30"), "b {from}", from = sym $from);
            }

            $(#[$attribute])*
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            $visibility unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                #[allow(unused_unsafe, reason = "some of them are safe")]
                // SAFETY: the caller's promise.
                unsafe { $from($($argument,)* 0) }
            }
        )*
    };
}

/// C: a block of `size` bytes; of 0, a block that can be told from others. Null and ENOMEM if there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    let block = ALLOCATOR.allocate_cached(size);
    if block.is_null() {
        // SAFETY: no conditions.
        return unsafe { malloc_slow(size) };
    }
    block.cast()
}

/// C: `count` times `size` bytes of zeros.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else { return no_memory() };
    let block = ALLOCATOR.allocate_cached(bytes);
    if block.is_null() {
        // SAFETY: no conditions.
        return unsafe { calloc_slow(bytes) };
    }
    // SAFETY: a block of at least that size, which nobody else has.
    unsafe { block.write_bytes(0, bytes) };
    block.cast()
}

tell_caller! {
    /// Not part of `malloc`, which needs no stack frame then, and ends with a jump to here: its caller is this one's.
    ///
    /// # Safety
    /// No conditions.
    fn malloc_slow(size: usize) -> *mut c_void = malloc_from by "rsi" "x1";

    /// The same for `calloc`.
    ///
    /// # Safety
    /// No conditions.
    fn calloc_slow(bytes: usize) -> *mut c_void = calloc_from by "rsi" "x1";

    /// C: changes the size of a block, which may move. Of 0 bytes: frees it, and returns null. If there is no memory, the
    /// block is as before.
    ///
    /// # Safety
    /// The block is live, or null.
    #[unsafe(no_mangle)]
    pub fn realloc(block: *mut c_void, size: usize) -> *mut c_void = realloc_from by "rdx" "x2";

    /// C: a block at a multiple of `align` bytes, a power of two; else null and EINVAL.
    ///
    /// # Safety
    /// No conditions.
    #[unsafe(no_mangle)]
    pub fn aligned_alloc(align: usize, size: usize) -> *mut c_void = aligned_alloc_from by "rdx" "x2";

    /// glibc: a block at a multiple of `align` bytes, or of the next power of two.
    ///
    /// # Safety
    /// No conditions.
    #[unsafe(no_mangle)]
    pub fn memalign(align: usize, size: usize) -> *mut c_void = memalign_from by "rdx" "x2";

    /// POSIX: a block at a multiple of `align` bytes, a power of two and a multiple of a pointer's size. Returns 0, EINVAL
    /// or ENOMEM; where it fails `*block` stays. errno is ENOMEM as well then, as glibc has it; otherwise it stays.
    ///
    /// # Safety
    /// `block` can be written.
    #[unsafe(no_mangle)]
    pub fn posix_memalign(block: *mut *mut c_void, align: usize, size: usize) -> c_int = posix_memalign_from by "rcx" "x3";

    /// Unix: a block at a multiple of a page.
    ///
    /// # Safety
    /// No conditions.
    #[unsafe(no_mangle)]
    pub fn valloc(size: usize) -> *mut c_void = valloc_from by "rsi" "x1";

    /// glibc: whole pages.
    ///
    /// # Safety
    /// No conditions.
    #[unsafe(no_mangle)]
    pub fn pvalloc(size: usize) -> *mut c_void = pvalloc_from by "rsi" "x1";
}

/// malloc for the code at `caller`.
extern "C" fn malloc_from(size: usize, caller: usize) -> *mut c_void {
    attended(ALLOCATOR.allocate(size), caller)
}

extern "C" fn calloc_from(bytes: usize, caller: usize) -> *mut c_void {
    attended(ALLOCATOR.allocate_zeroed(bytes), caller)
}

/// # Safety
/// As `realloc`.
unsafe extern "C" fn realloc_from(block: *mut c_void, size: usize, caller: usize) -> *mut c_void {
    if size == 0 && !block.is_null() {
        // SAFETY: the caller's promise.
        unsafe { free(block) };
        return core::ptr::null_mut();
    }
    // SAFETY: the caller's promise. A size of 0 is as 1.
    attended(unsafe { ALLOCATOR.reallocate(block.cast(), size) }, caller)
}

extern "C" fn aligned_alloc_from(align: usize, size: usize, caller: usize) -> *mut c_void {
    if align.is_power_of_two() { aligned(size, align, caller) } else { no_such_align() }
}

extern "C" fn memalign_from(align: usize, size: usize, caller: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => aligned(size, align, caller),
        None => no_such_align(),
    }
}

/// # Safety
/// As `posix_memalign`.
unsafe extern "C" fn posix_memalign_from(block: *mut *mut c_void, align: usize, size: usize, caller: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    let new = aligned(size, align, caller);
    if new.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { *block = new };
    0
}

extern "C" fn valloc_from(size: usize, caller: usize) -> *mut c_void {
    aligned(size, page_bytes(), caller)
}

extern "C" fn pvalloc_from(size: usize, caller: usize) -> *mut c_void {
    let page = page_bytes();
    match size.max(1).checked_next_multiple_of(page) {
        Some(bytes) => aligned(bytes, page, caller),
        None => no_memory(),
    }
}

/// A block at `align`, a power of two, for the code at `caller`.
fn aligned(size: usize, align: usize, caller: usize) -> *mut c_void {
    attended(ALLOCATOR.allocate_aligned(size, align), caller)
}

/// What a function returns to the code at `caller`, after somebody was seen to purge.
#[inline(always)]
fn attended(block: *mut u8, caller: usize) -> *mut c_void {
    ALLOCATOR.attend(caller);
    if block.is_null() { no_memory() } else { block.cast() }
}

/// C: frees a block of any function here. Null is none. errno stays.
///
/// # Safety
/// The block is live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { ALLOCATOR.free(block.cast()) };
}

/// glibc: bytes of a block that may be used; 0 for null.
///
/// # Safety
/// The block is live, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller's promise.
    unsafe { ALLOCATOR.usable_size(block.cast()) }
}

/// The same functions by the names that glibc exports them under as well: who calls one frees by the other. None calls the
/// function of the shorter name, which a program may have of its own.
mod glibc_names {
    use super::{c_int, c_void, memalign_from, posix_memalign_from, pvalloc_from, realloc_from, valloc_from};

    /// See `malloc`.
    #[unsafe(no_mangle)]
    pub extern "C" fn __libc_malloc(size: usize) -> *mut c_void {
        super::malloc(size)
    }

    /// See `calloc`.
    #[unsafe(no_mangle)]
    pub extern "C" fn __libc_calloc(count: usize, size: usize) -> *mut c_void {
        super::calloc(count, size)
    }

    /// See `free`.
    ///
    /// # Safety
    /// As that one.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn __libc_free(block: *mut c_void) {
        // SAFETY: the caller's promise.
        unsafe { super::free(block) };
    }

    tell_caller! {
        /// See `realloc`.
        ///
        /// # Safety
        /// As that one.
        #[unsafe(no_mangle)]
        pub fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void = realloc_from by "rdx" "x2";

        /// See `memalign`.
        ///
        /// # Safety
        /// No conditions.
        #[unsafe(no_mangle)]
        pub fn __libc_memalign(align: usize, size: usize) -> *mut c_void = memalign_from by "rdx" "x2";

        /// See `valloc`.
        ///
        /// # Safety
        /// No conditions.
        #[unsafe(no_mangle)]
        pub fn __libc_valloc(size: usize) -> *mut c_void = valloc_from by "rsi" "x1";

        /// See `pvalloc`.
        ///
        /// # Safety
        /// No conditions.
        #[unsafe(no_mangle)]
        pub fn __libc_pvalloc(size: usize) -> *mut c_void = pvalloc_from by "rsi" "x1";

        /// See `posix_memalign`.
        ///
        /// # Safety
        /// As that one.
        #[unsafe(no_mangle)]
        pub fn __posix_memalign(block: *mut *mut c_void, align: usize, size: usize) -> c_int
            = posix_memalign_from by "rcx" "x3";
    }
}
