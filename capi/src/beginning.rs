//! The library's constructor: options of the environment, and whether children inherit them.
//!
//! The loader runs it before the program's own, and after some of its own calls of malloc. Those are served with the
//! default options, since the C library has not found its environment yet. In a program that the archive is linked into,
//! the number in the section's name sorts it before all others.

use crate::ALLOCATOR;
use core::ffi::{CStr, c_char};

#[used]
#[unsafe(link_section = ".init_array.00101")]
static AT_BEGINNING: extern "C" fn() = begin;

extern "C" fn begin() {
    ALLOCATOR.begin();
    if !allocator::stays_in_environment() {
        leave_environment();
    }
}

const PREFIX: &[u8] = b"MAGALLOC_";
const PRELOAD: &[u8] = b"LD_PRELOAD=";
/// The file name by which the loader knows this library.
const LIBRARY: &[u8] = b"libmagalloc";

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

/// Takes the options out of the environment, and this library out of `LD_PRELOAD`: in place, as only the constructor
/// may, because no other thread runs yet.
fn leave_environment() {
    // SAFETY: a word of the C library's.
    let mut from = unsafe { environ };
    if from.is_null() {
        return;
    }
    let mut to = from;
    loop {
        // SAFETY: the list ends with null, and was not at its end.
        let variable = unsafe { *from };
        // SAFETY: each variable is a text that ends with a zero, in memory of the process's own.
        if variable.is_null() || unsafe { stays(variable) } {
            // SAFETY: not behind `from`.
            unsafe { *to = variable };
            // SAFETY: not behind the end.
            to = unsafe { to.add(1) };
        }
        if variable.is_null() {
            return;
        }
        // SAFETY: not the end.
        from = unsafe { from.add(1) };
    }
}

/// Does a variable stay in the environment? `LD_PRELOAD` does without this library, if anything is left of it.
///
/// # Safety
/// A text that ends with a zero and can be written.
unsafe fn stays(variable: *mut c_char) -> bool {
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(variable) }.to_bytes();
    if text.starts_with(PREFIX) {
        return false;
    }
    if !text.starts_with(PRELOAD) {
        return true;
    }
    let len = text.len();
    // SAFETY: the caller's promise.
    let text = unsafe { core::slice::from_raw_parts_mut(variable.cast::<u8>(), len) };
    let end = keep_others(text, PRELOAD.len());
    // SAFETY: at most the zero at the end.
    unsafe { *variable.add(end) = 0 };
    end > PRELOAD.len()
}

/// Moves the names in a list from `start` on together, without this library's. Returns where they end.
fn keep_others(text: &mut [u8], start: usize) -> usize {
    let is_separator = |byte: u8| byte == b':' || byte == b' ';
    let (mut end, mut from) = (start, start);
    while from < text.len() {
        let len = text[from..].iter().position(|&byte| is_separator(byte)).unwrap_or(text.len() - from);
        let name = &text[from..from + len];
        let file = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
        if len != 0 && !file.starts_with(LIBRARY) {
            if end > start {
                text[end] = b':';
                end += 1;
            }
            text.copy_within(from..from + len, end);
            end += len;
        }
        from += len + 1;
    }
    end
}
