//! How deep the allocator's calls go below their caller: each kind of work runs on a painted stack, the first one before
//! anything else in the process has allocated.
//!
//! usage: stack BOUND     prints a line for each; ends with 1 if one needs more than BOUND bytes. `ci/stack.sh` builds it
//! optimised; `capi/tests/c/stack.c` is the same for C.

use magalloc::Magalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

#[global_allocator]
static GLOBAL: Magalloc = Magalloc::new().purge_delay_ms(20);

const STACK_BYTES: usize = 256 << 10;
const PAINT: u8 = 0xa5;
const SMALL: usize = 40_000;

static SMALL_BLOCKS: [AtomicPtr<u8>; SMALL] = [const { AtomicPtr::new(null_mut()) }; SMALL];
static FIRST: AtomicUsize = AtomicUsize::new(0);

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// A block whose pages are touched.
fn take(size: usize) -> *mut u8 {
    // SAFETY: the size is not 0.
    let block = unsafe { GLOBAL.alloc(layout(size)) };
    for offset in (0..size).step_by(4096) {
        // SAFETY: within the block.
        unsafe { block.add(offset).write_volatile(1) };
    }
    block
}

fn give(block: *mut u8, size: usize) {
    // SAFETY: a block of that size, from `take`.
    unsafe { GLOBAL.dealloc(block, layout(size)) };
}

fn resize(block: *mut u8, old: usize, new: usize) -> *mut u8 {
    // SAFETY: a block of that size, from `take`.
    unsafe { GLOBAL.realloc(block, layout(old), new) }
}

/// What the work runs with.
struct Order {
    work: fn(),
    stack: *mut u8,
    depth: usize,
}

extern "C" fn on_painted_stack(order: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: from `depth_of`, which waits.
    let order = unsafe { &mut *order.cast::<Order>() };
    let caller = (&raw const order).addr();
    let below = caller - order.stack.addr() - 512;
    // SAFETY: the part of this thread's stack that is not in use.
    unsafe { order.stack.write_bytes(PAINT, below) };
    (order.work)();
    let is_painted = |offset: &usize| {
        // SAFETY: within the stack.
        let byte = unsafe { order.stack.add(*offset).read_volatile() };
        byte == PAINT
    };
    let untouched = (0..below).take_while(is_painted).count();
    order.depth = caller - order.stack.addr() - untouched;
    null_mut()
}

/// Bytes of stack that the work needs, on a thread of its own.
fn depth_of(work: fn()) -> usize {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping.
    let stack = unsafe { libc::mmap(null_mut(), STACK_BYTES, access, flags, -1, 0) };
    assert_ne!(stack, libc::MAP_FAILED);
    let mut order = Order { work, stack: stack.cast(), depth: 0 };
    // SAFETY: all zeros is memory to initialise.
    let (mut attributes, mut thread): (libc::pthread_attr_t, libc::pthread_t) = unsafe { std::mem::zeroed() };
    // SAFETY: all arguments are valid; the stack is used by nobody else.
    unsafe {
        assert_eq!(libc::pthread_attr_init(&raw mut attributes), 0);
        assert_eq!(libc::pthread_attr_setstack(&raw mut attributes, stack, STACK_BYTES), 0);
        let argument = (&raw mut order).cast();
        assert_eq!(libc::pthread_create(&raw mut thread, &raw const attributes, on_painted_stack, argument), 0);
        assert_eq!(libc::pthread_join(thread, null_mut()), 0);
        libc::munmap(stack, STACK_BYTES);
    }
    order.depth
}

/// Before `main`, and before the standard library allocates.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

extern "C" fn at_start() {
    FIRST.store(depth_of(first_malloc_of_process), Ordering::Relaxed);
}

fn first_malloc_of_process() {
    give(black_box(take(100)), 100);
}

fn refills_and_flushes() {
    for round in 0..3 {
        for (index, place) in SMALL_BLOCKS.iter().enumerate() {
            place.store(take(index * 13 % 30_000 + 1 + round), Ordering::Relaxed);
        }
        for step in 0..SMALL {
            let index = step * 7919 % SMALL;
            give(SMALL_BLOCKS[index].load(Ordering::Relaxed), index * 13 % 30_000 + 1 + round);
        }
    }
}

fn large_blocks_move() {
    const MIB: usize = 1 << 20;
    let block = resize(take(5 * MIB), 5 * MIB, 50 * MIB);
    let other = take(100);
    give(resize(black_box(block), 50 * MIB, 150 * MIB), 150 * MIB);
    give(other, 100);
}

/// Half of many pages become free, and stay so for longer than the delay.
fn purges_on_the_way() {
    for place in &SMALL_BLOCKS {
        place.store(take(1000), Ordering::Relaxed);
    }
    let blocks = || SMALL_BLOCKS.iter().enumerate();
    for (_, place) in blocks().filter(|(index, _)| index / 100 % 2 == 0) {
        give(place.load(Ordering::Relaxed), 1000);
    }
    for _ in 0..30 {
        let (first, rest): (*mut u8, [*mut u8; 20]) = (take(60_000), std::array::from_fn(|_| take(3_000)));
        give(first, 60_000);
        rest.into_iter().for_each(|block| give(block, 3_000));
        // SAFETY: no conditions.
        unsafe { libc::usleep(10_000) };
    }
    for (_, place) in blocks().filter(|(index, _)| index / 100 % 2 != 0) {
        give(place.load(Ordering::Relaxed), 1000);
    }
}

fn purges_all() {
    give(take(30 << 20), 30 << 20);
    magalloc::purge_all();
}

fn main() {
    let bound: usize = std::env::args().nth(1).expect("a bound in bytes").parse().expect("a number");
    let kept = take(64 << 20);
    let works: [(&str, fn()); 4] = [
        ("refills and flushes", refills_and_flushes),
        ("large blocks move", large_blocks_move),
        ("purges on the way", purges_on_the_way),
        ("purge_all", purges_all),
    ];
    let first = ("first malloc of the process", FIRST.load(Ordering::Relaxed));
    let depths = std::iter::once(first).chain(works.map(|(name, work)| (name, depth_of(work))));
    let too_deep =
        depths.inspect(|(name, bytes)| println!("{bytes:>6} bytes: {name}")).filter(|&(_, bytes)| bytes > bound);
    let count = too_deep.count();
    give(kept, 64 << 20);
    std::process::exit(i32::from(count > 0));
}
