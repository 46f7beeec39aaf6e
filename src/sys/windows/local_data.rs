//! Thread-local data where the compiler has none of its own: programs for MinGW, whose `thread_local!` is a key and a block
//! from the heap. By the loader's own means: "PE Format", The .tls Section.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("magalloc has thread-local data for MinGW on x86-64 only; the targets gnullvm and msvc have it everywhere");

/// See `sys::local_data`. Every thread's data begins as the section `.tls` does.
macro_rules! local_data {
    ($Data:ident { $first:ident: &$initial:path as $Target:ty, $second:ident: 0 }) => {
        #[repr(transparent)]
        struct Template($Data);

        // SAFETY: the loader copies it for each thread; nobody else looks at it.
        unsafe impl Sync for Template {}

        #[unsafe(link_section = ".tls$")]
        static TEMPLATE: Template = Template($Data::initial());

        const _: () = assert!(align_of::<$Data>() <= 16 && !core::mem::needs_drop::<$Data>());

        /// Where the calling thread's data is.
        #[inline(always)]
        fn data() -> *const $Data {
            let data: *const $Data;
            // SAFETY: reads the thread's list of the modules' data, this module's number in it, and the distance of ours from
            // the beginning of that: all of it stays as it is while the thread lives.
            unsafe {
                core::arch::asm!(
                    "mov {index:e}, dword ptr [rip + _tls_index]",
                    "mov {data}, qword ptr gs:[0x58]",
                    "mov {data}, qword ptr [{data} + 8*{index}]",
                    "lea {data}, [{data} + {template}@SECREL32]",
                    index = out(reg) _,
                    data = out(reg) data,
                    template = sym TEMPLATE,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            data
        }

        /// Shows the calling thread's data to `look`.
        #[inline(always)]
        pub(super) fn with<R>(look: impl FnOnce(&$Data) -> R) -> R {
            // SAFETY: the thread's own, valid until the thread's memory is gone; all of it is cells.
            look(unsafe { &*data() })
        }

        /// The first word of the calling thread's data.
        #[inline(always)]
        pub(super) fn $first() -> *const $Target {
            with(|data| data.$first.get())
        }
    };
}
pub(crate) use local_data;
