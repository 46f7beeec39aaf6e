//! A place in memory, the slab that is there, and what users and purges do with it: for the models of `slab_pages`.

use super::common::Payload;
use magalloc::chunk::partial_set::{PartialSet, Place};
use magalloc::chunk::unpurged::Unpurged;
use magalloc::local::remote_free::RemoteFreeQueue;
use magalloc::purge::slab_pages::{Geometry, Left, Parts, finish, take};
use magalloc::size_class::{self, class_of, shape};
use magalloc::slab::bitmap::{FreeWord, Released};
use magalloc::slab::marks::PageMarks;
use magalloc::slab::{KindCell, Slab, SpanKind};
use magalloc::sync::planted::bug;
use magalloc::units::{ClassIndex, GranuleIndex, SlabId};
use std::sync::Arc;

pub const FORGOTTEN: &str = "a free block is where nobody will find it";
pub const NOT_ZERO: &str = "a page that is marked as purged was written";
pub const STAYS: &str = "an empty slab stays in the depot";
pub const MISSED: &str = "a page is free, and no purge will look at it";

pub const KIB: usize = 1 << 10;
const GRANULE_BYTES: usize = 64 * KIB;
/// Granules of a slab at most, here.
const GRANULES: usize = 4;
/// Words of its bitmap.
const WORDS: usize = 2;
/// The memory that the models use is told apart in pieces: pages and whatever is claimed at once are some of them.
const PIECE_BYTES: usize = 8 * KIB;
/// The first granule of a slab, and a block that reaches beyond it.
const PIECES: usize = 9;
/// What users write.
const PATTERN: u64 = 0x5eed;
pub const PLACE: Place = Place { chunk: 0, granule: 5 };

/// Blocks of one word that lie side by side.
#[derive(Clone, Copy)]
pub struct Blocks {
    pub word: usize,
    pub mask: u64,
}

/// A place in memory, the slab that is there, and where it may be queued.
pub struct Site {
    page_shift: u32,
    pub descriptor: Slab,
    /// Marks of the granules behind the first one.
    marks_behind: [PageMarks; GRANULES - 1],
    /// What the page map says.
    span_kind: KindCell,
    pub words: [FreeWord; WORDS],
    memory: [Payload; PIECES],
    /// What only the slab's holder touches.
    held: Payload,
    /// The owner's.
    remote_frees: RemoteFreeQueue,
    pub partial: PartialSet<1>,
    pub unpurged: Unpurged,
}

pub fn class_of_bytes(bytes: usize) -> ClassIndex {
    class_of(bytes, 1).expect("a size that has a class")
}

/// The partial set of a model has one class.
pub fn first_class() -> ClassIndex {
    size_class::all().next().expect("there are classes")
}

impl Site {
    /// A slab of blocks of `bytes`, of which `free` are free; all were written. The caller is its holder.
    pub fn new<const N: usize>(bytes: usize, page_bytes: usize, free: [Blocks; N]) -> Arc<Self> {
        let site = Self {
            page_shift: page_bytes.ilog2(),
            descriptor: Slab::new(),
            marks_behind: core::array::from_fn(|_| PageMarks::new()),
            span_kind: KindCell::default(),
            words: core::array::from_fn(|_| FreeWord::new(0)),
            memory: core::array::from_fn(|_| Payload::new()),
            held: Payload::new(),
            remote_frees: RemoteFreeQueue::new(),
            partial: PartialSet::new(),
            unpurged: Unpurged::new(),
        };
        site.memory.iter().for_each(|piece| piece.own(|contents| *contents = PATTERN));
        site.begin(class_of_bytes(bytes), free);
        Arc::new(site)
    }

    /// `Depot::new_slab`, for whoever has the span.
    pub fn begin<const N: usize>(&self, class: ClassIndex, free: [Blocks; N]) {
        self.held.touch();
        self.descriptor.begin(shape(class).granules.into());
        self.descriptor.begin_inside(0, 0);
        self.marks_behind.iter().for_each(|marks| marks.begin(0));
        self.set_use(SpanKind::Slab(class));
        for Blocks { word, mask } in free {
            // `FreeWord::fill`, but as an exchange: a late purge may be exchanging the word just now (see the README).
            let _ = self.words[word].release(mask);
        }
    }

    pub fn set_use(&self, span_kind: SpanKind) {
        self.span_kind.set(span_kind);
    }

    pub fn class(&self) -> Option<ClassIndex> {
        match self.span_kind.get() {
            SpanKind::Slab(class) => Some(class),
            SpanKind::Other | SpanKind::Large => None,
        }
    }

    /// The class, for who has a block or is the holder.
    pub fn sure_class(&self) -> ClassIndex {
        self.class().expect("a slab of which one has a block stays a slab")
    }

    pub fn marks(&self, granule: usize) -> &PageMarks {
        if granule == 0 { &self.descriptor.marks } else { &self.marks_behind[granule - 1] }
    }

    pub fn has_free(&self) -> bool {
        self.words.iter().any(|word| word.look() != 0)
    }

    pub fn is_free(&self, class: ClassIndex) -> bool {
        let shape = shape(class);
        (0..shape.words()).all(|word| self.words[word].look() == shape.word_mask(word))
    }

    pub fn pieces(&self, from: usize, to: usize) -> &[Payload] {
        &self.memory[from / PIECE_BYTES..to.div_ceil(PIECE_BYTES).min(PIECES)]
    }

    pub fn pieces_of(&self, blocks: Blocks) -> &[Payload] {
        let bytes = shape(self.sure_class()).bytes as usize;
        let first = blocks.word * 64 + blocks.mask.trailing_zeros() as usize;
        self.pieces(first * bytes, (first + blocks.mask.count_ones() as usize) * bytes)
    }

    /// A user writes the blocks that it has.
    pub fn write(&self, blocks: Blocks) {
        self.pieces_of(blocks).iter().for_each(|piece| piece.own(|contents| *contents = PATTERN));
    }

    /// A user reads what it wrote.
    pub fn read(&self, blocks: Blocks) {
        self.pieces_of(blocks).iter().for_each(|piece| piece.own(|contents| assert_eq!(*contents, PATTERN)));
    }

    /// The holder takes at most `most` blocks of each word, and uses them: `claim_into`, `SlabRef::note_used`.
    pub fn claim(&self, most: u32) -> Vec<Blocks> {
        self.held.touch();
        let words = self.words.iter().enumerate().map(|(word, free)| Blocks { word, mask: free.claim(most) });
        let taken: Vec<Blocks> = words.filter(|blocks| blocks.mask != 0).collect();
        for &blocks in &taken {
            let (first, last) = (blocks.mask.trailing_zeros(), 63 - blocks.mask.leading_zeros());
            let geometry = Geometry::new(shape(self.sure_class()), self.page_shift);
            geometry.pages_of(blocks.word, first, last, |granule, pages| {
                let _ = self.marks(granule).used(pages);
            });
            self.write(blocks);
        }
        taken
    }

    /// The holder takes `most` blocks at once until it may let go, as a refill does, and releases all again.
    pub fn use_all(&self, most: u32) {
        let mut taken = self.claim(most);
        while self.descriptor.leave_queue(|| self.has_free()) {
            taken.extend(self.claim(most));
        }
        for blocks in taken {
            self.read(blocks);
            self.release(blocks);
        }
    }

    /// `Shared::release_blocks`, for a thread that is not the owner.
    pub fn release(&self, Blocks { word, mask }: Blocks) {
        let class = self.sure_class();
        let now = match self.words[word].release(mask) {
            Released::First { now } => {
                if self.descriptor.enter_queue() {
                    self.held.touch();
                    let id = SlabId::new(0, GranuleIndex::new(PLACE.granule));
                    self.remote_frees.push(id, |next| self.descriptor.set_link(next)).expect("never closed here");
                }
                now
            }
            Released::More { now } => now,
            Released::DoubleFree { .. } => panic!("a block was released twice"),
        };
        if now == shape(class).word_mask(word) {
            self.descriptor.after_full_word();
            if self.is_free(class) {
                self.retire_if_partial();
            }
        }
    }

    /// `Depot::retire_if_partial`.
    pub fn retire_if_partial(&self) {
        if self.partial.take_this(PLACE) {
            self.give();
        }
    }

    /// `Depot::give_slab`, for the holder.
    pub fn give(&self) {
        self.held.touch();
        let class = self.sure_class();
        if self.is_free(class) && self.claim_whole() {
            self.set_use(SpanKind::Other);
            return;
        }
        self.partial.put(PLACE, first_class());
        if self.is_free(class) {
            self.retire_if_partial();
        }
    }

    /// `SlabRef::claim_whole`, for the holder.
    pub fn claim_whole(&self) -> bool {
        let shape = shape(self.sure_class());
        for word in 0..shape.words() {
            let taken = self.words[word].claim_all();
            if taken != shape.word_mask(word) {
                for (back, mask) in (0..word).map(|back| (back, shape.word_mask(back))).chain([(word, taken)]) {
                    if mask != 0 {
                        let _ = self.words[back].release(mask);
                    }
                }
                if !bug("given back without a turn") {
                    self.descriptor.after_full_word();
                }
                return false;
            }
        }
        true
    }

    /// `Purge::purge_slabs` of a slab that was found as one of `class`.
    pub fn purge(&self, class: ClassIndex) -> Left {
        let (geometry, visit) = (Geometry::new(shape(class), self.page_shift), Visit { site: self, class });
        let taken = match take(geometry, &visit, true) {
            Ok(taken) => taken,
            Err(left) => return left,
        };
        taken.for_each_run(|first, count| {
            let pieces = self.pieces(first << self.page_shift, (first + count) << self.page_shift);
            pieces.iter().for_each(|piece| piece.own(|contents| *contents = 0));
        });
        finish(geometry, &visit, taken, true)
    }

    /// `SlabRef::note_unpurged`, after a release.
    pub fn note(&self) {
        let _ = self.unpurged.note(0);
    }

    /// `Purge::visit`.
    pub fn visit(&self) {
        if self.unpurged.take(0) && self.purge(self.sure_class()) == Left::FreePages {
            self.note();
        }
    }

    /// At rest: a page of the first granule that is marked as purged is zero.
    pub fn check_marks(&self) {
        let page_bytes = 1 << self.page_shift;
        let purged = self.descriptor.marks.purged_pages();
        for page in (0..GRANULE_BYTES / page_bytes).filter(|page| purged >> page & 1 != 0) {
            for piece in self.pieces(page * page_bytes, (page + 1) * page_bytes) {
                piece.own(|contents| assert_eq!(*contents, 0, "{NOT_ZERO}"));
            }
        }
    }

    /// At rest: these blocks are free, and the slab is on the remote-free queue.
    pub fn check<const N: usize>(&self, free: [Blocks; N]) {
        self.check_marks();
        let pushed = self.remote_frees.take_all();
        assert!(pushed.is_some() && self.descriptor.is_queued(), "{FORGOTTEN}");
        assert_eq!(self.descriptor.link(), None, "the slab is in the queue twice");
        for Blocks { word, mask } in free {
            assert_eq!(self.words[word].look(), mask, "blocks are lost");
        }
    }

    /// At rest: the slab, all of whose blocks were released, was retired.
    pub fn check_retired(&self) {
        assert!(self.partial.members(PLACE.chunk) == 0 && self.class().is_none(), "{STAYS}");
        self.check_marks();
    }
}

/// What a purge sees of the slab.
struct Visit<'s> {
    site: &'s Site,
    class: ClassIndex,
}

impl Parts for Visit<'_> {
    fn word(&self, word: usize) -> &FreeWord {
        &self.site.words[word]
    }

    fn marks(&self, granule: usize) -> &PageMarks {
        self.site.marks(granule)
    }

    fn count_purged(&self, _pages: usize) {}

    fn is_same(&self) -> bool {
        self.site.class() == Some(self.class)
    }

    fn release(&self, word: usize, mask: u64) {
        self.site.release(Blocks { word, mask });
    }
}
