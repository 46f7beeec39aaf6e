//! Address space through VirtualAlloc. The last error is left as it was found.
//!
//! ```text
//! # Charge      what is committed counts at once against what the system has of memory and page files. So a place is
//!               reserved, which costs none of it, and committed in steps; a purge leaves the charge
//! # Invariants  W1: the parts of one `map` are released by one thread at a time: who has the mapping
//! ```

use super::last_error::KeepLastError;
use super::report::fatal;
use crate::config::GRANULE_BYTES;
use crate::sys::{Capabilities, NotMapped, Pages};
use core::ffi::c_void;
use core::ptr::NonNull;
use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_DECOMMIT, MEM_RELEASE, MEM_RESERVE, MEMORY_BASIC_INFORMATION, PAGE_NOACCESS, PAGE_READWRITE,
    VirtualAlloc, VirtualFree, VirtualQuery,
};
use windows_sys::Win32::System::SystemInformation::{GetSystemInfo, GetTickCount64, SYSTEM_INFO};
use windows_sys::Win32::System::Threading::{GetCurrentThread, GetThreadTimes, Sleep};

/// The kernel's pages.
#[derive(Debug)]
pub struct SystemPages;

const CAPABILITIES: Capabilities = Capabilities {
    holds_places: true,
    moves_pages: false,
    resizes_mappings: false,
    populates: false,
    purges_runs: false,
    has_huge_pages: false,
    // Decommitted memory faults until it is committed again.
    purges_under_readers: false,
    // Not measured.
    purge_us_per_mib: 0,
};

/// The longest place, in bytes: 80 GiB, so that a region has 64 GiB, or 1 GiB. A heap can have 63 of these.
const PLACE_BYTES_MAX: usize = if usize::BITS == 64 { 80_usize.wrapping_shl(30) } else { 1 << 30 };

/// Bytes that a purge has decommitted at a time: as many would be missing if they could not be committed again.
const PURGE_STEP_BYTES: usize = 256 << 10;

/// How often a purge asks for its step again, and the pause between, in milliseconds: 10 s in which others may end, or the
/// page file grow.
const RECOMMITS: u32 = 1000;
const RECOMMIT_PAUSE_MS: u32 = 10;

/// New memory, anywhere.
fn allocate(bytes: usize, kind: u32, access: u32) -> Option<NonNull<u8>> {
    let _error = KeepLastError::new();
    // SAFETY: at a place of the kernel's choice, so it touches nothing that exists.
    NonNull::new(unsafe { VirtualAlloc(core::ptr::null(), bytes, kind, access) }.cast())
}

/// Commits pages of a reservation; those that are committed stay as they are.
///
/// # Safety
/// The reservation is the caller's.
unsafe fn commit(start: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the caller's promise. All of it or nothing.
    !unsafe { VirtualAlloc(start.as_ptr().cast(), bytes, MEM_COMMIT, PAGE_READWRITE) }.is_null()
}

/// Gives the pages back, and their charge.
///
/// # Safety
/// The reservation is the caller's, and nobody uses the pages.
unsafe fn decommit(start: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { VirtualFree(start.as_ptr().cast(), bytes, MEM_DECOMMIT) != 0 }
}

/// What the kernel knows of the pages from `address` on that are alike.
fn query(address: *const c_void) -> Option<MEMORY_BASIC_INFORMATION> {
    // SAFETY: all zeros is a valid one.
    let mut known: MEMORY_BASIC_INFORMATION = unsafe { core::mem::zeroed() };
    // SAFETY: `known` is valid and as long as is said; any address is allowed.
    let filled = unsafe { VirtualQuery(address, &raw mut known, size_of_val(&known)) };
    (filled != 0).then_some(known)
}

/// Ends the reservation that `address` is in.
///
/// # Safety
/// It is the caller's, and nobody uses any of it.
unsafe fn end_reservation(address: NonNull<u8>) {
    if let Some(known) = query(address.as_ptr().cast()) {
        // SAFETY: the caller's promise.
        unsafe { VirtualFree(known.AllocationBase, 0, MEM_RELEASE) };
    }
}

// SAFETY: VirtualAlloc hands out ranges nobody else has; pages are zero when they were committed.
unsafe impl Pages for SystemPages {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn hold(&self, bytes: usize) -> Option<NonNull<u8>> {
        allocate(bytes, MEM_RESERVE, PAGE_NOACCESS)
    }

    fn hold_place(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        // Reserved longer by as much as the alignment may take; that costs nothing.
        let held = bytes.checked_add(align).filter(|&bytes| bytes <= PLACE_BYTES_MAX)?;
        let reserved = self.hold(held)?;
        // SAFETY: `align_offset` of a byte pointer is less than `align`.
        Some(unsafe { reserved.add(reserved.align_offset(align)) })
    }

    unsafe fn leave_place(&self, start: NonNull<u8>, _bytes: usize) {
        let _error = KeepLastError::new();
        // SAFETY: the same promise.
        unsafe { end_reservation(start) };
    }

    fn lowest(&self) -> usize {
        // Not asked for: the kernel chooses places.
        0
    }

    fn commit(&self, start: NonNull<u8>, bytes: usize) -> Result<(), NotMapped> {
        let _error = KeepLastError::new();
        // SAFETY: in a place of the caller's, where nothing was committed.
        if unsafe { commit(start, bytes) } { Ok(()) } else { Err(NotMapped::Refused) }
    }

    unsafe fn uncommit(&self, start: NonNull<u8>, bytes: usize) {
        let _error = KeepLastError::new();
        // SAFETY: the same promise.
        unsafe { decommit(start, bytes) };
    }

    fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        allocate(bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE)
    }

    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let _error = KeepLastError::new();
        for from in (0..bytes).step_by(PURGE_STEP_BYTES) {
            // SAFETY: within the range.
            let step = unsafe { start.add(from) };
            let step_bytes = PURGE_STEP_BYTES.min(bytes - from);
            // SAFETY: the caller has the range to itself, so no contents are lost that anyone wants.
            if !unsafe { decommit(step, step_bytes) } {
                return false;
            }
            // Others may have taken the charge meanwhile.
            let mut tries = RECOMMITS;
            // SAFETY: committed before.
            while !unsafe { commit(step, step_bytes) } {
                tries -= 1;
                if tries == 0 {
                    fatal(&[b"magalloc: the system has no memory left, and a purge cannot take back what it gave"]);
                }
                // SAFETY: no conditions.
                unsafe { Sleep(RECOMMIT_PAUSE_MS) };
            }
        }
        true
    }

    fn page_bytes(&self) -> usize {
        // SAFETY: all zeros is a valid one.
        let mut system: SYSTEM_INFO = unsafe { core::mem::zeroed() };
        // SAFETY: `system` is valid.
        unsafe { GetSystemInfo(&raw mut system) };
        let bytes = system.dwPageSize as usize;
        if bytes.is_power_of_two() { bytes.min(GRANULE_BYTES) } else { GRANULE_BYTES }
    }

    fn thread_us(&self) -> u64 {
        let _error = KeepLastError::new();
        let mut times = [FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 }; 4];
        let [begun, ended, kernel, user] = &mut times;
        // SAFETY: all are valid; the handle is the calling thread's.
        unsafe { GetThreadTimes(GetCurrentThread(), begun, ended, kernel, user) };
        // In units of 100 ns.
        let us = |time: &FILETIME| (u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime)) / 10;
        us(&times[2]) + us(&times[3])
    }

    fn now_ms(&self) -> u64 {
        // SAFETY: no conditions. Its step is 10 to 16 ms; it costs no system call.
        unsafe { GetTickCount64() }
    }

    fn memory_limit(&self) -> Option<usize> {
        let _error = KeepLastError::new();
        super::memory_limit::memory_limit()
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) {
        let _error = KeepLastError::new();
        // SAFETY: the same promise. Of what is only reserved, nothing changes.
        unsafe { decommit(start, bytes) };
        // A reservation goes as a whole, so with the last of its parts.
        let Some(first) = query(start.as_ptr().cast()).and_then(|known| query(known.AllocationBase)) else { return };
        let end = first.BaseAddress.wrapping_byte_add(first.RegionSize);
        let goes_on = query(end).is_some_and(|next| next.AllocationBase == first.AllocationBase);
        if first.State == MEM_RESERVE && !goes_on {
            // SAFETY: W1: nothing of it is committed, and who has had the last part is here.
            unsafe { VirtualFree(first.AllocationBase, 0, MEM_RELEASE) };
        }
    }
}
