//! Options that can be changed, and read, while the program runs.
//!
//! ```text
//! # Effects     a bound holds for what is allocated, freed and cached from then on; what is free beyond it goes back at once
//! # Errors      what holds since the first call (huge pages, the purging thread, what happens at a fork) stays
//! ```

use super::{HEAP, init, set_checking, set_counting};
use crate::environment::{self, OptionError};
use crate::options::Options;

/// Changes an option while the program runs, by the name that it has in [`OPTION_TABLE`](crate::OPTION_TABLE), to a value as
/// a variable of the environment would have it. These can be changed: `PURGE_DELAY_MS`, `DIRTY_BYTES_MAX`,
/// `CACHE_BYTES_MAX`, `SOFT_LIMIT`, `HARD_LIMIT`, `CHECK_FREES` and `COUNTING`. Memory that is free beyond a new bound goes
/// back at once; caches shrink as they are used. A hard limit below what is held refuses new memory until enough was freed.
///
/// ```
/// # #[global_allocator]
/// # static GLOBAL: magalloc::Magalloc = magalloc::Magalloc::new();
/// # fn main() {
/// magalloc::set_option("SOFT_LIMIT", "200M").unwrap();
/// assert_eq!(magalloc::option("SOFT_LIMIT"), Some(200 << 20));
/// assert!(magalloc::set_option("SOFT_LIMIT", "much").is_err());
/// # }
/// ```
///
/// # Errors
/// No option has that name, it cannot have that value, or it cannot be changed now: not at all, or because nothing was
/// allocated yet, or because another mode is on.
pub fn set_option(name: &str, value: &str) -> Result<(), OptionError> {
    let mut told = Options::new();
    environment::set(&mut told, name.as_bytes(), value.as_bytes())?;
    if !init::is_final() {
        return Err(OptionError::NotNow);
    }
    let depot = HEAP.depot();
    let settings = &depot.settings;
    match name {
        "PURGE_DELAY_MS" => settings.set_purge_delay_ms(told.purge_delay_ms),
        "DIRTY_BYTES_MAX" => settings.set_dirty_bytes_max(told.dirty_bytes_max),
        "CACHE_BYTES_MAX" => settings.set_cache_bytes_max(told.cache_bytes_max),
        "SOFT_LIMIT" => settings.set_soft_limit(told.soft_limit_bytes(|| depot.os.memory_limit())),
        "HARD_LIMIT" => settings.set_hard_limit(told.hard_limit),
        "CHECK_FREES" => return turned(option(name), told.check_frees, set_checking),
        "COUNTING" => return turned(option(name), told.counting, set_counting),
        _ => return Err(OptionError::NotNow),
    }
    init::tell_no_more();
    if !HEAP.is_closed() {
        depot.keep_bound();
    }
    Ok(())
}

fn turned(now: Option<u64>, to: bool, turn: fn(bool) -> bool) -> Result<(), OptionError> {
    if now == Some(u64::from(to)) || turn(to) { Ok(()) } else { Err(OptionError::NotNow) }
}

/// What holds of an option that [`set_option`] can change, as a number: bytes, milliseconds, or 0 and 1; `u64::MAX` is no
/// limit. `None`: it is none of these.
///
/// ```
/// assert_eq!(magalloc::option("HARD_LIMIT"), Some(u64::MAX));
/// assert_eq!(magalloc::option("STATS_FILE"), None);
/// ```
pub fn option(name: &str) -> Option<u64> {
    let settings = &HEAP.depot().settings;
    let bytes = |bytes: usize| if bytes == usize::MAX { u64::MAX } else { bytes as u64 };
    Some(match name {
        "PURGE_DELAY_MS" => settings.purge_delay_ms().into(),
        "DIRTY_BYTES_MAX" => bytes(settings.dirty_bytes_max()),
        "CACHE_BYTES_MAX" => bytes(settings.cache_bytes_max()),
        "SOFT_LIMIT" => bytes(settings.soft_limit()),
        "HARD_LIMIT" => bytes(settings.hard_limit()),
        "CHECK_FREES" => (super::second_path().mode() == super::Mode::Checking).into(),
        "COUNTING" => (super::second_path().mode() == super::Mode::Counting).into(),
        _ => return None,
    })
}
