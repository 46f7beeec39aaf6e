//! What the fake asks of the machine itself.

#[cfg(unix)]
pub(super) use unix::{forbid, in_memory, random};
#[cfg(windows)]
pub(super) use windows::{forbid, in_memory, random};

#[cfg(unix)]
mod unix {
    use core::ptr::NonNull;

    /// A random address: the kernel's random bytes lie on the stack, near the end of the address space.
    pub(in super::super) fn random() -> usize {
        // SAFETY: getauxval has no conditions.
        unsafe { libc::getauxval(libc::AT_RANDOM) as usize }
    }

    /// From now on the range, which is mapped and unused, cannot be touched.
    pub(in super::super) fn forbid(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the range is mapped, and nobody uses it.
        assert_eq!(unsafe { libc::mprotect(start.as_ptr().cast(), bytes, libc::PROT_NONE) }, 0);
    }

    /// Which pages of a mapped range are in memory.
    pub(in super::super) fn in_memory(start: NonNull<u8>, bytes: usize, page: usize) -> Vec<bool> {
        let mut present = vec![0u8; bytes / page];
        // SAFETY: a mapped range, and a byte for each of its pages.
        assert_eq!(unsafe { libc::mincore(start.as_ptr().cast(), bytes, present.as_mut_ptr()) }, 0);
        present.iter().map(|&page| page & 1 != 0).collect()
    }
}

#[cfg(windows)]
mod windows {
    use core::ptr::NonNull;
    use windows_sys::Win32::System::Memory::{PAGE_NOACCESS, VirtualProtect};
    use windows_sys::Win32::System::ProcessStatus::{K32QueryWorkingSetEx, PSAPI_WORKING_SET_EX_INFORMATION};
    use windows_sys::Win32::System::Threading::GetCurrentProcess;

    /// Not asked for: the kernel chooses places.
    pub(in super::super) fn random() -> usize {
        1 << 46
    }

    /// From now on the range, which is mapped and unused, cannot be touched.
    pub(in super::super) fn forbid(start: NonNull<u8>, bytes: usize) {
        let mut before = 0;
        // SAFETY: the range is mapped, and nobody uses it.
        assert_ne!(unsafe { VirtualProtect(start.as_ptr().cast(), bytes, PAGE_NOACCESS, &raw mut before) }, 0);
    }

    /// Which pages of a mapped range are in memory.
    pub(in super::super) fn in_memory(start: NonNull<u8>, bytes: usize, page: usize) -> Vec<bool> {
        let ask = |offset| {
            // SAFETY: all zeros is a valid one.
            let mut asked: PSAPI_WORKING_SET_EX_INFORMATION = unsafe { core::mem::zeroed() };
            asked.VirtualAddress = start.as_ptr().wrapping_add(offset).cast();
            asked
        };
        let mut pages: Vec<PSAPI_WORKING_SET_EX_INFORMATION> = (0..bytes).step_by(page).map(ask).collect();
        let len = size_of_val(&*pages) as u32;
        // SAFETY: so many bytes; any addresses are allowed.
        assert_ne!(unsafe { K32QueryWorkingSetEx(GetCurrentProcess(), pages.as_mut_ptr().cast(), len) }, 0);
        // SAFETY: flags, which every field of the union reads.
        pages.iter().map(|page| unsafe { page.VirtualAttributes.Flags } & 1 != 0).collect()
    }
}
