//! Threads: their numbers, one of the allocator's own, and the word that it sleeps on.

use super::last_error::KeepLastError;
use crate::sync::AtomicU32;
use crate::sys::ThreadBody;
use core::ffi::c_void;
use windows_sys::Win32::Foundation::{FreeLibrary, CloseHandle, ERROR_INVALID_PARAMETER, GetLastError, HANDLE, HMODULE, WAIT_OBJECT_0};
use windows_sys::Win32::System::LibraryLoader::{
    FreeLibraryAndExitThread, GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
    GetModuleHandleExW,
};
use windows_sys::Win32::System::Threading::{
    CreateThread, GetCurrentThreadId, GetProcessIdOfThread, GetThreadId, INFINITE, OpenThread,
    STACK_SIZE_PARAM_IS_A_RESERVATION, Sleep, SwitchToThread, THREAD_QUERY_LIMITED_INFORMATION, THREAD_SYNCHRONIZE,
    WaitForSingleObject, WaitOnAddress, WakeByAddressSingle,
};

/// Number of the calling thread.
pub fn thread_id() -> u32 {
    // SAFETY: no conditions.
    unsafe { GetCurrentThreadId() }
}

/// Is thread `thread` of this process, whose number is `process`, there? `true` also where the kernel does not tell.
pub fn is_alive(process: u32, thread: u32) -> bool {
    let _error = KeepLastError::new();
    // SAFETY: no conditions.
    let handle = unsafe { OpenThread(THREAD_SYNCHRONIZE | THREAD_QUERY_LIMITED_INFORMATION, 0, thread) };
    if handle.is_null() {
        // SAFETY: no conditions.
        return unsafe { GetLastError() } != ERROR_INVALID_PARAMETER;
    }
    // SAFETY: our own handle, of a thread.
    let has_ended = unsafe { WaitForSingleObject(handle, 0) } == WAIT_OBJECT_0;
    // SAFETY: likewise. The number may be another process's thread's by now.
    let owner = unsafe { GetProcessIdOfThread(handle) };
    // SAFETY: likewise, not used any more.
    unsafe { CloseHandle(handle) };
    !has_ended && (owner == process || owner == 0)
}

/// There are no children that share their parent's memory.
pub fn is_as_known() -> bool {
    true
}

/// Threads have a name from Windows 10 1607 on; it is left out.
pub fn name_thread() {}

/// Bytes of the thread's stack, reserved: an epoch needs some 8 KiB, callbacks of the loader's run there as well.
const STACK_BYTES: usize = 1 << 20;

/// Starts a thread that runs `B`. Returns its handle, never 0.
///
/// The kernel makes it; it waits for the loader's lock at its beginning and its end, its maker does not.
pub fn spawn<B: ThreadBody>(argument: usize) -> Option<usize> {
    let _error = KeepLastError::new();
    // Not unloaded before the thread has ended: who unloads a library has a lock that a thread's end waits for.
    let module = module(body::<B>, 0)?;
    let argument = core::ptr::without_provenance(argument);
    let (null, flags) = (core::ptr::null(), STACK_SIZE_PARAM_IS_A_RESERVATION);
    // SAFETY: all arguments are valid; the thread's number is not asked for.
    let handle = unsafe { CreateThread(null, STACK_BYTES, Some(body::<B>), argument, flags, core::ptr::null_mut()) };
    if handle.is_null() {
        // SAFETY: counted above.
        unsafe { FreeLibrary(module) };
        return None;
    }
    Some(handle.expose_provenance())
}

unsafe extern "system" fn body<B: ThreadBody>(argument: *mut c_void) -> u32 {
    B::run(argument.addr());
    if let Some(module) = module(body::<B>, GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT) {
        // SAFETY: `spawn` has counted it; does not return.
        unsafe { FreeLibraryAndExitThread(module, 0) };
    }
    0
}

/// The program or library that a function is in, counted as in use unless `flags` say otherwise.
fn module(function: unsafe extern "system" fn(*mut c_void) -> u32, flags: u32) -> Option<HMODULE> {
    let (address, mut module) = (function as *const u16, core::ptr::null_mut());
    // SAFETY: with that flag, an address in the module stands for its name; `module` is valid.
    let is_found =
        unsafe { GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | flags, address, &raw mut module) != 0 };
    is_found.then_some(module)
}

/// Waits for the end of a thread that `spawn` has started; once for each. Not for the calling thread itself, which may be
/// what unloads the library.
pub fn join(handle: usize) {
    let _error = KeepLastError::new();
    let thread: HANDLE = core::ptr::with_exposed_provenance_mut(handle);
    // SAFETY: the caller has the handle to itself.
    if unsafe { GetThreadId(thread) } != thread_id() {
        // SAFETY: likewise.
        unsafe { WaitForSingleObject(thread, INFINITE) };
    }
    // SAFETY: likewise, not used any more.
    unsafe { CloseHandle(thread) };
}

/// Sleeps while `word` is `value`, at most `milliseconds`. May wake without reason.
pub fn wait(word: &AtomicU32, value: u32, milliseconds: u64) {
    let _error = KeepLastError::new();
    let milliseconds = u32::try_from(milliseconds).map_or(INFINITE - 1, |milliseconds| milliseconds.min(INFINITE - 1));
    let (word, value) = (core::ptr::from_ref(word), &raw const value);
    // SAFETY: both are valid for the call, and of that size.
    unsafe { WaitOnAddress(word.cast(), value.cast(), size_of::<u32>(), milliseconds) };
}

/// Wakes who sleeps on `word`.
pub fn wake(word: &AtomicU32) {
    // SAFETY: an address; nothing there is read.
    unsafe { WakeByAddressSingle(core::ptr::from_ref(word).cast()) };
}

/// Times that `wait_briefly` gives the processor to whoever is ready, and sleeps for a step of the clock, 1 to 16 ms, after
/// that.
const YIELDS: u32 = 100;
const SLEEPS: u32 = 5;

/// Waits until `is_over`, for some 10 ms at most.
pub fn wait_briefly(is_over: impl Fn() -> bool) {
    if is_over() {
        return;
    }
    let _error = KeepLastError::new();
    for look in 0..YIELDS + SLEEPS {
        if look < YIELDS {
            // SAFETY: no conditions.
            unsafe { SwitchToThread() };
        } else {
            // SAFETY: no conditions.
            unsafe { Sleep(1) };
        }
        if is_over() {
            return;
        }
    }
}
