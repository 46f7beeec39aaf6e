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

#[inline(always)]
fn or_no_memory(block: *mut u8) -> *mut c_void {
    if block.is_null() { no_memory() } else { block.cast() }
}

/// A block at `align`, a power of two.
fn aligned(size: usize, align: usize) -> *mut c_void {
    or_no_memory(ALLOCATOR.allocate_aligned(size, align))
}

/// `realloc`, but for a size of 0, which is as 1.
///
/// # Safety
/// As `realloc`.
unsafe fn resized(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise.
    or_no_memory(unsafe { ALLOCATOR.reallocate(block.cast(), size) })
}

fn page_bytes() -> usize {
    // SAFETY: no conditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// C: a block of `size` bytes; of 0, a block that can be told from others. Null and ENOMEM if there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    let block = ALLOCATOR.allocate_cached(size);
    if block.is_null() { malloc_slow(size) } else { block.cast() }
}

/// Not part of `malloc`, which needs no stack frame then, and ends with a jump to here: the address to return to is that
/// of its caller.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[unsafe(naked)]
extern "C" fn malloc_slow(size: usize) -> *mut c_void {
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!("mov rsi, qword ptr [rsp]", "jmp {malloc_from}", malloc_from = sym malloc_from);
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!("mov x1, x30", "b {malloc_from}", malloc_from = sym malloc_from);
}

/// The same, where the caller's address cannot be had.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
extern "C" fn malloc_slow(size: usize) -> *mut c_void {
    malloc_from(size, 0)
}

/// malloc for the code at `caller`.
extern "C" fn malloc_from(size: usize, caller: usize) -> *mut c_void {
    let block = or_no_memory(ALLOCATOR.allocate(size));
    ALLOCATOR.attend(caller);
    block
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

/// C: `count` times `size` bytes of zeros.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => or_no_memory(ALLOCATOR.allocate_zeroed(bytes)),
        None => no_memory(),
    }
}

/// C: changes the size of a block, which may move. Of 0 bytes: frees it, and returns null. If there is no memory, the
/// block is as before.
///
/// # Safety
/// The block is live, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if size == 0 && !block.is_null() {
        // SAFETY: the caller's promise.
        unsafe { free(block) };
        return core::ptr::null_mut();
    }
    // SAFETY: the caller's promise.
    unsafe { resized(block, size) }
}

/// C: a block at a multiple of `align` bytes, a power of two; else null and EINVAL.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        set_errno(libc::EINVAL);
        return core::ptr::null_mut();
    }
    aligned(size, align)
}

/// glibc: a block at a multiple of `align` bytes, or of the next power of two.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => aligned(size, align),
        None => {
            set_errno(libc::EINVAL);
            core::ptr::null_mut()
        }
    }
}

/// POSIX: a block at a multiple of `align` bytes, a power of two and a multiple of a pointer's size. Returns 0, EINVAL
/// or ENOMEM; where it fails `*block` stays. errno is ENOMEM as well then, as glibc has it; otherwise it stays.
///
/// # Safety
/// `block` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(block: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    let new = ALLOCATOR.allocate_aligned(size, align);
    if new.is_null() {
        set_errno(libc::ENOMEM);
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { *block = new.cast() };
    0
}

/// Unix: a block at a multiple of a page.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    aligned(size, page_bytes())
}

/// glibc: whole pages.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    let page = page_bytes();
    match size.max(1).checked_next_multiple_of(page) {
        Some(bytes) => aligned(bytes, page),
        None => no_memory(),
    }
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

/// The same functions by the names that glibc exports them under as well: who calls one frees by the other.
mod glibc_names {
    use super::{c_int, c_void};

    macro_rules! also {
        ($($name:ident = $function:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
            $(
                /// See the function of the shorter name.
                ///
                /// # Safety
                /// As that one.
                #[unsafe(no_mangle)]
                pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
                    #[allow(unused_unsafe, reason = "some of them are safe")]
                    // SAFETY: the caller's promise.
                    unsafe { super::$function($($argument),*) }
                }
            )*
        };
    }

    also! {
        __libc_malloc = malloc(size: usize) -> *mut c_void;
        __libc_calloc = calloc(count: usize, size: usize) -> *mut c_void;
        __libc_realloc = realloc(block: *mut c_void, size: usize) -> *mut c_void;
        __libc_free = free(block: *mut c_void);
        __libc_memalign = memalign(align: usize, size: usize) -> *mut c_void;
        __libc_valloc = valloc(size: usize) -> *mut c_void;
        __libc_pvalloc = pvalloc(size: usize) -> *mut c_void;
        __posix_memalign = posix_memalign(block: *mut *mut c_void, align: usize, size: usize) -> c_int;
    }
}
