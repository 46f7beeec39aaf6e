//! A file to append to, the program's path, and who this process is.

use super::last_error::KeepLastError;
use super::report::write;
use super::text::{to_utf8, to_utf16};
use core::ffi::CStr;
use windows_sys::Win32::Foundation::{CloseHandle, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_APPEND_DATA, FILE_ATTRIBUTE_NORMAL, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE, OPEN_ALWAYS,
};
use windows_sys::Win32::System::LibraryLoader::GetModuleFileNameW;
use windows_sys::Win32::System::Threading::GetCurrentProcessId;

/// UTF-16 units of a path that are looked at.
const PATH_UNITS_MAX: usize = 1024;

/// Appends `bytes` to the file at `path`, in UTF-8, made if need be, with one write. `false`: not all of them.
#[must_use]
pub fn append(path: &CStr, bytes: &[u8]) -> bool {
    let _error = KeepLastError::new();
    let mut wide = [0; PATH_UNITS_MAX];
    if !to_utf16(path.to_bytes(), &mut wide) {
        return false;
    }
    let shared = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
    let (null, none) = (core::ptr::null(), core::ptr::null_mut());
    // SAFETY: the path ends with a zero.
    let file = unsafe {
        CreateFileW(wide.as_ptr(), FILE_APPEND_DATA, shared, null, OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL, none)
    };
    if file == INVALID_HANDLE_VALUE {
        return false;
    }
    let is_whole = write(file, bytes);
    // SAFETY: our own handle.
    unsafe { CloseHandle(file) };
    is_whole
}

/// Number of this process.
pub fn process_id() -> u32 {
    // SAFETY: no conditions.
    unsafe { GetCurrentProcessId() }
}

/// Number of the process that started this one: Windows keeps none that is still sure to be that process.
pub fn parent_id() -> u32 {
    0
}

/// Path of the program that runs, as far as it fits into `path`; empty where it is not known.
pub fn program_path(path: &mut [u8]) -> &[u8] {
    let _error = KeepLastError::new();
    let mut wide = [0; PATH_UNITS_MAX];
    // SAFETY: `wide` is valid for its length. Without a handle, it is the program.
    let len = unsafe { GetModuleFileNameW(core::ptr::null_mut(), wide.as_mut_ptr(), PATH_UNITS_MAX as u32) };
    to_utf8(wide.into_iter().take(len as usize), path)
}
