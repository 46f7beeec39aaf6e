//! The operators that are made of other operators, or of `free`, as the C++ standard has it.

#[cfg(target_arch = "aarch64")]
use crate::aarch64::{_Znwm, _ZnwmSt11align_val_t, forward, nothrow, third_as_second};
#[cfg(target_arch = "x86_64")]
use crate::x86_64::{_Znwm, _ZnwmSt11align_val_t, forward, nothrow, third_as_second};
use crate::{called, catch_all, free, operator};
use core::ffi::c_void;

nothrow! { _ZnwmRKSt9nothrow_t(size) = _Znwm }
nothrow! { _ZnamRKSt9nothrow_t(size) = _Znam }
nothrow! { _ZnwmSt11align_val_tRKSt9nothrow_t(size, align) = _ZnwmSt11align_val_t }
nothrow! { _ZnamSt11align_val_tRKSt9nothrow_t(size, align) = _ZnamSt11align_val_t }

forward! {
    _Znam(size: usize) -> *mut c_void = _Znwm;
    _ZnamSt11align_val_t(size: usize, align: usize) -> *mut c_void = _ZnwmSt11align_val_t;
    _ZdlPv(block: *mut c_void) = free;
    _ZdlPvSt11align_val_t(block: *mut c_void, align: usize) = free;
    _ZdaPv(block: *mut c_void) = _ZdlPv;
    _ZdaPvSt11align_val_t(block: *mut c_void, align: usize) = _ZdlPvSt11align_val_t;
    _ZdlPvm(block: *mut c_void, size: usize) = _ZdlPv;
    _ZdaPvm(block: *mut c_void, size: usize) = _ZdaPv;
    _ZdlPvRKSt9nothrow_t(block: *mut c_void, nothrow: *const c_void) = _ZdlPv;
    _ZdaPvRKSt9nothrow_t(block: *mut c_void, nothrow: *const c_void) = _ZdaPv;
    _ZdlPvmSt11align_val_t(block: *mut c_void, size: usize, align: usize) = _ZdlPvSt11align_val_t by third_as_second;
    _ZdaPvmSt11align_val_t(block: *mut c_void, size: usize, align: usize) = _ZdaPvSt11align_val_t by third_as_second;
    _ZdlPvSt11align_val_tRKSt9nothrow_t(block: *mut c_void, align: usize, nothrow: *const c_void)
        = _ZdlPvSt11align_val_t;
    _ZdaPvSt11align_val_tRKSt9nothrow_t(block: *mut c_void, align: usize, nothrow: *const c_void)
        = _ZdaPvSt11align_val_t;
}
