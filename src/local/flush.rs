//! Flushing: blocks go home to the bitmaps of their slabs.
//!
//! ```text
//! # Role        neighbours are combined: one atomic operation for all blocks of a bitmap word that come in a row.
//!               What the operation finds tells the rest: a double free, the first free block of a word (the slab
//!               must be queued), a word that is full (the slab may be empty). The purge is told of all chunks of a group
//!               at once, after the last release there
//! # Errors      a pointer that is no block, or a block that is free already, ends the process with one line
//! # Not here    which blocks, and when (see `local`)
//! ```

use crate::depot::Depot;
use crate::depot::magazines::Slot;
use crate::chunk::span_map::low_bits;
use crate::config::GROUP_CHUNKS;
use crate::pagemap::{Region, SlabRef};
use crate::local::Shared;
use crate::local::registry::LocalIndex;
use crate::size_class::{SizeClass, shape};
use crate::slab::SpanKind;
use crate::slab::bitmap::Released;
use crate::sys::{Pages, decimal, hex, platform};
use crate::units::{ClassIndex, GranuleIndex, SlabId};

impl<P: Pages> Shared<'_, P> {
    /// Gives `blocks` of `class` back to their slabs, for the thread that owns `me`, or for one without a local heap.
    ///
    /// The blocks are the caller's and are not used any more; if the program broke this promise, the process ends.
    pub fn flush(self, me: Option<LocalIndex>, class: ClassIndex, blocks: &[Slot]) {
        let (depot, shape) = (self.depot, shape(class));
        let bytes = shape.bytes as usize;
        let word_bytes = 64 * bytes;
        let Some(&oldest) = blocks.first() else { return };
        let Some(mut region) = depot.regions.get(0) else { invalid_free(depot, class, oldest) };
        // Chunks of a group in which blocks were released, of which the purge is not told yet.
        let (mut group, mut untold) = (0, 0);
        let mut rest = blocks;
        while let [block, behind @ ..] = rest {
            let block = *block;
            let granule = match region.granule_of(block.addr()) {
                Some(granule) => granule,
                None => {
                    depot.note_freed_in_group(region, group, untold);
                    let granule;
                    (region, granule) = find(depot, class, block);
                    (group, untold) = (granule.chunk() / GROUP_CHUNKS, 0);
                    granule
                }
            };
            if !region.is_slab_of(granule, class) {
                invalid_free(depot, class, block);
            }
            let first =
                if shape.granules == 1 { granule } else { granule.back(region.descriptor(granule).back()) };
            let offset = block.addr() - region.address(first).addr().get();
            let number = divide(shape, offset);
            // Not a block's start, or in the tail behind the last block.
            if number * bytes != offset || number >= shape.blocks as usize {
                invalid_free(depot, class, block);
            }
            let (word, bit) = (number / 64, number % 64);
            let word_start = block.addr() - bit * bytes;
            // One comparison tells most blocks that come alone.
            let mask = if behind.first().is_none_or(|next| next.addr().wrapping_sub(word_start) >= word_bytes) {
                rest = behind;
                1 << bit
            } else {
                let (mask, count) = gather(depot, class, rest, number);
                rest = &rest[count..];
                mask
            };
            let slab = SlabRef::new(region, first, class);
            match slab.word(word).release(mask) {
                // Some block between free ones is in use: nothing to see to.
                Released::More { now } if now & now.wrapping_add(1) != 0 => {}
                released => self.see_to(me, region, first, class, word, released),
            }
            let chunk = first.chunk();
            if chunk / GROUP_CHUNKS != group {
                depot.note_freed_in_group(region, group, untold);
                (group, untold) = (chunk / GROUP_CHUNKS, 0);
            }
            untold |= 1 << (chunk % GROUP_CHUNKS);
        }
        depot.note_freed_in_group(region, group, untold);
        match me {
            Some(me) => self.registry.cache(me).traffic(class).given.add_own(blocks.len()),
            None => self.depot.counts.beside(class).given.add(blocks.len()),
        }
    }

    /// Releases the blocks `mask` of word `word`, which are the caller's, and sees to the slab.
    pub fn release_blocks(self, me: Option<LocalIndex>, slab: &SlabRef<'_>, word: usize, mask: u64) {
        self.see_to(me, slab.region(), slab.granule, slab.class, word, slab.word(word).release(mask));
    }

    /// After a release that found `released` in the slab of `class` at granule `first`: queues one that had no free block
    /// in that word, retires one that has no other.
    #[inline(never)]
    fn see_to(
        self,
        me: Option<LocalIndex>,
        region: &Region,
        first: GranuleIndex,
        class: ClassIndex,
        word: usize,
        released: Released,
    ) {
        let slab = SlabRef::new(region, first, class);
        match released {
            Released::First { now } => {
                if slab.descriptor().enter_queue() {
                    self.queue(me, slab.id());
                }
                self.retire_if_free(me, &slab, word, now);
            }
            Released::More { now } => self.retire_if_free(me, &slab, word, now),
            Released::DoubleFree { blocks } => {
                let offset = (word * 64 + blocks.trailing_zeros() as usize) * slab.shape().bytes as usize;
                double_free(slab.base().as_ptr().wrapping_add(offset));
            }
        }
    }

    /// After a release that left `now` in word `word`: if that was the last block, the slab goes back to its chunk.
    #[inline]
    fn retire_if_free(
        self,
        me: Option<LocalIndex>,
        slab: &SlabRef<'_>,
        word: usize,
        now: u64,
    ) {
        if now != slab.shape().word_mask(word) {
            return;
        }
        if slab.shape().words() > 1 {
            slab.descriptor().after_full_word();
        }
        if !slab.is_free() || self.depot.retire_if_partial(*slab) {
            return;
        }
        // Perhaps it waits on the remote-free queue of a local heap that is idle. What the local heap has otherwise is bounded.
        let owner = slab.descriptor().owner();
        if me.is_none_or(|me| me.get() != owner as usize) {
            self.flush_remote_frees_of(owner);
        }
    }

    /// Finds a place for a slab that the caller has just become the holder of.
    #[cold]
    fn queue(self, me: Option<LocalIndex>, id: SlabId) {
        // The class is read anew (invariant I1 of `refill`). A held slab has one.
        let Some(slab) = self.depot.regions.slab(id) else { return };
        let number = slab.descriptor().owner();
        if let Some(me) = me
            && me.get() == number as usize
        {
            self.receive(me, id);
            return;
        }
        if self.registry.push_remote_free(number, slab).is_err() {
            self.depot.give_slab(slab);
        }
    }
}

/// The region and granule of `block`, which must be in one.
#[cold]
#[inline(never)]
fn find<P: Pages>(depot: &Depot<P>, class: ClassIndex, block: Slot) -> (&Region, GranuleIndex) {
    depot.regions.find(block.addr()).unwrap_or_else(|| invalid_free(depot, class, block))
}

/// The bits of the first of `blocks`, which is block `number` of its slab, and of all of its word that follow it in a row; and
/// how many they are. Out of line: what comes alone has the registers.
#[inline(never)]
fn gather<P: Pages>(depot: &Depot<P>, class: ClassIndex, blocks: &[Slot], number: usize) -> (u64, usize) {
    let shape = shape(class);
    let bytes = shape.bytes as usize;
    let mut bit = number % 64;
    let word_blocks = (shape.blocks as usize - (number - bit)).min(64);
    let word_start = blocks[0].addr() - bit * bytes;
    let (mut mask, mut next) = (0, 0);
    loop {
        let (run, run_mask) = run_from(&blocks[next..], bytes, bit, word_blocks);
        if mask & run_mask != 0 {
            double_free(blocks[next]);
        }
        mask |= run_mask;
        next += run;
        let Some(&neighbour) = blocks.get(next) else { break };
        let offset = neighbour.addr().wrapping_sub(word_start);
        if offset >= word_blocks * bytes {
            break;
        }
        bit = divide(shape, offset);
        if bit * bytes != offset {
            invalid_free(depot, class, neighbour);
        }
    }
    (mask, next)
}

/// How many of `blocks` lie side by side, upwards or downwards, from the first one on, which is number `bit` of a
/// word of `word_blocks`; and their bits. Blocks that were allocated in a row are mostly freed in a row: no division.
/// The second one tells which way it goes, if any.
#[inline(always)]
fn run_from(blocks: &[Slot], bytes: usize, bit: usize, word_blocks: usize) -> (usize, u64) {
    let distance = blocks.get(1).map_or(0, |second| second.addr().wrapping_sub(blocks[0].addr()));
    if distance == bytes {
        let up = run_length(blocks, bytes, word_blocks - bit);
        (up, low_bits(up) << bit)
    } else if distance == bytes.wrapping_neg() {
        let down = run_length(blocks, distance, bit + 1);
        (down, low_bits(down) << (bit + 1 - down))
    } else {
        (1, 1 << bit)
    }
}

/// Length of the run of blocks at distance `step` that begins with the first; at least 1, at most `most`.
#[inline(always)]
fn run_length(blocks: &[Slot], step: usize, most: usize) -> usize {
    let mut next = blocks[0].addr();
    blocks
        .iter()
        .take(most)
        .take_while(|block| {
            let expected = next;
            next = next.wrapping_add(step);
            block.addr() == expected
        })
        .count()
}

/// `offset / bytes` for offsets that are multiples; something else, which the caller notices, for others.
#[inline(always)]
fn divide(shape: &SizeClass, offset: usize) -> usize {
    ((offset as u64 * u64::from(shape.reciprocal)) >> 32) as usize
}

#[cold]
#[inline(never)]
fn double_free(block: Slot) -> ! {
    platform::fatal(&[b"magalloc: double free of block ", &hex(block.addr())])
}

#[cold]
#[inline(never)]
fn invalid_free<P: Pages>(depot: &Depot<P>, class: ClassIndex, block: Slot) -> ! {
    let told = decimal(shape(class).bytes as usize);
    let found = depot.regions.find(block.addr()).map(|(region, granule)| region.span_kind(granule));
    let digits;
    let (what, bytes): (&[u8], &[u8]) = match found {
        Some(SpanKind::Slab(found)) if found == class => (b"no block begins there", b""),
        Some(SpanKind::Slab(found)) => {
            digits = decimal(shape(found).bytes as usize);
            (b"there are blocks of ", &digits)
        }
        Some(SpanKind::Large) => (b"a large block is there", b""),
        None if depot.mappings.contains(block.addr()) => (b"a large block is there", b""),
        Some(SpanKind::Other) => (b"no block is there", b""),
        None => (b"that is no memory of this allocator", b""),
    };
    let address = hex(block.addr());
    platform::fatal(&[
        b"magalloc: free of ",
        &address,
        b", which is not a block of that size (of the class of ",
        &told,
        b"): ",
        what,
        bytes,
    ])
}
