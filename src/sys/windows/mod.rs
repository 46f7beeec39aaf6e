//! Windows 10 and later, with the calls of windows-sys. Tested under wine, which shows behaviour and not timing; never run
//! on Windows itself.
//!
//! ```text
//! # Memory      a place is reserved whole and committed in steps (`Capabilities::holds_places`): VirtualAlloc reserves at
//!               multiples of 64 KiB only, and a reservation ends as a whole only
//! # Callbacks   the loader calls what `.CRT$XL` sections of a program or library name, at its beginning and end, and at
//!               the end of each thread: after the standard library's destructors, as the names of sections are sorted
//! # Process end ExitProcess ends all other threads, at any instruction, before the loader calls anybody
//! # Left out    moving pages and resizing mappings, huge pages (they want a right, and all their memory at once), the
//!               parent's number, the thread's name; forks and SIGTERM, which there are not
//! ```

mod end;
mod environ;
mod file;
mod last_error;
#[cfg(all(target_env = "gnu", not(target_abi = "llvm"), not(loom)))]
mod local_data;
mod memory_limit;
mod pages;
mod report;
#[cfg(not(loom))]
mod system_malloc;
mod text;
mod thread_end;
mod threads;
mod without;

#[cfg(not(loom))]
pub(crate) use end::at_begin_and_end;
#[cfg(not(loom))]
pub use end::loader_called;
pub use end::{Unloading, arrange_release, flush_stdio, other_threads};
pub use environ::{for_each_variable, has_environment};
pub use file::{append, parent_id, process_id, program_path};
#[cfg(all(target_env = "gnu", not(target_abi = "llvm"), not(loom)))]
pub(crate) use local_data::local_data;
pub use pages::SystemPages;
pub use report::{fatal, line};
#[cfg(not(loom))]
pub use system_malloc::SystemMalloc;
pub use thread_end::ThreadEnd;
pub use threads::{is_alive, is_as_known, join, name_thread, spawn, thread_id, wait, wait_briefly, wake};
pub use super::unknown_loader::Loader;
pub use without::{Wiped, around_forks, without_signals};
#[cfg(not(loom))]
pub use without::{after_all, before_termination};
