//! Bugs that a model plants to show that it would see them.
//!
//! Outside models `bug` is the constant `false` and leaves no trace in the code. In a model a test switches one
//! bug on by name, and must then see the model fail. A model that cannot fail is worth nothing.

/// Is the planted bug of that name switched on?
#[cfg(not(loom))]
#[inline(always)]
pub const fn bug(_name: &str) -> bool {
    false
}

#[cfg(loom)]
std::thread_local! {
    static PLANTED: core::cell::Cell<&'static str> = const { core::cell::Cell::new("") };
}

/// Is the planted bug of that name switched on?
#[cfg(loom)]
pub fn bug(name: &str) -> bool {
    PLANTED.with(|planted| planted.get() == name)
}

/// Runs `model` with the bug of that name planted. loom runs a model's threads on the caller's, so a
/// thread-local switch reaches all of them and no other test.
#[cfg(loom)]
pub fn with_bug(name: &'static str, model: impl FnOnce()) {
    struct Unplant;
    impl Drop for Unplant {
        fn drop(&mut self) {
            PLANTED.with(|planted| planted.set(""));
        }
    }
    PLANTED.with(|planted| planted.set(name));
    let _unplant = Unplant;
    model();
}
