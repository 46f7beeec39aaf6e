//! The calls that all arenas have, written once.
//!
//! ```text
//! # Role        values, slices and texts on top of `bump(Layout)`, which each arena has its own of
//! ```

/// Makes the allocating calls of an arena that has `fn bump(&self, Layout) -> Result<NonNull<u8>, AllocError>`, whose memory
/// is the caller's alone and stays for `$life`.
macro_rules! allocating_methods {
    ($life:lifetime, $self_type:literal) => {
        #[doc = concat!("Puts a value in the ", $self_type, ". Its destructor does not run: see [`alloc_box`](Self::alloc_box).")]
        #[inline]
        #[allow(clippy::mut_from_ref, reason = "each call returns memory that nobody else has")]
        pub fn alloc<T>(&self, value: T) -> Result<&$life mut T, AllocError> {
            self.alloc_with(|| value)
        }

        /// Puts the value that `make` returns there, which is called once there is a place for it.
        #[inline]
        #[allow(clippy::mut_from_ref, reason = "each call returns memory that nobody else has")]
        pub fn alloc_with<T>(&self, make: impl FnOnce() -> T) -> Result<&$life mut T, AllocError> {
            let place = self.bump(Layout::new::<T>())?.cast::<T>();
            // SAFETY: the place is for a `T`, and nobody else has it.
            unsafe { place.write(make()) };
            // SAFETY: a value by now, for as long as the memory stays.
            Ok(unsafe { &mut *place.as_ptr() })
        }

        /// The same as an owner: when it is dropped, the value's destructor runs. The memory stays.
        #[inline]
        pub fn alloc_box<T>(&self, value: T) -> Result<ArenaBox<$life, T>, AllocError> {
            // Wrapped once there is a place: without memory the value is dropped.
            Ok(ArenaBox::new(self.alloc_with(|| core::mem::ManuallyDrop::new(value))?))
        }

        /// A copy of a slice.
        #[inline]
        #[allow(clippy::mut_from_ref, reason = "each call returns memory that nobody else has")]
        pub fn alloc_slice_copy<T: Copy>(&self, values: &[T]) -> Result<&$life mut [T], AllocError> {
            let place = self.bump(Layout::for_value(values))?.cast::<T>();
            // SAFETY: the place is new and has room for as many.
            unsafe { place.as_ptr().copy_from_nonoverlapping(values.as_ptr(), values.len()) };
            // SAFETY: as many values by now, for as long as the memory stays, and nobody else has them.
            Ok(unsafe { core::slice::from_raw_parts_mut(place.as_ptr(), values.len()) })
        }

        /// A slice of `count` values; `make` is told the index. Their destructors do not run.
        #[inline]
        #[allow(clippy::mut_from_ref, reason = "each call returns memory that nobody else has")]
        pub fn alloc_slice_fill_with<T>(
            &self,
            count: usize,
            mut make: impl FnMut(usize) -> T,
        ) -> Result<&$life mut [T], AllocError> {
            let layout = Layout::array::<T>(count).map_err(|_| AllocError)?;
            let place = self.bump(layout)?.cast::<T>();
            for index in 0..count {
                // SAFETY: the place is new and has room for `count`.
                unsafe { place.add(index).write(make(index)) };
            }
            // SAFETY: as many values by now, for as long as the memory stays, and nobody else has them.
            Ok(unsafe { core::slice::from_raw_parts_mut(place.as_ptr(), count) })
        }

        /// A copy of a text.
        #[inline]
        #[allow(clippy::mut_from_ref, reason = "each call returns memory that nobody else has")]
        pub fn alloc_str(&self, text: &str) -> Result<&$life mut str, AllocError> {
            let bytes = self.alloc_slice_copy(text.as_bytes())?;
            // SAFETY: the bytes of a text.
            Ok(unsafe { core::str::from_utf8_unchecked_mut(bytes) })
        }

        /// Memory of any size and alignment (1 GiB at most), with nothing in it. It stays as long as what the other calls
        /// return; that no borrow says so is why it is a pointer.
        #[inline]
        pub fn alloc_layout(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
            self.bump(layout)
        }
    };
}
pub(super) use allocating_methods;
