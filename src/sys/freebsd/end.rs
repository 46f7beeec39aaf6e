//! The end of the process, as far as this port has it: records of statistics are written, and free memory goes. In which
//! order rtld(1) ends the program and its libraries was not tried, so what is live stays mapped, and nothing is known of an
//! unloading.

use crate::sys::ProcessEnd;
use crate::sys::posix::errno::KeepErrno;

/// Has the C library call `$begin` when the program, or the library that this is linked into, begins, and `$end` when it
/// ends. Both are functions without arguments.
#[cfg(not(loom))]
macro_rules! at_begin_and_end {
    ($begin:path, $end:path) => {
        extern "C" fn at_begin() {
            $begin();
        }

        #[used]
        #[unsafe(link_section = ".init_array")]
        static AT_BEGIN: extern "C" fn() = at_begin;

        extern "C" fn at_end() {
            $end();
        }

        // The number sorts it before all others, and they are run backwards.
        #[used]
        #[unsafe(link_section = ".fini_array.00000")]
        static AT_END: extern "C" fn() = at_end;
    };
}
#[cfg(not(loom))]
pub(crate) use at_begin_and_end;

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

/// Writes out all that stdio still has to write.
pub fn flush_stdio() {
    // SAFETY: null means all streams.
    unsafe { libc::fflush(core::ptr::null_mut()) };
}

/// Does any other thread run in this process? Perhaps: so nothing live is unmapped.
pub fn other_threads(_registered: impl Fn() -> bool) -> bool {
    true
}

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

    /// Has the kernel wipe it in children: minherit(2). A hint.
    pub fn arrange(&'static self) {
        let _errno = KeepErrno::new();
        let start = core::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: whole pages of ours. Contents stay.
        unsafe { libc::minherit(start, size_of::<Self>(), libc::INHERIT_ZERO) };
    }
}

impl<T> core::ops::Deref for Wiped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Where the loader's code is, which nobody tells here.
#[derive(Debug)]
pub struct Loader(());

impl Loader {
    /// Not looked for.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(())
    }

    /// Does not find it.
    pub fn find(&self) {}

    /// Is `address` surely not in the loader's code? Not that it was known.
    pub fn is_outside(&self, _address: usize) -> bool {
        false
    }
}
