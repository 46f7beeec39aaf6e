//! The end of a thread, through a callback of the loader's (`.CRT$XL`, "PE Format", The .tls Section).
//!
//! `FlsAlloc` has callbacks, too, but they come before the destructors of thread-local data, and `FlsFree` calls them on a
//! thread that is not the one that ends.

use crate::sync::{AtomicPtr, Ordering};
use crate::sys::EndOfThread;
use core::ffi::c_void;
use windows_sys::Win32::System::SystemServices::DLL_THREAD_DETACH;

type Function = fn();

/// `E::end_of_thread` of who has arranged it; null: nobody. A callback has nothing but statics to find it by.
static END_OF_THREAD: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// The loader calls it at the end of every thread, also of those that did not ask: the callback is for all.
#[derive(Debug)]
pub struct ThreadEnd(());

impl ThreadEnd {
    /// Nothing arranged.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(())
    }

    /// Has `E::end_of_thread` called.
    pub fn prepare<E: EndOfThread>(&self) {
        debug_assert!(core::ptr::eq(E::key(), self));
        let end: Function = E::end_of_thread;
        // ordering: Relaxed, the address of code.
        END_OF_THREAD.store(end as *mut (), Ordering::Relaxed);
        // So that the linker keeps it.
        // SAFETY: a static.
        unsafe { (&raw const CALLBACK).read_volatile() };
    }

    /// Calls nothing any more.
    pub fn disarm(&self) {
        // ordering: Relaxed, as above.
        END_OF_THREAD.store(core::ptr::null_mut(), Ordering::Relaxed);
    }

    /// Calls `E::end_of_thread` at the end of the calling thread.
    #[must_use]
    pub fn arrange<E: EndOfThread>(&self) -> bool {
        // ordering: Relaxed, as above.
        if END_OF_THREAD.load(Ordering::Relaxed).is_null() {
            self.prepare::<E>();
        }
        true
    }
}

/// The standard library's callback is in `.CRT$XLB`; those of all names are called in order.
#[used]
#[unsafe(link_section = ".CRT$XLX")]
static CALLBACK: unsafe extern "system" fn(*mut c_void, u32, *mut c_void) = callback;

unsafe extern "system" fn callback(_module: *mut c_void, reason: u32, _reserved: *mut c_void) {
    if reason != DLL_THREAD_DETACH {
        return;
    }
    // ordering: Relaxed, as above.
    let end = END_OF_THREAD.load(Ordering::Relaxed);
    if !end.is_null() {
        // SAFETY: what `prepare` has stored: a function of that type.
        let end = unsafe { core::mem::transmute::<*mut (), Function>(end) };
        end();
    }
}
