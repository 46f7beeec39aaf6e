//! The end of the process, as far as this port has it: records of statistics are written, and free memory goes. In which
//! order rtld(1) ends the program and its libraries was not tried, so what is live stays mapped, and nothing is known of an
//! unloading.

use crate::sys::ProcessEnd;

/// From `$end` of `at_begin_and_end`: calls `E::end_of_process` at once.
pub fn arrange_release<E: ProcessEnd>() {
    E::end_of_process();
}

/// Does not know whether the library that this code is part of is unloaded.
#[derive(Debug)]
pub struct Unloading(());

impl Unloading {
    /// Nothing known.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(())
    }

    /// From a constructor.
    pub fn begin(&'static self) {}

    /// Not that it was known.
    pub fn take(&'static self) -> bool {
        false
    }
}

/// Does any other thread run in this process? Perhaps: so nothing live is unmapped.
pub fn other_threads(_registered: impl Fn() -> bool) -> bool {
    true
}
