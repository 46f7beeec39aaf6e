//! Size classes: which block size serves a request.
//!
//! ```text
//! # Role        size and alignment to class; a class's block size, slab shape and divisor. Pure arithmetic.
//! # Classes     8; 16 to 128 in steps of 16; then 8 steps per doubling up to 32 KiB: at most 1/9 of a block
//!               above 128 bytes is waste. 73 in all.
//! # Alignment   a slab starts at a granule, so a block is aligned to every power of two up to a granule that divides its
//!               size.
//! ```
//! # Look-up     one byte of a table up to 1 KiB, a count of leading zeros above: O(1)
//! ```text
//! # Checked by  the tests below (every size, every alignment); one prints the table (`--nocapture`)
//! ```

use crate::config::{GRANULE_BYTES, MAGAZINE_BYTES_MAX, MAGAZINE_BLOCKS_MAX, SMALL_BYTES_MAX};
use crate::units::ClassIndex;

/// log2 of the steps per doubling above 128 bytes.
const STEPS_SHIFT: u32 = 3;
/// log2 of the size up to which steps are 16 bytes wide.
const LINEAR_SHIFT: u32 = 7;
/// Classes up to and with 128 bytes: 8, and 8 multiples of 16.
const LINEAR_COUNT: usize = 1 + (1 << LINEAR_SHIFT) / 16;
/// Number of size classes.
pub const CLASS_COUNT: usize =
    LINEAR_COUNT + ((SMALL_BYTES_MAX.ilog2() - LINEAR_SHIFT) as usize) * (1 << STEPS_SHIFT);

/// Sizes served by the table, in bytes.
const TABLE_BYTES_MAX: usize = 1024;
/// Alignment that every class of at least that size has, in bytes.
const ALIGN_NATURAL: usize = 16;
/// `align - 1` shifted by this is below `TABLE_BYTES_MAX` for natural alignments only.
const ALIGN_SHIFT: u32 = (TABLE_BYTES_MAX / ALIGN_NATURAL).ilog2();
const _: () = assert!(TABLE_BYTES_MAX.is_power_of_two() && ALIGN_NATURAL << ALIGN_SHIFT == TABLE_BYTES_MAX);
/// Largest alignment that blocks of a slab may have, in bytes: that of the slab.
const ALIGN_SMALL_MAX: usize = if GRANULE_BYTES < SMALL_BYTES_MAX { GRANULE_BYTES } else { SMALL_BYTES_MAX };
/// Granules of a slab at most.
pub(crate) const SLAB_GRANULES_MAX: usize = if GRANULE_BYTES < 64 << 10 { 16 } else { 8 };
/// A slab has at least this many blocks, to spread the cost of making it.
const SLAB_BLOCKS_MIN: usize = 4;
/// Blocks of a slab at most: a granule of 8-byte blocks.
pub(crate) const SLAB_BLOCKS_MAX: usize = GRANULE_BYTES / 8;
/// Blocks whose bits lie in a slab's descriptor (see `slab::ChunkMeta`): those of 64 bytes in a granule of 16 KiB.
pub(crate) const NEAR_BLOCKS: usize = 256;

/// What the rest of the allocator knows of a class.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub struct SizeClass {
    /// Bytes of a block.
    pub bytes: u32,
    /// ceil(2^32 / bytes): `offset * reciprocal >> 32` is the block's number for every offset that is a multiple.
    pub reciprocal: u32,
    /// Blocks of a slab.
    pub blocks: u16,
    /// Granules of a slab.
    pub granules: u8,
    /// Blocks of a magazine at most.
    pub magazine_blocks: u8,
}

impl SizeClass {
    /// Words of a slab's free bitmap.
    #[inline(always)]
    pub const fn words(&self) -> usize {
        (self.blocks as usize).div_ceil(64)
    }

    /// The bits of word `word` that stand for blocks.
    #[inline(always)]
    pub const fn word_mask(&self, word: usize) -> u64 {
        let blocks = self.blocks as usize - word * 64;
        if blocks >= 64 { u64::MAX } else { (1 << blocks) - 1 }
    }
}

/// All classes, smallest first.
pub static CLASSES: [SizeClass; CLASS_COUNT] = CLASSES_CONST;

const CLASSES_CONST: [SizeClass; CLASS_COUNT] = {
    let mut classes = [make(8); CLASS_COUNT];
    let mut index = 1;
    while index < CLASS_COUNT {
        let bytes = if index < LINEAR_COUNT {
            index * 16
        } else {
            let step = index - LINEAR_COUNT;
            let doubling = LINEAR_SHIFT as usize + (step >> STEPS_SHIFT);
            (1 << doubling) + ((step & ((1 << STEPS_SHIFT) - 1)) + 1) * (1 << (doubling - STEPS_SHIFT as usize))
        };
        classes[index] = make(bytes);
        index += 1;
    }
    classes
};

/// The class of blocks of `bytes`: its slab is the smallest with at most 1/16 of tail waste and enough blocks.
const fn make(bytes: usize) -> SizeClass {
    let mut granules = 1;
    let mut best = 1;
    let mut best_tail = usize::MAX;
    while granules <= SLAB_GRANULES_MAX {
        let slab = granules * GRANULE_BYTES;
        let tail = slab % bytes;
        if tail * 16 <= slab && slab / bytes >= SLAB_BLOCKS_MIN {
            best = granules;
            break;
        }
        if slab / bytes >= SLAB_BLOCKS_MIN && tail * best < best_tail.saturating_mul(granules) {
            best = granules;
            best_tail = tail;
        }
        granules += 1;
    }
    let magazine = MAGAZINE_BYTES_MAX / bytes;
    SizeClass {
        bytes: bytes as u32,
        reciprocal: (1u64 << 32).div_ceil(bytes as u64) as u32,
        blocks: (best * GRANULE_BYTES / bytes) as u16,
        granules: best as u8,
        magazine_blocks: if magazine < MAGAZINE_BLOCKS_MAX { magazine as u8 } else { MAGAZINE_BLOCKS_MAX as u8 },
    }
}

/// Class by `(size - 1) / 8`, for sizes up to `TABLE_BYTES_MAX`. A constant, so that the look-up of a constant size
/// is one.
const TABLE: &[u8; TABLE_BYTES_MAX / 8] = &{
    let mut table = [0; TABLE_BYTES_MAX / 8];
    let mut step = 0;
    while step < table.len() {
        let mut class = 0;
        while (CLASSES_CONST[class].bytes as usize) < (step + 1) * 8 {
            class += 1;
        }
        table[step] = class as u8;
        step += 1;
    }
    table
};

const _: () = {
    let mut class = 0;
    while class < CLASS_COUNT {
        let shape = &CLASSES_CONST[class];
        assert!(shape.blocks as usize <= SLAB_BLOCKS_MAX);
        assert!(shape.granules == 1 || shape.blocks as usize <= NEAR_BLOCKS, "a long slab's bits lie in its descriptor");
        assert!(shape.magazine_blocks >= 2, "half a magazine is at least a block");
        class += 1;
    }
    assert!(CLASSES_CONST[CLASS_COUNT - 1].bytes as usize == SMALL_BYTES_MAX);
    assert!(CLASS_COUNT < u8::MAX as usize - 2, "class bytes keep room for their special values");
};

/// The smallest class that serves `size` bytes at `align`, if the table tells it; `None` says nothing.
///
/// `align` is a power of two. Any size is allowed.
#[inline(always)]
pub fn common_class_of(size: usize, align: usize) -> Option<ClassIndex> {
    // One comparison for both: `size - 1` is below 1024, and `align - 1` below 16 if it is, shifted, below 1024.
    // A size of 0 wraps around and is not common.
    let (last, mask) = (size.wrapping_sub(1), align.wrapping_sub(1));
    if last | mask << ALIGN_SHIFT >= TABLE_BYTES_MAX {
        return None;
    }
    // With the mask: a class of at least `align` bytes is a multiple of it, up to 16.
    let step = (last | mask) / 8;
    // SAFETY: both are below TABLE_BYTES_MAX, a power of two, so `step` is below the table's length.
    let class = unsafe { *TABLE.get_unchecked(step) };
    // SAFETY: ClassIndex I1: it was found by indexing CLASSES.
    Some(unsafe { ClassIndex::new(class) })
}

/// The smallest class that serves `size` bytes at `align`, or none where only a span does. As above.
#[inline]
pub fn class_of(size: usize, align: usize) -> Option<ClassIndex> {
    if let Some(class) = common_class_of(size, align) {
        return Some(class);
    }
    if size > SMALL_BYTES_MAX || align > ALIGN_SMALL_MAX {
        return None;
    }
    let mut class = index_of(size.max(1).next_multiple_of(align));
    // Ends at the latest at the largest class, a power of two.
    while align > ALIGN_NATURAL && !CLASSES[class].bytes.is_multiple_of(align as u32) {
        class += 1;
    }
    // SAFETY: ClassIndex I1: `index_of` ends at the largest class for the largest size, and so does the loop.
    Some(unsafe { ClassIndex::new(class as u8) })
}

/// Number of the smallest class of at least `size` bytes; `size` is from 1 to `SMALL_BYTES_MAX`.
const fn index_of(size: usize) -> usize {
    if size <= TABLE_BYTES_MAX {
        return TABLE[(size - 1) / 8] as usize;
    }
    let last = size - 1;
    let doubling = last.ilog2();
    let step = (last >> (doubling - STEPS_SHIFT)) & ((1 << STEPS_SHIFT) - 1);
    LINEAR_COUNT + (((doubling - LINEAR_SHIFT) as usize) << STEPS_SHIFT) + step
}

/// What is known of `class`.
#[inline(always)]
pub fn shape(class: ClassIndex) -> &'static SizeClass {
    // SAFETY: ClassIndex I1.
    unsafe { CLASSES.get_unchecked(class.get()) }
}

/// Every class, smallest first.
pub fn all() -> impl Iterator<Item = ClassIndex> {
    // SAFETY: ClassIndex I1.
    (0..CLASS_COUNT).map(|index| unsafe { ClassIndex::new(index as u8) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_and_alignment_is_served_by_the_smallest_class_that_fits() {
        for size in 0..=SMALL_BYTES_MAX + 1 {
            for align in (0..=16).map(|shift| 1usize << shift) {
                let fits = |shape: &SizeClass| {
                    shape.bytes as usize >= size && (align <= 8 || (shape.bytes as usize).is_multiple_of(align))
                };
                let expected = CLASSES.iter().position(fits).filter(|_| align <= GRANULE_BYTES);
                assert_eq!(class_of(size, align).map(ClassIndex::get), expected, "size {size} align {align}");
            }
        }
    }

    #[test]
    fn the_waste_of_every_class_is_bounded() {
        println!("class  bytes  blocks  granules  magazine  waste%  tail%");
        let mut previous = 0;
        for (index, shape) in CLASSES.iter().enumerate() {
            let bytes = shape.bytes as usize;
            let waste = (bytes - previous - 1) as f64 / bytes as f64;
            let slab = shape.granules as usize * GRANULE_BYTES;
            let tail = (slab - shape.blocks as usize * bytes) as f64 / slab as f64;
            println!(
                "{index:5} {bytes:6} {:7} {:9} {:9} {:7.2} {:6.2}",
                shape.blocks, shape.granules, shape.magazine_blocks, waste * 100.0, tail * 100.0
            );
            assert!(bytes <= 128 || waste <= 0.125, "class {index} wastes {waste}");
            assert!(tail <= 1.0 / 16.0, "slab of class {index} wastes {tail}");
            previous = bytes;
        }
    }

    #[test]
    fn the_reciprocal_divides_every_block_offset() {
        for shape in &CLASSES {
            for block in 0..u64::from(shape.blocks) {
                let offset = block * u64::from(shape.bytes);
                assert_eq!((offset * u64::from(shape.reciprocal)) >> 32, block);
            }
        }
    }

    #[test]
    fn table_and_formula_agree() {
        for (index, shape) in CLASSES.iter().enumerate() {
            assert_eq!(index_of(shape.bytes as usize), index);
            assert_eq!(index_of(shape.bytes as usize - 7), index);
        }
    }
}
