//! The functions of the C++ library: where the program, or what it has loaded, has one.

use crate::sync::{AtomicPtr, Ordering};
use core::ffi::{CStr, c_void};

/// The functions, in this order. What is not found by the linker or the loader is null, until it is looked for.
#[repr(C)]
struct Table {
    /// `std::get_new_handler()`.
    get_new_handler: AtomicPtr<c_void>,
    /// `std::__throw_bad_alloc()`.
    throw_bad_alloc: AtomicPtr<c_void>,
    /// What the unwinder asks about a function of C++.
    personality: AtomicPtr<c_void>,
    begin_catch: AtomicPtr<c_void>,
    end_catch: AtomicPtr<c_void>,
}

const NAMES: [&CStr; 5] = [
    c"_ZSt15get_new_handlerv",
    c"_ZSt17__throw_bad_allocv",
    c"__gxx_personality_v0",
    c"__cxa_begin_catch",
    c"__cxa_end_catch",
];

// Weak: a C program has none of them. Writable: a C++ library may be loaded later, by a plugin.
core::arch::global_asm!(
    ".pushsection .data.magalloc_cpp,\"aw\",%progbits",
    ".balign 8",
    ".globl magalloc_cpp_table",
    ".hidden magalloc_cpp_table",
    "magalloc_cpp_table:",
    ".weak _ZSt15get_new_handlerv",
    ".quad _ZSt15get_new_handlerv",
    ".weak _ZSt17__throw_bad_allocv",
    ".quad _ZSt17__throw_bad_allocv",
    ".globl magalloc_cpp_personality",
    ".hidden magalloc_cpp_personality",
    "magalloc_cpp_personality:",
    ".weak __gxx_personality_v0",
    ".quad __gxx_personality_v0",
    ".globl magalloc_cpp_begin_catch",
    ".hidden magalloc_cpp_begin_catch",
    "magalloc_cpp_begin_catch:",
    ".weak __cxa_begin_catch",
    ".quad __cxa_begin_catch",
    ".globl magalloc_cpp_end_catch",
    ".hidden magalloc_cpp_end_catch",
    "magalloc_cpp_end_catch:",
    ".weak __cxa_end_catch",
    ".quad __cxa_end_catch",
    ".popsection",
);

unsafe extern "C" {
    #[link_name = "magalloc_cpp_table"]
    static TABLE: Table;
}

/// Libraries that may be loaded where only a plugin can see them.
const LIBRARIES: [&CStr; 3] = [c"libstdc++.so.6", c"libc++abi.so.1", c"libc++.so.1"];

fn look_for(name: &CStr) -> *mut c_void {
    // SAFETY: the name ends with a zero.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if !found.is_null() {
        return found;
    }
    for library in LIBRARIES {
        // SAFETY: the name ends with a zero; nothing is loaded.
        let library = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if !library.is_null() {
            // SAFETY: a handle, and a name that ends with a zero.
            let found = unsafe { libc::dlsym(library, name.as_ptr()) };
            // SAFETY: the handle of above; the library stays where it is for whoever loaded it.
            unsafe { libc::dlclose(library) };
            if !found.is_null() {
                return found;
            }
        }
    }
    core::ptr::null_mut()
}

/// The table, with what can be found by now: before any exception can come.
fn table() -> &'static Table {
    // SAFETY: defined above, of that form, and all of it is atomics.
    let table = unsafe { &TABLE };
    let cells =
        [&table.get_new_handler, &table.throw_bad_alloc, &table.personality, &table.begin_catch, &table.end_catch];
    for (cell, name) in cells.into_iter().zip(NAMES) {
        // ordering: Relaxed, all of it: addresses of code; two threads that look find the same.
        if cell.load(Ordering::Relaxed).is_null() {
            cell.store(look_for(name), Ordering::Relaxed);
        }
    }
    table
}

/// The new-handler, or null.
pub extern "C" fn new_handler() -> *mut c_void {
    // ordering: Relaxed, as above.
    let get = table().get_new_handler.load(Ordering::Relaxed);
    if get.is_null() {
        return get;
    }
    // SAFETY: `std::get_new_handler()`, which returns a pointer and does not throw.
    let get = unsafe { core::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *mut c_void>(get) };
    // SAFETY: no conditions.
    unsafe { get() }
}

/// The function that throws `std::bad_alloc`, or null.
pub extern "C" fn thrower() -> *mut c_void {
    // ordering: Relaxed, as above.
    table().throw_bad_alloc.load(Ordering::Relaxed)
}

unsafe extern "C" {
    #[link_name = "magalloc_called__ZnwmRKSt9nothrow_t"]
    static CALLED_NEW: u8;
    #[link_name = "magalloc_called__ZnamRKSt9nothrow_t"]
    static CALLED_NEW_ARRAY: u8;
    #[link_name = "magalloc_called__ZnwmSt11align_val_tRKSt9nothrow_t"]
    static CALLED_NEW_ALIGNED: u8;
    #[link_name = "magalloc_called__ZnamSt11align_val_tRKSt9nothrow_t"]
    static CALLED_NEW_ARRAY_ALIGNED: u8;
}

/// Where there is no memory, and nothing to throw: null, if a nothrow form called, to which `caller` returns; else the
/// process ends with a line.
pub extern "C" fn give_up(caller: *const u8) -> *mut c_void {
    let nothrow = [
        &raw const CALLED_NEW,
        &raw const CALLED_NEW_ARRAY,
        &raw const CALLED_NEW_ALIGNED,
        &raw const CALLED_NEW_ARRAY_ALIGNED,
    ];
    if nothrow.contains(&caller) {
        return core::ptr::null_mut();
    }
    const LINE: &[u8] = b"magalloc: operator new: out of memory, and no C++ library to throw std::bad_alloc\n";
    // SAFETY: the line is valid for its length.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, LINE.as_ptr().cast(), LINE.len()) };
    // SAFETY: no conditions.
    unsafe { libc::abort() }
}
