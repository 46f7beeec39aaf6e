//! The soft limit: how much free memory may stay near it, and how soon the rest goes.
//!
//! ```text
//! # Role        graduated answers; none jumps where the heap gets one byte larger than the limit
//! # Dirty       free memory fills what is left below the limit. Where nothing is left, a small share of the limit stays, in
//!               steps of which memory is given back, and what the program evidently takes again: as much as that does
//!               not add to the recent peak of memory in use, so giving it back in between would not lower the peak
//! # Pace        the more the heap exceeds the limit, the shorter are the epochs in which free pages of slabs, and caches
//!               of idle threads, age (see `purge::pace`)
//! # Caches      a share of the limit is what all caches together have, however far the limit is (`caches_bytes_max`)
//! # Not here    giving back (see `depot::dirty`), what is taken again (see `purge::warm`)
//! # Checked by  heap::tests::soft_limit, tests/memory_limits.rs
//! ```

use super::spans::Depot;
use crate::config::CACHES_BYTES_MAX;
use crate::purge::pace;
use crate::purge::signal::PurgeRequest;
use crate::sys::Pages;

/// Above the limit, free memory may be this share of it: with what is counted in steps, less than 2 %.
const DIRTY_SHARE: usize = 64;
/// Or that many bytes, where that is more: some blocks that are taken and freed in turn.
const DIRTY_BYTES_MIN: usize = 256 << 10;
/// What the program evidently takes again may be this share of the limit where no thread would give it back if the
/// program stopped.
const AGAIN_SHARE: usize = 8;

/// All caches together have this share of the limit at most, beyond what each may have in any case.
const CACHES_SHARE: usize = 8;

impl<P: Pages> Depot<P> {
    /// Does the heap hold more than the soft limit?
    #[inline]
    pub fn is_pressed(&self) -> bool {
        let limit = self.settings.soft_limit();
        limit != usize::MAX && self.budget.held() > limit
    }

    /// Bytes that may be free and dirty as far as the soft limit goes, while `in_use` bytes are in use.
    pub(super) fn dirty_within_soft_limit(&self, in_use: usize) -> usize {
        let limit = self.settings.soft_limit();
        if limit == usize::MAX {
            return usize::MAX;
        }
        let below = limit.saturating_sub(in_use);
        let sure = (limit / DIRTY_SHARE).max(DIRTY_BYTES_MIN);
        below.max(sure).max(self.warm.again(in_use, limit / AGAIN_SHARE))
    }

    /// Milliseconds of an epoch while the soft limit presses, where it has `epoch_ms` else.
    pub fn pressed_epoch_ms(&self, epoch_ms: u64) -> u64 {
        pace::pressed_epoch_ms(self.budget.held(), self.settings.soft_limit(), epoch_ms)
    }

    /// How soon what is free is to be given back.
    pub fn due_request(&self) -> PurgeRequest {
        if self.is_pressed() { PurgeRequest::Urgent } else { PurgeRequest::Raised }
    }

    /// Bytes that all caches together may have beyond what each may in any case, in a heap of any size.
    pub fn caches_bytes_max(&self) -> usize {
        CACHES_BYTES_MAX.min(self.settings.soft_limit() / CACHES_SHARE)
    }
}
