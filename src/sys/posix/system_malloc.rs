//! The allocator that would serve this process without this one: the next in the loader's order.

use crate::sync::{AtomicPtr, Ordering};
use core::ffi::{CStr, c_int, c_void};

/// A function of the C library, or of another allocator; found by name.
struct Next(AtomicPtr<c_void>);

impl Next {
    const fn new() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    fn find(&self, name: &CStr) -> bool {
        // SAFETY: the name ends with a zero.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        // ordering: Relaxed, the address of code.
        self.0.store(found, Ordering::Relaxed);
        !found.is_null()
    }

    fn get(&self) -> *mut c_void {
        // ordering: Relaxed, as above.
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! next {
    ($($name:literal $found:ident: $function:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(
            static $found: Next = Next::new();

            /// The system's function of that name.
            ///
            /// # Safety
            /// `find` has found all; and as that function says.
            unsafe fn $function($($argument: $type),*) $(-> $result)? {
                // SAFETY: `find` found the function of that name, which has this type in every C library.
                let function = unsafe {
                    core::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) $(-> $result)?>($found.get())
                };
                // SAFETY: the caller's promise.
                unsafe { function($($argument),*) }
            }
        )*

        /// Looks for the system's functions. `false`: there is no other allocator. May call malloc.
        #[must_use]
        fn find_all() -> bool {
            $(
                let name = CStr::from_bytes_with_nul(concat!($name, "\0").as_bytes());
                if !name.is_ok_and(|name| $found.find(name)) {
                    return false;
                }
            )*
            true
        }
    };
}

next! {
    "malloc" MALLOC: malloc(bytes: usize) -> *mut c_void;
    "calloc" CALLOC: calloc(count: usize, bytes: usize) -> *mut c_void;
    "realloc" REALLOC: realloc(block: *mut c_void, bytes: usize) -> *mut c_void;
    "free" FREE: free(block: *mut c_void);
    "posix_memalign" POSIX_MEMALIGN: posix_memalign(block: *mut *mut c_void, align: usize, bytes: usize) -> c_int;
    "malloc_usable_size" MALLOC_USABLE_SIZE: malloc_usable_size(block: *mut c_void) -> usize;
}

/// The system's allocator, once it was found.
#[derive(Clone, Copy, Debug)]
pub struct SystemMalloc(());

/// Alignment of what `malloc` gives, in bytes.
const ALIGN: usize = align_of::<libc::max_align_t>();

impl SystemMalloc {
    /// The system's allocator; `None` where there is no other. May call malloc itself.
    pub fn find() -> Option<Self> {
        find_all().then_some(Self(()))
    }

    /// After `find` has found it, on whatever thread.
    ///
    /// # Safety
    /// It has.
    pub const unsafe fn found() -> Self {
        Self(())
    }

    /// A block, or null.
    pub fn allocate(self, size: usize, align: usize) -> *mut u8 {
        if align <= ALIGN {
            // SAFETY: no conditions.
            return unsafe { malloc(size) }.cast();
        }
        let mut block = core::ptr::null_mut();
        // SAFETY: `block` is valid; a power of two and a multiple of a pointer's size, as it is above ALIGN.
        if unsafe { posix_memalign(&raw mut block, align, size) } == 0 { block.cast() } else { core::ptr::null_mut() }
    }

    /// A block of zeros, or null.
    pub fn allocate_zeroed(self, size: usize, align: usize) -> *mut u8 {
        if align <= ALIGN {
            // SAFETY: no conditions.
            return unsafe { calloc(1, size) }.cast();
        }
        let block = self.allocate(size, align);
        if !block.is_null() {
            // SAFETY: a block of at least that size.
            unsafe { block.write_bytes(0, size) };
        }
        block
    }

    /// Another size for a block, at the alignment of `malloc`; null leaves it as it is.
    ///
    /// # Safety
    /// A live block of the system's allocator, or null.
    pub unsafe fn reallocate(self, block: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { realloc(block.cast(), size) }.cast()
    }

    /// Frees a block.
    ///
    /// # Safety
    /// A live block of the system's allocator, or null.
    pub unsafe fn free(self, block: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { free(block.cast()) };
    }

    /// Bytes that a block has.
    ///
    /// # Safety
    /// A live block of the system's allocator, or null.
    pub unsafe fn usable_size(self, block: *mut u8) -> usize {
        // SAFETY: the caller's promise.
        unsafe { malloc_usable_size(block.cast()) }
    }
}
