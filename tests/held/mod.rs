//! Memory that a process has touched, and waiting until it is gone from memory.

use crate::proc;
use magalloc::stats;

const MIB: u64 = 1 << 20;

/// Waits until this process, which does `idle` meanwhile, has at most `bytes` in memory, and the statistics say so, too:
/// what is just being given back is gone from memory before it is gone from the accounts.
#[track_caller]
pub fn expect_resident_falls_to(bytes: u64, idle: fn()) {
    let fell = proc::wait(|| {
        idle();
        proc::resident() <= bytes && stats().resident <= proc::resident()
    });
    let (now, stats) = (proc::resident(), stats());
    assert!(fell && stats.purges > 0, "{now} bytes are resident, at most {bytes} allowed: {stats:?}");
}

/// Bytes of large blocks and as many of small ones in `Held`.
const HELD_BYTES: usize = 50 << 20;

/// 100 MiB, all touched.
pub struct Held {
    large: Vec<Vec<u8>>,
    _small: Vec<Vec<u8>>,
}

impl Held {
    pub fn new() -> Self {
        let large = (0..HELD_BYTES >> 20).map(|_| vec![1; 1 << 20]).collect();
        Self { large, _small: (0..HELD_BYTES / 1000).map(|_| vec![1; 1000]).collect() }
    }

    /// Frees most and waits until it is gone from memory, with `idle` meanwhile.
    pub fn free_and_wait(mut self, idle: fn()) {
        let before = proc::resident();
        let kept = self.large.pop();
        drop(self);
        expect_resident_falls_to(before - 94 * MIB, idle);
        assert!(kept.unwrap().iter().all(|byte| *byte == 1));
    }
}

/// Nothing: the allocator's thread gives back.
pub fn asleep() {}

/// A child has one thread, which gives back on its way.
pub fn on_the_way() {
    drop(std::hint::black_box(vec![1_u8; 100_000]));
}
