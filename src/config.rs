//! Every constant that shapes the allocator, with its unit and its reason.
//!
//! ```text
//! # Role        numbers only; nothing here has behaviour
//! # Not here    size classes (see `size_class`), what a user may set (see `options`)
//! ```
//!
//! Under loom the structures shrink, so that the rare branch becomes the common one.

/// log2 of a granule in bytes: 16 KiB, and never less than the largest base page that an OS has on the processor. The
/// smaller, the less a slab that is used in part withholds: with 16 KiB, what scattered survivors keep after a burst is
/// 0.83 of what it is with 64 KiB, and a thread's slabs of classes that it seldom uses take a third.
#[cfg(all(not(loom), any(target_arch = "x86_64", target_arch = "x86")))]
pub(crate) const GRANULE_SHIFT: u32 = 14;
/// log2 of a granule in bytes: 64 KiB, the largest base page of any OS; also in the models.
#[cfg(any(loom, not(any(target_arch = "x86_64", target_arch = "x86"))))]
pub(crate) const GRANULE_SHIFT: u32 = 16;
/// Bytes of a granule, the unit of address space.
pub(crate) const GRANULE_BYTES: usize = 1 << GRANULE_SHIFT;

/// Granules of a chunk: as many as an `AtomicU64` has bits.
pub(crate) const CHUNK_GRANULES: usize = 64;
/// Bytes of a chunk: 1 MiB, or 4 MiB.
pub(crate) const CHUNK_BYTES: usize = CHUNK_GRANULES * GRANULE_BYTES;
/// Chunks that are committed together: 4 MiB, so that the kernel is not asked often, and whole huge pages.
pub(crate) const COMMIT_CHUNKS: usize = (4 << 20) / CHUNK_BYTES;
/// log2 of the bytes of an OS page, where its huge pages are of `HUGE_PAGE_BYTES`.
pub(crate) const HUGE_PAGE_OF_SHIFT: u32 = 12;
/// Bytes of a huge page: as on x86-64, and on aarch64 with base pages of 4 KiB.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Chunks of a chunk group: as many as a summary word has bits.
#[cfg(not(loom))]
pub(crate) const GROUP_CHUNKS: usize = 64;
/// Chunks of a chunk group in a model.
#[cfg(loom)]
pub(crate) const GROUP_CHUNKS: usize = 2;

/// Bits of a word of a summary that are used: all.
#[cfg(not(loom))]
pub(crate) const SUMMARY_WIDTH: usize = 64;
/// Bits of a word of a summary in a model, so that three levels are 8 places.
#[cfg(loom)]
pub(crate) const SUMMARY_WIDTH: usize = 2;

/// Bytes of heap that a region has room for: 1 TiB where pointers have 64 bits, so that one region is enough for any
/// machine; 512 MiB where they have 32. Only what is used of it is mapped.
#[cfg(target_pointer_width = "64")]
pub(crate) const REGION_BYTES_PREFERRED: usize = 1 << 40;
/// Bytes of heap that a region has room for.
#[cfg(not(target_pointer_width = "64"))]
pub(crate) const REGION_BYTES_PREFERRED: usize = 1 << 29;

/// Places that are tried for a region or a metadata range before the heap does without: what lies there may be others'.
pub(crate) const PLACES_MAX: usize = 64;

/// Regions a heap can have. A second one is only ever needed where others' mappings are in the first one's way.
pub(crate) const REGIONS_MAX: usize = 63;

/// Bits of a granule's number inside its region, in a `SlabId`.
pub(crate) const GRANULE_INDEX_BITS: u32 = 26;

/// Bytes of the largest size class. Larger blocks are spans.
pub(crate) const SMALL_BYTES_MAX: usize = 32 << 10;

/// Largest alignment served, in bytes: 1 GiB.
pub(crate) const ALIGN_MAX: usize = 1 << 30;

/// Slots of a magazine: 1 KiB of pointers on 64-bit.
pub(crate) const MAGAZINE_SLOTS: usize = 128;
/// Bytes of a magazine, and its alignment.
pub(crate) const MAGAZINE_BYTES: usize = MAGAZINE_SLOTS * size_of::<*mut u8>();
/// Blocks that a magazine holds at most: one slot is its link in a stash, one is null and says "empty".
pub(crate) const MAGAZINE_BLOCKS_MAX: usize = MAGAZINE_SLOTS - 2;
/// Bytes of blocks that one magazine holds at most: measured, 64 KiB is enough to hide the depot.
pub(crate) const MAGAZINE_BYTES_MAX: usize = 64 << 10;
/// Blocks a magazine holds when its class is first used (slow start: a thread that allocates little holds little).
pub(crate) const MAGAZINE_BLOCKS_FIRST: usize = 8;
/// Bytes of blocks a magazine holds at most when its class is first used; at least one block.
pub(crate) const MAGAZINE_BYTES_FIRST: usize = 2 << 10;
/// Full magazines behind the loaded one, per class, that a thread may have unasked.
pub(crate) const STASH_FIRST: u8 = 3;

/// Partial slabs that a local heap keeps per class beside its current one; the rest goes to the depot, which costs more.
pub(crate) const OWNER_LIST_MAX: u8 = 2;

/// Local heaps up to which each keeps slabs. Where there are more, most are of threads that idle.
pub(crate) const SLAB_OWNERS_MAX: usize = 32;

/// Bytes that the magazines of an ended thread's cache may hold if it is left to the next thread.
pub(crate) const PARKED_BYTES_MAX: usize = 256 << 10;
/// Bytes that all such caches together may hold, in any heap.
pub(crate) const PARKED_BYTES_ALL: usize = 4 << 20;

/// Threads that can have a cache at the same time; those beyond are served by the depot directly.
#[cfg(all(not(loom), target_pointer_width = "64"))]
pub(crate) const RECORDS_MAX: usize = 1 << 16;
/// Threads that can have a cache where address space is short.
#[cfg(all(not(loom), not(target_pointer_width = "64")))]
pub(crate) const RECORDS_MAX: usize = 1 << 10;
/// Threads that can have a cache in a model.
#[cfg(loom)]
pub(crate) const RECORDS_MAX: usize = 64;
/// Bytes of magazines that there is room for.
#[cfg(target_pointer_width = "64")]
pub(crate) const MAGAZINE_RANGE_BYTES: usize = 1 << 32;
/// Bytes of magazines that there is room for.
#[cfg(not(target_pointer_width = "64"))]
pub(crate) const MAGAZINE_RANGE_BYTES: usize = 1 << 23;
/// Smallest metadata range worth having, in bytes: 256 threads' records.
pub(crate) const RANGE_BYTES_MIN: usize = 1 << 20;
/// Where there is no room for what a metadata range prefers, it takes this share: some hundred threads' caches.
pub(crate) const RANGE_SCARCE_SHARE: usize = 256;
/// Step in which a metadata range is committed, in bytes: few calls, and small against strict overcommit.
pub(crate) const RANGE_COMMIT_STEP: usize = 64 << 10;

/// Default of `Options::dirty_bytes_max`, in bytes: the upper end of a bound that is a share of the heap, or what the
/// program evidently takes again (see `depot::dirty`).
#[cfg(target_pointer_width = "64")]
pub(crate) const DIRTY_BYTES_MAX: usize = 1 << 30;
/// Default of `Options::dirty_bytes_max`, in bytes.
#[cfg(not(target_pointer_width = "64"))]
pub(crate) const DIRTY_BYTES_MAX: usize = 256 << 20;
/// Default of `Options::soft_limit`, in percent of the control group's limit: the rest is for what is not this heap's, and
/// for caches.
pub(crate) const SOFT_LIMIT_PERCENT: u8 = 85;
/// Default of `Options::purge_delay_ms`, in milliseconds.
pub(crate) const PURGE_DELAY_MS: u32 = 1000;
/// Default of `Options::cache_bytes_max`, in bytes a thread, reached in heaps from 32 MiB a thread on; 1 MiB in small
/// ones.
pub(crate) const CACHE_BYTES_MAX: usize = 4 << 20;
/// Bytes that the cache of every thread may have, however many threads there are: what classes have first, and some.
pub(crate) const CACHE_BYTES_SURE: usize = 128 << 10;
/// Bytes that the caches of all threads together may have beyond that, in any heap: what 32 threads have in a small one.
pub(crate) const CACHES_BYTES_MAX: usize = 32 << 20;
/// Step in which a cache takes part of it, in bytes: one atomic operation for many magazines.
pub(crate) const CREDIT_STEP_BYTES: usize = 64 << 10;
/// Bytes held from which on huge pages are wanted: the one that was begun last is a quarter of the heap at most.
pub(crate) const HUGE_PAGES_FROM_BYTES: usize = 8 << 20;
/// Bytes held from which on the pages of blocks that go to a magazine are brought in at once; below, what a program
/// does not touch counts more.
pub(crate) const POPULATE_BYTES_FIRST: usize = 32 << 20;

/// Bytes of a small heap: threads of the program purge it, as they come by.
pub(crate) const SMALL_HEAP_BYTES: usize = 4 << 20;

/// A large block of at least this many bytes moves by remapping its pages: below, copying is as fast.
pub(crate) const RELOCATE_BYTES_MIN: usize = 4 << 20;

/// log2 of `MAPPED_BYTES_MIN`.
pub(crate) const MAPPED_SLOT_SHIFT: u32 = 30;
/// A block of at least this many bytes is a kernel mapping of its own: 1 GiB, the bound on dirty memory, so what is as long
/// does not stay warm anyway. A block that is filled, freed and made anew pays for its page faults then: one of 256 MiB took
/// 490 ms as a mapping, and 90 ms as a span.
pub(crate) const MAPPED_BYTES_MIN: usize = 1 << MAPPED_SLOT_SHIFT;
/// Bits of the addresses that the kernel gives a process that asks for no particular one.
const ADDRESS_BITS: u32 = match usize::BITS {
    64 if cfg!(target_arch = "x86_64") => 47,
    64 => 48,
    bits => bits,
};
/// Parts of the address space in each of which one such block can begin.
pub(crate) const MAPPED_SLOTS: usize = 1 << (ADDRESS_BITS - MAPPED_SLOT_SHIFT);

const _: () = assert!(CHUNK_GRANULES == u64::BITS as usize);
const _: () = assert!(GROUP_CHUNKS <= u64::BITS as usize);
#[cfg(not(loom))]
const _: () = assert!(GROUP_CHUNKS.is_multiple_of(COMMIT_CHUNKS));
const _: () = assert!(REGION_BYTES_PREFERRED >> GRANULE_SHIFT <= 1 << GRANULE_INDEX_BITS);
const _: () = assert!(REGIONS_MAX < 1 << (32 - GRANULE_INDEX_BITS), "a SlabId keeps one value for none");
const _: () = assert!(MAGAZINE_SLOTS.is_power_of_two());
const _: () = assert!(MAGAZINE_BLOCKS_FIRST < MAGAZINE_SLOTS);
const _: () = assert!(RECORDS_MAX.is_multiple_of(64));
