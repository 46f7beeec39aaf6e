//! The end of a slot's generations.

use super::*;

#[test]
fn slot_whose_generations_are_used_up_is_never_used_again() {
    let mut pool = Pool::new();
    let early = pool.insert(0).unwrap();
    assert_eq!(pool.remove(early), Some(0));
    pool.slots.age(0);
    drop(pool.insert_box(1).unwrap());
    let last = pool.insert(1).unwrap();
    assert_eq!(last.to_bits(), u64::from(u32::MAX) << 32);
    assert_eq!(pool.remove(last), Some(1));
    let next = pool.insert(2).unwrap();
    assert_eq!(next.index(), 1, "not in the place whose next generation would be one that was");
    assert!(pool.get(early).is_none() && pool.get(last).is_none());
    assert_eq!((pool.get(next), pool.len(), pool.iter().count()), (Some(&2), 1, 1));
}
