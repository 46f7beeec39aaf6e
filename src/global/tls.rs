//! Where a thread's place in the heap is kept: two words of thread-local storage, whose first the fast path loads.
//!
//! ```text
//! # Storage     no lazy initialisation, no destructor: valid until the thread's memory is gone
//! # Models      a program's own thread-local data is at a fixed distance from the thread pointer. In a shared library
//!               the compiler's default is a call (`__tls_get_addr`) for each access; with the feature `initial-exec`
//!               the distance is read from a word that the loader has filled in, which works in programs and in
//!               libraries loaded at the program's start. "ELF Handling For Thread-Local Storage", U. Drepper, 2005
//! ```

use crate::local::LocalIndex;
use crate::local::{NO_CACHE, Tops};
use core::cell::Cell;

/// How far a thread is.
#[derive(Clone, Copy)]
pub(super) enum State {
    /// No malloc so far, and few frees; or none that could have a cache.
    Fresh {
        /// Frees so far.
        frees: usize,
    },
    /// Being registered: calls from inside are served without a cache.
    Registering,
    /// Has a cache.
    Registered(LocalIndex),
    /// Had one.
    Ended,
    /// The allocator's own: never has one. At its end, the C library may free what other threads left.
    Purger,
}

/// A thread's place.
#[repr(C)]
pub(super) struct Place {
    /// What the fast path looks at.
    pub tops: Cell<*const Tops>,
    /// The state: up to `FRESH_MAX` the frees of a fresh thread, then its number, or `REGISTERED` + the number of the
    /// cache.
    state: Cell<usize>,
}

/// Frees that a thread without a cache makes before it gets one: at its very end, when it could not give the cache up any
/// more, the C library may free some blocks for it.
pub(super) const FRESH_MAX: usize = 63;
const REGISTERING: usize = 64;
const ENDED: usize = 65;
const PURGER: usize = 66;
const REGISTERED: usize = 67;

impl Place {
    /// How far the thread is.
    pub fn state(&self) -> State {
        match self.state.get() {
            frees @ ..=FRESH_MAX => State::Fresh { frees },
            REGISTERING => State::Registering,
            ENDED => State::Ended,
            PURGER => State::Purger,
            // SAFETY: `set_state` was told one that the registry gave.
            number => State::Registered(unsafe { LocalIndex::from_number(number - REGISTERED) }),
        }
    }

    /// Says so.
    pub fn set_state(&self, state: State) {
        self.state.set(match state {
            State::Fresh { frees } => frees.min(FRESH_MAX),
            State::Registering => REGISTERING,
            State::Ended => ENDED,
            State::Purger => PURGER,
            State::Registered(me) => me.get() + REGISTERED,
        });
    }
}

pub(super) use storage::{tops, with};

#[cfg(not(all(feature = "initial-exec", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod storage {
    use super::{Cell, NO_CACHE, Place, Tops};

    std::thread_local! {
        static PLACE: Place = const { Place { tops: Cell::new(&raw const NO_CACHE), state: Cell::new(0) } };
    }

    /// The calling thread's place.
    #[inline(always)]
    pub fn with<R>(look: impl FnOnce(&Place) -> R) -> R {
        PLACE.with(look)
    }

    /// What the calling thread's fast path looks at.
    #[inline(always)]
    pub fn tops() -> *const Tops {
        with(|place| place.tops.get())
    }
}

#[cfg(all(feature = "initial-exec", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod storage {
    use super::{NO_CACHE, Place, Tops};
    use core::arch::{asm, global_asm};

    /// The symbol, different in every version of this crate.
    macro_rules! symbol {
        () => {
            concat!("magalloc.place.", env!("CARGO_PKG_VERSION"))
        };
    }

    // The initial value of every thread's place: no cache, fresh.
    global_asm!(
        ".pushsection .tdata,\"awT\",%progbits",
        ".balign 16",
        concat!(".globl ", symbol!()),
        concat!(".hidden ", symbol!()),
        concat!(".type ", symbol!(), ",%object"),
        concat!(symbol!(), ":"),
        ".quad {no_cache}",
        ".quad 0",
        concat!(".size ", symbol!(), ",16"),
        ".popsection",
        no_cache = sym NO_CACHE,
    );

    const _: () = assert!(size_of::<Place>() == 16 && core::mem::offset_of!(Place, tops) == 0);

    /// The calling thread's place.
    #[inline(always)]
    pub fn with<R>(look: impl FnOnce(&Place) -> R) -> R {
        let place: *const Place;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: reads the thread pointer and the distance of the place from it.
        unsafe {
            asm!(
                "mov {place}, qword ptr fs:[0]",
                concat!("add {place}, qword ptr [rip + ", symbol!(), "@GOTTPOFF]"),
                place = out(reg) place,
                options(pure, readonly, nostack),
            );
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: likewise.
        unsafe {
            asm!(
                concat!("adrp {distance}, :gottprel:", symbol!()),
                concat!("ldr {distance}, [{distance}, #:gottprel_lo12:", symbol!(), "]"),
                "mrs {place}, tpidr_el0",
                "add {place}, {place}, {distance}",
                place = out(reg) place,
                distance = out(reg) _,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        // SAFETY: the thread's own, valid until the thread's memory is gone; all of it is cells.
        look(unsafe { &*place })
    }

    /// What the calling thread's fast path looks at.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub fn tops() -> *const Tops {
        let tops: *const Tops;
        // SAFETY: reads the distance of the place from the thread pointer, and its first word.
        unsafe {
            asm!(
                concat!("mov {tops}, qword ptr [rip + ", symbol!(), "@GOTTPOFF]"),
                "mov {tops}, qword ptr fs:[{tops}]",
                tops = out(reg) tops,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        tops
    }

    /// What the calling thread's fast path looks at.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    pub fn tops() -> *const Tops {
        with(|place| place.tops.get())
    }
}
