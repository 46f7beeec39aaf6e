//! Linux: glibc and musl.

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
#[cfg(not(loom))]
mod system_malloc;
#[cfg(not(loom))]
mod terminate;
mod thread;
mod wiped;
mod worker;

pub use end::{ProcessEnd, Unloading, arrange_release, flush_stdio, other_threads};
pub use environ::{for_each_variable, has_environment};
pub use file::{append, parent_id, process_id, program_path};
pub use fork::{AroundFork, around_forks, wait_briefly};
pub use loader::Loader;
pub use pages::SystemPages;
pub use report::{decimal, fatal, hex, line};
#[cfg(not(loom))]
pub use system_malloc::SystemMalloc;
#[cfg(not(loom))]
pub use terminate::{Termination, after_all, before_termination};
pub use thread::{EndOfThread, ThreadEnd, is_alive, is_as_known, thread_id};
pub use wiped::Wiped;
pub use worker::{join, name_thread, spawn, wait, wake};
