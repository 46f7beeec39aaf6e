//! A part of a thread's time in an arena, whose memory is taken back at its end.
//!
//! ```text
//! # Role        stack allocation: what outer scopes hold stays usable in inner ones
//! # Safety      `'s` stands for one scope and no other: the closure that gets the scope must do with any lifetime that `'env`
//!               outlives, and the scope is invariant in it. So what has that lifetime neither leaves the closure nor comes into
//!               another scope. While an inner scope is there, the outer one is borrowed and gives nothing out. `'env` is there
//!               so that what lies in a scope may borrow what lies around it, as with `std::thread::scope`
//! ```

use super::bump::{Arena, Position};
use super::ArenaBox;
use super::methods::allocating_methods;
use crate::source::AllocError;
use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::NonNull;

/// A scope of an [`Arena`]: see [`Arena::scope`]. `'s` is the scope's own lifetime, `'env` that of what is around it.
#[derive(Debug)]
pub struct Scope<'s, 'env: 's> {
    pub(super) arena: &'s Arena,
    brand: PhantomData<fn(&'s &'env ()) -> &'s &'env ()>,
}

/// Goes back at the end of a scope, also where it ends by unwinding.
struct End<'a> {
    arena: &'a Arena,
    position: Position,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        // SAFETY: the arena's position at the scope's begin, since when it went back to ends of inner scopes only; what was
        // given out since does not outlive the scope.
        unsafe { self.arena.go_back(self.position) };
    }
}

fn run<'env, R>(arena: &Arena, work: impl for<'s> FnOnce(&mut Scope<'s, 'env>) -> R) -> R {
    let _end = End { arena, position: arena.position() };
    work(&mut Scope { arena, brand: PhantomData })
}

impl Arena {
    /// Runs `work` with a scope to allocate from, and takes back what it was given at the end. What it returns may not be
    /// in the scope.
    ///
    /// ```
    /// let mut arena = magalloc::Arena::new();
    /// let longest = arena.scope(|outer| {
    ///     let mut longest: &str = outer.alloc_str("")?;
    ///     for length in [3, 9, 4] {
    ///         let is_longer = outer.scope(|inner| {
    ///             let scratch = inner.alloc_slice_fill_with(length, |_| b'x')?;
    ///             Ok(scratch.len() > longest.len())
    ///         })?;
    ///         if is_longer {
    ///             longest = outer.alloc_str(&"x".repeat(length))?;
    ///         }
    ///     }
    ///     Ok::<_, magalloc::AllocError>(longest.len())
    /// })?;
    /// assert_eq!(longest, 9);
    /// # Ok::<(), magalloc::AllocError>(())
    /// ```
    ///
    /// What is in a scope cannot leave it:
    ///
    /// ```compile_fail
    /// let mut arena = magalloc::Arena::new();
    /// let kept: &mut i32 = arena.scope(|scope| scope.alloc(1).unwrap());
    /// ```
    /// ```
    /// let mut arena = magalloc::Arena::new();
    /// let kept: i32 = arena.scope(|scope| *scope.alloc(1).unwrap());
    /// ```
    /// nor lie in one further out:
    ///
    /// ```compile_fail,E0521
    /// # let mut arena = magalloc::Arena::new();
    /// arena.scope(|outer| {
    ///     let mut place: &i32 = outer.alloc(1).unwrap();
    ///     outer.scope(|inner| place = inner.alloc(2).unwrap());
    ///     assert_eq!(*place, 2);
    /// });
    /// ```
    /// ```
    /// # let mut arena = magalloc::Arena::new();
    /// arena.scope(|outer| {
    ///     let place = outer.alloc(1).unwrap();
    ///     outer.scope(|inner| *place = *inner.alloc(2).unwrap());
    ///     assert_eq!(*place, 2);
    /// });
    /// ```
    /// and an outer scope gives nothing out while there is an inner one:
    ///
    /// ```compile_fail,E0502
    /// # let mut arena = magalloc::Arena::new();
    /// arena.scope(|outer| outer.scope(|_inner| *outer.alloc(1).unwrap()));
    /// ```
    /// ```
    /// # let mut arena = magalloc::Arena::new();
    /// arena.scope(|outer| outer.scope(|inner| *inner.alloc(1).unwrap()));
    /// ```
    pub fn scope<'env, R>(&mut self, work: impl for<'s> FnOnce(&mut Scope<'s, 'env>) -> R) -> R {
        run(self, work)
    }
}

impl<'s> Scope<'s, '_> {
    allocating_methods!('s, "scope");

    /// A scope inside of this one: see [`Arena::scope`].
    pub fn scope<'env, R>(&mut self, work: impl for<'inner> FnOnce(&mut Scope<'inner, 'env>) -> R) -> R {
        run(self.arena, work)
    }

    #[inline(always)]
    fn bump(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.arena.bump(layout)
    }
}
