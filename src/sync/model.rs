//! The atomics of models: loom's, with a remedy for the interleavings that loom leaves out.
//!
//! To find what it must reorder, loom compares an operation with the last one on the same atomic only. A thread's own
//! load therefore hides another thread's earlier load from the exchange that follows, and "load, then exchange", of
//! which lock-free code is made, is hardly explored (tokio-rs/loom issues 166 and 392). So every load here first
//! writes to an atomic beside, which makes loads depend on each other. The write orders nothing: it is Relaxed.

use core::ops::Deref;
use loom::sync::atomic::Ordering;

macro_rules! atomics {
    ($($name:ident $(<$type:ident>)? of $value:ty)*) => {
        $(
            /// loom's atomic, every load of which is explored.
            #[derive(Debug)]
            pub struct $name$(<$type>)? {
                value: loom::sync::atomic::$name$(<$type>)?,
                loads: loom::sync::atomic::AtomicU8,
            }

            impl$(<$type>)? $name$(<$type>)? {
                /// An atomic with that value.
                #[track_caller]
                pub fn new(value: $value) -> Self {
                    Self {
                        value: loom::sync::atomic::$name::new(value),
                        loads: loom::sync::atomic::AtomicU8::new(0),
                    }
                }

                /// Loads the value.
                #[track_caller]
                pub fn load(&self, order: Ordering) -> $value {
                    self.loads.swap(0, Ordering::Relaxed);
                    self.value.load(order)
                }
            }

            impl$(<$type>)? Deref for $name$(<$type>)? {
                type Target = loom::sync::atomic::$name$(<$type>)?;

                fn deref(&self) -> &Self::Target {
                    &self.value
                }
            }
        )*
    };
}

atomics! { AtomicPtr<T> of *mut T AtomicU8 of u8 AtomicU16 of u16 AtomicU32 of u32 AtomicU64 of u64 AtomicUsize of usize }
