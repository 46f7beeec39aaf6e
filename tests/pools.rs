//! Pools against a model: a handle finds its object as long as that is there, and nothing afterwards.

mod light;

use light::Random;
use magalloc::{Handle, Pool, PoolBox};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

#[global_allocator]
static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();

/// An object that knows how many of its kind there are.
struct Counted<'c>(u64, &'c AtomicUsize);

impl<'c> Counted<'c> {
    fn new(number: u64, count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(number, count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn any_sequence_of_calls_agrees_with_the_model() {
    for seed in 0..40 {
        println!("seed {seed}");
        sequence(seed, 3_000);
    }
}

fn sequence(seed: u64, steps: u64) {
    let mut random = Random::new(seed);
    let count = AtomicUsize::new(0);
    let mut pool: Pool<Counted<'_>> = Pool::new();
    let mut live: Vec<(Handle<Counted<'_>>, u64)> = Vec::new();
    let mut stale: Vec<Handle<Counted<'_>>> = Vec::new();
    // Sequences differ in how full the pool becomes.
    let inserts = 350 + 20 * (seed as usize % 10);
    for step in 0..steps {
        match random.below(1_000) {
            0 => {
                pool.clear();
                stale.extend(live.drain(..).map(|(handle, _)| handle));
            }
            1..10 => boxes(&pool, &mut random, &count),
            10..50 => {
                for (handle, object) in &mut pool {
                    assert!(live.contains(&(handle, object.0)), "seen once, by its own handle");
                    object.0 += 1_000_000;
                }
                live.iter_mut().for_each(|(_, number)| *number += 1_000_000);
            }
            50..150 if !stale.is_empty() => {
                let handle = stale[random.below(stale.len())];
                assert!(pool.get(handle).is_none() && pool.get_mut(handle).is_none() && pool.remove(handle).is_none());
            }
            150..350 if !live.is_empty() => {
                let (handle, number) = live[random.below(live.len())];
                assert_eq!(pool.get(handle).map(|object| object.0), Some(number));
            }
            place if place < 350 + inserts => {
                live.push((pool.insert(Counted::new(step, &count)).unwrap(), step));
            }
            _ if !live.is_empty() => {
                let (handle, number) = live.swap_remove(random.below(live.len()));
                assert_eq!(pool.remove(handle).map(|object| object.0), Some(number));
                stale.push(handle);
            }
            _ => {}
        }
        assert_eq!((pool.len(), count.load(Ordering::Relaxed)), (live.len(), live.len()));
    }
    let seen: HashMap<_, _> = pool.iter().map(|(handle, object)| (handle, object.0)).collect();
    assert_eq!(seen, live.into_iter().collect());
    drop(pool);
    assert_eq!(count.load(Ordering::Relaxed), 0, "what lives is dropped with the pool");
}

fn boxes<'p, 'c>(pool: &'p Pool<Counted<'c>>, random: &mut Random, count: &'c AtomicUsize) {
    let (before, seen) = (pool.len(), pool.iter().count());
    let mut boxes: Vec<(PoolBox<'p, Counted<'c>>, u64)> = Vec::new();
    for number in 0..random.size_below(100) as u64 {
        boxes.push((pool.insert_box(Counted::new(number, count)).unwrap(), number));
        if random.below(3) == 0 {
            let (object, number) = boxes.swap_remove(random.below(boxes.len()));
            assert_eq!(object.0, number);
            match random.below(2) {
                0 => drop(object),
                _ => assert_eq!(PoolBox::into_inner(object).0, number),
            }
        }
    }
    assert_eq!((pool.len(), pool.iter().count()), (before + boxes.len(), seen), "those in boxes are their boxes' only");
    boxes.iter_mut().for_each(|(object, number)| object.0 += *number);
    assert!(boxes.iter().all(|(object, number)| object.0 == 2 * number));
}

#[test]
fn place_is_used_again_and_the_old_handle_finds_nothing() {
    let mut pool = Pool::new();
    let mut old = Vec::new();
    for number in 0..1_000 {
        let handle = pool.insert(number).unwrap();
        assert!(old.iter().all(|handle| pool.get(*handle).is_none()));
        assert_eq!(pool.remove(handle), Some(number));
        old.push(handle);
    }
    assert!(pool.held_bytes() < 250, "one slab: {}", pool.held_bytes());
}

#[test]
fn number_that_is_no_handle_finds_nothing() {
    let mut pool = Pool::new();
    let handle = pool.insert(1).unwrap();
    let boxed = pool.insert_box(2).unwrap();
    let (generations, places) =
        ([0_u64, 1, 2, 3, 4, u64::from(u32::MAX)], [0_u64, 1, 2, 7, 8, 1 << 20, u64::from(u32::MAX)]);
    for bits in generations.into_iter().flat_map(|generation| places.map(|place| generation << 32 | place)) {
        let found = Handle::from_bits(bits).and_then(|handle| pool.get(handle));
        assert_eq!(found.is_some(), bits == handle.to_bits(), "{bits:x}");
    }
    drop(boxed);
    assert_eq!(pool.remove(handle), Some(1));
}

#[test]
fn objects_of_any_size_and_alignment_stay_where_they_are() {
    fn fill<T: Clone + PartialEq + std::fmt::Debug>(object: T) {
        let pool = Pool::new();
        let handles: Vec<_> = (0..100).map(|_| pool.insert(object.clone()).unwrap()).collect();
        let first = std::ptr::from_ref(pool.get(handles[0]).unwrap());
        for handle in &handles {
            let found = pool.get(*handle).unwrap();
            assert!(std::ptr::from_ref(found).is_aligned() && *found == object);
        }
        let boxed = pool.insert_box(object.clone()).unwrap();
        assert_eq!((&*boxed, std::ptr::from_ref(pool.get(handles[0]).unwrap())), (&object, first));
    }
    #[derive(Clone, PartialEq, Debug)]
    #[repr(align(8192))]
    struct Page(u8);
    fill(());
    fill(1_u8);
    fill([7_u64; 1_000]);
    fill(Page(3));
    fill(String::from("text"));
}

#[cfg(target_pointer_width = "64")]
#[test]
fn slab_that_is_too_large_is_an_error() {
    let pool: Pool<[u8; 1 << 45]> = Pool::new();
    assert_eq!(pool.reserve(1), Err(magalloc::AllocError));
    assert_eq!((pool.len(), pool.held_bytes()), (0, 0));
}

#[test]
fn destructor_that_unwinds_runs_once() {
    struct Unwinds<'c>(&'c AtomicUsize);
    impl Drop for Unwinds<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            if !std::thread::panicking() {
                panic!("on purpose");
            }
        }
    }
    let count = AtomicUsize::new(0);
    let mut pool = Pool::new();
    let boxed = pool.insert_box(Unwinds(&count)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(boxed))).is_err());
    let handle = pool.insert(Unwinds(&count)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| pool.clear())).is_err());
    assert_eq!((count.load(Ordering::Relaxed), pool.len()), (2, 0));
    assert!(pool.get(handle).is_none());
    drop(pool);
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[test]
fn forgotten_box_is_dropped_with_the_pool() {
    let count = AtomicUsize::new(0);
    let mut pool = Pool::new();
    std::mem::forget(pool.insert_box(Counted::new(1, &count)).unwrap());
    assert_eq!((pool.len(), pool.iter().count()), (1, 0));
    pool.clear();
    assert_eq!((pool.len(), count.load(Ordering::Relaxed)), (0, 0));
    std::mem::forget(pool.insert_box(Counted::new(2, &count)).unwrap());
    drop(pool);
    assert_eq!(count.load(Ordering::Relaxed), 0);
}
