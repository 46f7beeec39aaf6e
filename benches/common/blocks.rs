//! The two allocators, blocks as `GlobalAlloc` hands them out, and a random sequence.
//!
//! # Blocks      B1  a `Block` has the address and the layout of one live block of the allocator that made it
//!               B2  every block is given back to that allocator, once: `free` takes it

#![allow(dead_code)] // Each bench uses a part of it.

use magalloc::Magalloc;
use std::alloc::{GlobalAlloc, Layout, handle_alloc_error};
use std::hint::black_box;

/// The allocator in question. What the benches themselves need comes from the global one.
pub static MAGALLOC: Magalloc = Magalloc::new();

/// Benches the same scenario with magalloc and with the system's allocator.
macro_rules! both {
    ($group:expr, $name:expr, |$bencher:ident, $allocator:ident| $scenario:expr) => {
        $group.bench_function(criterion::BenchmarkId::new("magalloc", $name), |$bencher| {
            let $allocator = &crate::blocks::MAGALLOC;
            $scenario
        });
        $group.bench_function(criterion::BenchmarkId::new("system", $name), |$bencher| {
            let $allocator = &std::alloc::System;
            $scenario
        });
    };
}
pub(crate) use both;

/// A live block. Dropping it does not free it: each scenario says when that happens.
#[must_use]
pub struct Block {
    address: *mut u8,
    layout: Layout,
}

// SAFETY: a block belongs to whoever has it; `GlobalAlloc` allows any thread to free it.
unsafe impl Send for Block {}

impl Block {
    /// Writes a byte to each of its pages from `from` on, as a program that asked for memory does.
    #[inline(always)]
    pub fn touch(&self, from: usize) {
        for offset in (from..self.layout.size()).step_by(4096) {
            // SAFETY: B1, and the offset is below the size.
            unsafe { self.address.add(offset).write_volatile(1) };
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> usize {
        self.layout.size()
    }
}

/// The layout of a block of `bytes`, aligned as most are.
#[inline(always)]
pub const fn layout(bytes: usize) -> Layout {
    assert!(bytes > 0, "a block has a byte at least");
    match Layout::from_size_align(bytes, 8) {
        Ok(layout) => layout,
        Err(_) => panic!("too large"),
    }
}

/// A new block, its first byte written.
#[inline(always)]
pub fn allocate<A: GlobalAlloc>(allocator: &A, layout: Layout) -> Block {
    // SAFETY: `layout` never makes one of size zero.
    let address = black_box(unsafe { allocator.alloc(layout) });
    if address.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: a new block of at least one byte.
    unsafe { address.write(1) };
    Block { address, layout }
}

/// Frees a block.
#[inline(always)]
pub fn free<A: GlobalAlloc>(allocator: &A, block: Block) {
    // SAFETY: B1, B2.
    unsafe { allocator.dealloc(block.address, block.layout) };
}

/// Grows a block and touches what is new.
pub fn grow<A: GlobalAlloc>(allocator: &A, block: Block, bytes: usize) -> Block {
    let grown = layout(bytes);
    // SAFETY: B1, B2; `layout` made sure that the size is above zero and not too large.
    let address = unsafe { allocator.realloc(block.address, block.layout, bytes) };
    if address.is_null() {
        handle_alloc_error(grown);
    }
    let from = block.bytes();
    let block = Block { address, layout: grown };
    block.touch(from);
    block
}

/// A random sequence, the same in every run (xorshift).
pub struct Random(u64);

impl Random {
    /// From the start.
    pub fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// A number below `bound`.
    #[inline(always)]
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * bound as u64) >> 32) as usize
    }

    /// A size as programs ask for: each doubling from 16 bytes to 1 KiB is as frequent as the next.
    #[inline(always)]
    pub fn size(&mut self) -> usize {
        let floor = 16 << self.below(6);
        floor + self.below(floor)
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index + 1));
        }
    }
}
