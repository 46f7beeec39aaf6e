//! FreeBSD, from 12 on. **Never run**: it compiles, and each call's contract is from the manual that is named beside it.
//!
//! What it leaves out: moving pages, huge pages on demand (the kernel promotes by itself), the end of the process, at which
//! nothing is unmapped but free memory, limits of jails, and the loader (`elf_aux_info` does not tell where it is).

mod end;
mod pages;
mod process;
mod threads;

pub use super::posix::*;
pub use super::unknown_loader::Loader;
pub use end::{Unloading, arrange_release, other_threads};
pub use pages::SystemPages;
pub(in crate::sys) use pages::{NEW, wipe_in_children};
pub use process::{errno_location, has_more_rights, program_path};
pub use threads::{is_alive, is_as_known, name_thread, thread_id, wait, wake};
