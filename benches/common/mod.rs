//! What every bench shares: how long it takes.

use criterion::Criterion;
use std::time::Duration;

/// Settings under which all groups together take some two minutes; the command line may change them.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}
