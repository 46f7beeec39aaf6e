//! How the shared library is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Blocks and threads outlive a `dlclose`.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmagalloc.so");
    // Calls from inside stay inside, whatever functions of the same names the program has; but for what others are made
    // of by definition.
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/derived/called_by_name.list");
    println!("cargo:rerun-if-changed={list}");
    println!("cargo:rustc-cdylib-link-arg=-Wl,--dynamic-list={list}");
    // Symbols are bound at the start: no lazy binding inside malloc, no writable table of functions afterwards.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,now,-z,relro");
}
