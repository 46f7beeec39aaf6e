//! Linux: glibc and musl.

#[cfg_attr(target_env = "gnu", path = "glibc.rs")]
#[cfg_attr(not(target_env = "gnu"), path = "musl.rs")]
mod c_library;
mod cgroup;
mod end;
mod futex;
mod loader;
mod moving;
mod pages;
mod program;
mod read;
mod thread;

pub use super::posix::*;
pub use end::{Unloading, arrange_release, other_threads};
pub use futex::{name_thread, wait, wake};
pub use loader::Loader;
pub use pages::SystemPages;
pub(in crate::sys) use pages::{NEW, wipe_in_children};
pub use program::{errno_location, has_more_rights, program_path};
pub use thread::{is_alive, is_as_known, thread_id};
