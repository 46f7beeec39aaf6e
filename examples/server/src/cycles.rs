//! Bursts of load with idle time between: does memory go back when it is not needed, is it used
//! again when it is, and does the allocator sleep meanwhile?

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::interrupt::Interrupt;
use crate::load::{Load, start_service};
use crate::report::{mebibytes, resident};
use crate::switches::{Count, Switches};
use crate::tally::Tally;

/// The part of an idle time in which context switches are counted. By then the allocator has given
/// everything back and sleeps, unless the machine has too much else to do.
const LAST: Duration = Duration::from_secs(1);
/// How often the idle time goes on for that long, until the allocator has slept through it. A thread
/// that wakes again and again, at least once in each, is found all the same.
const LOOKS: usize = 20;
/// The cycle that later ones are held against, counted from 0: in the first one, what stays for
/// good is made.
const SETTLED: usize = 1;
/// How much more than after the settled cycle may be resident later: a part of it, and bytes.
const GROWTH_PERCENT: u64 = 5;
const GROWTH_BYTES: u64 = 1 << 20;

/// How to repeat a load.
pub(crate) struct Cycles {
    /// One burst.
    pub(crate) load: Load,
    /// How many bursts.
    pub(crate) count: u64,
    /// How long the process is idle after each, more than [`LAST`].
    pub(crate) idle: Duration,
}

/// One burst and the idle time after it. Bytes.
#[derive(Clone, Copy)]
struct Cycle {
    peak: Option<u64>,
    /// This and what follows: at the end of the idle time.
    resident: Option<u64>,
    live: u64,
    fragmentation: Option<f64>,
    /// During the whole cycle.
    purges: u64,
    /// In the last second of the idle time, or the first one after it in which the allocator slept.
    switches: Option<Count>,
}

/// How the cycles went.
pub(crate) struct Outcome {
    /// The requests of all bursts.
    pub(crate) tally: Tally,
    /// What is wrong with the memory or the sleep, each as a line.
    pub(crate) faults: Vec<String>,
}

impl Cycles {
    /// Drives a service of its own through all cycles, or until the user interrupts.
    ///
    /// Calls `started` with the address of the service, and `show` with each part of the table as
    /// soon as it is known.
    pub(crate) async fn run(
        &self,
        mut interrupt: Interrupt,
        started: impl FnOnce(SocketAddr) -> io::Result<()>,
        show: impl Fn(&str) -> io::Result<()>,
    ) -> io::Result<Outcome> {
        let (service, store) = start_service().await?;
        started(service.address())?;
        show(&self.head())?;
        // What lives until the end is made before the first cycle.
        let mut tally = Tally::new();
        let mut cycles = Vec::with_capacity(usize::try_from(self.count).map_err(io::Error::other)?);
        let mut purges = 0;
        for number in 1..=self.count {
            let burst = self.load.burst(&service, &store, &mut interrupt).await?;
            tally.add(burst.tally);
            if burst.interrupted {
                break;
            }
            let Some(switches) = self.sleep(&mut interrupt).await else {
                break;
            };
            let stats = magalloc::stats();
            let resident = resident();
            let cycle = Cycle {
                // Between two samples there may have been more, but not less than afterwards.
                peak: burst.peak.resident.max(resident),
                resident,
                live: stats.live,
                fragmentation: stats.fragmentation(),
                purges: stats.purges - purges,
                switches,
            };
            purges = stats.purges;
            cycles.push(cycle);
            show(&cycle.row(number))?;
        }
        service.stop().await?;
        show(&format!("\nrequests {}\nerrors   {}\n", tally.latency.len(), tally.errors))?;
        Ok(Outcome { tally, faults: faults(&cycles) })
    }

    /// The idle time: context switches in the last second of it, if the system tells; or `None` at
    /// once if the user interrupts before that second.
    async fn sleep(&self, interrupt: &mut Interrupt) -> Option<Option<Count>> {
        // So that the little that this thread allocates and frees in the last second does not
        // overflow its cache: that would be something to give back.
        magalloc::flush_thread();
        tokio::select! {
            () = tokio::time::sleep(self.idle - LAST) => {}
            () = interrupt.wait() => return None,
        }
        let is_awake =
            |count: &Option<Count>| count.is_some_and(|count| count.allocators.is_some_and(|count| count > 0));
        let mut count = switches();
        for _ in 1..LOOKS {
            if !is_awake(&count) {
                break;
            }
            count = switches();
        }
        Some(count)
    }

    fn head(&self) -> String {
        let Load { duration, clients, threads } = &self.load;
        let (seconds, idle) = (duration.as_secs(), self.idle.as_secs());
        let count = self.count;
        format!(
            "{count} times {seconds} s of load by {clients} clients on {threads} threads, then {idle} s idle\n\
             \n\
             {:5}{:>13} | {:>41}{:8} | switches in its last second\n\
             cycle{:>13} | {:>13}{:>13}{:>15}{:>8} | allocator's thread      all\n",
            "", "peak", "at the end of the idle time", "", "resident", "resident", "live", "not live", "purges",
        )
    }
}

/// Context switches in a second from now on; `None` if the system does not tell.
fn switches() -> Option<Count> {
    let (before, purges) = (Switches::now(), magalloc::stats().purges);
    // Not the runtime's sleep, whose timer is work for one of its threads.
    std::thread::sleep(LAST);
    let (after, has_purged) = (Switches::now(), magalloc::stats().purges > purges);
    after.zip(before).map(|(after, before)| {
        let mut count = after.since(&before);
        if has_purged && count.allocators.is_none() {
            // It came and went between the two looks.
            count.allocators = Some(1);
        }
        count
    })
}

impl Cycle {
    fn row(&self, number: u64) -> String {
        let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "n/a".into(), mebibytes);
        let (peak, resident, live) = (bytes(self.peak), bytes(self.resident), mebibytes(self.live));
        let of_allocator = match self.switches {
            None => "n/a".into(),
            Some(Count { allocators: None, .. }) => "none".into(),
            Some(Count { allocators: Some(count), .. }) => count.to_string(),
        };
        let of_all = self.switches.map_or_else(|| "n/a".into(), |switches| switches.all.to_string());
        let purges = self.purges;
        // Of the resident heap; a small one has no share worth telling.
        let not_live = self.fragmentation.map_or_else(|| "-".into(), |share| format!("{:.0} %", share * 100.0));
        format!(
            "{number:>5}{peak:>13} | {resident:>13}{live:>13}{not_live:>15}{purges:>8} | \
             {of_allocator:>18}{of_all:>9}\n"
        )
    }
}

/// The first growth and the first wake-up, if there are any.
fn faults(cycles: &[Cycle]) -> Vec<String> {
    let growth = cycles.get(SETTLED).and_then(|settled| settled.resident).and_then(|settled| {
        let bound = settled + settled * GROWTH_PERCENT / 100 + GROWTH_BYTES;
        let mut later = cycles.iter().zip(1..).skip(SETTLED + 1);
        let (resident, number) =
            later.find_map(|(cycle, number)| Some((cycle.resident.filter(|bytes| *bytes > bound)?, number)))?;
        let (resident, settled, more) = (mebibytes(resident), mebibytes(settled), mebibytes(GROWTH_BYTES));
        Some(format!(
            "memory grows: {resident} were resident at the end of cycle {number}, more than \
             {GROWTH_PERCENT} % + {more} above the {settled} of cycle {}",
            SETTLED + 1
        ))
    });
    let wake = cycles.iter().zip(1..).find_map(|(cycle, number): (_, u64)| {
        let count = cycle.switches?.allocators.filter(|count| *count > 0)?;
        Some(format!(
            "the allocator does not sleep: its thread had {count} context switches in the last idle second of \
             cycle {number}"
        ))
    });
    growth.into_iter().chain(wake).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycle(mebibytes: u64, allocators: Option<u64>) -> Cycle {
        let switches = Some(Count { allocators, all: 9 });
        Cycle {
            peak: None,
            resident: Some(mebibytes << 20),
            live: 1 << 20,
            fragmentation: Some(0.25),
            purges: 7,
            switches,
        }
    }

    #[test]
    fn growth_is_held_against_the_second_cycle() {
        let after = |resident: &[u64]| faults(&resident.iter().map(|bytes| cycle(*bytes, None)).collect::<Vec<_>>());
        assert_eq!(after(&[10, 100, 106, 106]), [""; 0]);
        assert_eq!(after(&[500, 100, 99, 1]), [""; 0]);
        assert_eq!(after(&[1, 100]), [""; 0]);
        let faults = after(&[10, 100, 106, 107, 200]);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("memory grows: 107.00 MiB were resident at the end of cycle 4"), "{faults:?}");
        assert!(faults[0].ends_with("above the 100.00 MiB of cycle 2"), "{faults:?}");
    }

    #[test]
    fn wake_of_the_allocators_thread_is_a_fault() {
        assert_eq!(faults(&[cycle(1, None), cycle(1, Some(0)), cycle(1, Some(0))]), [""; 0]);
        let faults = faults(&[cycle(1, Some(0)), cycle(1, Some(3)), cycle(1, Some(1))]);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("3 context switches"), "{faults:?}");
        assert!(faults[0].ends_with("of cycle 2"), "{faults:?}");
    }

    #[test]
    fn row_has_a_cell_for_what_is_not_known() {
        let cells = |cycle: Cycle| cycle.row(1).split_whitespace().map(String::from).collect::<Vec<_>>().join(" ");
        assert_eq!(cells(cycle(2, Some(0))), "1 n/a | 2.00 MiB 1.00 MiB 25 % 7 | 0 9");
        assert_eq!(cells(cycle(2, None)), "1 n/a | 2.00 MiB 1.00 MiB 25 % 7 | none 9");
        let unknown = Cycle { switches: None, fragmentation: None, ..cycle(2, None) };
        assert_eq!(cells(unknown), "1 n/a | 2.00 MiB 1.00 MiB - 7 | n/a n/a");
    }
}
