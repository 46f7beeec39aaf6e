//! A slab: a span cut into blocks of one class. All it knows is written out of line, never in a block.
//!
//! ```text
//! # Role        the slab descriptor (`Slab`) and where its bitmap lies (`ChunkMeta`)
//! # Accounting  in use + in magazines + free bits == `SizeClass::blocks`
//! # Invariants  I1: unless `detached` is set, exactly one place has the slab: a local heap (current, list or
//!                   remote-free queue), the depot's partial set, or the thread that has just taken it from one of these.
//!                   That place is the slab's holder.
//!               I2: a slab that is detached has no free block, or the thread that released the first block of
//!                   some word is on its way to queue it.
//!               I3: `class`, `granules`, `back` change only while every block is claimed by one thread.
//! # Ordering    QUEUE-SLAB: the swaps of `detached` (AcqRel) are totally ordered. `leave_queue` looks for bits after
//!               its swap; `enter_queue` comes after the release of a bit. Whichever swap is second sees the
//!               other side's work, so a free block is never forgotten.
//!               LAST-WORD: `after_full_word` orders the looks of two threads that fill a slab's last two words.
//! # Progress    wait-free
//! # Not here    who queues where (see `local::flush`, `depot`)
//! # Checked by  loom_tests/slab_queue.rs
//! ```

pub mod bitmap;
pub mod marks;

use crate::config::CHUNK_GRANULES;
use crate::size_class::{CLASS_COUNT, NEAR_BLOCKS};
use crate::sync::planted::bug;
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, Ordering};
use crate::units::{ClassIndex, SlabId};
use bitmap::FreeWord;
use marks::PageMarks;

/// Descriptor of a slab, or of a large block: one for each granule, used by the span that starts there.
/// Zeroed memory is a valid descriptor of nothing, and of a granule that is in no slab any more: the metadata of a
/// free chunk can be purged. A line of its own, so that two threads' slabs do not share one, with the bits of most classes'
/// blocks: who takes or brings back blocks changes one line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slab {
    /// Index of the record whose owner is told of the first free block: a hint (a stale one does no harm).
    owner: AtomicU32,
    /// Next slab of the list or stack that this one is in; only its holder writes it.
    link: AtomicU32,
    /// Granules of the span.
    granules: AtomicU32,
    /// Word where the holder's next claim starts; only the holder uses it.
    cursor: AtomicU16,
    /// 1 while no place holds the slab (I1). 0 in free granules: a slab is held when it is made and when it is retired.
    detached: AtomicU8,
    /// Granules from the start of the span to this granule (a slab has at most `SLAB_GRANULES_MAX`).
    back: AtomicU8,
    /// `MOVED` if the span is a large block whose pages came from elsewhere, `LOST` if the granule is not ours any more.
    moved: AtomicU8,
    /// 1 if the span is a large block of which the kernel is advised that huge pages are welcome.
    advised: AtomicU8,
    /// Only its swaps matter: see `after_full_word`.
    last_word: AtomicU8,
    /// What a purge remembers of this granule's pages.
    pub marks: PageMarks,
    /// The first words of the bitmap.
    near: [FreeWord; NEAR_WORDS],
}

/// Values of `moved`, beside 0.
const MOVED: u8 = 1;
const LOST: u8 = 2;

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slab>() == 64, "one cache line");

impl Default for Slab {
    fn default() -> Self {
        Self::new()
    }
}

impl Slab {
    /// A descriptor of nothing.
    pub fn new() -> Self {
        Self {
            owner: AtomicU32::new(0),
            link: AtomicU32::new(0),
            granules: AtomicU32::new(0),
            cursor: AtomicU16::new(0),
            detached: AtomicU8::new(0),
            back: AtomicU8::new(0),
            moved: AtomicU8::new(0),
            advised: AtomicU8::new(0),
            last_word: AtomicU8::new(0),
            marks: PageMarks::new(),
            near: core::array::from_fn(|_| FreeWord::new(0)),
        }
    }

    /// Begins a slab, queued with the caller as its holder; or a large block, of which only `granules` counts.
    pub fn begin(&self, granules: usize) {
        // ordering: Relaxed, all of it: the span is the caller's alone (I3). Whoever meets the slab later got it
        // from a queue or owns one of its blocks, and both are later than this.
        self.granules.store(granules as u32, Ordering::Relaxed);
        self.link.store(0, Ordering::Relaxed);
        self.cursor.store(0, Ordering::Relaxed);
        self.back.store(0, Ordering::Relaxed);
        self.moved.store(0, Ordering::Relaxed);
        self.advised.store(0, Ordering::Relaxed);
        // `detached` is 0 already, and a late `enter_queue` may be swapping it just now.
    }

    /// Marks this granule as lying `granules` behind the start of its slab; `clean` pages of it were never written.
    pub fn begin_inside(&self, granules: usize, clean: u16) {
        // ordering: Relaxed, as in `begin`.
        self.back.store(granules as u8, Ordering::Relaxed);
        self.marks.begin(clean);
    }

    /// Granules from the start of the slab to this granule.
    #[inline]
    pub fn back(&self) -> usize {
        // ordering: Relaxed; the caller owns a block of the slab, and I3.
        self.back.load(Ordering::Relaxed) as usize
    }

    /// Granules of the span.
    #[inline]
    pub fn granules(&self) -> usize {
        // ordering: Relaxed; the caller owns a block of the span or holds the slab, and I3.
        self.granules.load(Ordering::Relaxed) as usize
    }

    /// Changes the length of a large block's span; only for the block's owner.
    pub fn set_granules(&self, granules: usize) {
        // ordering: Relaxed; only the block's owner reads it, or statistics, which may be late.
        self.granules.store(granules as u32, Ordering::Relaxed);
    }

    /// Notes that the pages of a large block came from elsewhere; only for its owner.
    pub fn set_moved(&self) {
        // ordering: Relaxed; only the block's owner reads it.
        self.moved.store(MOVED, Ordering::Relaxed);
    }

    /// Did the pages of the large block come from elsewhere?
    pub fn is_moved(&self) -> bool {
        // ordering: Relaxed; only the block's owner reads it.
        self.moved.load(Ordering::Relaxed) == MOVED
    }

    /// Notes that the memory of the granule is somebody else's by now; only for whoever has claimed it, and will not free it.
    pub fn set_lost(&self) {
        // ordering: Relaxed; read when no other thread is left.
        self.moved.store(LOST, Ordering::Relaxed);
    }

    /// Is the memory of the granule somebody else's?
    pub fn is_lost(&self) -> bool {
        // ordering: Relaxed, as in `set_lost`.
        self.moved.load(Ordering::Relaxed) == LOST
    }

    /// Notes that the kernel is advised about a large block; only for its owner.
    pub fn set_advised(&self) {
        // ordering: Relaxed; only the block's owner reads it.
        self.advised.store(1, Ordering::Relaxed);
    }

    /// Is the kernel advised about the large block?
    pub fn is_advised(&self) -> bool {
        // ordering: Relaxed; only the block's owner reads it.
        self.advised.load(Ordering::Relaxed) != 0
    }

    /// The record that is told of the first free block.
    #[inline]
    pub fn owner(&self) -> u32 {
        // ordering: Relaxed, a hint.
        self.owner.load(Ordering::Relaxed)
    }

    /// Makes `record` the one that is told; only for the holder.
    #[inline]
    pub fn set_owner(&self, record: u32) {
        // ordering: Relaxed, a hint.
        self.owner.store(record, Ordering::Relaxed);
    }

    /// Where the holder's next claim starts.
    #[inline]
    pub fn cursor(&self) -> usize {
        // ordering: Relaxed; only the holder uses it, and holders hand over through a queue.
        self.cursor.load(Ordering::Relaxed) as usize
    }

    /// Sets where the next claim starts; only for the holder.
    #[inline]
    pub fn set_cursor(&self, word: usize) {
        // ordering: Relaxed, as in `cursor`.
        self.cursor.store(word as u16, Ordering::Relaxed);
    }

    /// Next slab of the list that this one is in.
    #[inline]
    pub fn link(&self) -> Option<SlabId> {
        // ordering: Relaxed; the stack or list that carries the slab publishes its link.
        SlabId::from_raw(self.link.load(Ordering::Relaxed))
    }

    /// Sets the next slab; only for the holder.
    #[inline]
    pub fn set_link(&self, next: Option<SlabId>) {
        // ordering: Relaxed, as in `link`.
        self.link.store(SlabId::raw_option(next), Ordering::Relaxed);
    }

    /// After the release of the first block of a word. `true`: the slab was in no queue and the caller is its
    /// holder now, who must put it into one.
    #[inline]
    #[must_use]
    pub fn enter_queue(&self) -> bool {
        if bug("enter by load") {
            // ordering: none that would help.
            let was = self.detached.load(Ordering::Acquire);
            self.detached.store(0, Ordering::Release);
            return was == 1;
        }
        let order = if bug("relaxed queue swaps") { Ordering::Relaxed } else { Ordering::AcqRel };
        // ordering: AcqRel [QUEUE-SLAB] after the caller's release of a bit; before `leave_queue`'s look at it.
        self.detached.swap(0, order) == 1
    }

    /// The holder found no more free block and lets go. `has_free` looks at the bitmap. `true`: a block came back
    /// meanwhile and the caller is the holder again.
    #[inline]
    #[must_use]
    pub fn leave_queue(&self, has_free: impl Fn() -> bool) -> bool {
        let order = if bug("relaxed queue swaps") { Ordering::Relaxed } else { Ordering::AcqRel };
        // ordering: AcqRel [QUEUE-SLAB] the swap comes before the look; pairs with `enter_queue`.
        self.detached.swap(1, order);
        if bug("leave without a look") {
            return false;
        }
        has_free() && self.enter_queue()
    }

    /// After a release that filled a word, before the look at the other words: of two threads that fill the last two
    /// words, the second to come here sees what the first released, and so that the slab is empty.
    #[inline]
    pub fn after_full_word(&self) {
        if bug("look at once") {
            return;
        }
        // ordering: AcqRel [LAST-WORD] pairs with itself in the other thread: swaps are totally ordered.
        self.last_word.swap(1, Ordering::AcqRel);
    }

    /// Is the slab in some queue? For `check()` at rest.
    pub fn is_queued(&self) -> bool {
        // ordering: Relaxed, for a caller that knows that nothing moves.
        self.detached.load(Ordering::Relaxed) == 0
    }
}

/// Words of a slab's bitmap in its descriptor.
const NEAR_WORDS: usize = NEAR_BLOCKS / 64;
/// Words of a granule's bitmap: enough for its blocks of 8 bytes.
pub const WORDS_MAX: usize = crate::size_class::SLAB_BLOCKS_MAX / 64;
/// Words of a chunk's bitmaps that do not lie in descriptors.
const FAR_WORDS: usize = CHUNK_GRANULES * (WORDS_MAX - NEAR_WORDS);

const _: () = assert!(NEAR_WORDS.is_power_of_two() && WORDS_MAX.is_power_of_two());

/// All that is known of a chunk's slabs: a descriptor for each granule, and the bitmaps.
///
/// The first words of a bitmap lie in the slab's descriptor. The others lie in planes: of each granule, the first has words
/// 4 to 7, the next one 8 to 15, and so on. So the slabs of most classes have one line of metadata, a page holds that of a
/// whole chunk, and the pages of the planes are touched by slabs of smaller blocks than 64 bytes only (256 bytes, where a
/// granule has 64 KiB).
#[repr(C, align(4096))]
pub struct ChunkMeta {
    /// One descriptor for each granule.
    pub slabs: [Slab; CHUNK_GRANULES],
    /// The other words of the bitmaps; see `word`.
    far: [FreeWord; FAR_WORDS],
}

impl ChunkMeta {
    /// Word `word` of the bitmap of the slab that starts at granule `granule` of the chunk.
    ///
    /// # Safety
    /// There is such a granule and such a word: below `CHUNK_GRANULES` and `WORDS_MAX`.
    #[inline(always)]
    pub unsafe fn word(&self, granule: usize, word: usize) -> &FreeWord {
        if word < NEAR_WORDS {
            // SAFETY: the caller's promise.
            return &unsafe { self.slabs.get_unchecked(granule) }.near[word];
        }
        // Words that the plane has of each granule, and the first of them; as many words of each lie in the planes before.
        let plane = 1 << word.ilog2();
        let index = (plane - NEAR_WORDS) * CHUNK_GRANULES + granule * plane + (word - plane);
        debug_assert!(granule < CHUNK_GRANULES && word < WORDS_MAX);
        // SAFETY: the last granule's last word of the last plane has index FAR_WORDS - 1, and the bounds are promised.
        unsafe { self.far.get_unchecked(index) }
    }
}

/// What a granule is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Free, or inside a large block.
    Other,
    /// Part of a slab of that class.
    Slab(ClassIndex),
    /// The first granule of a large block.
    Large,
}

/// The same in one byte: 0, the class + 1, or `LARGE`.
///
/// # Invariants
/// I4: at most `LARGE`; only `KindCell` makes others than `of`.
#[derive(Clone, Copy, Debug)]
pub struct KindByte(u8);

impl KindByte {
    /// How many there are.
    pub const COUNT: usize = CLASS_COUNT + 2;
    const LARGE: u8 = CLASS_COUNT as u8 + 1;

    /// The number, to index with.
    #[inline(always)]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// The byte of a slab of that class.
    #[inline(always)]
    pub const fn of(class: ClassIndex) -> Self {
        Self(class.get() as u8 + 1)
    }
}

/// Where a granule's use is kept. Zeroed memory is `Other`.
#[derive(Debug)]
pub struct KindCell(AtomicU8);

impl Default for KindCell {
    fn default() -> Self {
        Self(AtomicU8::new(0))
    }
}

impl KindCell {
    /// The byte of the use.
    #[inline(always)]
    pub fn byte(&self) -> KindByte {
        // ordering: Relaxed; the caller owns a block there, or will check again when it does.
        KindByte(self.0.load(Ordering::Relaxed))
    }

    /// The use.
    #[inline]
    pub fn get(&self) -> SpanKind {
        match self.byte() {
            KindByte(0) => SpanKind::Other,
            KindByte(KindByte::LARGE) => SpanKind::Large,
            // SAFETY: ClassIndex I1: by I4, what is neither 0 nor `LARGE` is a class + 1.
            KindByte(byte) => SpanKind::Slab(unsafe { ClassIndex::new(byte - 1) }),
        }
    }

    /// Says what the granule is used for; only for the holder of its span.
    #[inline]
    pub fn set(&self, span_kind: SpanKind) {
        let byte = match span_kind {
            SpanKind::Other => KindByte(0),
            SpanKind::Slab(class) => KindByte::of(class),
            SpanKind::Large => KindByte(KindByte::LARGE),
        };
        // ordering: Release [LARGE-BLOCK] the descriptor of a large block; pairs with Acquire in `take_large`. Else none is
        // needed: it is published with the span's first block, or with the span's freeing.
        self.0.store(byte.0, Ordering::Release);
    }

    /// Takes the large block that begins here, before it is freed or resized: of several threads that do so at once, one
    /// has it. `false`: there is none. The descriptor is to be read after this.
    #[must_use]
    pub fn take_large(&self) -> bool {
        if bug("take large by store") {
            let was_large = self.get() == SpanKind::Large;
            self.set(SpanKind::Other);
            return was_large;
        }
        // ordering: Acquire [LARGE-BLOCK] the descriptor; pairs with Release in `set`.
        self.0.compare_exchange(KindByte::LARGE, 0, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn meta() -> Box<ChunkMeta> {
        // SAFETY: zeroed memory is valid metadata.
        unsafe { Box::new_zeroed().assume_init() }
    }

    /// Bytes from the metadata's start.
    fn place(meta: &ChunkMeta, granule: usize, word: usize) -> usize {
        // SAFETY: the tests name granules and words that there are.
        let word = unsafe { meta.word(granule, word) };
        core::ptr::from_ref(word).addr() - core::ptr::from_ref(meta).addr()
    }

    #[test]
    fn every_word_of_every_slab_has_a_place_of_its_own() {
        let meta = meta();
        let all = |words: core::ops::Range<usize>| {
            let of = move |granule| words.clone().map(move |word| (granule, word));
            (0..CHUNK_GRANULES).flat_map(of)
        };
        let near: BTreeSet<usize> = all(0..NEAR_WORDS).map(|(granule, word)| place(&meta, granule, word)).collect();
        let far: BTreeSet<usize> = all(NEAR_WORDS..WORDS_MAX).map(|(granule, word)| place(&meta, granule, word)).collect();
        assert_eq!((near.len(), far.len()), (CHUNK_GRANULES * NEAR_WORDS, FAR_WORDS));
        let slabs = size_of::<[Slab; CHUNK_GRANULES]>();
        assert!(near.last() < Some(&slabs), "in the descriptors");
        assert_eq!((far.first(), far.last()), (Some(&slabs), Some(&(slabs + size_of_val(&meta.far) - size_of::<FreeWord>()))));
    }

    #[test]
    fn a_slab_touches_one_page_and_one_more_for_each_halving_of_its_blocks() {
        let meta = meta();
        for granule in 0..CHUNK_GRANULES {
            let pages = |words| (0..words).map(|word| place(&meta, granule, word) / 4096).collect::<BTreeSet<_>>().len();
            let mut words = NEAR_WORDS;
            for most in 1.. {
                assert!(pages(words) <= most, "granule {granule}, {words} words");
                words *= 2;
                if words > WORDS_MAX {
                    break;
                }
            }
        }
    }
}
