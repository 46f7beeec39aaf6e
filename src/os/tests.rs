//! Tests: places, the ballast, and calls that are counted.

use super::*;
use crate::config::GRANULE_BYTES;
use crate::sys::fake::{FakePages, Refuse};

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

fn place(os: &Os<FakePages>, bytes: usize) -> usize {
    os.place(bytes).expect("address space").addr().get()
}

#[test]
fn places_lie_below_each_other_and_below_the_kernels() {
    let os = Os::new(FakePages::new());
    let (first, second) = (place(&os, GIB), place(&os, GIB / 2 + 1));
    let kernels = os.ballast().expect("address space").addr().get();
    assert!(first + GIB <= kernels, "{first:x} {kernels:x}");
    assert_eq!(second, first - (GIB / 2 + PLACE_ALIGN));
    assert!([first, second].iter().all(|start| start.is_multiple_of(PLACE_ALIGN)));
    assert_eq!(os.pages().mapped(), [(kernels, BALLAST_BYTES)], "no place is held");
    os.drop_ballast();
}

#[test]
fn a_place_of_no_use_is_taken_back_if_it_is_the_last() {
    let os = Os::new(FakePages::new());
    let [first, second] = [GIB, GIB].map(|bytes| os.place(bytes).expect("address space"));
    // SAFETY: nothing is committed there.
    [first, second].into_iter().for_each(|place| unsafe { os.unplace(place, GIB) });
    assert_eq!(os.place(GIB), Some(second));
}

#[test]
fn there_is_no_place_below_the_lowest_address() {
    let os = Os::new(FakePages::new());
    os.pages().limit_space(0, GIB);
    assert_eq!(os.place(2 * GIB), None);
    place(&os, GIB / 4);
    assert_eq!(os.place(GIB), None);
    place(&os, GIB / 4);
}

#[test]
fn what_is_mapped_already_is_taken_and_stays_as_it_is() {
    let os = Os::new(FakePages::new());
    let start = os.place(GIB).expect("address space");
    assert_eq!(os.commit(start, GRANULE_BYTES), Ok(()));
    // SAFETY: committed just now.
    unsafe { start.write(7) };
    assert_eq!(os.commit(start, 2 * GRANULE_BYTES), Err(NotMapped::Taken));
    // SAFETY: as above.
    assert_eq!((unsafe { start.read() }, os.mapped()), (7, GRANULE_BYTES + BALLAST_BYTES));
    // SAFETY: not used any more.
    unsafe { os.uncommit(start, GRANULE_BYTES) };
    os.drop_ballast();
    assert_eq!(os.mapped(), 0);
}

#[test]
fn a_refusal_ends_the_ballast_and_the_heap_grows_with_a_new_one_only() {
    let os = Os::new(FakePages::new());
    let start = os.place(GIB).expect("address space");
    os.pages().refuse(Refuse::From(1));
    assert_eq!(os.commit(start, GRANULE_BYTES), Err(NotMapped::Refused));
    assert_eq!((os.mapped(), os.may_grow()), (0, false));
    os.pages().refuse(Refuse::None);
    assert!(os.may_grow());
    assert_eq!(os.mapped(), BALLAST_BYTES);
    os.drop_ballast();
}

#[test]
fn runs_that_touch_are_given_back_in_one_call_and_all_at_once_on_demand_only() {
    const PAGE: usize = 4096;
    let os = Os::new(FakePages::new());
    let start = os.map(MIB).expect("memory");
    // SAFETY: within it.
    let run = |page: usize, pages: usize| PageRun { start: unsafe { start.add(page * PAGE) }, bytes: pages * PAGE };
    let runs = [run(0, 1), run(1, 2), run(3, 1), run(5, 1), run(9, 1), run(10, 1)];
    let purges = |allow| {
        let before = os.purges();
        os.allow_batches(allow);
        // SAFETY: committed, and this test's own.
        unsafe { start.write_bytes(1, MIB) };
        // SAFETY: likewise.
        assert!(unsafe { os.purge_runs(&runs) });
        assert_eq!(os.pages().resident(start, MIB), MIB - 7 * PAGE);
        os.purges() - before
    };
    assert_eq!((purges(false), purges(true)), (3, 1));
    // SAFETY: not used any more.
    unsafe { os.release(start, MIB) };
}
