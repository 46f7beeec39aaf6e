//! Large buffers, a few at a time, as programs have them that read files, decode pictures or talk to others.

use super::raw::{Block, finish_all, share, together};
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;

/// Buffers of very different sizes, replaced at random.
pub const BUFFERS: Workload = Workload {
    name: "buffers",
    stands_for: "threads replace buffers of 32 KiB to 25 MiB, up to 8 each, half of them used in part: files, pictures",
    operations: "buffers",
    threads_per_core: 1,
    shown: Shown::Row,
    run,
};

const BUFFERS_COUNT: usize = 10_000;

/// Buffers of a thread, unless there are many threads.
const LIVE_OF_THREAD: usize = 8;

/// Buffers that are live at most, of all threads together, if that leaves two to each.
const LIVE: usize = 64;

const LEAST: f64 = 32.0 * 1024.0;

const MOST: f64 = 25.0 * 1024.0 * 1024.0;

fn run(parameters: &Parameters) -> Outcome {
    let buffers = parameters.scaled(BUFFERS_COUNT);
    let threads = parameters.threads;
    let live = (LIVE / threads).clamp(2, LIVE_OF_THREAD);
    let checksum = together(threads, |index| {
        let mut random = Random::new(parameters.seed.wrapping_add(index as u64));
        let mut slots: Vec<Option<Block>> = (0..live).map(|_| None).collect();
        let mut sum = 0_u64;
        for _ in 0..share(buffers, threads, index) {
            let slot = &mut slots[random.below(live)];
            if let Some(old) = slot.take() {
                sum = sum.wrapping_add(old.finish());
            }
            *slot = Some(buffer(&mut random));
        }
        sum.wrapping_add(finish_all(slots.into_iter().flatten()))
    });
    Outcome::new(buffers as u64, checksum)
}

/// A buffer; each doubling of the size is as likely as any other.
fn buffer(random: &mut Random) -> Block {
    let part = random.below(1 << 20) as f64 / f64::from(1 << 20);
    let size = (LEAST * (MOST / LEAST).powf(part)) as usize;
    let mark = random.number();
    if random.percent(50) { Block::new(size, mark) } else { Block::sparse(size, mark) }
}

#[cfg(test)]
mod tests {
    use super::super::raw::tests::{assert_repeatable, assert_same_work};
    use super::*;

    #[test]
    fn buffers_are_repeatable() {
        assert_repeatable(&BUFFERS, 1e-2);
        assert_same_work(&BUFFERS, 1e-2);
    }
}
