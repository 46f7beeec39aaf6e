//! What the C library calls at the beginning and at the end of a program or a library: functions in sections of the ELF file.

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

/// Writes out all that stdio still has to write.
pub fn flush_stdio() {
    // SAFETY: null means all streams.
    unsafe { libc::fflush(core::ptr::null_mut()) };
}
