//! Blocks freed by threads that did not allocate them, in every pattern, also after their owner has ended. Each block
//! is verified where it is freed; after each scenario no thread is left, and the invariants hold.
//!
//! Without libtest (`harness = false`), so that no other thread is inside the allocator then.

mod common;

use common::{Block, Random};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

/// Blocks that a producer makes in a scenario.
const BLOCKS: usize = 8_000;
/// Memory that a scenario may leave in use by this program's own buffers, in bytes.
const SLACK: u64 = 256 << 10;

/// Mostly small; one in a few hundred is large.
fn any_block(random: &mut Random) -> Block {
    let end = if random.below(300) == 0 { 400_000 } else { 3_000 };
    Block::new(1 + random.size_below(end), 1 << random.below(8))
}

fn join<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    handles.into_iter().map(|handle| handle.join().expect("the thread ends well")).collect()
}

/// A thread that makes `BLOCKS` blocks and sends them around.
fn producer(mut random: Random, to: Vec<Sender<Block>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for number in 0..BLOCKS {
            to[number % to.len()].send(any_block(&mut random)).expect("a receiver");
        }
    })
}

/// A thread that frees what it receives, and allocates nothing of its own.
fn consumer(from: Receiver<Block>) -> JoinHandle<usize> {
    thread::spawn(move || from.into_iter().map(drop).count())
}

/// Runs a scenario; afterwards all that it allocated is free again.
fn quiet(scenario: impl FnOnce(Random)) {
    magalloc::flush_thread();
    let before = magalloc::stats();
    scenario(Random::new());
    // Also what its threads have left for the next ones.
    magalloc::purge_all();
    magalloc::check();
    let after = magalloc::stats();
    assert_eq!((after.threads, after.cached, after.large_blocks), (1, 0, before.large_blocks), "{after:?}");
    assert!(after.live <= before.live + SLACK, "before {before:?}\nafter {after:?}");
}

fn pairwise_exchange_frees_every_block() {
    quiet(|random| {
        let (left, from_left) = channel();
        let (right, from_right) = channel();
        let ends = [(left, from_right), (right, from_left)];
        let threads = ends.into_iter().enumerate().map(|(number, (to, from)): (_, (_, Receiver<Block>))| {
            let mut random = random.fork(number as u64);
            thread::spawn(move || {
                for _ in 0..BLOCKS {
                    // The other may have sent its last block and gone; then this one is freed here.
                    let _ = to.send(any_block(&mut random));
                    drop(from.try_recv());
                }
                drop(to);
                from.into_iter().for_each(drop);
            })
        });
        join(threads.collect::<Vec<_>>());
    });
}

fn fan_in_frees_every_block() {
    quiet(|random| {
        let (to, from) = channel();
        let producers: Vec<_> = (0..4).map(|number| producer(random.fork(number), vec![to.clone()])).collect();
        drop(to);
        let consumer = consumer(from);
        join(producers);
        assert_eq!(join([consumer]), [4 * BLOCKS]);
    });
}

fn fan_out_frees_every_block() {
    quiet(|random| {
        let (to, from): (Vec<_>, Vec<_>) = (0..4).map(|_| channel()).unzip();
        let consumers: Vec<_> = from.into_iter().map(consumer).collect();
        join([producer(random, to)]);
        assert_eq!(join(consumers), [BLOCKS / 4; 4]);
    });
}

fn ring_passes_every_block_to_every_thread() {
    const MEMBERS: usize = 4;
    quiet(|random| {
        let (to, from): (Vec<_>, Vec<_>) = (0..MEMBERS).map(|_| channel::<Vec<Block>>()).unzip();
        let mut to = to;
        // Member n sends to member n + 1.
        to.rotate_left(1);
        let members = to.into_iter().zip(from).enumerate().map(|(number, (to, from))| {
            let mut random = random.fork(number as u64);
            thread::spawn(move || {
                for _ in 0..BLOCKS / 200 {
                    let mut blocks: Vec<_> = (0..50).map(|_| any_block(&mut random)).collect();
                    for _ in 0..MEMBERS - 1 {
                        to.send(blocks).expect("the next member");
                        blocks = from.recv().expect("blocks of the member before");
                        blocks.iter().for_each(Block::verify);
                    }
                    // All but one thread had them: freed by the last.
                    drop(blocks);
                }
            })
        });
        join(members.collect::<Vec<_>>());
    });
}

fn threads_that_only_free_leave_nothing_behind() {
    quiet(|mut random| {
        for _ in 0..200 {
            let blocks: Vec<_> = (0..100).map(|_| any_block(&mut random)).collect();
            join([thread::spawn(move || drop(blocks))]);
        }
    });
}

fn free_after_owner_exit_returns_blocks() {
    quiet(|random| {
        for round in 0..20 {
            let makers = (0..4).map(|number| {
                let mut random = random.fork(round * 4 + number);
                thread::spawn(move || (0..500).map(|_| any_block(&mut random)).collect::<Vec<_>>())
            });
            let mut blocks: Vec<_> = join(makers.collect::<Vec<_>>()).into_iter().flatten().collect();
            // Their numbers are adopted by new threads, which allocate from the same slabs while the rest is freed.
            let (half, rest) = (blocks.split_off(blocks.len() / 2), blocks);
            let mut random = random.fork(1_000 + round);
            let adopter = thread::spawn(move || {
                drop(half);
                drop((0..500).map(|_| any_block(&mut random)).collect::<Vec<_>>());
            });
            drop(rest);
            join([adopter]);
        }
    });
}

fn free_while_owner_exits_returns_blocks() {
    quiet(|random| {
        for round in 0..300 {
            let (to, from) = channel();
            let barrier = Arc::new(Barrier::new(3));
            let mut random = random.fork(round);
            let owners_barrier = Arc::clone(&barrier);
            let owner = thread::spawn(move || {
                let size = 16 << random.below(8);
                let make = || (0..150).map(|_| Block::new(size, 8)).collect::<Vec<_>>();
                for to in [&to, &to] {
                    to.send(make()).expect("a receiver");
                }
                owners_barrier.wait();
                // Ends now: its slabs are given away while their blocks come home from two sides.
            });
            let freers = [from.recv(), from.recv()].map(|blocks| {
                let blocks = blocks.expect("the owner's blocks");
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || {
                    barrier.wait();
                    drop(blocks);
                })
            });
            join([owner].into_iter().chain(freers));
        }
    });
}

fn one_way_traffic_does_not_grow_the_heap() {
    quiet(|random| {
        let mut committed = 0;
        for round in 0..12 {
            let (to, from) = channel();
            let consumer = consumer(from);
            join([producer(random.fork(round), vec![to])]);
            join([consumer]);
            if round == 5 {
                committed = magalloc::stats().committed;
            }
        }
        let after = magalloc::stats().committed;
        // How far the consumer lags behind differs from round to round.
        assert!(after <= committed + (32 << 20), "{committed} bytes committed became {after}");
    });
}

fn main() {
    common::run(&[
        ("pairwise_exchange_frees_every_block", pairwise_exchange_frees_every_block),
        ("fan_in_frees_every_block", fan_in_frees_every_block),
        ("fan_out_frees_every_block", fan_out_frees_every_block),
        ("ring_passes_every_block_to_every_thread", ring_passes_every_block_to_every_thread),
        ("threads_that_only_free_leave_nothing_behind", threads_that_only_free_leave_nothing_behind),
        ("free_after_owner_exit_returns_blocks", free_after_owner_exit_returns_blocks),
        ("free_while_owner_exits_returns_blocks", free_while_owner_exits_returns_blocks),
        ("one_way_traffic_does_not_grow_the_heap", one_way_traffic_does_not_grow_the_heap),
    ]);
}
