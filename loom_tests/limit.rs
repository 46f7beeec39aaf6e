//! The hard limit (`depot::budget`): what is held, and who may have more.
//!
//! # Modelled    threads at the limit that take while another gives; a request that can never be met beside one that
//!               always can; a purge that gives room and then frees the granule for which it is wanted
//! # Asserted    conservation: never more than the limit is held; what was taken and not given is held at the end.
//!               A request fails only if there was a moment without room for it; what was given can be had.
//! # Bounds      1 granule, 2 or 3 threads with 1 or 2 requests each, 3 preemptions
#![cfg(loom)]

mod common;

use common::{assert_caught, check, spawn};
use magalloc::chunk::span_map::{Run, SpanMap, Start};
use magalloc::depot::budget::Budget;
use magalloc::sync::planted::bug;
use std::sync::Arc;

const PREEMPTIONS: Option<usize> = Some(3);
const BEYOND: &str = "more is held than the limit allows";
const REFUSED: &str = "a request was refused for which there was room";

struct Account {
    budget: Budget,
    limit: usize,
}

impl Account {
    fn new(held: usize, limit: usize) -> Arc<Self> {
        let budget = Budget::new();
        budget.take_anyway(held);
        Arc::new(Self { budget, limit })
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = self.budget.take(bytes, self.limit);
        assert!(self.budget.held() <= self.limit, "{BEYOND}");
        taken
    }

    /// At rest.
    fn check(&self, held: usize) {
        assert!(held <= self.limit, "{BEYOND}");
        assert_eq!(self.budget.held(), held, "the account is wrong");
        assert!(self.take(self.limit - held), "{REFUSED}");
    }
}

/// Three are held, of three; one is given while two others want one each, one of them twice.
fn two_take_what_one_gives() {
    let account = Account::new(3, 3);
    let giver = spawn(&account, |account| account.budget.give(1));
    let taker = spawn(&account, |account| account.take(1));
    let own = [(); 2].map(|()| account.take(1));
    giver.join().unwrap();
    let taken = own.into_iter().chain([taker.join().unwrap()]).filter(|&taken| taken).count();
    account.check(2 + taken);
}

/// One is held, of three. While that is so, three more are too many, and one more is not, twice.
fn small_requests_beside_a_large_one() {
    let account = Account::new(1, 3);
    let large = spawn(&account, |account| account.budget.take(3, account.limit));
    for _ in 0..2 {
        assert!(account.budget.take(1, account.limit), "{REFUSED}");
    }
    assert!(!large.join().unwrap(), "{BEYOND}");
    account.check(3);
}

/// Room for one granule, which is free and dirty.
struct Depot {
    spans: SpanMap,
    budget: Budget,
}

const GRANULE: u64 = 1 << 63;

impl Depot {
    fn new() -> Arc<Self> {
        let depot = Self { spans: SpanMap::new(), budget: Budget::new() };
        assert!(depot.spans.claim_exact(0, u64::MAX) && depot.budget.take(1, 1));
        depot.spans.free(0, GRANULE, true);
        Arc::new(depot)
    }

    /// `Depot::purge_granules`.
    fn purge(&self) {
        let claimed = self.spans.claim_dirty(0, u64::MAX);
        if claimed == 0 {
            return;
        }
        let late = bug("room given after the free");
        if !late {
            self.budget.give(1);
        }
        self.spans.cleaned(0, claimed);
        self.spans.free(0, claimed, false);
        if late {
            self.budget.give(1);
        }
    }

    /// `Depot::try_claim_span` and `commit_claimed`.
    fn use_granule(&self) {
        let Some(Run { chunk, mask }) = self.spans.claim(1, 1, 1, Start::LOWEST) else { return };
        let is_dirty = self.spans.dirty(chunk, mask) != 0;
        assert!(is_dirty || self.budget.take(1, 1), "{REFUSED}");
        self.spans.free(chunk, mask, true);
    }
}

/// The granule is purged, and used by two others.
fn a_purged_granule_is_wanted() {
    let depot = Depot::new();
    let purger = spawn(&depot, Depot::purge);
    let user = spawn(&depot, Depot::use_granule);
    depot.use_granule();
    purger.join().unwrap();
    user.join().unwrap();
    let dirty = depot.spans.free_dirty(0).count_ones() as usize;
    assert_eq!(depot.budget.held(), dirty, "the account is wrong");
}

#[test]
fn the_limit_is_kept() {
    check(PREEMPTIONS, two_take_what_one_gives);
}

#[test]
fn what_fits_is_not_refused() {
    check(PREEMPTIONS, small_requests_beside_a_large_one);
}

#[test]
fn room_is_there_before_its_granule() {
    check(PREEMPTIONS, a_purged_granule_is_wanted);
}

#[test]
fn look_then_add_is_caught() {
    assert_caught("look, then add", BEYOND, PREEMPTIONS, two_take_what_one_gives);
}

#[test]
fn add_then_look_is_caught() {
    assert_caught("add, then look", REFUSED, PREEMPTIONS, small_requests_beside_a_large_one);
}

#[test]
fn room_given_after_the_free_is_caught() {
    assert_caught("room given after the free", REFUSED, PREEMPTIONS, a_purged_granule_is_wanted);
}
