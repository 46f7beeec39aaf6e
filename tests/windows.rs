//! Windows, as far as wine shows it: memory goes back after a burst, threads come and go, and what a process does at its
//! end. Each test is a process: the program starts itself again. Elsewhere there is nothing to test here.

#[cfg(windows)]
#[path = "windows/tests.rs"]
mod tests;

#[cfg(windows)]
#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

#[cfg(windows)]
fn main() {
    tests::main();
}

#[cfg(not(windows))]
fn main() {}
