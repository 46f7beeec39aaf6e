//! Linux: glibc and musl.

mod end;
mod pages;
mod report;
mod thread;

pub use end::{ProcessEnd, arrange_release, flush_stdio, other_threads};
pub use pages::SystemPages;
pub use report::{decimal, fatal, hex, line};
pub use thread::{EndOfThread, ThreadEnd};
