//! Where the dynamic loader's code is: a malloc that it makes is in the middle of something.

use crate::sync::{AtomicUsize, Ordering};

#[cfg(target_pointer_width = "32")]
use libc::{Elf32_Ehdr as ElfHeader, Elf32_Phdr as ProgramHeader};
#[cfg(target_pointer_width = "64")]
use libc::{Elf64_Ehdr as ElfHeader, Elf64_Phdr as ProgramHeader};

/// Where the loader's image is, whose headers are the start of it. The kernel tells where it has put the loader, but for
/// one that was started as a program (`ld.so program`).
fn image() -> Option<usize> {
    // SAFETY: getauxval has no conditions.
    let told = unsafe { libc::getauxval(libc::AT_BASE) } as usize;
    if told != 0 {
        return Some(told);
    }
    // SAFETY: the name, of a function that is the loader's everywhere, ends with a zero.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__tls_get_addr".as_ptr()) };
    // SAFETY: all zeros is a valid `Dl_info`.
    let mut found: libc::Dl_info = unsafe { core::mem::zeroed() };
    // SAFETY: `found` is valid; any address is allowed.
    let is_found = !function.is_null() && unsafe { libc::dladdr(function, &raw mut found) } != 0;
    (is_found && !found.dli_fbase.is_null()).then(|| found.dli_fbase.expose_provenance())
}

/// The loader's address range, once it was looked for.
#[derive(Debug)]
pub struct Loader {
    start: AtomicUsize,
    end: AtomicUsize,
}

impl Loader {
    /// Not looked for yet.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { start: AtomicUsize::new(0), end: AtomicUsize::new(0) }
    }

    /// Looks for it: in a constructor, since it asks the loader where the kernel does not tell. Finds none in a static
    /// program, whose loader's code is among its own.
    pub fn find(&self) {
        let Some(start) = image() else { return };
        let image = core::ptr::with_exposed_provenance::<ElfHeader>(start);
        // SAFETY: the loader's image, which stays, begins with its header.
        let header = unsafe { &*image };
        // SAFETY: the program headers lie in the image.
        let headers = unsafe { image.byte_add(header.e_phoff as usize) }.cast::<ProgramHeader>();
        // SAFETY: so many of them.
        let headers = unsafe { core::slice::from_raw_parts(headers, usize::from(header.e_phnum)) };
        let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
        let len = loaded.map(|header| header.p_vaddr as usize + header.p_memsz as usize).max();
        // ordering: Relaxed, all of it: two numbers that do not change.
        self.start.store(start, Ordering::Relaxed);
        self.end.store(start + len.unwrap_or(0), Ordering::Relaxed);
    }

    /// Is `address` surely not in the loader's code? `false` also where that is not known.
    pub fn is_outside(&self, address: usize) -> bool {
        // ordering: Relaxed, as above.
        let (start, end) = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        start < end && !(start..end).contains(&address)
    }
}
