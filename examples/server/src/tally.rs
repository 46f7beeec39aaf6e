//! Latencies and errors, first of one client and in the end of all.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The latency that the histogram can still tell apart from larger ones, in microseconds.
const LONGEST: u64 = 60_000_000;

/// What the requests of a load came to.
pub(crate) struct Tally {
    /// Times from sending a request to having its whole reply, in microseconds.
    pub(crate) latency: Histogram<u32>,
    /// Replies that were wrong or missing.
    pub(crate) errors: u64,
    /// What was wrong first.
    pub(crate) first_error: Option<String>,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3);
        Self { latency: latency.expect("the bounds are in order"), errors: 0, first_error: None }
    }

    /// Adds what `other` has.
    pub(crate) fn add(&mut self, other: Self) {
        self.latency.add(&other.latency).expect("the bounds are the same");
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// Notes one error.
    pub(crate) fn fault(&mut self, reason: String) {
        self.errors += 1;
        self.first_error.get_or_insert(reason);
    }

    /// Notes the time that a request took.
    pub(crate) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST);
        self.latency.saturating_record(micros);
    }
}
