//! Tests of the heap over a fake kernel.

mod cache_bound;
#[cfg(magalloc_scheduled)]
mod contention;
mod counting;
mod dirty_bound;
mod fork_amid;
mod huge_pages;
mod idle_caches;
mod least_platform;
mod many_threads;
#[cfg(target_pointer_width = "64")]
mod mapping;
mod moving;
mod out_of_memory;
mod parking;
pub(super) mod purging;
#[cfg(target_pointer_width = "64")]
mod searching;
mod soft_limit;
