//! Ranges that a heap has lost to somebody else: not to be touched, nor released, as long as its pages are there.

use super::machine::forbid;
use crate::sys::Pages;
use crate::sys::platform::SystemPages;
use core::ptr::NonNull;
use std::sync::Mutex;

/// First bytes, with exposed provenance, and lengths.
#[derive(Debug)]
pub(super) struct LostRanges(Mutex<Vec<(usize, usize)>>);

impl LostRanges {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// From now on the range, of which its owner knows no more, cannot be touched.
    pub(super) fn add(&self, start: NonNull<u8>, bytes: usize) {
        forbid(start, bytes);
        self.0.lock().unwrap().push((start.as_ptr().expose_provenance(), bytes));
    }
}

/// Others' heaps may be where it was. A held place goes with all that is in it.
impl Drop for LostRanges {
    fn drop(&mut self) {
        if SystemPages.capabilities().holds_places {
            return;
        }
        for (start, bytes) in self.0.get_mut().unwrap().drain(..) {
            let start = NonNull::new(core::ptr::with_exposed_provenance_mut(start)).expect("the start of a range");
            // SAFETY: nobody else has it.
            unsafe { SystemPages.release(start, bytes) };
        }
    }
}
