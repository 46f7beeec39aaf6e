//! Everything at once: threads allocate, zero, resize and free blocks of mixed sizes and pass them to each other. Every
//! block is filled and verified; between rounds, while all threads rest, the allocator's invariants are.
//!
//! A single test, so that libtest has nothing to do beside it.

mod common;

use common::{Block, Random};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

/// Threads that run through all rounds.
const THREADS: usize = 4;
/// Threads that run for one round and leave their blocks to others.
const GUESTS: usize = 2;
const ROUNDS: usize = 20;
/// Operations of a thread in a round.
const OPERATIONS: usize = 25_000;
/// Blocks that a thread holds at most.
const HELD_MAX: usize = 400;

/// Where threads leave blocks for others.
type Mailboxes = [Mutex<Vec<Block>>; THREADS];

fn any_size(random: &mut Random) -> usize {
    let end = match random.below(1_000) {
        0 => 6 << 20,
        1..20 => 300_000,
        20..200 => 20_000,
        _ => 1_000,
    };
    1 + random.size_below(end)
}

fn any_align(random: &mut Random) -> usize {
    if random.below(10) == 0 { 1 << random.below(17) } else { 8 }
}

fn work(random: &mut Random, held: &mut Vec<Block>, mailboxes: &Mailboxes, me: usize) {
    for _ in 0..OPERATIONS {
        let some = random.below(held.len().max(1));
        match random.below(100) {
            _ if held.len() >= HELD_MAX => held.truncate(HELD_MAX / 2),
            0..40 => held.push(Block::new(any_size(random), any_align(random))),
            40..50 => held.push(Block::zeroed(any_size(random), any_align(random))),
            50..65 if !held.is_empty() => held[some].resize(any_size(random)),
            65..85 if !held.is_empty() => drop(held.swap_remove(some)),
            85..95 if !held.is_empty() => {
                let block = held.swap_remove(some);
                mailboxes[random.below(THREADS)].lock().expect("no thread panicked").push(block);
            }
            95..98 => held.append(&mut mailboxes[me % THREADS].lock().expect("no thread panicked")),
            98 if random.below(100) == 0 => magalloc::flush_thread(),
            _ => {}
        }
    }
}

#[test]
fn random_operations_of_many_threads_keep_contents_and_invariants() {
    let random = Random::new();
    let mailboxes: Arc<Mailboxes> = Arc::default();
    let barrier = Arc::new(Barrier::new(THREADS + 1));
    let threads: Vec<_> = (0..THREADS)
        .map(|me| {
            let (mailboxes, barrier, mut random) =
                (Arc::clone(&mailboxes), Arc::clone(&barrier), random.fork(me as u64));
            thread::spawn(move || {
                let mut held = Vec::new();
                for _ in 0..ROUNDS {
                    work(&mut random, &mut held, &mailboxes, me);
                    // All threads rest between these.
                    barrier.wait();
                    barrier.wait();
                }
            })
        })
        .collect();
    for round in 0..ROUNDS {
        let guests: Vec<_> = (0..GUESTS)
            .map(|number| {
                let me = THREADS + round * GUESTS + number;
                let (mailboxes, mut random) = (Arc::clone(&mailboxes), random.fork(me as u64));
                thread::spawn(move || {
                    let mut held = Vec::new();
                    work(&mut random, &mut held, &mailboxes, me);
                    mailboxes[me % THREADS].lock().expect("no thread panicked").append(&mut held);
                })
            })
            .collect();
        for guest in guests {
            guest.join().expect("the guest ends well");
        }
        barrier.wait();
        magalloc::check();
        barrier.wait();
    }
    for thread in threads {
        thread.join().expect("the thread ends well");
    }
    for mailbox in &*mailboxes {
        // Its buffer may be a large block itself.
        let blocks = std::mem::take(&mut *mailbox.lock().expect("no thread panicked"));
        drop(blocks);
    }
    magalloc::flush_thread();
    magalloc::check();
    assert_eq!(magalloc::stats().large_blocks, 0);
}
