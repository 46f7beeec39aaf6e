//! The end of a slot's generations.

use super::*;
use core::num::NonZeroU32;

#[test]
fn slot_whose_generations_are_used_up_is_never_used_again() {
    let mut pool = Pool::new();
    let early = pool.insert(0).unwrap();
    assert_eq!(pool.remove(early), Some(0));
    pool.slots.set_generation(0, NonZeroU32::MAX);
    let last = pool.insert(1).unwrap();
    assert_eq!((last.index(), last.generation()), (0, NonZeroU32::MAX));
    assert_eq!(pool.remove(last), Some(1));
    let next = pool.insert(2).unwrap();
    assert_eq!(next.index(), 1, "not in the place whose next generation would be the first one again");
    assert!(pool.get(early).is_none() && pool.get(last).is_none());
    assert_eq!((pool.get(next), pool.len(), pool.iter().count()), (Some(&2), 1, 1));
}
