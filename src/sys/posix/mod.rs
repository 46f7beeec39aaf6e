//! What POSIX systems have in common. A port of one uses it, and fills in the rest: `errno_location`, `has_more_rights`, `NEW`
//! (how mmap makes memory), `wipe_in_children`, and what `sys::platform` lists beyond this.

pub mod begin_end;
pub mod cancel;
pub mod environ;
pub mod errno;
pub mod file;
pub mod fork;
pub mod mapping;
pub mod report;
pub mod signals;
pub mod spawn;
#[cfg(not(loom))]
pub mod system_malloc;
#[cfg(not(loom))]
pub mod terminate;
pub mod thread_end;
pub mod wiped;

#[cfg(not(loom))]
pub(crate) use begin_end::at_begin_and_end;
pub use begin_end::flush_stdio;
pub use environ::{for_each_variable, has_environment};
pub use file::{append, parent_id, process_id};
pub use fork::{around_forks, wait_briefly};
pub use report::{fatal, line};
pub use signals::without_signals;
pub use spawn::{join, spawn};
#[cfg(not(loom))]
pub use system_malloc::SystemMalloc;
#[cfg(not(loom))]
pub use terminate::{after_all, before_termination};
pub use thread_end::ThreadEnd;
pub use wiped::Wiped;
