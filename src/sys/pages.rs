//! Memory and the clock: the part of the platform that a heap stands on, and that tests fake.
//!
//! ```text
//! # States      of a range of address space. What is placed is not held, but where the platform holds places: the kernel
//!               may give it to anyone who asks, so it is looked at when it is committed.
//! ```
//!
//! ```text
//!                      +--> Taken: somebody else's, never touched
//!                      |
//! (nothing) --place--> Placed --commit--> Zeroed --first write--> Dirty
//!     ^                                   |   ^                     |
//!     +------------ uncommit -------------+   +------- purge -------+
//! ```
//!
//! ```text
//! # Ports       functions with a body may be left out, as `Capabilities` says; the others may refuse where they say so
//! # Not here    when to do what (see `depot`)
//! ```

use core::ptr::NonNull;

/// Pages in a row, as the kernel's calls for several ranges want them: `iovec`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PageRun {
    /// The first page.
    pub start: NonNull<u8>,
    /// Bytes.
    pub bytes: usize,
}

impl PageRun {
    /// The address behind it.
    pub fn end(&self) -> usize {
        self.start.addr().get() + self.bytes
    }
}

/// Why a range could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotMapped {
    /// Something is mapped there already, in parts at least.
    Taken,
    /// No memory, or more address space or mappings than the process may have.
    Refused,
}

/// What became of a relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[allow(dead_code, reason = "answers that some ports never give")]
pub enum Relocated {
    /// All of it by moving pages: the old range reads as zero.
    Moved,
    /// Some of it by copying: the old range may hold anything.
    Copied,
    /// The contents are in the old range as before, and a part of the new range may not be touched any more.
    Lost {
        /// Bytes of the new range before that part.
        at: usize,
        /// Bytes of that part.
        bytes: usize,
    },
}

/// What became of a range that was to be mapped anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[allow(dead_code, reason = "answers that some ports never give")]
pub enum Renewed {
    /// It reads as zero.
    Yes,
    /// It is as it was, and may hold anything.
    Refused,
    /// It may not be touched any more.
    Lost,
}

/// What to advise the kernel about huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugeAdvice {
    /// Back the range with base pages.
    Never,
    /// Back the range with huge pages where possible.
    Always,
}

/// What the kernel had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[allow(dead_code, reason = "answers that some ports never give")]
pub enum HugePage {
    /// A huge page, or base pages, all of them.
    Prompt,
    /// The same, or a part of it, but it took longer than base pages by a fault each: it had to move other memory, or its
    /// host had.
    Late,
    /// Nothing: it cannot be asked that way.
    None,
}

/// What a platform can do beyond what it must, and what that costs there. What it cannot do is never asked for, so a port
/// leaves those functions of `Pages` out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// `hold_place`, `leave_place` and `uncommit`: a place is held from the first moment on, and committed in parts. Else
    /// nobody holds it, and `commit` finds out whether it is free.
    pub holds_places: bool,
    /// `relocate` moves pages. Else a large block that grows is copied.
    pub moves_pages: bool,
    /// `remap`. Else a block that is a mapping of its own grows by a new one and a copy, and keeps its length when it shrinks.
    pub resizes_mappings: bool,
    /// `populate`. Else each page comes in by a fault.
    pub populates: bool,
    /// `purge_runs`. Else each run is given back by a call.
    pub purges_runs: bool,
    /// `begin_huge_page`, `split_huge_page` and `advise`, for huge pages of `HUGE_PAGE_BYTES`. Else there are base pages.
    pub has_huge_pages: bool,
    /// Memory may be read while another thread purges it, and has its old contents or zero then. Else the metadata of free
    /// chunks stays in memory (2 % of what they take): a search may look at it late.
    pub purges_under_readers: bool,
    /// Microseconds for each MiB that giving pages back takes at most if a third of them was in memory: where it takes
    /// longer, reused memory is made zero by memset (see `heap::zeroing`). 0: always by memset.
    pub purge_us_per_mib: u64,
}

/// Address space, pages, and the clock. Lengths are multiples of the granule, in bytes.
///
/// # Safety
/// An implementation hands out ranges that nobody else uses, aligned to the OS page at least; committed memory
/// that was never written, and purged memory, reads as zero.
pub unsafe trait Pages: Sync {
    /// What of the rest there is.
    fn capabilities(&self) -> Capabilities;

    /// Maps `bytes` anywhere, without access; `None`: refused.
    fn hold(&self, bytes: usize) -> Option<NonNull<u8>>;

    /// Does the kernel map upwards, each mapping behind the last? Else downwards.
    fn maps_upwards(&self) -> bool {
        false
    }

    /// The lowest address that is worth trying: below lie programs.
    fn lowest(&self) -> usize;

    /// Holds a place of `bytes` at a multiple of `align`, a power of two: nobody else maps anything there. `None`: refused,
    /// or more than is held at once.
    fn hold_place(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let _ = (bytes, align);
        None
    }

    /// Gives up a place that is held.
    ///
    /// # Safety
    /// It came from `hold_place`, with that length, and nobody uses it any more.
    unsafe fn leave_place(&self, start: NonNull<u8>, bytes: usize) {
        let _ = (start, bytes);
    }

    /// Maps the range, readable and writable, where nothing is mapped: in a held place, if there are such. All of it, or
    /// nothing of it.
    ///
    /// # Errors
    /// See `NotMapped`; nothing has changed then.
    fn commit(&self, start: NonNull<u8>, bytes: usize) -> Result<(), NotMapped>;

    /// Takes back what `commit` did, for all of it or a part. A place that is held stays held.
    ///
    /// # Safety
    /// All of it came from `commit`, and nobody uses it any more.
    unsafe fn uncommit(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.release(start, bytes) };
    }

    /// Maps `bytes` anywhere, readable and writable; `None`: refused.
    fn map(&self, bytes: usize) -> Option<NonNull<u8>>;

    /// Gives the pages back and keeps the address space; the range reads as zero afterwards.
    /// `false`: refused, the contents are unchanged.
    ///
    /// # Safety
    /// The range is committed, and the caller has it to itself.
    #[must_use]
    unsafe fn purge(&self, start: NonNull<u8>, bytes: usize) -> bool;

    /// Gives the pages of all runs back, as `purge` does, in one call, so that other processors are interrupted once.
    /// `false`: refused, or not to be had; some of them may have been given back.
    ///
    /// # Safety
    /// As for `purge`, for each of them.
    #[must_use]
    unsafe fn purge_runs(&self, runs: &[PageRun]) -> bool {
        let _ = runs;
        false
    }

    /// Brings the pages in, as their first writes would, but in one call. A hint. `false`: the kernel knows no such call.
    ///
    /// # Safety
    /// The range is committed.
    #[must_use]
    unsafe fn populate(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let _ = (start, bytes);
        false
    }

    /// Brings in the huge page from `start` on, as such or as base pages. No contents change, whoever's they are.
    ///
    /// # Safety
    /// All of it is committed.
    unsafe fn begin_huge_page(&self, start: NonNull<u8>) -> HugePage {
        let _ = start;
        HugePage::None
    }

    /// Splits the huge page that starts at `start`, if there is one, so that what is given back of it is free at once.
    ///
    /// # Safety
    /// A page there is committed.
    unsafe fn split_huge_page(&self, start: NonNull<u8>) {
        let _ = start;
    }

    /// Moves the contents of `from` to `to`: by moving pages where that is possible, else by copying. What is lost is in
    /// whole granules.
    ///
    /// # Safety
    /// Both ranges are committed and do not overlap, and the caller has them to itself.
    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocated {
        // SAFETY: the caller's promise.
        unsafe { to.copy_from_nonoverlapping(from, bytes) };
        Relocated::Copied
    }

    /// Maps committed memory anew: it reads as zero, and the kernel may join it with its neighbours again.
    ///
    /// # Safety
    /// As for `purge`.
    unsafe fn renew(&self, start: NonNull<u8>, bytes: usize) -> Renewed {
        let _ = (start, bytes);
        Renewed::Refused
    }

    /// Advises the kernel about huge pages. A hint: nothing is said where it is refused.
    ///
    /// # Safety
    /// The range is committed.
    unsafe fn advise(&self, start: NonNull<u8>, bytes: usize, advice: HugeAdvice) {
        let _ = (start, bytes, advice);
    }

    /// Bytes of an OS page: a power of two, at most a granule.
    fn page_bytes(&self) -> usize;

    /// Microseconds of processor time that the calling thread has used.
    fn thread_us(&self) -> u64;

    /// Milliseconds of a clock that only goes forward.
    fn now_ms(&self) -> u64;

    /// Is it the system's policy to back memory by huge pages, unless it is advised not to?
    fn has_huge_pages_unasked(&self) -> bool {
        false
    }

    /// Bytes of memory that the group of processes to which this one belongs may use, where that is limited.
    fn memory_limit(&self) -> Option<usize> {
        None
    }

    /// Changes the length of a mapping, in place or by moving it as a whole: what it had it keeps, as far as it fits, and
    /// what is new reads as zero. `None`: refused, nothing changed.
    ///
    /// # Safety
    /// The range is one that `map` or `remap` returned, or what is left of one, and the caller has it to itself.
    unsafe fn remap(&self, start: NonNull<u8>, bytes: usize, new_bytes: usize) -> Option<NonNull<u8>> {
        let _ = (start, bytes, new_bytes);
        None
    }

    /// Unmaps a range.
    ///
    /// # Safety
    /// All of it came from `map`, `remap` or `hold`, and nobody uses it any more.
    unsafe fn release(&self, start: NonNull<u8>, bytes: usize);
}
