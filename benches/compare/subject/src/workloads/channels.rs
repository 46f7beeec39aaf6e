//! Messages that are allocated by one thread, read by others and freed by the last of them.

use super::raw::{Block, share, together};
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::thread;

/// Messages that travel around a ring of threads.
pub const RING: Workload = Workload {
    name: "ring",
    stands_for: "messages of 16 to 256 B pass through several threads of a ring, the last frees them: stages, actors",
    operations: "messages",
    threads_per_core: 2,
    shown: Shown::Row,
    run: ring,
};

/// Messages of many threads for one.
pub const FAN_IN: Workload = Workload {
    name: "fan-in",
    stands_for: "all threads but one send messages of 32 B to 1 KiB, that one frees them: a log, an event loop",
    operations: "messages",
    threads_per_core: 2,
    shown: Shown::Row,
    run: fan_in,
};

const RING_MESSAGES: usize = 16_000_000;

/// New messages in a group. Singly, a message would cost less to allocate than to pass on three times; in groups, the
/// system's allocator takes about half of the time.
const RING_GROUP: usize = 128;

/// Groups that may wait between two threads of the ring.
const RING_WAITING: usize = 16;

/// A message on its way around the ring.
struct Travelling {
    block: Block,
    /// Receivers still to come.
    hops: usize,
}

fn ring(parameters: &Parameters) -> Outcome {
    let threads = parameters.threads.max(2);
    // So that no message ends where it started, which neither number of hops does in any other ring.
    let hops = if threads.is_multiple_of(3) { 4 } else { 3 };
    // All threads take as many steps, each of which sends one group and receives one. At the same step everyone has
    // sent as much as received, so that not all queues can be full: a ring of bounded queues that cannot lock up.
    let steps = parameters.scaled(RING_MESSAGES / RING_GROUP).div_ceil(threads);
    let queues: Vec<_> = (0..threads).map(|_| bounded(RING_WAITING)).collect();
    let checksum = together(threads, |index| {
        let random = Random::new(parameters.seed.wrapping_add(index as u64));
        travel(random, steps, hops, &queues[(index + 1) % threads].0, &queues[index].1)
    });
    Outcome::new((threads * steps * RING_GROUP) as u64, checksum)
}

/// One thread of the ring. A group has new messages and those that travel on.
fn travel(
    mut random: Random,
    steps: usize,
    hops: usize,
    next: &Sender<Vec<Travelling>>,
    previous: &Receiver<Vec<Travelling>>,
) -> u64 {
    let mut sum = 0_u64;
    let mut group = Vec::with_capacity(hops * RING_GROUP);
    // The last messages need further steps to arrive.
    for step in 0..steps + hops - 1 {
        if step < steps {
            for _ in 0..RING_GROUP {
                group.push(Travelling { block: Block::new(random.between(16, 256), random.number()), hops });
            }
        }
        next.send(group).expect("the queues outlive the threads");
        group = previous.recv().expect("the queues outlive the threads");
        group.retain_mut(|message| {
            sum = sum.wrapping_add(message.block.read());
            message.hops -= 1;
            message.hops > 0
        });
    }
    assert!(group.is_empty(), "all messages have arrived");
    sum
}

const FAN_IN_MESSAGES: usize = 9_000_000;

/// Messages that may wait for the consumer. They are sent one at a time, as such programs do; with a queue this long
/// the threads seldom sleep, and the system's allocator takes about half of the time.
const FAN_IN_WAITING: usize = 4096;

fn fan_in(parameters: &Parameters) -> Outcome {
    let messages = parameters.scaled(FAN_IN_MESSAGES);
    let producers = (parameters.threads - 1).max(1);
    let (sender, receiver) = bounded(FAN_IN_WAITING);
    let checksum = thread::scope(|scope| {
        for index in 0..producers {
            let sender = sender.clone();
            let mut random = Random::new(parameters.seed.wrapping_add(index as u64));
            scope.spawn(move || {
                for _ in 0..share(messages, producers, index) {
                    let message = Block::new(random.between(32, 1024), random.number());
                    sender.send(message).expect("the receiver outlives the threads");
                }
            });
        }
        // The queue ends when the last producer does.
        drop(sender);
        receiver.iter().map(Block::finish).fold(0, u64::wrapping_add)
    });
    Outcome::new(messages as u64, checksum)
}

#[cfg(test)]
mod tests {
    use super::super::raw::tests::{assert_repeatable, assert_same_work};
    use super::*;

    #[test]
    fn ring_is_repeatable() {
        assert_repeatable(&RING, 1e-3);
    }

    #[test]
    fn ring_of_any_size_comes_to_its_end() {
        for threads in 1..10 {
            assert!(ring(&Parameters { scale: 1e-3, threads, seed: 7 }).operations > 0);
        }
    }

    #[test]
    fn fan_in_is_repeatable() {
        assert_repeatable(&FAN_IN, 1e-3);
        assert_same_work(&FAN_IN, 1e-3);
    }
}
