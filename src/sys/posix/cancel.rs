//! malloc and free are no cancellation points: where they call what is one, the thread is not cancelled.

use core::ffi::c_int;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// `PTHREAD_CANCEL_DISABLE` of glibc and musl.
const DISABLE: c_int = 1;

/// The calling thread is not cancelled while this lives.
pub(in crate::sys) struct NotCancelled(c_int);

impl NotCancelled {
    pub(in crate::sys) fn new() -> Self {
        let mut before = 0;
        // SAFETY: `before` is valid.
        unsafe { pthread_setcancelstate(DISABLE, &raw mut before) };
        Self(before)
    }
}

impl Drop for NotCancelled {
    fn drop(&mut self) {
        // SAFETY: the state of before; the old one is not asked for.
        unsafe { pthread_setcancelstate(self.0, core::ptr::null_mut()) };
    }
}
