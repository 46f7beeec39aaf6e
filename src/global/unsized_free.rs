//! Blocks whose layout nobody tells: what the C interface is made of, and Rust code beside it.
//!
//! ```text
//! # Role        the size class comes from the page map: one byte, read at the block's address
//! # Errors      an address inside the heap where no block begins ends the process with one line; one outside is
//!               foreign, and `Options::foreign` says what becomes of it
//! ```

use super::{HEAP, Magalloc, init, second_path, thread, worker};
use crate::heap::Found;
use crate::options::Foreign;
use crate::size_class::{class_of, common_class_of, shape};
use crate::sys::hex;
use crate::sys::platform::fatal;

/// Alignment of a block that is larger than 8 bytes, where none is asked for, in bytes.
const ALIGN: usize = 16;

/// Every class has `ALIGN` from the second on, so a request at this alignment has `ALIGN` too, if it is longer.
const ALIGN_OF_SHORTEST: usize = 8;

impl Magalloc {
    /// A block of `size` bytes (0 is as 1), aligned to 16 bytes, or to 8 if it is no longer than that; null at the end
    /// of memory. To be freed by [`free`](Self::free).
    ///
    /// ```
    /// static MAGALLOC: magalloc::Magalloc = magalloc::Magalloc::new();
    ///
    /// let block = MAGALLOC.allocate(100);
    /// assert!(!block.is_null());
    /// // SAFETY: a live block, which is not used afterwards.
    /// unsafe { MAGALLOC.free(block) };
    /// ```
    #[inline]
    pub fn allocate(&self, size: usize) -> *mut u8 {
        match common_class_of(size, ALIGN_OF_SHORTEST) {
            Some(class) => self.alloc_class(class, ALIGN_OF_SHORTEST),
            None => self.alloc_uncommon(size, ALIGN_OF_SHORTEST),
        }
    }

    /// A block that the calling thread's cache has at hand, else null: [`allocate`](Self::allocate) may find one. For
    /// interfaces with something to do at the end of memory, off their fast path.
    ///
    /// ```
    /// static MAGALLOC: magalloc::Magalloc = magalloc::Magalloc::new();
    ///
    /// let mut block = MAGALLOC.allocate_cached(100);
    /// if block.is_null() {
    ///     block = MAGALLOC.allocate(100);
    /// }
    /// // SAFETY: a live block, or null; it is not used afterwards.
    /// unsafe { MAGALLOC.free(block) };
    /// ```
    #[inline(always)]
    pub fn allocate_cached(&self, size: usize) -> *mut u8 {
        match common_class_of(size, ALIGN_OF_SHORTEST) {
            Some(class) => thread::pop(class),
            None => core::ptr::null_mut(),
        }
    }

    /// A block of `size` bytes at a multiple of `align` bytes, a power of two up to 1 GiB; null also for others.
    ///
    /// ```
    /// static MAGALLOC: magalloc::Magalloc = magalloc::Magalloc::new();
    ///
    /// let block = MAGALLOC.allocate_aligned(100, 4096);
    /// assert!(block.addr().is_multiple_of(4096));
    /// assert!(MAGALLOC.allocate_aligned(100, 3).is_null());
    /// // SAFETY: a live block, which is not used afterwards.
    /// unsafe { MAGALLOC.free(block) };
    /// ```
    pub fn allocate_aligned(&self, size: usize, align: usize) -> *mut u8 {
        if !align.is_power_of_two() {
            return core::ptr::null_mut();
        }
        self.alloc_uncommon(size, align.max(ALIGN_OF_SHORTEST))
    }

    /// The same as [`allocate`](Self::allocate), and all of it zero.
    ///
    /// ```
    /// static MAGALLOC: magalloc::Magalloc = magalloc::Magalloc::new();
    ///
    /// let block = MAGALLOC.allocate_zeroed(100);
    /// // SAFETY: a live block of 100 bytes.
    /// assert_eq!(unsafe { block.add(99).read() }, 0);
    /// // SAFETY: a live block, which is not used afterwards.
    /// unsafe { MAGALLOC.free(block) };
    /// ```
    pub fn allocate_zeroed(&self, size: usize) -> *mut u8 {
        let Some(class) = class_of(size, ALIGN_OF_SHORTEST) else {
            // Knows which pages are zero already.
            return self.alloc_large(size, ALIGN_OF_SHORTEST, true);
        };
        let block = self.alloc_class(class, ALIGN_OF_SHORTEST);
        if !block.is_null() {
            // SAFETY: a block of at least that size, which nobody else has.
            unsafe { block.write_bytes(0, size) };
        }
        block
    }

    /// Frees a block of any size and alignment, also one that `GlobalAlloc` gave. Null is none. For an example see
    /// [`allocate`](Self::allocate).
    ///
    /// # Safety
    /// `block` is live, and not used afterwards.
    #[inline(always)]
    pub unsafe fn free(&self, block: *mut u8) {
        let has_room = match HEAP.depot().regions.use_in_first(block.addr()) {
            Some(span_kind) => thread::push_unless_newest(span_kind, block),
            None => false,
        };
        if !has_room {
            self.free_uncommon(block);
        }
    }

    #[inline(never)]
    fn free_uncommon(&self, block: *mut u8) {
        if block.is_null() {
            return;
        }
        match HEAP.find(block) {
            Found::Small(class) if thread::is_newest(class, block) => not_live(block, b"free"),
            Found::Small(class) => self.dealloc_class(block, class),
            Found::Large { .. } => self.dealloc_large(block),
            Found::Nothing | Found::Foreign => {
                let _ = self.bytes_of(block, b"free");
                if let Some(system) = second_path().other() {
                    system.free(block);
                }
            }
        }
    }

    /// Bytes of a block that may be used: at least what was asked for. 0 for null, and for a foreign block that is
    /// ignored.
    ///
    /// ```
    /// static MAGALLOC: magalloc::Magalloc = magalloc::Magalloc::new();
    ///
    /// let block = MAGALLOC.allocate(100);
    /// // SAFETY: a live block.
    /// assert!(unsafe { MAGALLOC.usable_size(block) } >= 100);
    /// // SAFETY: a live block, which is not used afterwards.
    /// unsafe { MAGALLOC.free(block) };
    /// ```
    ///
    /// # Safety
    /// `block` is live, or null.
    pub unsafe fn usable_size(&self, block: *const u8) -> usize {
        if block.is_null() {
            return 0;
        }
        match self.bytes_of(block, b"malloc_usable_size") {
            Some(bytes) => bytes,
            None => second_path().other().map_or(0, |system| system.usable_size(block.cast_mut())),
        }
    }

    /// A block of `size` bytes with the contents of `block`, as far as they fit: the same one where possible. Aligned
    /// as by [`allocate`](Self::allocate). Null at the end of memory, and then `block` is as before; as is a foreign one
    /// that is ignored.
    ///
    /// ```
    /// static MAGALLOC: magalloc::Magalloc = magalloc::Magalloc::new();
    ///
    /// let block = MAGALLOC.allocate_zeroed(100);
    /// // SAFETY: a live block, which is not used afterwards, as there is memory.
    /// let longer = unsafe { MAGALLOC.reallocate(block, 10_000) };
    /// // SAFETY: a live block of 10,000 bytes, of which the first 100 are as they were.
    /// assert_eq!(unsafe { longer.add(99).read() }, 0);
    /// // SAFETY: a live block, which is not used afterwards.
    /// unsafe { MAGALLOC.free(longer) };
    /// ```
    ///
    /// # Safety
    /// `block` is live, or null, which is an empty one; if the result is not null, it is not used afterwards.
    pub unsafe fn reallocate(&self, block: *mut u8, size: usize) -> *mut u8 {
        if block.is_null() {
            return self.allocate(size);
        }
        let Some(bytes) = self.bytes_of(block, b"realloc") else {
            return second_path().other().map_or(core::ptr::null_mut(), |system| system.reallocate(block, size));
        };
        let class = class_of(size, ALIGN_OF_SHORTEST);
        // Stays where it fits, unless most of it would be waste.
        let stays = match class {
            Some(class) => bytes >= size && shape(class).bytes as usize > bytes / 2,
            None => false,
        };
        if stays {
            return block;
        }
        if class.is_none() && class_of(bytes, ALIGN_OF_SHORTEST).is_none() {
            let resized = self.resize_large(block, size, ALIGN);
            if !resized.is_null() {
                return resized;
            }
        }
        let new = self.allocate(size);
        if !new.is_null() {
            // SAFETY: two blocks, each of at least that many bytes.
            unsafe { core::ptr::copy_nonoverlapping(block, new, bytes.min(size)) };
            // SAFETY: the caller gives the old block up.
            unsafe { self.free(block) };
        }
        new
    }

    /// Takes over the options, this value's and the environment's, if no call has yet, and prepares what must not be
    /// done amid a call of the C library's. For a library's constructor.
    #[doc(hidden)]
    pub fn begin(&self) {
        init::configure(&self.options);
        worker::prepare();
    }

    /// Sees to it that somebody purges, after a call that was not as fast as can be, made by the code at `caller`. For
    /// a library that is the C library's malloc.
    #[doc(hidden)]
    #[inline]
    pub fn attend(&self, caller: usize) {
        worker::attend_program(caller);
    }

    /// Is `address` in memory of this heap?
    ///
    /// ```
    /// static MAGALLOC: magalloc::Magalloc = magalloc::Magalloc::new();
    ///
    /// assert!(!MAGALLOC.owns((&raw const MAGALLOC).cast()));
    /// ```
    pub fn owns(&self, address: *const u8) -> bool {
        HEAP.owns(address)
    }

    /// Bytes of a block; `None` if it is not of this heap, and may be ignored.
    fn bytes_of(&self, block: *const u8, caller: &[u8]) -> Option<usize> {
        match HEAP.find(block) {
            Found::Small(class) => Some(shape(class).bytes as usize),
            Found::Large { bytes } => Some(bytes),
            // After the end, or another allocator's, which goes there.
            Found::Foreign if HEAP.is_closed() || second_path().other().is_some() => None,
            Found::Foreign if HEAP.depot().settings.foreign() == Foreign::Ignore => None,
            Found::Foreign => foreign(block, caller),
            Found::Nothing => not_live(block, caller),
        }
    }
}

#[cold]
fn not_live(block: *const u8, caller: &[u8]) -> ! {
    fatal(&[
        b"magalloc: ",
        caller,
        b" of ",
        &hex(block.addr()),
        b", which is not a live block: freed twice, or not the address that malloc gave",
    ])
}

#[cold]
fn foreign(block: *const u8, caller: &[u8]) -> ! {
    if HEAP.depot().mappings.was_taken(block.addr()) {
        not_live(block, caller);
    }
    fatal(&[
        b"magalloc: ",
        caller,
        b" of ",
        &hex(block.addr()),
        b", which another allocator gave (MAGALLOC_FOREIGN=ignore lets it be)",
    ])
}
