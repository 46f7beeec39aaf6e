//! How the shared library is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Blocks and threads outlive a `dlclose`.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // The number changes when programs have to be linked anew.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmagalloc.so.0");
    // In the shared library only: see `src/deepbind.rs`.
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|environment| environment == "gnu")
        && std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| ["x86_64", "aarch64"].contains(&&*arch))
    {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--defsym=dlopen=magalloc_dlopen");
    }
    // Calls from inside stay inside, whatever functions of the same names the program has; but for what others are made
    // of by definition.
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/derived/called_by_name.list");
    println!("cargo:rerun-if-changed={list}");
    println!("cargo:rustc-cdylib-link-arg=-Wl,--dynamic-list={list}");
    // Symbols are bound at the start: no lazy binding inside malloc, no writable table of functions afterwards.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,now,-z,relro");
}
