//! Linux: glibc and musl.

mod cgroup;
mod end;
mod fork;
mod pages;
mod report;
mod thread;
mod worker;

pub use end::{ProcessEnd, arrange_release, flush_stdio, other_threads};
pub use fork::{AroundFork, around_forks, wait_briefly};
pub use pages::SystemPages;
pub use report::{decimal, fatal, hex, line};
pub use thread::{EndOfThread, ThreadEnd};
pub use worker::{Worker, name_thread, wait, wake};
