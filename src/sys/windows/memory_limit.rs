//! The limit of the job that this process is in.

use windows_sys::Win32::System::JobObjects::{
    JOB_OBJECT_LIMIT_JOB_MEMORY, JOB_OBJECT_LIMIT_PROCESS_MEMORY, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JobObjectExtendedLimitInformation, QueryInformationJobObject,
};

/// Bytes that the job, or each process in it, may commit, where that is limited.
pub(super) fn memory_limit() -> Option<usize> {
    // SAFETY: all zeros is a valid one.
    let mut limits: JOBOBJECT_EXTENDED_LIMIT_INFORMATION = unsafe { core::mem::zeroed() };
    let bytes = size_of_val(&limits) as u32;
    // SAFETY: `limits` is valid and as long as is said. Without a handle, it is the calling process's job.
    let is_known = unsafe {
        QueryInformationJobObject(
            core::ptr::null_mut(),
            JobObjectExtendedLimitInformation,
            (&raw mut limits).cast(),
            bytes,
            core::ptr::null_mut(),
        ) != 0
    };
    let flags = limits.BasicLimitInformation.LimitFlags;
    let limit = |flag: u32, bytes: usize| (is_known && flags & flag != 0 && bytes != 0).then_some(bytes);
    let of_job = limit(JOB_OBJECT_LIMIT_JOB_MEMORY, limits.JobMemoryLimit);
    let of_process = limit(JOB_OBJECT_LIMIT_PROCESS_MEMORY, limits.ProcessMemoryLimit);
    of_job.into_iter().chain(of_process).min()
}
