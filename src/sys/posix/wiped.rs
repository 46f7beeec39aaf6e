//! Memory of which a child process does not get a copy: it reads as zero there, whoever made the child, and how.

use super::errno::KeepErrno;
use crate::sys::port::wipe_in_children;

/// A value that fills whole pages, so that nothing else is wiped with it. All zero must be a value.
#[cfg_attr(any(target_arch = "x86_64", target_arch = "x86"), repr(align(4096)))]
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "x86")), repr(align(65536)))]
#[derive(Debug)]
pub struct Wiped<T>(T);

impl<T> Wiped<T> {
    /// The value, which a child has a copy of until `arrange`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Has the kernel wipe it in children that have memory of their own; that of `vfork` has not. A hint.
    pub fn arrange(&'static self) {
        let _errno = KeepErrno::new();
        // SAFETY: whole pages of ours; where the kernel's are larger than the alignment, it refuses.
        unsafe { wipe_in_children(core::ptr::from_ref(self).cast_mut().cast(), size_of::<Self>()) };
    }
}

impl<T> core::ops::Deref for Wiped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
