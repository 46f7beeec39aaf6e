//! Linux: glibc and musl.

#[cfg_attr(target_env = "gnu", path = "glibc.rs")]
#[cfg_attr(not(target_env = "gnu"), path = "musl.rs")]
mod c_library;
mod cancel;
mod cgroup;
mod end;
mod environ;
mod file;
mod fork;
mod loader;
mod moving;
mod pages;
mod report;
mod spawn;
#[cfg(not(loom))]
mod system_malloc;
#[cfg(not(loom))]
mod terminate;
mod thread;
mod wiped;

#[cfg(not(loom))]
pub(crate) use end::at_begin_and_end;
pub use end::{Unloading, arrange_release, flush_stdio, other_threads};
pub use environ::{for_each_variable, has_environment};
pub use file::{append, parent_id, process_id, program_path};
pub use fork::{around_forks, wait_briefly};
pub use loader::Loader;
pub use pages::SystemPages;
pub use report::{fatal, line};
pub use spawn::{join, name_thread, spawn, wait, wake};
#[cfg(not(loom))]
pub use system_malloc::SystemMalloc;
#[cfg(not(loom))]
pub use terminate::{after_all, before_termination};
pub use thread::{ThreadEnd, is_alive, is_as_known, thread_id};
pub use wiped::Wiped;
